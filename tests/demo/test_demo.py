"""The demo on loopback is played for real; its story-telling is tested on acts of its own."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from hpcproxy import demo
from hpcproxy.demo.story import Act, Output, Step, play, tell
from hpcproxy.errors import HpcproxyError, LabError

asyncssh = pytest.importorskip("asyncssh", reason="the demo without root needs asyncssh (hpcproxy[demo])")
jumphost = pytest.importorskip("hpcproxy.demo.jumphost")

_RUN = "import sys; from rich.console import Console; from hpcproxy import demo; demo.run(Console(), loopback=True)"


def _pipe() -> Console:
    """A console that writes to a pipe, 80 columns wide."""
    return Console(file=io.StringIO(), width=80, highlight=False, soft_wrap=True)


def _written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _act(title: str, output: Output, *, ok: bool = True) -> Act:
    return Act(title, (f"do {title}",), lambda: output, f"{title} is done", lambda _: ok)


def _demo_directories() -> set[Path]:
    return set(Path("/tmp").glob("hpcproxy-demo-*"))


def test_a_step_says_what_was_expected_and_whether_it_came() -> None:
    assert play(_act("this", Output("done\n", 3))) == Step("this", ("do this",), "done", 3, "this is done", ok=True)


def test_a_story_ends_at_the_first_step_that_is_not_as_expected() -> None:
    console = _pipe()

    assert not tell(
        console, [_act("a", Output("x")), _act("b", Output("[bold]y", 7), ok=False), _act("c", Output("z"))]
    )

    text = _written(console)
    assert "    [bold]y\n    expected  b is done\n    came      the output above, exit code 7\n" in text
    assert "Stopped at step 2 of 3" in text
    assert "do c" not in text


def test_in_a_pipe_there_is_text_and_nothing_else() -> None:
    console = _pipe()
    long = "word " * 40

    assert tell(console, [_act("a", Output(f"\x1b[31mred\x07\n{long}end"))])

    text = _written(console)
    assert not re.search(r"[^\n -~]", text)
    assert f"    {long}end\n" in text


def test_endless_output_is_cut() -> None:
    console = _pipe()

    tell(console, [_act("a", Output("line\n" * 1000))])

    assert _written(console).count("line\n") == 40


def test_on_loopback_the_whole_story_comes_true(home: Path) -> None:
    console = _pipe()
    before = _demo_directories()

    assert demo.run(console, loopback=True), _written(console)

    text = _written(console)
    for line in (
        "login and forwarding work",
        "$ hpcproxy up",
        "$ curl -sS http://internet.test/ip",
        "\n    127.0.0.10  ",  # hpcproxy check
        "\n    127.0.0.10\n",  # curl
        "    process   none\n    listener  none\n    file      none\n",
        "steps came out as expected",
    ):
        assert line in text, line
    assert max(len(line) for line in text.splitlines() if not line.startswith("    ")) <= 80
    assert _demo_directories() <= before
    assert list(home.iterdir()) == []


def test_a_jump_host_that_refuses_forwarding_ends_the_story(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "open failed")

    monkeypatch.setattr(jumphost._JumpHost, "connection_requested", refuse)
    console = _pipe()
    before = _demo_directories()

    assert not demo.run(console, loopback=True)

    text = _written(console)
    assert "the jump host does not allow forwarding" in text
    assert "Stopped at step 2" in text
    assert _demo_directories() <= before


def test_without_ssh_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HpcproxyError, match="OpenSSH client"):
        demo.run(_pipe(), loopback=True)


def test_without_asyncssh_it_says_how_to_get_it() -> None:
    code = f"sys.modules['asyncssh'] = None; {_RUN.partition('; ')[2]}"
    done = subprocess.run([sys.executable, "-c", f"import sys; {code}"], capture_output=True, text=True, check=False)

    assert (
        "HpcproxyError: the demo without root needs asyncssh; install it with: pip install 'hpcproxy[demo]'"
        in done.stderr
    )


def test_an_interrupt_leaves_nothing() -> None:
    before = _demo_directories()
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", _RUN], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "hpcproxy check" in line:  # the tunnel is up
            break
    (directory,) = _demo_directories() - before
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)

    assert process.returncode != 0
    assert not directory.exists()
    deadline = time.monotonic() + 5
    while (
        _naming(directory) and time.monotonic() < deadline
    ):  # what was running when the signal came sees its pipe close
        time.sleep(0.02)
    assert _naming(directory) == []


def _naming(directory: Path) -> list[str]:
    """The command lines of this machine's processes that name `directory`."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes() if entry.name.isdecimal() else b""
        except OSError:
            continue
        if os.fsencode(directory) in command:
            found.append(command.decode())
    return found


def test_without_root_the_lab_is_refused_with_the_other_way_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    with pytest.raises(LabError, match="invoke demo --loopback"):
        demo.run(_pipe(), loopback=False)
