"""`log_level` means the same whoever listens: all attempts and what ssh says, changes of state, what went wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.servers import free_port
from tests.sshd import Sshd
from tests.supervisor import Supervisor
from tests.waiting import until


@pytest.mark.parametrize("level", ["error", "info", "debug"])
def test_what_the_log_says_of_a_jump_host_that_is_away(level: str, mode: str, hold: Callable[..., Supervisor]) -> None:
    jump = f"u@127.0.0.1:{free_port()}"
    supervisor = hold(jump=jump, log_level=level, retry_max_s=1)
    supervisor.line("failed")
    log = supervisor.state / "log"
    until(lambda: log.exists() and "failed: " in log.read_text(), "it says that it failed")
    if level != "debug":
        assert "connecting through" not in log.read_text()
        return
    until(lambda: log.read_text().count(f"connecting through {jump}") > 2, "each attempt is a line")
    until(lambda: log.read_text().count("Connection refused") > 2, "what ssh says of each is one, too")
    assert "ssh: " in log.read_text()


@pytest.mark.parametrize("level", ["error", "info", "debug"])
def test_a_change_of_state_is_no_error(level: str, mode: str, hold: Callable[..., Supervisor], jump_host: Sshd) -> None:
    supervisor = hold(**jump_host.settings, log_level=level)
    supervisor.line("ready")
    log = supervisor.state / "log"
    if level == "error":
        assert supervisor.status()["ready"]
        assert not log.exists() or log.read_text() == ""
        return
    until(lambda: log.exists() and f"up through {jump_host.jump}" in log.read_text(), "it says that it is up")
    assert ("connecting through" in log.read_text()) is (level == "debug")
