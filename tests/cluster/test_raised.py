"""What a library raises on an admin's way is a sentence and an exit code, and no internal error of ours.

By reading what each call of PyYAML, pydantic, ClusterShell, Fabric, Paramiko and of Python itself can raise.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hpcproxy.account.overrides import in_tools
from hpcproxy.cli.output import quiet_pipe
from hpcproxy.cluster import governed, identity, inventory, kit, slurm_conf
from hpcproxy.cluster.become import Secrets
from hpcproxy.cluster.fan_out import Fleet, Login
from hpcproxy.cluster.outcome import HostOutcome, Outcomes
from hpcproxy.cluster.pool import Pool
from hpcproxy.cluster.protocol import Answer
from hpcproxy.cluster.run import Request, limit, read_site
from hpcproxy.cluster.trust import trust
from hpcproxy.errors import ConfigError, FileError, HpcproxyError, RenderError, TunnelError
from hpcproxy.files import render
from hpcproxy.files.plan import Artifact, Plan
from tests import REPOSITORY, modest
from tests.sshd import make_key

SITE = "nodes: c[1-2]\nsettings: {jump: j}\n"
_LONG = "9" * 5000  # more digits than Python takes for a number (sys.set_int_max_str_digits)
_SURROGATE = b"\xff\xfe"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """An inventory whose jump host's key is known."""
    key = make_key(tmp_path / "id").with_suffix(".pub").read_text()
    (tmp_path / "known_hosts").write_text(f"j {key}")
    (tmp_path / "site.yaml").write_text(f"{SITE}identity: {tmp_path}/id\n")
    return tmp_path / "site.yaml"


def _program(*arguments: str, **more: object) -> subprocess.CompletedProcess[bytes]:
    argv = [sys.executable, "-m", "hpcproxy", *arguments]
    options: dict[str, object] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, **more}
    done: subprocess.CompletedProcess[bytes] = subprocess.run(argv, stderr=subprocess.PIPE, check=False, **options)  # type: ignore[call-overload]
    assert b"Traceback" not in done.stderr, done.stderr
    assert b"internal error" not in done.stderr, done.stderr
    return done


# ---- PyYAML, pydantic


@pytest.mark.parametrize(
    "value", ["1" + ":0" * 180 + ".5", "2024-99-99", "!!int ''", "!!bool x", "!!timestamp x", _LONG, "0x", "[" * 3000]
)
def test_a_value_that_yaml_cannot_make(value: str) -> None:
    with pytest.raises(ConfigError):
        inventory.parse("site.yaml", f"nodes: c1\nport: {value}\n")


def test_a_tools_own_file_that_yaml_cannot_make(home: Path) -> None:
    """conda says so itself."""
    (home / ".condarc").write_text("a: 2024-99-99\n")
    assert in_tools(home, os.environ) == []


# ---- ClusterShell


def test_damaged_defaults_of_clustershell(tmp_path: Path) -> None:
    """They are clush's; who has no group to ask for needs none of them, and a user's commands need no ClusterShell."""
    (tmp_path / "defaults.conf").write_text("[task.default]\nstderr: perhaps\n")
    environ = {**os.environ, "CLUSTERSHELL_CFGDIR": str(tmp_path)}
    assert _program("render", env=environ).returncode == 0
    (tmp_path / "site.yaml").write_text(SITE)
    done = _program("verify", "--inventory", str(tmp_path / "site.yaml"), env=environ)
    assert done.returncode == 2
    assert b"hpcproxy: ClusterShell: defaults.conf: cannot be read: Not a boolean: perhaps" in done.stderr


