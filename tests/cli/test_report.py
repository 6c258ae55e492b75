"""`report --job`: one page with nothing from elsewhere, and nothing in it that a node's words could become."""

from __future__ import annotations

import dataclasses
import re
from datetime import datetime, timezone
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hpcproxy.account.tunnels import Tunnel
from hpcproxy.cli import program, report_page

NOW = datetime(2026, 12, 1, 10, 0, tzinfo=timezone.utc)
COUNTS = {
    "requests": 12, "active": 3, "bytes_up": 2_000_000, "bytes_down": 4_000_000, "held": 2, "refused": 5, "denied": 7,
    "reconnects": 1,
}  # fmt: skip
TUNNEL = Tunnel(
    node="c1", job="4711", restart=0, directory=Path("/"), pid=1, url="http://127.64.0.7:2015", ready=True,
    since=NOW.timestamp() - 7200, jump="alice@jump1", last_error=None, passed_over=None, counts=COUNTS,
)  # fmt: skip
DOWN = dataclasses.replace(
    TUNNEL, node="c2", ready=False, jump=None, last_error="alice@jump1: route: <b>timed</b> out & gone", counts={}
)


class _Page(HTMLParser):
    """Cells by row, tags and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.heading = ""
        self.feed(text)
        assert self.open == [], "each element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "h1" in self.open:
            self.heading += data
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data.replace("\n", " ")


def _page(*found: Tunnel | str) -> _Page:
    return _Page(report_page.page("4711", found, NOW))


def test_each_node_has_its_row_with_all_that_is_counted() -> None:
    head, first, second, why, third = _page(TUNNEL, DOWN, "c3").rows
    assert dict(zip(head, first)) == {
        "node": "c1", "state": "up", "through": "alice@jump1", "up for": "2 h", "open": "3", "requests": "12",
        "held": "2", "refused": "5", "denied": "7", "reconnects": "1", "sent": "2.0 MB", "received": "4.0 MB",
    }  # fmt: skip
    assert second == ["c2", "down", *["-"] * 10]
    assert why == ["", "alice@jump1: route: <b>timed</b> out & gone"]
    assert third == ["c3", "no tunnel", *["-"] * 10]


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ([TUNNEL], "1 node served"),
        ([TUNNEL, TUNNEL], "2 nodes served"),
        ([TUNNEL, DOWN], "1 of 2 nodes served"),
        (["c3"], "0 of 1 node served"),
    ],
)
def test_the_verdict_comes_first(found: list[Tunnel | str], verdict: str) -> None:
    page = _page(*found)
    assert page.heading == f"Job 4711: {verdict}"
    assert ("class", "good" if " of " not in verdict else "bad") in page.attributes


def test_bars_are_by_the_node_with_most() -> None:
    half = dataclasses.replace(TUNNEL, counts={**COUNTS, "bytes_up": 500_000, "bytes_down": 4_000_000})
    styles = [value for name, value in _page(TUNNEL, half, DOWN, "c3").attributes if name == "style"]
    percents = [100, 100, 25, 100, 0, 0, 0, 0]
    assert styles == [f"width: {percent}%" for percent in percents]


def test_the_totals_are_of_all_nodes() -> None:
    text = report_page.page("4711", [TUNNEL, TUNNEL, DOWN], NOW)
    totals = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text))
    assert totals == {
        "requests": "24", "held": "4", "reconnects": "2", "open now": "6", "sent": "4.0 MB", "received": "8.0 MB",
    }  # fmt: skip
    nothing = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", report_page.page("4711", [DOWN, "c3"], NOW)))
    assert set(nothing.values()) == {"-"}, "what nobody counts is not nothing"


def test_it_is_one_file_and_runs_nothing() -> None:
    page = _page(TUNNEL, DOWN)
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert page.tags.count("b") == 4, "those of the legend: none that a node has said"
    assert not [name for name, _ in page.attributes if name in ("src", "href") or name.startswith("on")]
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    assert ("content", policy) in page.attributes


def test_it_is_read_as_it_was_meant_whatever_the_encoding() -> None:
    down = dataclasses.replace(DOWN, last_error="jump: Schl\u00fcssel \u2026")
    assert report_page.page("4711", [down], NOW).isascii()
    assert _page(down).rows[2][1] == "jump: Schl\u00fcssel \u2026"


def test_without_a_job_it_says_what_to_type(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["hpcproxy", "report"])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 2
    assert "hpcproxy report --job ID >report.html" in capsys.readouterr().err
