"""Start, the ready protocol, and every way to end."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys

import pytest

from hpcproxy.node.upstream.ssh_log import LOG_VERBOSE
from tests.node.harness import PORT, Agent, argv_of, clean_environment, echo, jump_of, log_verbose
from tests.sshd import prepare
from tests.waiting import until

MAIN = "from hpcproxy.node.life.hold import main; sys.exit(main(sys.argv[1:]))"
# A supervisor in the middle of its death: its descriptors are closed, and it is still its child's parent.
DYING = """
import os
from hpcproxy.node.life import supervisor, hold
from hpcproxy.node.state import directory, settings
arguments = hold.parse(sys.argv[1:])
state = directory.Folder(arguments.state)
state.write_pid()
lifeline, ours = os.pipe()
listener = hold.bind(arguments.address, arguments.port)
child = os.fork()
if not child:
    os.close(ours)
    life = supervisor.Life(0, "", lifeline)
    os._exit(hold.hold(arguments, settings.load(arguments.config), state, listener, life))
os.close(ours)
sys.exit(os.WEXITSTATUS(os.waitpid(child, 0)[1]))
"""


def run(*words, code=MAIN, **options):
    """The agent run to its end, from the sources."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return subprocess.run(
        [sys.executable, "-I", "-c", "import sys; sys.path.insert(0, {!r}); {}".format(root, code), *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        env=clean_environment("/"),
        timeout=60,
        check=False,
        **options,
    )


def ended(agent, seconds=20):
    """What the agent said before it ended by itself, with code 0."""
    assert agent.process.wait(timeout=seconds) == 0
    assert not agent.state.exists()
    return agent.lines()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_it_at_once_and_leaves_nothing(start_agent, number):
    agent = start_agent(access_log=True)
    ssh = agent.ssh_pid()
    pid, started = (agent.state / "pid").read_text().split()
    assert int(pid) == agent.process.pid
    with open("/proc/{}/stat".format(pid)) as file:
        assert started == file.read().rpartition(")")[2].split()[19]
    assert stat.S_IMODE(os.stat(str(agent.state / "log")).st_mode) == 0o600
    agent.process.send_signal(number)
    assert agent.process.wait(timeout=10) == 0
    assert not agent.state.exists()
    assert not os.path.exists("/proc/{}".format(ssh))
    with pytest.raises(ConnectionRefusedError):
        agent.connect()