def test_a_group_that_is_told_once_is_not_asked_for_again(tmp_path: Path) -> None:
    """What the site calls for it may fail the next time, or say something else."""
    (tmp_path / "groups.conf").write_text(
        f"[Main]\ndefault: once\n[once]\nmap: [ ! -e {tmp_path}/asked ] && touch {tmp_path}/asked && echo c[1-2]\n"
    )
    script = "from hpcproxy.cluster.inventory import *; found = parse('i', 'nodes: \"@x\"'); "
    script += "print(hosts(found), hosts(found))"
    environ = {**os.environ, "CLUSTERSHELL_CFGDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout == "('c1', 'c2') ('c1', 'c2')\n"


@pytest.mark.parametrize("name", ["c[1", "c1]", "@x", "a,b", "c&d", "c!", "c^1", "c[2-1]", "%s", "%", "ü", "[1-3]"])
def test_a_node_of_slurms_whose_name_is_no_node_sets(name: str) -> None:
    nodes = governed.parse(f"NodeName={name} State=IDLE\nNodeName=c8\n", f"PartitionName=p Nodes={name}\n")
    assert "which is not in the inventory" in governed.left_out(nodes, ("c9",))[0]


# ---- what a host says


@pytest.mark.parametrize(
    ("clock", "wrong"),
    [("²", False), ("١٢", True), ("9" * 250, True), ("-1", False), ("1e3", False), ("", False), ("1059", False)],
)
def test_a_clock_that_is_no_number(clock: str, wrong: bool) -> None:
    """What cannot be read is not said to be wrong."""
    outcomes = Outcomes((HostOutcome("c1", "unchanged", "", Answer("unchanged", facts={"clock": clock})),))
    words = ["c1: the clock is wrong by more than a minute: TLS may fail in jobs"] if wrong else []
    assert outcomes.cautions(1000.0) == words


def test_numbers_of_slurms_without_an_end() -> None:
    running = slurm_conf.parse(f"PrologEpilogTimeout = {_LONG}\nSLURM_VERSION = {_LONG}.1\n")
    assert slurm_conf.hook_timeout_s(running) == 0
    assert slurm_conf.version(running) == ()


# ---- files


def test_a_pinned_key_that_is_none(site: Path) -> None:
    known = site.parent / "known_hosts"
    known.write_bytes(b"j ssh-ed25519 " + _SURROGATE + b"\n")
    with pytest.raises(FileError, match="holds no key of j"):
        read_site(Request(site))


@pytest.mark.parametrize("record", ["[]", "1", "null", '{"failed": null}', "{}", '"x"', "["])
def test_a_record_of_the_last_run_that_is_none(site: Path, record: str) -> None:
    request = Request(site, "@failed")
    request.last_run.write_text(record)
    with pytest.raises(HpcproxyError, match="@failed: no "):
        limit(request)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["jump-kit", "--directory", "{root}/file/kit"], "cannot be made: Not a directory"),
        (["jump-kit", "--directory", "{root}/shut/kit"], "cannot be made: Permission denied"),
        (["render", "--root", "{root}/shut/image"], "cannot be written: Permission denied"),
        (["render", "--root", "{root}/file"], "cannot be written"),
        (["verify", "--report", "{root}/shut/report"], "Permission denied"),
    ],
)
def test_a_place_that_cannot_be_had(site: Path, arguments: list[str], words: str) -> None:
    root = site.parent
    (root / "file").touch()
    (root / "shut").mkdir(mode=0)
    site.write_text("nodes: 127.0.0.1\nport: 1\nsettings: {jump: j, allow: '*'}\n")
    filled = [word.format(root=root) for word in arguments]
    argv = modest.argv(sys.executable, "-m", "hpcproxy", *filled, "--inventory", str(site))
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert "internal error" not in done.stderr
    assert words in done.stderr
    assert done.returncode == 1


def test_a_directory_whose_name_is_no_text(site: Path) -> None:
    site.write_text("nodes: 127.0.0.1\nsettings: {jump: j, allow: '*'}\n")
    where = site.parent / os.fsdecode(_SURROGATE)
    where.mkdir()
    (where / "hpcproxy_service_key").write_text("no key\n")
    done = _program("jump-kit", "--inventory", str(site), "--directory", str(where))
    assert b"ssh-keygen cannot make or read it" in done.stderr


