"""`via: direct`: no ssh, no jump host, the same commands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcproxy.cluster import inventory
from hpcproxy.config.layers import Layer, resolve
from hpcproxy.config.model import Config, Jump
from hpcproxy.errors import ConfigError
from hpcproxy.files.plan import agent_settings, script_values
from hpcproxy.node.state import settings
from tests import servers
from tests.node import namespace
from tests.supervisor import Supervisor, write_script
from tests.waiting import until

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a network namespace of its own")


@pytest.fixture
def routed() -> Iterator[None]:
    """This test has a network with a route out, which leads nowhere."""
    with namespace.own_network():
        yield


def _resolve(**values: object) -> Config:
    return resolve(Layer("test.yaml", values))


def test_direct_needs_the_agent_and_says_so_in_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"^settings: via: `via: direct` needs the agent: take `agent: false` out$"):
        resolve(Layer("site", {"agent": False}), Layer("user", {"via": "direct"}))


def test_a_jump_host_that_is_named_is_not_looked_at() -> None:
    config = _resolve(via="direct", jump=["a", "b"])
    assert (config.jump_hosts, _resolve(jump="a").jump_hosts) == ((), (Jump("a"),))
    values = script_values(config, Path("/h"), Path("/h/known_hosts"))
    assert (values["jump_count"], values["jump_names"], values["jump_destinations"]) == (0, [], [])
    agent = agent_settings(config, Path("/h/known_hosts"))
    assert (agent["ways"], agent["closed"]) == ([{"kind": "direct"}], ["node"])
    assert [way.kind for way in settings.read(agent).ways] == ["direct"]


@pytest.mark.parametrize(
    ("via", "kind", "host", "port"),
    [
        ("http://proxy.example:3128", "http", "proxy.example", 3128),
        ("socks5://[2001:db8::1]:1080/", "socks5", "2001:db8::1", 1080),
    ],
)
def test_a_proxy_of_the_sites(via: str, kind: str, host: str, port: int) -> None:
    config = _resolve(via=via, jump="a", proxy_auth_file="/home/alice/.proxy-login")
    assert (config.jump_hosts, config.lacks_jump_host, config.site_proxy) == ((), False, (kind, Jump(host, None, port)))
    agent = agent_settings(config, Path("/h/known_hosts"))
    (way,) = settings.read(agent).ways
    assert (way.kind, way.host, way.port, way.auth_file) == (kind, host, port, "/home/alice/.proxy-login")
    assert (way.name, agent["closed"]) == (via.rstrip("/"), ["proxy"])
    # The environment's is the very one that the agent stands in front of.
    values = script_values(config, Path("/h"), Path("/h/known_hosts"))
    assert (values["via"], values["replace_proxy"], values["jump_names"]) == (via.rstrip("/"), True, [])


@pytest.mark.parametrize(
    ("via", "words"),
    [
        ("http://alice:word@proxy:3128", "a login goes into the file that `proxy_auth_file` names"),
        ("http://proxy", "names no port"),
        ("https://proxy:443", "is none of auto, ssh, direct, reverse, adopt, http://HOST:PORT, socks5://HOST:PORT"),
        ("socks4://proxy:1080", "is none of"),
        ("http://pro xy:1", "host 'pro xy' may hold"),
        ("http://$(touch x):1", "host '$(touch x)' may hold"),
        ("http://proxy:99999", "port 99999 is not between"),
        ("http://proxy:3128/path", "is none of"),
        ("pigeon", "is none of"),
    ],
)
def test_what_is_no_tunnel(via: str, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"^test\.yaml: via: .*{re.escape(words)}"):
        _resolve(via=via)


def test_auto_has_them_all_in_the_order_of_preference() -> None:
    config = _resolve(via="auto", jump=["a", "b"], via_first="http://p.example:3128", proxy_auth_file="/login")
    assert (config.jump_hosts, config.lacks_jump_host, config.uses_ssh) == ((Jump("a"), Jump("b")), False, True)
    agent = agent_settings(config, Path("/h/known_hosts"))
    assert [way["kind"] for way in agent["ways"]] == ["http", "direct", "environment", "ssh", "ssh"]
    assert {way.auth_file for way in settings.read(agent).ways[::2][:2]} == {"/login"}
    assert agent["closed"] == ["node"]
    assert agent["direct_targets"] == list(config.direct_targets)
    values = script_values(config, Path("/h"), Path("/h/known_hosts"))
    assert (values["via"], values["uses_ssh"], values["jump_count"], values["replace_proxy"]) == ("auto", True, 2, True)
    # Without a jump host nobody is logged in to, and `direct` is not tried twice.
    config = _resolve(via="auto", via_first="direct")
    assert (config.lacks_jump_host, config.uses_ssh) == (False, False)
    agent = agent_settings(config, Path("/h/known_hosts"))
    assert [way["kind"] for way in agent["ways"]] == ["direct", "environment"]
    assert agent_settings(_resolve(jump="a"), Path("/k"))["direct_targets"] == []


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("via_first", "ssh", "'ssh' is none of direct, http://HOST:PORT, socks5://HOST:PORT"),
        ("via_first", "auto", "'auto' is none of direct"),
        ("via_first", "pigeon", "'pigeon' is none of"),
        ("direct_targets", ["pypi.org"], "'pypi.org' is not HOST:PORT"),
        ("direct_targets", ["u@pypi.org:443"], "'u@pypi.org:443' is not HOST:PORT"),
        ("direct_targets", ["$(touch x):443"], "may hold letters"),
        ("direct_targets", [], "at least 1 item"),
    ],
)
def test_what_auto_does_not_take(key: str, value: object, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        _resolve(**{key: value})


def test_a_proxy_needs_the_agent_too() -> None:
    with pytest.raises(ConfigError, match=r"`via: http://p:1` needs the agent: take `agent: false` out"):
        _resolve(via="http://p:1", agent=False)


def test_an_inventory_without_a_jump_host(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("nodes: c1\nsettings: {via: direct}\n")
    assert inventory.read(path)[1].via == "direct"
    path.write_text("nodes: c1\nmode: service\nsettings: {via: direct, allow: '*'}\n")
    with pytest.raises(ConfigError, match="via: direct logs in nowhere and uses no key; say `mode: user`"):
        inventory.read(path)


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Callable[..., Supervisor]]:
    """Start a supervisor on a node with no ssh and these settings; it is ended when the test is."""
    supervisors: list[Supervisor] = []
    programs = tmp_path / "programs"
    programs.mkdir()
    for directory in ("/usr/local/bin", "/usr/bin", "/bin"):
        for program in Path(directory).iterdir():
            if not program.name.startswith(("ssh", "scp", "sftp")) and not (programs / program.name).exists():
                (programs / program.name).symlink_to(program)

    def start(python: bool = True, **values: object) -> Supervisor:
        script = write_script(tmp_path / f"home {len(supervisors)}", **{"via": "direct", **values})
        text = script.read_text().replace("PATH=$PATH:/usr/local/bin:/usr/bin:/bin", f"PATH={programs}")
        if not python:
            text = re.sub(r"(?m)^find_python\(\) \{$", "find_python() {\n    return 1", text)
        script.write_text(text)
        supervisors.append(Supervisor(script))
        return supervisors[-1]

    yield start
    for supervisor in supervisors:
        supervisor.end()


@NEEDS_ROOT
def test_a_supervisor_without_ssh(routed: None, hold: Callable[..., Supervisor]) -> None:
    supervisor = hold()
    assert supervisor.line("mode").endswith(" agent")
    assert supervisor.line("ready", "failed", "gave-up").split()[2:] == ["direct"]
    with servers.internet() as url:
        done = subprocess.run(
            ["curl", "-sS", "--proxy", supervisor.url, url], capture_output=True, text=True, check=True
        )
    assert done.stdout.strip() == "203.0.113.7"


@NEEDS_ROOT
def test_a_node_without_a_route_or_without_python_says_so(routed: None, hold: Callable[..., Supervisor]) -> None:
    namespace.set_route(False)
    said = hold().line("ready", "gave-up").split(" ", 2)
    assert (said[0], said[2]) == ("gave-up", "route direct: this node has no route to the internet")
    said = hold(python=False).line("ready", "gave-up").split(" ", 2)
    wanted = "agent there is no python3 of 3.6 or later on this node, which 'via: direct' needs"
    assert (said[0], said[2]) == ("gave-up", wanted)


@NEEDS_ROOT
def test_auto_on_a_node_without_ssh_goes_by_what_there_is_and_says_what_is_missing(
    routed: None, hold: Callable[..., Supervisor]
) -> None:
    namespace.set_route(False)
    values = {"via": "auto", "jump": ["u@127.0.0.1"], "direct_targets": ["127.0.0.1:1"]}
    said = hold(**values).line("ready", "gave-up").split(" ", 2)
    assert said[0] == "gave-up"
    assert "cannot start ssh: [Errno 2] No such file or directory" in said[2]
    assert "not by direct: this node has no route to the internet" in said[2]
    assert "not by environment: the environment of this job names no proxy" in said[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "hpcproxy", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


@NEEDS_ROOT
def test_a_day_without_a_jump_host(routed: None, home: Path) -> None:
    done = run("init", "--via", "direct", "--port", str(servers.free_port()))
    assert done.returncode == 0, done.stderr
    assert "there is no login to try: jobs get out by their nodes' own route" in done.stderr
    with servers.internet() as url, (home / ".hpcproxy" / "config.yaml").open("a") as file:
        file.write(f"check_url: {url}\nallow: ['*', 127.0.0.1]\n")
        file.flush()
        done = run("install-bashrc")
        assert (done.returncode, "jump host" in done.stderr) == (0, False)
        done = run("check")
        assert (done.returncode, "none is up here; with `via: direct`" in done.stderr) == (1, True)
        up = run("up")
        try:
            assert "through direct;" in up.stdout, up.stderr
            checked = run("check")
            assert checked.stdout.startswith("203.0.113.7  ")
            assert "through direct at" in checked.stdout
            assert " direct " in run("status").stdout
            found = run("doctor")
            assert "none is needed with `via: direct`" in found.stdout + found.stderr
            assert "no jump host is configured" not in found.stdout + found.stderr
        finally:
            run("down")
    until(lambda: not list(Path(os.environ["TMPDIR"]).iterdir()), "the state is gone")
