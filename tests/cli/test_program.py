"""The program's own pages: the first one, the help, the nearest word, completion; and what they cost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpcproxy.cli import completion, front, status_page
from hpcproxy.cli.program import tasks
from tests.shells import program_of

COMMANDS = sorted(str(context.name) for context in tasks().to_contexts())


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the program as a user does."""
    argv = [sys.executable, "-m", "hpcproxy", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, **environ})


def test_alone_it_says_what_it_is_and_how_to_start_in_ten_lines() -> None:
    done = run()
    assert done.returncode == 0
    assert done.stdout.count("\n") <= 10
    for words in (front.WHAT, "hpcproxy init --jump", "hpcproxy install-bashrc", "hpcproxy wrap", "--help"):
        assert words in done.stdout


def test_the_help_has_every_command_once_and_no_option_of_invoke() -> None:
    text = run("--help").stdout
    assert text == run("-h").stdout == run("help").stdout
    assert sorted(front.COMMANDS) == COMMANDS
    for name in COMMANDS:
        assert sum(line.startswith(f"  {name} ") for line in text.splitlines()) == 1, name
    for theirs in ("--hide", "--pty", "sudo", "--dry ", "Core options"):
        assert theirs not in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_page_fits_80_columns_and_its_example_is_one_of_that_command(name: str) -> None:
    text = run(name, "--help").stdout
    assert text.startswith(f"hpcproxy {name}")
    assert [line for line in (text + front.help_page() + front.first_page()).splitlines() if len(line) > 80] == []
    assert front.COMMANDS[name].example.split()[0] == name
    given = [word for word in front.COMMANDS[name].example.partition(" -- ")[0].split() if word.startswith("--")]
    assert all(flag in text for flag in given)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["stauts"], "there is no command stauts; did you mean status?"),
        (["help", "warp"], "did you mean wrap?"),
        (["\x1b[2Jx"], "there is no command \\x1b[2Jx."),
        (["status", "--jbo", "1"], "status takes no option --jbo; did you mean --job?"),
        (["status", "more"], "status takes no further word more"),
        (["nc"], "nc: say HOST and PORT"),
        (["nc", "host"], "nc: say PORT"),
        (["wrap"], "wrap: say SCRIPT"),
        (["init", "--jump"], "init: --jump needs a value"),
    ],
)
def test_what_was_mistyped_is_one_line_that_says_what_to_type(typed: list[str], words: str) -> None:
    done = run(*typed)
    assert done.returncode == 2
    assert done.stdout == ""
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert "hpcproxy --help" in done.stderr or " --help" in done.stderr or "needs a value" in done.stderr


def test_the_version_names_what_a_report_needs(tmp_path: Path) -> None:
    said = run("--version").stdout
    assert f"Python {sys.version_info[0]}.{sys.version_info[1]}" in said
    assert "OpenSSH_" in said
    assert "no ssh" in run("--version", PATH=str(tmp_path)).stdout


def test_help_loads_no_task_and_none_of_the_libraries() -> None:
    """What makes it quick; how quick it is, is a benchmark's business."""
    code = "import sys, hpcproxy.__main__ as m; sys.argv = ['hpcproxy', '--help']; m._end = lambda _: 1 / 0; m.main()"
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=False)
    assert "ZeroDivisionError" in done.stderr  # it came to its end there
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time")}
    assert "hpcproxy.cli.front" in loaded
    assert not loaded & {"invoke", "pydantic", "rich", "fabric", "yaml", "jinja2", "hpcproxy.cli.user"}


def test_a_reader_that_has_gone_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "hpcproxy", "--help"], stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert done.stderr == b""


def test_quiet_leaves_errors_and_the_exit_code(home: Path) -> None:
    loud, quiet = run("status"), run("status", "--quiet")
    assert loud.stderr.startswith("hpcproxy: ")
    assert (quiet.stdout, quiet.stderr, quiet.returncode) == ("", "", loud.returncode)
    assert "say which jump host" in run("--quiet", "init").stderr
    assert not any(home.iterdir())


# -------------------------------------------------------------------------------------------- status


