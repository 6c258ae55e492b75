"""`via: adopt`: an ssh that somebody else has logged in is used, kept alive, and never ended."""

import os
import signal
import subprocess

import pytest

from tests.node.harness import OPENINGS, argv_of, clean_environment, echo, read_rest
from tests.waiting import until


class Person:
    """Who logs in, by an ssh of his own."""

    def __init__(self, folder, sshd):
        self.folder, self.sshd, self.path = folder, sshd, folder / "control"
        self.process = None

    def log_in(self, persist="no"):
        argv = argv_of(self.sshd, "-M", "-S", str(self.path), "-o", "ControlPersist={}".format(persist))
        argv = [word for word in argv if word != "-N" or persist == "no"]
        self.process = subprocess.Popen(
            argv + ([] if persist == "no" else ["true"]),
            env=clean_environment(self.folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(self.path.exists, "he is logged in")

    def asked(self, *words):
        argv = ["ssh", "-F", "/dev/null", "-S", str(self.path), *words, "--", "x"]
        return subprocess.run(argv, stderr=subprocess.DEVNULL, check=False).returncode == 0

    def is_there(self):
        return self.asked("-O", "check")

    def leave(self):
        self.asked("-O", "exit")
        if self.process is not None:
            self.process.wait(10)


@pytest.fixture
def person(tmp_path, jump_host):
    found = Person(tmp_path, jump_host)
    yield found
    found.leave()


@pytest.fixture
def adopt(start_agent, person):
    def start(**settings):
        return start_agent([{"kind": "adopt", "path": str(person.path)}], **settings)

    return start


@pytest.mark.parametrize("opening", OPENINGS)
def test_connections_go_through_it_and_it_stays(adopt, person, far_end, opening):
    person.log_in()
    agent = adopt()
    assert agent.lines()[-1] == "ready c1 adopt"
    server = far_end(echo)
    for _ in range(12):
        sock, head = agent.tunnel(server.target)
        with sock:
            assert head.startswith(b"HTTP/1.1 200 ")
            sock.sendall(opening)
            assert sock.recv(100) == opening
    assert agent.stop() == 0
    assert person.process.poll() is None
    assert person.is_there()


@pytest.mark.parametrize("opening", OPENINGS)
def test_a_far_end_that_ends_is_seen_to_have_ended(adopt, person, far_end, opening):
    person.log_in()

    def answer(sock):
        sock.recv(100)
        sock.sendall(b"x" * 3000000)

    sock, _ = adopt().tunnel(far_end(answer).target)
    with sock:
        sock.sendall(opening)
        assert read_rest(sock) == b"x" * 3000000


@pytest.mark.parametrize("opening", OPENINGS)
def test_its_loss_is_an_outage_with_its_reason_until_somebody_logs_in_again(adopt, person, far_end, opening):
    person.log_in()
    agent = adopt(hold_s=1, retry_max_s=1)
    server = far_end(echo)
    sock, _ = agent.tunnel(server.target)
    with sock:
        sock.sendall(opening)
        assert sock.recv(100) == opening
        person.process.send_signal(signal.SIGKILL)
        person.process.wait()
        with pytest.raises(ConnectionResetError):
            read_rest(sock)
    until(lambda: not agent.status()["ready"], "it is down")
    said = agent.ask("CONNECT {}:{} HTTP/1.1\r\n\r\n".format(*server.target).encode(), 30)
    assert said.startswith(b"HTTP/1.1 503 ")
    assert "the ssh at {} has ended: log in again there".format(person.path).encode() in said
    os.unlink(str(person.path))
    person.log_in()
    until(lambda: agent.status()["ready"], "it is back")
    sock, head = agent.tunnel(server.target)
    sock.close()
    assert head.startswith(b"HTTP/1.1 200 ")


def test_where_nobody_has_logged_in_that_is_said_at_once(start_agent, tmp_path):
    agent = start_agent([{"kind": "adopt", "path": str(tmp_path / "none")}], wait=False)
    words = "nobody has logged in: {} is no control socket of an ssh of this user on this machine".format(tmp_path)
    until(lambda: any(line.startswith("gave-up c1 adopt ") for line in agent.lines()), "it gives up")
    assert words.split(":")[0] in agent.lines()[-1]
    assert agent.process.wait(20) == 0


def test_it_does_not_end_by_itself_while_it_is_adopted(adopt, person):
    person.log_in(persist="4")
    agent = adopt()
    # Nobody asks for anything: ssh counts from when its last channel has gone, and would have ended by then.
    began = os.times().elapsed
    until(lambda: os.times().elapsed - began > 6, "six seconds")
    assert person.is_there()
    assert agent.stop() == 0
    until(lambda: not person.path.exists(), "nobody needs it any more")  # to ask it would keep it, too


def test_what_the_far_end_refuses_is_said_without_a_guess(adopt, person):
    person.log_in()
    said = adopt().ask(b"CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n", 30)
    assert said.startswith(b"HTTP/1.1 502 Bad Gateway (refused by the far end or the jump host; ")
