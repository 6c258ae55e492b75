"""The log: a line for each change of state, and none for each try."""

import os
import re
import shutil
import socket

import pytest

from hpcproxy.node.state.log import LEVELS, ONCE, Journal
from tests.node.harness import jump_of
from tests.sshd import prepare
from tests.waiting import until

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}"


@pytest.fixture
def journal(tmp_path):
    """journal(level) writes into tmp_path."""

    def start(level="info", syslog=False, system_log=""):
        made = Journal("17", "c1", level, syslog, system_log)
        made.open(os.open(str(tmp_path), os.O_RDONLY))
        return made

    return start


def lines(tmp_path):
    return (tmp_path / "log").read_text().splitlines()


def test_a_line_has_time_job_and_node(journal, tmp_path):
    journal().write("info", "up through a\nb")
    (line,) = lines(tmp_path)
    assert re.fullmatch(TIME + " 17 c1 up through a[?]b", line)


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_shows_itself_and_those_before_it(journal, tmp_path, level):
    made = journal(level)
    for each in LEVELS:
        made.write(each, each)
    assert [line.split()[-1] for line in lines(tmp_path)] == list(LEVELS[: LEVELS.index(level) + 1])


def test_what_was_said_is_said_again_only_after_the_storm(journal, tmp_path):
    made = journal()
    for _ in range(1000):
        made.once("error", "refused")
    for number in range(2 * ONCE):
        made.once("info", "port {}".format(number))
    assert len(lines(tmp_path)) == ONCE
    made.calm()
    made.once("error", "refused")
    assert len(lines(tmp_path)) == ONCE + 1


def test_the_systems_log_gets_the_same_with_a_tag_and_its_absence_is_nothing(journal, tmp_path):
    path = str(tmp_path / "system-log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as system:
        system.bind(path)
        journal(syslog=True, system_log=path).write("error", "down")
        told = system.recv(1000).decode()
    assert re.fullmatch(
        r"<27>\w{{3}} \d\d \d\d:\d\d:\d\d hpcproxy\[{}\]: job 17 node c1: down".format(os.getpid()), told
    )
    os.unlink(path)
    journal(syslog=True, system_log=path).write("error", "down")
    assert len(lines(tmp_path)) == 2


def test_a_full_queue_of_the_systems_log_stalls_nothing(journal, tmp_path):
    path = str(tmp_path / "system-log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as system:
        system.bind(path)
        made = journal(syslog=True, system_log=path)
        for _ in range(5000):
            made.write("info", "x" * 100)
    assert len(lines(tmp_path)) == 5000


def test_a_storm_of_retries_is_two_lines_and_its_end_says_how_long_and_how_often(start_agent, tmp_path):
    sshd = prepare(tmp_path / "j")
    agent = start_agent([jump_of(sshd, "j")], wait=False, retry_max_s=1)
    until(lambda: "failed" in agent.log(), "it has failed once")
    until(lambda: agent.log() and agent.status().get("last_error"), "the status says so")
    port = sshd.port
    with socket.socket() as door:
        # Its knocks are counted, so that the test waits for tries and not for time.
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(("127.0.0.1", port))
        door.listen(5)
        for _ in range(4):
            door.accept()[0].close()
    sshd.start()
    agent.ready()
    log = agent.log()
    sshd.stop()  # what is said of that is no matter here
    assert re.search(r" shell c1 up through j after \d+\.\d s, ([5-9]|\d\d+) tries\n", log)
    assert log.count("nobody listens at the jump host") == 1
    assert log.count("Connection refused") <= 1
    assert len(log.splitlines()) < 10


def test_the_log_goes_on_in_a_directory_made_anew(start_agent):
    agent = start_agent()
    shutil.rmtree(str(agent.state))
    os.kill(agent.ssh_pid(), 9)
    until(lambda: "back through jump after" in agent.log(), "it says that it is back")