def test_a_signal_before_it_is_ready(start_agent, tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(5)
        sshd = prepare(tmp_path / "x")
        sshd.port = silent.getsockname()[1]
        agent = start_agent([jump_of(sshd)], wait=False)
        ssh = until(agent.ssh_pid, "ssh runs")
        assert agent.stop() == 0
        assert not os.path.exists("/proc/{}".format(ssh))
        assert not agent.state.exists()


def test_sighup_and_a_reader_that_left_are_nothing(jump_host, tmp_path):
    agent = Agent(tmp_path / "a", [jump_of(jump_host)])
    reader, writer = os.pipe()
    words = [*agent.python, str(agent.pyz), "hold", "--config={}".format(agent.config)]
    words += ["--address={}".format(agent.address), "--port={}".format(PORT), "--state={}".format(agent.state)]
    agent.process = subprocess.Popen(words, stdout=writer, env=clean_environment(tmp_path), stdin=subprocess.DEVNULL)
    os.close(writer)
    try:
        assert os.read(reader, 100).endswith(b" jump\n")
        os.close(reader)
        agent.process.send_signal(signal.SIGHUP)
        os.kill(agent.ssh_pid(), signal.SIGKILL)
        until(lambda: agent.status().get("reconnects") == 1, "it lives and reconnects")
    finally:
        assert agent.stop() == 0


def test_ssh_ends_with_an_agent_that_is_killed(start_agent):
    agent = start_agent()
    ssh = agent.ssh_pid()
    agent.process.kill()
    agent.process.wait()
    until(lambda: not os.path.exists("/proc/{}".format(ssh)), "ssh has ended")


def test_the_port_is_taken(start_agent, agent, monkeypatch):
    monkeypatch.setattr(Agent, "start", start_at(agent.address))
    late = start_agent(wait=False)
    assert ended(late) == ["gave-up c1 port the port is somebody else's (uid {} has it)".format(os.getuid())]
    late = start_agent(wait=False, failures=[])
    assert ended(late) == ["gave-up c1 port {}:{}: Address already in use".format(agent.address, PORT)]


def start_at(address):
    real = Agent.start

    def start(agent):
        agent.address = address
        return real(agent)

    return start


def test_the_key_is_refused(start_agent, tmp_path):
    sshd = prepare(tmp_path / "j").start()
    sshd.authorized_keys.write_text("")
    try:
        lines = ended(start_agent([jump_of(sshd, "j")], wait=False))
    finally:
        sshd.stop()
    assert lines == [
        "failed c1 key j: the jump host refuses the key",
        "gave-up c1 key j: the jump host refuses the key",
    ]


def test_the_host_key_changed(start_agent, tmp_path):
    sshd = prepare(tmp_path / "j").start()
    sshd.known.write_text("[127.0.0.1]:{} {}".format(sshd.port, sshd.identity.with_suffix(".pub").read_text()))
    try:
        lines = ended(start_agent([jump_of(sshd, "j")], wait=False))
    finally:
        sshd.stop()
    assert lines[-1] == "gave-up c1 hostkey j: the host key changed"


def test_forwarding_is_prohibited(start_agent, tmp_path):
    sshd = prepare(tmp_path / "j", "AllowTcpForwarding no").start()
    try:
        lines = ended(start_agent([jump_of(sshd, "j")], wait=False))
    finally:
        sshd.stop()
    assert lines[-1] == "gave-up c1 forwarding j: the jump host does not allow forwarding"


def test_there_is_no_ssh(start_agent):
    lines = ended(start_agent([{"name": "j", "argv": ["/nonexistent/ssh", "-N", "--", "x"]}], wait=False))
    assert lines[-1].startswith("gave-up c1 ssh j: cannot start /nonexistent/ssh: ")


def test_one_good_jump_host_is_enough(start_agent, jump_host, tmp_path):
    sshd = prepare(tmp_path / "j").start()
    sshd.authorized_keys.write_text("")
    try:
        agent = start_agent([jump_of(sshd, "bad"), jump_of(jump_host, "good")])
    finally:
        sshd.stop()
    assert agent.lines() == ["failed c1 key bad: the jump host refuses the key", "ready c1 good"]


def test_forwards_of_the_users_own_configuration_do_not_collide(start_agent, jump_host, far_end, tmp_path):
    server, busy = far_end(echo), far_end(echo)
    config = tmp_path / "config"
    forwards = "LocalForward 127.0.0.1:{0} h:1\nDynamicForward 127.0.0.1:{0}\n".format(busy.port)
    config.write_text("Host *\n{}RemoteForward {} h:1\n".format(forwards, busy.port))
    jump = jump_of(jump_host)
    jump["argv"][jump["argv"].index("-F") + 1] = str(config)
    agent = start_agent([jump])
    sock, head = agent.tunnel(server.target)
    with sock:
        assert b" 200 " in head
        sock.sendall(b"hello")
        assert sock.recv(10) == b"hello"
    assert "in use" not in agent.log()


def test_a_passing_failure_is_said_once_and_tried_again(start_agent, tmp_path):
    sshd = prepare(tmp_path / "j")
    agent = start_agent([jump_of(sshd, "j")], wait=False, log_level="debug")
    until(lambda: agent.log().count("connecting through") >= 3, "it tries again")
    assert agent.lines() == ["failed c1 tcp j: nobody listens at the jump host"]
    sshd.start()
    agent.ready()
    sshd.stop()
    assert agent.lines()[1:] == ["ready c1 j"]


def test_status(agent):
    status = agent.status()
    keys = "version node address port mode ready since jump passed_over reconnects restarts last_error"
    keys += " requests active bytes_up bytes_down"
    assert list(status) == [*keys.split(), "held", "refused", "denied", "pid"]
    assert (status["version"], status["mode"], status["jump"]) == (1, "gate", "jump")
    assert (status["address"], status["port"], status["pid"]) == (agent.address, PORT, agent.process.pid)


def test_a_directory_that_somebody_else_could_write(jump_host, tmp_path):
    agent = Agent(tmp_path / "a", [jump_of(jump_host)])
    words = ["hold", "--config", agent.config, "--address", agent.address, "--port", PORT, "--state"]
    link = tmp_path / "link"
    link.symlink_to(agent.state)
    (tmp_path / "file").write_text("")
    open_ = tmp_path / "open"
    open_.mkdir(mode=0o750)
    for path, what in [
        (link, "no directory"),
        (open_, "0750"),
        (tmp_path / "file", "no directory"),
        ("/none", "No such"),
    ]:
        done = run(*words, path)
        assert (done.returncode, done.stdout) == (2, "")
        assert what in done.stderr
        assert done.stderr.count("\n") == 1
    if os.getuid() == 0:
        os.chown(str(agent.state), 12345, 0)
        assert "belongs to uid 12345" in run(*words, agent.state).stderr
    assert agent.state.exists()


@pytest.mark.parametrize("name", ["d" * 120, "%h ${HOME} %%", "a b'\"$(touch x)"])
def test_what_the_directory_is_called_is_nothing_to_ssh(start_agent, far_end, name, monkeypatch):
    """Its socket's name is relative: nothing is expanded in it, and its length counts for nothing."""

    def start(agent):
        deep = agent.folder / name
        deep.mkdir(mode=0o700)
        agent.state = deep
        return plainly(agent)

    plainly = Agent.start
    monkeypatch.setattr(Agent, "start", start)
    agent = start_agent()
    sock, head = agent.tunnel(far_end(echo).target)
    sock.close()
    assert head.startswith(b"HTTP/1.1 200 ")
    assert (agent.state / "ctl").is_socket()
    assert agent.stop() == 0
    assert not agent.state.exists()


def test_a_directory_that_is_not_a_state_directory_keeps_what_is_in_it(jump_host, tmp_path):
    agent = Agent(tmp_path / "a", [jump_of(jump_host)])
    (agent.state / ".profile").write_text("mine")
    (agent.state / "thesis").write_text("mine")
    agent.start().ready()
    assert agent.stop() == 0
    assert sorted(os.listdir(str(agent.state))) == [".profile", "thesis"]


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nonsense"],
        ["hold"],
        ["hold", "--config"],
        ["hold", "--what", "x"],
        ["hold", "--config", "a", "--config", "b"],
        ["hold", "--config", "a", "--address", "::1", "--port", "1", "--state", "s"],
        ["hold", "--config", "a", "--address", "127.0.0.1", "--port", "0", "--state", "s"],
        ["hold", "--config", "a", "--address", "127.0.0.1", "--port", "1", "--state", "s", "--uid", "-1"],
        ["hold", "--config", "a", "--address", "127.0.0.1", "--port", "1", "--state", "s", "--node", "a b"],
    ],
)
def test_arguments_that_mean_nothing(words):
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("hpcproxy agent: ")


