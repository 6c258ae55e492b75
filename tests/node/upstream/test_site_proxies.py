"""The upstreams `http` and `socks5`: proxies of a site's behind the agent, real ones and such as have a bad day."""

import json
import os
import socket
import threading

import pytest

from hpcproxy.node.state.secret import BadSecret, LoginFile
from hpcproxy.node.upstream import http_proxy, socks_proxy
from hpcproxy.node.upstream.target import Target
from tests.node import site_proxies
from tests.node.harness import HANDED_OVER, OPENINGS, echo, read_head
from tests.node.site_proxies import PASSWORD, USER, HttpMock, SocksMock
from tests.sshd import free_port
from tests.waiting import until

KINDS = ["http", "socks5"]
MOCKS = {"http": HttpMock, "socks5": SocksMock}


@pytest.fixture
def login(tmp_path):
    """Alice's file, and no other's."""

    def write(password=PASSWORD, mode=0o600):
        path = tmp_path / "login"
        path.write_text("{}:{}\n".format(USER, password))
        path.chmod(mode)
        return str(path)

    return write


@pytest.fixture
def mock():
    """mock(kind) gives a small proxy of that kind, closed after the test."""
    started = []

    def start(kind):
        started.append(MOCKS[kind]())
        return started[-1]

    yield start
    for each in started:
        each.close()


def way_of(kind, port, auth_file="", host="127.0.0.1"):
    return {"kind": kind, "name": "site", "host": host, "port": port, "auth_file": auth_file}


@pytest.fixture
def real(tmp_path):
    """real(name) gives the way through the proxy `name`, which runs until the end of the test."""
    started = []

    def start(name, password=PASSWORD):
        if site_proxies.missing(name):
            pytest.skip("there is no {}".format(name))
        started.append(getattr(site_proxies, name)(tmp_path / name))
        path = tmp_path / "login"
        path.write_text("{}:{}\n".format(USER, password.replace(":", "") if name == "tinyproxy" else password))
        path.chmod(0o600)
        kind = "socks5" if name == "microsocks" else "http"
        return way_of(kind, started[-1].port, "" if name == "squid" else str(path))

    yield start
    for each in started:
        each.stop()


@pytest.fixture
def behind(start_agent, mock, login):
    """behind(kind) gives an agent and the small proxy that it gets out by."""

    def start(kind, **settings):
        proxy = mock(kind)
        return start_agent([way_of(kind, proxy.port, login())], connect_timeout_s=2, **settings), proxy

    return start


def connect(agent, target):
    return agent.ask("CONNECT {}:{} HTTP/1.1\r\n\r\n".format(*target).encode(), 30)


def read_exactly(sock, size):
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        assert part, "it ended after {} of {} bytes".format(len(data), size)
        data += part
    return data