@pytest.mark.parametrize("arguments", [["render", "--root", "image"], ["jump-kit"], ["init", "--identity", "key"]])
def test_a_directory_that_is_gone(site: Path, arguments: list[str]) -> None:
    gone = site.parent / "gone"
    gone.mkdir()
    inside = ["--inventory", str(site)] if arguments[0] != "init" else ["--jump", "j"]
    program = [sys.executable, "-m", "hpcproxy", *arguments, *inside]
    argv = [
        sys.executable,
        "-c",
        "import os, sys; os.rmdir(os.getcwd()); os.execv(sys.argv[1], sys.argv[1:])",
        *program,
    ]
    done = subprocess.run(argv, cwd=gone, capture_output=True, text=True, check=False, env=_importable())
    assert "the directory that this was started in is gone" in done.stderr
    assert done.returncode == 2


def _importable() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def test_a_key_in_the_home_of_nobody() -> None:
    done = _program("init", "--jump", "j", "--identity", "~nobody-by-this-name/key")
    assert b"names the home of a user who does not exist here" in done.stderr
    assert done.returncode == 2


def test_a_template_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.j2").mkdir()
    (tmp_path / "b.j2").write_bytes(_SURROGATE)
    for name in ("a.j2", "b.j2", "none.j2"):
        with pytest.raises(RenderError):
            render.render(Plan((Artifact("x", name, tmp_path / "x", 0o644, ""),), {}, {}), tmp_path)


def test_output_that_cannot_be_written() -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = _program("render", stdout=full)
    assert done.returncode == 1
    assert done.stderr == b"hpcproxy: what it says cannot be written: No space left on device\n"


# ---- people


def test_an_answer_in_another_code(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of Latin-1."""
    monkeypatch.setattr("getpass.getpass", _undecodable)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    shut = make_key(site.parent / "shut")
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", str(shut)], check=True, capture_output=True)
    with pytest.raises(FileError, match="none of 3 was right"):
        identity.load(shut, Secrets())


def test_a_typed_line_in_another_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xe4\n"), encoding="utf-8"))
    with quiet_pipe():
        assert sys.stdin.readline() == "\\xe4\n"


def _undecodable(_prompt: str) -> str:
    return b"\xe4".decode()


# ---- this machine


def test_a_machine_that_starts_no_more_threads(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ulimit -u, or a cgroup's pids.max: which Python says as a RuntimeError."""
    fleet = Fleet(Login("root", 1, site.parent / "id", None, site.parent / "known_hosts", 1), 2, "t")
    monkeypatch.setattr(threading.Thread, "start", _no_thread)
    with pytest.raises(HpcproxyError, match=r"no more threads.*--fanout"):
        fleet.ask({"127.0.0.1": b"", "127.0.0.2": b""})
    with pytest.raises(HpcproxyError, match="no more threads"):
        trust(Request(site), replace_key=False, consent=lambda keys: [""] * len(keys), on_key=lambda _key: None)
    with pytest.raises(HpcproxyError, match="no more threads"):
        kit.addresses(["localhost"])


def test_what_no_thread_was_there_for_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python has it in its queue by then, and whoever is free later would do it: a host changed, and nobody told."""
    busy, done = threading.Event(), []
    with Pool(2) as pool:
        pool.submit(busy.wait, 30)
        monkeypatch.setattr(threading.Thread, "start", _no_thread)
        with pytest.raises(HpcproxyError, match="no more threads"):
            pool.submit(done.append, 1)
        busy.set()
    assert done == []
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(done.append, 2)


def _no_thread(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("lacking", ["ssh", "room"])
def test_a_gateway_and_no_ssh_or_no_room_for_its_words(
    site: Path, tmp_path: Path, lacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.write_text(f"{SITE}gateway: g\n")
    if lacking == "ssh":
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin/ssh-keygen").symlink_to(str(shutil.which("ssh-keygen")))
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    else:
        monkeypatch.setattr("tempfile.mkdtemp", _full)
    shown = trust(Request(site), replace_key=False, consent=lambda keys: [""] * len(keys), on_key=lambda _key: None)
    assert {type(one.error) for one in shown} == {TunnelError}
    assert {one.host for one in shown} == {"j", "g", "c1", "c2"}


def _full(*_words: object, **_more: object) -> str:
    raise OSError(28, "No space left on device")
