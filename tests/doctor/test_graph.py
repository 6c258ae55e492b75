"""Checks by their needs: what is not tried and why, what hangs, what is a mistake of the doctor's own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from hpcproxy.doctor import graph
from hpcproxy.doctor.finding import Check, Finding, Found, Mark, bad, exit_code, good, untried
from hpcproxy.doctor.table import ALL
from hpcproxy.errors import TunnelError

_FIX = "mend it"


def _check(name: str, look: Callable[[list[str]], Finding], *needs: str, limit_s: float = 30) -> Check[list[str]]:
    return Check(name, "family", "Is it?", _FIX, look, needs, limit_s)


def _good(_patient: list[str]) -> Finding:
    return good("well")


def _run(*checks: Check[list[str]], total_s: float = 60) -> dict[str, Finding]:
    return {one.name: one.finding for one in graph.run(checks, [], total_s)}


def test_what_needs_a_failure_is_not_tried_and_says_which_however_far_away() -> None:
    asked = []
    found = _run(
        _check("c", lambda _: asked.append("c") or good(""), "b"),  # type: ignore[func-returns-value]
        _check("b", lambda _: asked.append("b") or good(""), "a"),  # type: ignore[func-returns-value]
        _check("a", lambda _: bad("broken", _FIX)),
        _check("d", _good),
    )
    assert asked == []
    assert found["b"] == found["c"] == Finding(Mark.UNTRIED, "not tried, because “a” failed")
    assert list(found) == ["c", "b", "a", "d"]
    assert found["d"].mark is Mark.GOOD


def test_what_needs_something_that_was_not_tried_has_its_cause() -> None:
    found = _run(_check("a", lambda _: untried("there is no job")), _check("b", _good, "a"))
    assert found["b"].words == "not tried, because there is no job"


def test_an_error_of_ours_is_a_finding_with_the_fix_of_its_check() -> None:
    def fail(_patient: list[str]) -> Finding:
        raise TunnelError("route", "no way", "", "j")

    assert _run(_check("a", fail))["a"] == Finding(Mark.BAD, "route: j: no way", _FIX)


def test_a_mistake_of_the_doctors_is_his_and_costs_one_check() -> None:
    found = _run(_check("a", lambda patient: good(patient[0])), _check("b", _good), _check("c", _good, "a"))
    assert found["a"].mark is Mark.BROKEN
    assert "IndexError" in found["a"].words
    assert found["b"].mark is Mark.GOOD
    assert found["c"].words == "not tried, because doctor could not look at “a”"


def test_a_check_that_hangs_is_left_behind() -> None:
    end = threading.Event()
    try:
        found = _run(_check("a", lambda _: good(str(end.wait(60))), limit_s=0.2), _check("b", _good))
    finally:
        end.set()
    assert found["a"].words == "doctor could not look: no answer within 0.2 s, or the time for all checks was up"
    assert found["b"].mark is Mark.GOOD


def test_the_time_for_all_of_them_is_bounded() -> None:
    end, begin = threading.Event(), time.monotonic()
    hanging = [_check(f"h{number}", lambda _: good(str(end.wait(60)))) for number in range(12)]
    try:
        found = _run(*hanging, total_s=0.5)
    finally:
        end.set()
    assert time.monotonic() - begin < 20
    assert {one.mark for one in found.values()} == {Mark.BROKEN, Mark.UNTRIED}


def test_they_are_asked_side_by_side() -> None:
    both = threading.Barrier(2)
    found = _run(*(_check(name, lambda _: good(str(both.wait(20) >= 0))) for name in "ab"))
    assert {one.mark for one in found.values()} == {Mark.GOOD}


def test_a_circle_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="need each other"):
        _run(_check("a", _good, "b"), _check("b", _good, "a"))


def test_two_of_one_name_are_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="one name"):
        _run(_check("a", _good), _check("a", _good))


@pytest.mark.parametrize(
    ("findings", "code"),
    [
        ((good(""), untried("x")), 0),
        ((good(""), bad("", ""), Finding(Mark.BROKEN, "")), 1),
        ((good(""), Finding(Mark.BROKEN, "")), 2),
    ],
)
def test_exit_codes(findings: tuple[Finding, ...], code: int) -> None:
    assert exit_code([Found("n", "f", finding) for finding in findings]) == code


def test_the_real_ones_have_an_order_and_say_all_that_the_manual_needs() -> None:
    assert sorted(graph.order(ALL)) == sorted({check.name for check in ALL})
    for check in ALL:
        assert check.asks.endswith((".", "?")), check.name
        assert check.fix, check.name


def test_what_a_far_end_says_reaches_no_terminal_as_it_stands() -> None:
    assert good("a\x1b[31mb\nc").words == "a?[31mb?c"
    assert bad("a\x07", "b\x1b]0;t\x07").fix == "b?]0;t?"
    assert untried("x\r").words == "not tried, because x?"
