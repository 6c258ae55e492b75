"""Each way in which a way out can fail has its own layer and reason, from a holder and from a probe alike."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import servers, sshd
from tests.holder import Holder, write_script
from tests.sshd import Sshd
from tests.waiting import until

Case = tuple[str, str, dict[str, Any]]
_CASES: dict[str, Callable[[Sshd, Path], contextlib.AbstractContextManager[Case]]] = {}


def _case(function: Callable[[Sshd, Path], Iterator[Case]]) -> None:
    """Name a way to fail: it yields the layer, words of the reason, and the settings."""
    _CASES[function.__name__.lstrip("_").replace("_", " ")] = contextlib.contextmanager(function)


@_case
def _refused(server: Sshd, _path: Path) -> Iterator[Case]:
    yield "route", "nothing listens", {**server.settings, "jump": f"u@127.0.0.1:{servers.free_port()}"}


@_case
def _black_hole(server: Sshd, _path: Path) -> Iterator[Case]:
    with servers.black_hole() as port:
        yield "route", "does not answer", {**server.settings, "jump": f"u@127.0.0.1:{port}", "connect_timeout_s": 1}


@_case
def _silent(server: Sshd, _path: Path) -> Iterator[Case]:
    with servers.silent() as port:
        yield "route", "stays silent", {**server.settings, "jump": f"u@127.0.0.1:{port}", "connect_timeout_s": 1}


@_case
def _hanging_up(server: Sshd, _path: Path) -> Iterator[Case]:
    with servers.hanging_up() as port:
        yield "busy", "hung up", {**server.settings, "jump": f"u@127.0.0.1:{port}"}


@_case
def _unresolvable(server: Sshd, _path: Path) -> Iterator[Case]:
    yield "name", "does not resolve", {**server.settings, "jump": "u@no-such-host.invalid"}


@_case
def _host_key_unknown(server: Sshd, _path: Path) -> Iterator[Case]:
    yield "host-key", "is not pinned", {**server.settings, "known_hosts": ""}


@_case
def _host_key_changed(server: Sshd, path: Path) -> Iterator[Case]:
    other = sshd.make_key(path / "other_host_key").with_suffix(".pub").read_text()
    known_hosts = f"[127.0.0.1]:{server.port} {other}"
    yield "host-key", "shows another key than the one pinned", {**server.settings, "known_hosts": known_hosts}


@_case
def _key_missing(server: Sshd, path: Path) -> Iterator[Case]:
    yield "key", "does not exist or cannot be read", {**server.settings, "identity": str(path / "none")}


@_case
def _key_refused(server: Sshd, path: Path) -> Iterator[Case]:
    yield "key", "refused the key", {**server.settings, "identity": str(sshd.make_key(path / "id"))}


@_case
def _key_with_passphrase(server: Sshd, path: Path) -> Iterator[Case]:
    key = sshd.make_key(path / "id", passphrase="secret")  # noqa: S106 - nobody's
    yield "key", "has a passphrase and no agent is there", {**server.settings, "identity": str(key)}


@_case
def _forwarding_refused(_server: Sshd, path: Path) -> Iterator[Case]:
    with sshd.running(path / "strict", "AllowTcpForwarding no") as strict:
        yield "forwarding", "does not allow forwarding", strict.settings


@_case
def _forwarding_refused_by_the_key(_server: Sshd, path: Path) -> Iterator[Case]:
    with sshd.running(path / "strict") as strict:
        keys = strict.directory / "authorized_keys"
        keys.write_text("restrict " + keys.read_text())
        yield "forwarding", "does not allow forwarding", strict.settings


@pytest.mark.parametrize("name", _CASES)
def test_each_way_to_fail_has_its_layer_and_reason(
    name: str, hold: Callable[..., Holder], jump_host: Sshd, tmp_path: Path
) -> None:
    with _CASES[name](jump_host, tmp_path) as (layer, reason, settings):
        holder = hold(**settings)
        probe = subprocess.run(
            ["/bin/bash", "-p", write_script(tmp_path / "probing", **settings), "probe"],
            capture_output=True,
            text=True,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        jump = settings["jump"]
        (said,) = probe.stdout.splitlines()
        assert said.startswith(f"failed {layer} {jump}: ")
        assert reason in said
        assert probe.stderr == ""
        line = holder.line("failed", "ready")
        _verb, _node, rest = line.split(" ", 2)
        assert rest.startswith(f"{layer} {jump}: ")
        assert reason in rest
        _gives_up_only_where_waiting_is_no_use(holder, layer)


def _gives_up_only_where_waiting_is_no_use(holder: Holder, layer: str) -> None:
    if layer in ("host-key", "key", "forwarding"):
        assert f" {layer} " in holder.line("gave-up")
        assert holder.process.wait(20) == 0  # a step that fails would mark the job
        assert holder.left_behind() == []
    else:
        assert holder.process.poll() is None
        assert holder.status()["ready"] is False
        until(lambda: holder.status()["last_error"], "the status has the reason")