def test_a_new_account_is_told_how_to_begin_and_nothing_else(home: Path) -> None:
    said = run("status").stderr.splitlines()
    assert len(said) == 2
    assert said[1].endswith("nothing is set up for this account; start with: hpcproxy init --jump USER@HOST")
    assert home.exists()


def test_what_is_missing_is_counted_where_it_is_much() -> None:
    many, few = [Path(f"/h/{n}") for n in range(5)], [Path("/h/a"), Path("/h/b")]
    assert len(list(status_page.next_steps(many, set_up=True, rolled_out=False))) == 1
    assert len(list(status_page.next_steps(few, set_up=True, rolled_out=False))) == 2
    assert "this site" in next(iter(status_page.next_steps(many, set_up=False, rolled_out=True)))
    assert list(status_page.next_steps([], set_up=False, rolled_out=False)) == []


@pytest.mark.parametrize(
    ("count", "shown"),
    [(None, "-"), (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (99_499, "99.5 kB"), (123_456, "123 kB"),
     (999_600, "1.0 MB"), (5 * 10**9, "5.0 GB"), (10**18, "1000000 TB")],
)  # fmt: skip
def test_bytes_are_shown_in_units(count: int | None, shown: str) -> None:
    assert status_page.size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-3, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (7200, "2 h"), (172_800, "2 d")],
)
def test_times_are_shown_in_their_largest_unit(seconds: float, shown: str) -> None:
    assert status_page.span(seconds) == shown


# ---------------------------------------------------------------------------------------- completion


def completed(shell: str, line: str) -> set[str]:
    """What the real `shell` offers for `line`."""
    program_of(shell)
    script = completion.script(tasks(), shell)
    words = line.split(" ")
    if shell == "bash":
        spelled = " ".join(f"'{word}'" for word in words)
        asks = f"COMP_WORDS=({spelled}); COMP_CWORD={len(words) - 1}; _hpcproxy; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        argv = ["bash", "--norc", "-uc", f"{script}\n{asks}"]
    elif shell == "fish":
        argv = ["fish", "--no-config", "-c", f"{script}\ncomplete -C '{line}'"]
    else:
        return zsh_offers(script, line)
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    return {offer.split("\t")[0] for offer in done.stdout.split("\n") if offer}


def zsh_offers(script: str, line: str) -> set[str]:
    """zsh's own functions are replaced by ones that print what they are given; the line editor needs a terminal."""
    words = line.split(" ")
    asks = (
        "_describe() { local -a shown; shown=(${(P)2}); print -l -- ${shown%%:*}; }\n"
        "compadd() { shift; print -l -- $@; }\n_files() { print FILES; }\n"
        f"CURRENT={len(words)}; words=({' '.join(repr(word) for word in words)}); PREFIX={words[-1]!r}\n"
    )
    done = subprocess.run(["zsh", "-fuc", asks + script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    return {offer for offer in done.stdout.split("\n") if offer.startswith(words[-1]) or offer == "FILES"}


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_a_shell_completes_commands_and_options(shell: str) -> None:
    assert completed(shell, "hpcproxy st") == {"status"}
    assert set(COMMANDS) <= completed(shell, "hpcproxy ")
    assert {"--job", "--json"} <= completed(shell, "hpcproxy status --j")
    assert "--enable" in completed(shell, "hpcproxy deploy --e")
    assert "--enable" not in completed(shell, "hpcproxy status --")


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_completion_is_put_in_its_place_and_taken_away_again(shell: str, home: Path) -> None:
    done = run("completion", "--install", SHELL=f"/usr/bin/{shell}")
    place = completion.place(shell, {"HOME": str(home)})
    assert place.read_text() == completion.script(tasks(), shell) == run("completion", "--shell", shell).stdout
    assert done.returncode == 0
    assert run("completion", "--remove", "--shell", shell).stdout.startswith("removed")
    assert not place.exists()
    assert run("completion", "--remove", "--shell", shell).stdout == ""


def test_a_shell_that_is_not_known_is_refused(home: Path) -> None:
    for arguments, shell in ((["--shell", "ksh"], "/bin/bash"), ([], "/bin/tcsh"), (["--install", "--remove"], "bash")):
        done = run("completion", *arguments, SHELL=shell)
        assert (done.returncode, done.stdout) == (2, "")
    assert not any(home.iterdir())