def test_a_wrong_agent_json_is_one_line(tmp_path):
    state = tmp_path / "s"
    state.mkdir(mode=0o700)
    config = tmp_path / "agent.json"
    config.write_text(json.dumps({"version": 1}))
    done = run("hold", "--config", config, "--address", "127.64.0.1", "--port", PORT, "--state", state)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "hpcproxy agent: {}: version: is 1, this agent reads 2\n".format(config)


def test_a_directory_that_another_agent_holds(agent):
    words = ["hold", "--config", agent.config, "--address", agent.address, "--port", PORT, "--state", agent.state]
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is held by process {}".format(agent.process.pid) in done.stderr
    assert agent.status()["ready"]


def test_closed_standard_descriptors(jump_host, tmp_path):
    agent = Agent(
        tmp_path / "a", [jump_of(jump_host)], python="sh", flags=("-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable)
    )
    agent.start()
    try:
        until(lambda: agent.status().get("ready"), "it is up")
        assert b" 502 " in agent.ask(b"CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n")
    finally:
        assert agent.stop() == 0


def test_an_agent_that_is_killed_comes_back_and_the_port_was_never_free(start_agent, far_end):
    server = far_end(echo)
    agent = start_agent()
    for count in (1, 2):
        worker, ssh = agent.worker_pid(), agent.ssh_pid()
        os.kill(worker, signal.SIGKILL)
        sock, head = agent.tunnel(server.target)  # at this very moment: it is not refused
        sock.close()
        assert b" 200 " in head
        assert agent.worker_pid() != worker
        until(lambda pid=ssh: not os.path.exists("/proc/{}".format(pid)), "its ssh has gone")
        assert agent.status()["restarts"] == count
    assert "ended by signal 9; another takes its place" in agent.log()
    assert int((agent.state / "pid").read_text().split()[0]) == agent.process.pid


def test_an_agent_that_is_killed_again_and_again_still_ends(start_agent):
    agent = start_agent()
    for _ in range(3):
        worker = agent.worker_pid()
        os.kill(worker, signal.SIGKILL)
        until(lambda old=worker: agent.worker_pid() not in (0, old), "another has taken its place")
    os.kill(agent.worker_pid(), signal.SIGKILL)
    until(lambda: not agent.worker_pid(), "it waits before the next")
    agent.process.send_signal(signal.SIGTERM)
    assert agent.process.wait(timeout=20) == 0
    assert not agent.state.exists()


def test_while_its_supervisor_is_dying_it_ends_and_leaves_nothing(tmp_path, jump_host):
    agent = Agent(tmp_path / "a", [jump_of(jump_host)])
    words = ["hold", "--config", agent.config, "--address", agent.address, "--port", PORT, "--state", agent.state]
    done = run(*words, code=DYING)
    assert (done.returncode, done.stderr) == (0, "")
    assert not agent.state.exists()


def test_without_its_supervisor_it_ends(start_agent):
    agent = start_agent()
    worker, ssh = agent.worker_pid(), agent.ssh_pid()
    agent.process.kill()
    agent.process.wait()
    for pid in (worker, ssh):
        until(lambda pid=pid: not os.path.exists("/proc/{}".format(pid)), "it has gone")
    assert not agent.state.exists()
    with pytest.raises(ConnectionRefusedError):
        agent.connect()


def test_ssh_says_when_its_control_socket_is_there(jump_host, tmp_path):
    """Else the agent would look for it twice a second only."""
    if not log_verbose():
        pytest.skip("ssh says so from 8.5 on (LogVerbose)")
    control, said = tmp_path / "ctl", tmp_path / "said"
    argv = argv_of(jump_host, "-M", "-S", str(control), "-o", LOG_VERBOSE)
    with open(str(said), "wb") as stderr, subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=stderr) as ssh:
        try:
            until(control.exists, "it is there")
            until(lambda: "muxserver_listen" in said.read_text(), "ssh says so")
        finally:
            ssh.terminate()
