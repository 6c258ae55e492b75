"""The gateway before the hosts is logged in to once, whoever needs it; what a host said beside its answer is kept."""

from __future__ import annotations

from pathlib import Path

import paramiko
import pytest

from hpcproxy.cli import admin
from hpcproxy.cluster import fan_out
from hpcproxy.cluster.fan_out import Fleet, Login, NoGatewayError
from hpcproxy.cluster.protocol import NoAnswerError
from hpcproxy.config.model import Jump
from hpcproxy.errors import UsageError
from tests.cluster.host import TOKEN


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """To whom connections were opened; none is in fact."""
    found: list[str] = []

    def open_connection(connection: object, _timeout_s: float, _bounds: object, *_way: object) -> None:
        found.append(str(getattr(connection, "host", "")))
        if found[-1] == "away":
            raise paramiko.SSHException("No existing session")

    monkeypatch.setattr(fan_out, "open_connection", open_connection)
    return found


def _fleet(directory: Path, gateway: str | None) -> Fleet:
    (directory / "known_hosts").write_text("")
    told = None if gateway is None else Jump(user="u", host=gateway)
    return Fleet(Login("root", 22, None, told, directory / "known_hosts", 5), 1, TOKEN)


def test_hosts_without_a_gateway_are_reached_directly(tmp_path: Path, opened: list[str]) -> None:
    assert _fleet(tmp_path, None).gateway() is None
    assert opened == []


def test_one_login_serves_all_hosts_behind_it(tmp_path: Path, opened: list[str]) -> None:
    fleet = _fleet(tmp_path, "g")
    way = fleet.gateway()
    assert way is not None
    assert fleet.gateway() is way
    assert opened == ["g"]


def test_one_that_is_away_is_not_waited_for_by_each_host(tmp_path: Path, opened: list[str]) -> None:
    fleet = _fleet(tmp_path, "away")
    for _ in range(2):
        with pytest.raises(NoGatewayError, match="behind the gateway u@away, which") as caught:
            fleet.gateway()
        assert not caught.value.by_ssh, "not even keys were exchanged"
    assert opened == ["away"]


@pytest.mark.parametrize(
    ("output", "errors", "said"),
    [
        (b"", b"bash: no\nsudo: a password is required\n", ": sudo: a password is required"),
        (b"this account is closed\n", b"", ": this account is closed"),
        (b"", b"", ""),
    ],
)
def test_of_a_host_without_an_answer_its_last_words_are_told(
    output: bytes, errors: bytes, said: str, tmp_path: Path
) -> None:
    plain = _no_answer(_fleet(tmp_path, None), b"", b"")
    assert plain
    assert not plain.endswith(": ")
    assert _no_answer(_fleet(tmp_path, None), output, errors).removeprefix(plain) == said


def _no_answer(fleet: Fleet, output: bytes, errors: bytes) -> str:
    with pytest.raises(NoAnswerError) as caught:
        fleet._answer(output, errors)
    return str(caught.value)


def test_the_bounds_that_an_admin_types(tmp_path: Path) -> None:
    request = admin._request(str(tmp_path / "site.yaml"), "c1", "7", "11", "spank")
    assert (request.limit, request.fanout, request.timeout_s, request.via) == ("c1", 7, 11.0, "spank")
    request = admin._request("site.yaml", None, None, None)
    assert (request.limit, request.fanout, request.timeout_s, request.via) == (None, 32, 30.0, None)
    for fanout, timeout in (("0", "1"), ("1", "0")):
        with pytest.raises(UsageError, match="0 is not between 1 and"):
            admin._request("site.yaml", None, fanout, timeout)
