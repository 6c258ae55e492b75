"""What lies behind the jump host: rules, names, TLS, WebSocket, clocks, endpoints; through a real sshd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcproxy.account.account import Account
from hpcproxy.config import edit
from hpcproxy.doctor import of_endpoints
from hpcproxy.doctor.finding import Mark
from hpcproxy.doctor.of_endpoints import ENDPOINTS
from tests import servers, sshd
from tests.doctor import internet
from tests.doctor.conftest import is_bad, look, looked, set_up
from tests.doctor.internet import Internet

pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
_NAMES = ("PermitOpen", "far-end DNS", "connection", "TLS", "address", "WebSocket", "clock")


@pytest.fixture
def far(healthy: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Internet]:
    """The internet, as `check_url` and as every endpoint, by an authority that this machine trusts."""
    with internet.running(tmp_path / "far") as found:
        monkeypatch.setenv("SSL_CERT_FILE", str(found.authority))
        monkeypatch.setattr(
            of_endpoints, "ENDPOINTS", [(name, found.base, variable) for name, _, variable in ENDPOINTS]
        )
        _change(healthy, check_url=found.url)
        yield found


def _change(account: Account, **values: object) -> None:
    path = account.home.config
    path.write_text(edit.change(path.read_text(), values, str(path)))


def test_all_is_well(healthy: Account, far: Internet) -> None:
    found = looked(healthy, *_NAMES, *(name for name, _, _ in ENDPOINTS))
    assert {name: one for name, one in found.items() if one.mark is not Mark.GOOD} == {}
    assert found["address"].words.startswith("the internet sees 203.0.113.7, after ")
    assert found["WebSocket"].words == "a request for a WebSocket gets through (127.0.0.1 answers 101)"
    assert found["SwanLab"].words == "reached"


def test_a_jump_host_that_lets_through_to_some_hosts_only(account: Account, tmp_path: Path) -> None:
    with sshd.running(tmp_path / "own", "PermitOpen 127.0.0.1:1") as own, servers.internet() as url:
        set_up(account, own, check_url=url)
        found = looked(account, "PermitOpen", "connection")
    assert found["tunnel"].mark is Mark.GOOD
    is_bad(found["PermitOpen"], "the jump host forwards, but not to 127.0.0.1:", "let it through")
    assert found["connection"].words == "not tried, because “PermitOpen” failed"


def test_what_our_own_rules_deny_is_no_failure(healthy: Account, far: Internet) -> None:
    _change(healthy, deny=["127.0.0.1"])
    found = looked(healthy, "PermitOpen", "SwanLab")
    assert found["PermitOpen"].mark is found["SwanLab"].mark is Mark.UNTRIED
    assert "denied by your settings or the site's defaults for them (deny 127.0.0.1)" in found["SwanLab"].words
    assert "that is a rule, and no failure" in found["SwanLab"].words


def test_a_name_that_the_jump_host_does_not_know(healthy: Account) -> None:
    _change(healthy, check_url="http://no-such-host.invalid/ip")
    is_bad(look(healthy, "far-end DNS"), "the jump host knows no name no-such-host.invalid", "about its DNS")


def test_a_far_end_that_is_not_there(healthy: Account) -> None:
    _change(healthy, check_url=f"http://127.0.0.1:{servers.free_port()}/ip")
    is_bad(look(healthy, "connection"), "the tunnel is up, and 127.0.0.1:", "check_url")


def test_a_proxy_that_reads_along_is_named(
    healthy: Account, far: Internet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with internet.running(tmp_path / "corp", "Corp Inspection CA\x1b[31m") as between:
        _change(healthy, check_url=between.url)
        monkeypatch.setenv("WANDB_BASE_URL", between.base)
        found = looked(healthy, "TLS", "W&B", "SwanLab")
    is_bad(found["TLS"], "its certificate is signed by “CN=Corp Inspection CA?[31m”", "SSL_CERT_FILE")
    is_bad(found["W&B"], "Corp Inspection CA", "intercepts TLS")
    assert found["SwanLab"].mark is Mark.GOOD


def test_a_far_end_that_speaks_no_tls(healthy: Account) -> None:
    with servers.internet() as url:
        _change(healthy, check_url=url.replace("http:", "https:"))
        is_bad(look(healthy, "TLS"), "no TLS there", "intercepts TLS")


def test_an_answer_that_is_no_address(healthy: Account) -> None:
    with servers.internet() as url:
        _change(healthy, check_url=url.replace("/ip", "/404"))
        is_bad(look(healthy, "address"), "answered with status 404", "check_url")


def test_one_that_cuts_websockets(healthy: Account, far: Internet) -> None:
    far.cuts = True
    is_bad(look(healthy, "WebSocket"), "hung up when it was asked for a WebSocket", "cuts WebSockets")


@pytest.mark.parametrize(("ahead_s", "words"), [(3600, "60 minutes slow"), (-7200, "120 minutes fast")])
def test_a_clock_that_is_wrong(ahead_s: float, words: str, healthy: Account, far: Internet) -> None:
    far.ahead_s = ahead_s
    is_bad(look(healthy, "clock"), words, "set the clock")


@pytest.mark.parametrize("name", [name for name, _, _ in ENDPOINTS])
def test_an_endpoint_that_is_not_there(name: str, healthy: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = f"https://127.0.0.1:{servers.free_port()}"
    monkeypatch.setattr(of_endpoints, "ENDPOINTS", [(known, gone, variable) for known, _, variable in ENDPOINTS])
    is_bad(look(healthy, name), gone.removeprefix("https://"), "ask the admin")


def test_an_endpoint_whose_variable_is_no_address(healthy: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "hf-mirror.example")
    is_bad(look(healthy, "Hugging Face"), "HF_ENDPOINT: 'hf-mirror.example' is no address", "unset HF_ENDPOINT")


def test_no_endpoints_are_asked_where_they_are_left_out(healthy: Account, far: Internet) -> None:
    found = looked(healthy, "PyPI", endpoints=False)
    assert found["PyPI"].words == "not tried, because --no-endpoints leaves it alone"
