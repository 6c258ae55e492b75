"""With `via: auto` only what the tunnel goes by has to be well."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from hpcproxy.account import verbs
from hpcproxy.account.account import Account
from hpcproxy.doctor.finding import Mark
from tests.doctor import internet
from tests.doctor.conftest import is_bad, looked
from tests.node import namespace

# `up` leaves the supervisor to itself.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")

NEEDS_ROOT = pytest.mark.skipif(not namespace.is_root(), reason="needs root, for a network namespace of its own")
OF_SSH = ("ssh configuration", "key", "name", "route", "ssh server", "host key", "login", "forwarding")


def _auto(account: Account, target: str, **environ: str) -> Account:
    with account.home.config.open("a") as config:
        config.write(f"via: auto\ndirect_targets: ['{target}']\n")
    found = dataclasses.replace(account, environ={**account.environ, **environ})
    verbs.install_bashrc(found, verbs.settings_of(found), dry_run=False)
    return found


@NEEDS_ROOT
def test_on_a_node_that_is_out_nothing_of_ssh_is_needed(healthy: Account, tmp_path: Path) -> None:
    """Its jump host is not to be reached from there."""
    with namespace.own_network(), internet.running(tmp_path / "far", "Far") as far:
        target = far.base.removeprefix("https://")
        found = looked(_auto(healthy, target, SSL_CERT_FILE=str(far.authority)), "tunnel")
    assert "came up through direct" in found["tunnel"].words
    for name in OF_SSH:
        assert found[name].mark is Mark.GOOD
        assert found[name].words == "not needed: with `via: auto` the tunnel goes by direct"


def test_why_the_other_ways_were_not_taken_is_said(healthy: Account) -> None:
    found = looked(_auto(healthy, "127.0.0.1:1"), "tunnel")
    assert "came up through " in found["tunnel"].words
    assert "; not by direct: " in found["tunnel"].words
    assert found["login"].mark is Mark.GOOD
    assert "not needed" not in found["login"].words


@NEEDS_ROOT
def test_where_no_way_serves_the_jump_host_is_what_is_wrong(healthy: Account) -> None:
    with namespace.own_network():
        found = looked(_auto(healthy, "127.0.0.1:1"), "tunnel")
    is_bad(found["route"], "nothing listens", "")
    assert found["tunnel"].mark is Mark.UNTRIED