def serve_once(sock):
    read_head(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")


# ------------------------------------------------------------------------------------------------ real ones


@pytest.mark.parametrize("name", ["tinyproxy", "microsocks"])
@pytest.mark.parametrize("opening", OPENINGS)
def test_real_proxies_carry_everything(start_agent, far_end, real, name, opening):
    agent = start_agent([real(name)])
    assert agent.lines() == ["ready c1 site"]
    server, web = far_end(echo), far_end(serve_once)
    for host in ("127.0.0.1", "localhost"):
        sock, head = agent.tunnel((host, server.port))
        with sock:
            assert head.startswith(b"HTTP/1.1 200 ")
            # Neither of them passes the end of one side on: it ends both.
            sent = opening + os.urandom(1 << 20)
            sender = threading.Thread(target=sock.sendall, args=(sent,))
            sender.start()
            assert read_exactly(sock, len(sent)) == sent
            sender.join()
    answer = agent.ask("GET http://127.0.0.1:{}/ HTTP/1.1\r\nConnection: close\r\n\r\n".format(web.port).encode())
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nhello")


def test_squid_as_it_is_delivered(start_agent, far_end, real):
    agent = start_agent([real("squid")])
    web = far_end(serve_once)
    answer = agent.ask("GET http://127.0.0.1:{}/ HTTP/1.1\r\nConnection: close\r\n\r\n".format(web.port).encode(), 30)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nhello")
    assert connect(agent, web.target).startswith(
        b"HTTP/1.1 502 Bad Gateway (the proxy does not allow it (403 Forbidden))"
    )
    # Nobody listens there: its own words, understood.
    assert connect(agent, ("127.0.0.9", 443)).startswith(
        b"HTTP/1.1 502 Bad Gateway (Connection refused (the proxy: 503 "
    )


@pytest.mark.parametrize("name, words", [("tinyproxy", "401 Unauthorized"), ("microsocks", "SOCKS")])
def test_a_real_proxy_that_refuses_the_login(start_agent, tmp_path, real, name, words):
    agent = start_agent([real(name, "wrong")], wait=False)
    assert agent.process.wait(timeout=30) == 0
    said = "gave-up c1 proxy site: the proxy refuses the login in {}/login ({})".format(tmp_path, words)
    assert agent.lines()[-1] == said


def test_what_tinyproxy_denies_and_does_not_reach(start_agent, real):
    agent = start_agent([real("tinyproxy")])
    assert b" 502 Bad Gateway (the proxy does not allow it (403 Filtered))" in connect(agent, ("denied.test", 443))
    assert b" 502 Bad Gateway (the proxy does not reach it (500 Unable to connect))" in connect(agent, ("127.0.0.1", 1))


# ------------------------------------------------------------------------------------------------ bad days


@pytest.mark.parametrize(
    "mood, status, words",
    [
        ("401", 502, "the proxy refuses the login in "),
        ("407", 502, "the proxy refuses the login in "),
        ("403", 502, "the proxy does not allow it (403 Filtered)"),
        ("500", 502, "the proxy does not reach it (500 Unable to connect)"),
        ("504", 504, "the proxy got no answer from the far end (504 Gateway Timeout)"),
        ("dns", 502, "Name or service not known (the proxy: 503 Service Unavailable)"),
        ("squid", 502, "Connection refused (the proxy: 503 Service Unavailable)"),
        ("ssh", 502, "is no HTTP proxy"),
        ("half", 502, "the proxy closed the connection without an answer"),
        ("close", 502, "the proxy closed the connection without an answer"),
        ("hang", 504, "no answer from the proxy"),
    ],
)
def test_what_an_http_proxy_says_to_connect_is_told_truly(behind, far_end, mood, status, words):
    agent, proxy = behind("http")
    server = far_end(echo)
    proxy.mood = mood
    answer = connect(agent, server.target)
    assert answer.startswith("HTTP/1.1 {} ".format(status).encode())
    assert words.encode() in answer.split(b"\r\n", 1)[0]
    proxy.mood = "good"
    sock, head = agent.tunnel(server.target)
    with sock:
        assert head.startswith(b"HTTP/1.1 200 ")
        sock.sendall(HANDED_OVER)
        assert sock.recv(100) == HANDED_OVER


@pytest.mark.parametrize(
    "mood, said",
    [
        (1, (502, 1, "general failure")),
        (2, (502, 2, "not allowed by its rules")),
        (3, (502, 3, "Network is unreachable")),
        (4, (502, 4, "No route to host")),
        (5, (502, 5, "Connection refused")),
        (6, (504, 6, "Connection timed out")),
        (9, (502, 1, "code 9")),
        ("refuse", (502, 2, "the proxy refuses the login in ")),
        ("no-method", (502, 2, "the proxy refuses the login in ")),
        ("ssh", (502, 1, "is no SOCKS 5 proxy")),
        ("close", (502, 1, "the proxy closed the connection without an answer")),
        ("hang", (504, 6, "no answer from the proxy")),
    ],
)
def test_what_a_socks_proxy_says_is_told_truly(behind, far_end, mood, said):
    (status, code, words), (agent, proxy) = said, behind("socks5")
    server = far_end(echo)
    proxy.mood = mood
    answer = connect(agent, server.target)
    assert answer.startswith("HTTP/1.1 {} ".format(status).encode())
    assert words.encode() in answer.split(b"\r\n", 1)[0]
    with agent.connect(30) as sock:
        sock.sendall(b"\5\1\0")
        assert sock.recv(2) == b"\5\0"
        sock.sendall(b"\5\1\0\1\x7f\0\0\1" + server.port.to_bytes(2, "big"))
        assert sock.recv(10)[1] == code


@pytest.mark.parametrize("status", ["401", "407"])
def test_plain_http_goes_in_absolute_form_and_no_client_is_asked_for_the_login(
    start_agent, far_end, mock, login, status
):
    proxy, web = mock("http"), far_end(serve_once)
    agent = start_agent([way_of("http", proxy.port, login())])
    request = (
        "GET http://127.0.0.1:{}/a?b HTTP/1.1\r\nConnection: close\r\nProxy-Authorization: Basic mine\r\n\r\n".format(
            web.port
        ).encode()
    )
    assert agent.ask(request).endswith(b"\r\n\r\nhello")
    head = proxy.asked[-1]
    assert head.startswith("GET http://127.0.0.1:{}/a?b HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n".format(web.port, web.port))
    assert head.count("Proxy-Authorization") == 1
    assert HttpMock.header in head
    proxy.mood = status  # in the middle of everything
    answer = agent.ask(request)
    assert answer.startswith(b"HTTP/1.1 502 Bad Gateway (the proxy refuses the login in ")
    assert b"Authenticate" not in answer


def test_an_origins_own_401_and_403_are_passed_on(start_agent, far_end, mock, login):
    def guarded(sock):
        read_head(sock)
        sock.sendall(b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=y\r\nContent-Length: 0\r\n\r\n")

    proxy, web = mock("http"), far_end(guarded)
    agent = start_agent([way_of("http", proxy.port, login())])
    answer = agent.ask("GET http://127.0.0.1:{}/ HTTP/1.0\r\n\r\n".format(web.port).encode())
    assert answer.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert b"WWW-Authenticate: Basic realm=y" in answer


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_resolved_there(start_agent, mock, login, kind):
    proxy = mock(kind)
    agent = start_agent([way_of(kind, proxy.port, login())])
    connect(agent, ("only-known-there.test", 443))
    asked = proxy.asked[-1]
    assert "only-known-there.test:443" in asked if kind == "http" else asked == (3, b"only-known-there.test", 443)


@pytest.mark.parametrize("kind", KINDS)
def test_a_proxy_that_goes_and_comes_back_is_an_outage(start_agent, far_end, tmp_path, mock, kind):
    name = {"http": "tinyproxy", "socks5": "microsocks"}[kind]
    if site_proxies.missing(name):
        pytest.skip("there is no {}".format(name))
    port, path = free_port(), tmp_path / "login"
    path.write_text("{}:{}\n".format(USER, PASSWORD.replace(":", "") if kind == "http" else PASSWORD))
    path.chmod(0o600)
    proxy, server = getattr(site_proxies, name)(tmp_path / "p", port), far_end(echo)
    try:
        agent = start_agent([way_of(kind, port, str(path))], hold_s=3, retry_max_s=1)
        proxy.stop()
        answer = connect(agent, server.target)
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable (the tunnel has been down for ")
        assert "site: proxy: 127.0.0.1:{} is not reached: Connection refused".format(port).encode() in answer
        with agent.connect(30) as sock:
            sock.sendall("CONNECT {}:{} HTTP/1.1\r\n\r\n".format(*server.target).encode())
            until(lambda: agent.status()["held"] >= 2, "it is held")
            proxy = getattr(site_proxies, name)(tmp_path / "p", port)
            assert read_head(sock).startswith(b"HTTP/1.1 200 ")
    finally:
        proxy.stop()


# ------------------------------------------------------------------------------------------------ the login


@pytest.mark.parametrize("kind", KINDS)
def test_the_login_is_in_no_log_no_argument_and_no_setting(start_agent, far_end, mock, login, kind):
    proxy = mock(kind)
    agent = start_agent([way_of(kind, proxy.port, login())], log_level="debug", access_log=True)
    sock, _ = agent.tunnel(far_end(echo).target)
    sock.close()
    proxy.mood = "407" if kind == "http" else "refuse"
    connect(agent, ("127.0.0.1", 9))
    basic = HttpMock.header.split()[1]
    seen = [agent.config.read_text(), agent.log(), json.dumps(agent.status()), "\n".join(agent.access(2))]
    seen += [agent.out.read_text(), agent.err.read_text()]
    for pid in (agent.process.pid, agent.worker_pid()):
        for name in ("cmdline", "environ"):
            with open("/proc/{}/{}".format(pid, name), errors="replace") as file:
                seen.append(file.read())
    assert [text for text in seen if PASSWORD in text or basic in text] == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_login_that_changes_is_read_anew(start_agent, far_end, mock, login, kind):
    proxy, server = mock(kind), far_end(echo)
    path = login()
    agent = start_agent([way_of(kind, proxy.port, path)])
    login("another")
    assert b"refuses the login" in connect(agent, server.target)
    login("a longer one, so that its size tells")
    login()
    sock, head = agent.tunnel(server.target)
    sock.close()
    assert head.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("kind", KINDS)
def test_a_proxy_that_wants_a_login_which_nobody_named(start_agent, mock, kind):
    agent = start_agent([way_of(kind, mock(kind).port)], wait=False)
    assert agent.process.wait(timeout=30) == 0
    assert "the proxy asks for a login (" in agent.lines()[-1]
    assert agent.lines()[-1].endswith("): name a file with one by `proxy_auth_file`")


@pytest.mark.parametrize("mode, words", [(0o644, "others may read or write"), (0o620, "others may"), (0o700, "")])
def test_a_login_that_others_may_read_is_not_used(login, mode, words):
    file = LoginFile(login(mode=mode))
    if not words:
        assert file.read() == (USER.encode(), PASSWORD.encode())
        return
    with pytest.raises(BadSecret, match=words):
        file.read()


@pytest.mark.parametrize(
    "content", [b"", b"alice", b"alice:", b":word", b"a\x01:b", b"a:b\x7f", b"a:" + b"x" * 300, b"\nalice:word"]
)
def test_files_that_hold_no_login(tmp_path, content):
    path = tmp_path / "login"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(BadSecret, match="its first line is not USER:PASSWORD") as error:
        LoginFile(str(path)).read()
    assert "word" not in str(error.value)


def test_files_that_are_none(tmp_path):
    os.mkfifo(str(tmp_path / "fifo"), 0o600)
    for name, words in (("fifo", "is no file"), (".", "is no file"), ("none", "No such file")):
        with pytest.raises(BadSecret, match=words):
            LoginFile(str(tmp_path / name)).read()
    assert LoginFile("").read() is None


# ------------------------------------------------------------------------------------------------ bytes


@pytest.mark.parametrize("data", [b"", b"H", b"HTTP/1.", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nA: b\r\n"])
def test_an_answer_that_is_not_whole_is_waited_for(data):
    assert http_proxy.parse_answer(data) is None
    assert http_proxy.parse_answer(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nmore")[0] == 25


@pytest.mark.parametrize("data", [b"SSH-2.0", b"HTTP/2", b"HTTP/1.1 abc\r\n\r\n", b"\r\nHTTP/1.1 200\r\n", b"<"])
def test_what_is_no_answer(data):
    with pytest.raises(http_proxy.NoAnswer):
        http_proxy.parse_answer(data)


def test_the_bytes_of_socks():
    assert socks_proxy.address(Target("h.test", 1)) == b"\3\6h.test"
    assert socks_proxy.address(Target("192.0.2.1", 1)) == b"\1\xc0\0\2\1"
    assert socks_proxy.address(Target("2001:db8::1", 1)) == b"\4" + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    reply = b"\5\0\0\3\4mock\0\0"
    assert [socks_proxy.parse_reply(reply[:size]) for size in range(len(reply))] == [None] * len(reply)
    assert socks_proxy.parse_reply(reply + b"more") == (len(reply), 0)
    with pytest.raises(socks_proxy.NoSocks):
        socks_proxy.parse_reply(b"\5\0\0\x09\1")
