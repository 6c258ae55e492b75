"""bashrc.sh in real shells: silent, harmless to its caller, and using nothing but a tunnel that is ours and up."""

from __future__ import annotations

import os
import re
import shlex
from itertools import cycle, islice
from pathlib import Path

import pytest

from hpcproxy.account import verbs
from hpcproxy.account.account import Account
from tests.shells import PEOPLES, PROXY_VARIABLES, argv_of, interactive, script, tunnel_state, url_of

OTHERS_STATUS = ", and what it says of itself another version of hpcproxy has written"
every_shell = pytest.mark.parametrize("shell", PEOPLES)
SHOW = "".join(f'printf "%s\\n" "{name} ${{{name}+x}} ${{{name}-}}"\n' for name in PROXY_VARIABLES)
TOUCHED = 'printf "%s|" "$-" "$IFS" "$PWD"; umask; trap'


@pytest.fixture
def source(account: Account) -> str:
    """The line that sources the installed file, as the block in .bashrc does."""
    verbs.install_bashrc(account, verbs.settings_of(account, {"jump": ["u@h"]}), dry_run=False)
    return f". {shlex.quote(str(account.home.directory / 'bashrc.sh'))}\n"


# ------------------------------------------------------------------------------------------------ a good guest


@every_shell
@pytest.mark.parametrize("up", [False, True], ids=["nothing up", "a tunnel up"])
def test_it_is_silent_and_touches_nothing_of_its_callers(shell: str, up: bool, source: str) -> None:
    before = "set -eu; set -C; IFS=:,; cd /; umask 027; trap 'printf bye' EXIT\n"
    text = f"{before}{TOUCHED}\n{source}{TOUCHED}\n"
    with tunnel_state(listening=up):
        done = script(shell, text)
        code, shown = interactive(shell, text)
    assert (done.returncode, done.stderr) == (0, "")
    assert code == 0
    for out in (done.stdout, shown):
        assert out.endswith("bye")
        once = out.removesuffix("bye")
        assert once[: len(once) // 2] == once[len(once) // 2 :] != ""


@every_shell
@pytest.mark.parametrize("environ", [{}, {"TMPDIR": "/nowhere"}, {"TMPDIR": ""}, {"SLURM_JOB_ID": "x y"}], ids=str)
def test_it_lives_with_any_environment(shell: str, environ: dict[str, str], source: str) -> None:
    assert interactive(shell, f"set -eu\n{source}printf done\n", environ) == (0, "done")


@every_shell
@pytest.mark.parametrize("up", [False, True], ids=["nothing up", "a tunnel up"])
def test_it_forks_nothing_and_needs_no_path(shell: str, up: bool, source: str) -> None:
    """Field 11 of proc(5) stat: the page faults of children that were waited for; a fork has some, none has none."""
    faults = "read -r _ _ _ _ _ _ _ _ _ _ faults _ </proc/$$/stat; printf '%s\\n' \"$faults\"\n"
    with tunnel_state(listening=up):
        code, shown = interactive(shell, f"{source}{faults}", {**os.environ, "PATH": ""})
    assert (code, shown) == (0, "0\n")
    assert script(shell, f"(:)\n{faults}").stdout != "0\n"


@every_shell
def test_a_script_that_sources_it_gets_the_functions_only(shell: str, source: str) -> None:
    with tunnel_state():
        done = script(shell, f"{source}{SHOW}proxy_status")
    assert [line for line in done.stdout.splitlines() if " x " in line] == []
    assert "off in this shell; a tunnel is up at" in done.stdout


# ------------------------------------------------------------------------------------------------ on and off


@every_shell
def test_an_interactive_shell_uses_a_tunnel_that_is_up(shell: str, source: str) -> None:
    with tunnel_state() as state:
        code, shown = interactive(shell, f"{source}{SHOW}proxy_status")
    url = url_of(state)
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"), f"x {url}")
    direct = dict.fromkeys(("no_proxy", "NO_PROXY"), "x localhost,127.0.0.1,.local")
    found = {**dict.fromkeys(PROXY_VARIABLES, " "), **proxies, **direct}
    assert shown.splitlines() == [*(f"{name} {value}" for name, value in found.items()), f"hpcproxy: on, {url}"]
    assert code == 0


@every_shell
def test_programs_get_what_the_shell_shows(shell: str, source: str) -> None:
    with tunnel_state() as state:
        _, shown = interactive(shell, f"{source}env")
        assert f"\nhttps_proxy={url_of(state)}\n" in f"\n{shown}"
        _, shown = interactive(shell, f"{source}proxy_off\nenv")
    assert "proxy=" not in shown.lower().replace("hpcproxy", "")
    assert "HPCPROXY_" not in shown


@every_shell
@pytest.mark.parametrize("shift", range(3))
def test_off_brings_back_what_was_set_empty_or_unset(shell: str, shift: int, source: str) -> None:
    states = islice(cycle(["unset", "", "http://127.0.0.1:1 a'$(touch x)"]), shift, None)
    before = {name: state for name, state in zip(PROXY_VARIABLES, states) if state != "unset"}
    environ = {**os.environ, **before}
    expected = [f"{name} {'x' if name in before else ''} {before.get(name, '')}" for name in PROXY_VARIABLES]
    with tunnel_state():
        _, shown = interactive(shell, f"{source}proxy_on\nproxy_off\n{SHOW}", environ)
        assert shown.splitlines()[2:] == expected
        # A child shell can do it as well, and turning it on twice keeps the first values.
        _, shown = interactive(shell, f"{source}proxy_on\nproxy_on\nsh -c {shlex.quote(source + 'proxy_off')}", environ)
        assert shown.splitlines()[-1] == "hpcproxy: off; your own proxy settings are back"
        inner = shlex.quote(f"{source}proxy_off >/dev/null\n{SHOW}")
        _, shown = interactive(shell, f"{source}proxy_on >/dev/null\n{shell} -c {inner}", environ)
        assert shown.splitlines() == expected


@every_shell
def test_the_agent_is_spelled_for_everybody(shell: str, source: str) -> None:
    with tunnel_state(url="http://127.64.0.1:2015"):
        _, shown = interactive(shell, f"{source}{SHOW}")
    assert "https_proxy x http://127.64.0.1:2015" in shown.splitlines()
    assert "NODE_USE_ENV_PROXY x 1" in shown.splitlines()


@every_shell
@pytest.mark.parametrize(
    "theirs", ["http://proxy.site:3128", "http://u:p@10.1.2.3:8080/", "socks5h://[2001:db8::1]:1080"]
)
def test_a_proxy_of_the_sites_stays_in_force_and_a_new_shell_is_silent(shell: str, theirs: str, source: str) -> None:
    show = 'printf "%s\\n" "$https_proxy" "${http_proxy-unset}" "${no_proxy%%,*}"\n'
    environ = {**os.environ, "https_proxy": theirs}
    with tunnel_state() as state:
        assert interactive(shell, f"{source}{show}", environ)[1].splitlines() == [theirs, "unset", "localhost"]
        said = interactive(shell, f"{source}proxy_on", environ)[1].splitlines()
        assert said[0].startswith("hpcproxy: the proxy that your environment names stays in force (replace_proxy: true")
        replaced = f"{source}proxy_off >/dev/null\n__hpcproxy_replace=1\nproxy_on\n{show}"
        assert interactive(shell, replaced, environ)[1].splitlines()[1:3] == [url_of(state)] * 2


@every_shell
@pytest.mark.parametrize(
    "recipe",
    [
        "socks5://127.0.0.1:2015",
        "http://localhost:2015",
        "http://u@localhost",
        "socks5h://[::1]:1",
        "127.0.0.1:7890",
        "localhost:7890",
        "http://LOCALHOST:1",
    ],
)
def test_the_old_recipe_on_loopback_is_replaced(shell: str, recipe: str, source: str) -> None:
    with tunnel_state() as state:
        shown = interactive(shell, f'{source}printf "%s" "$https_proxy"', {**os.environ, "https_proxy": recipe})[1]
    assert shown == url_of(state)


@every_shell
@pytest.mark.parametrize("name", ["all_proxy", "ALL_PROXY", "HTTP_PROXY"])
def test_a_proxy_of_the_sites_is_seen_under_any_name(shell: str, name: str, source: str) -> None:
    environ = {**os.environ, name: "http://proxy.site:3128"}
    with tunnel_state():
        shown = interactive(shell, f'{source}printf "%s %s" "${{{name}}}" "${{https_proxy-unset}}"', environ)[1]
    assert shown == "http://proxy.site:3128 unset"


@every_shell
@pytest.mark.parametrize(
    ("change", "name"),
    [
        ("export http_proxy=socks5://localhost:8888", "http_proxy"),
        ("HTTPS_PROXY=http://u:s3cret@p:1", "HTTPS_PROXY"),
        ("unset https_proxy", "https_proxy"),
        ("export ALL_PROXY=socks5h://localhost:8888", "ALL_PROXY"),
    ],
)
def test_a_variable_that_was_changed_since_is_named(shell: str, change: str, name: str, source: str) -> None:
    with tunnel_state():
        code, said = interactive(shell, f"{source}proxy_on >/dev/null\n{change}\nproxy_status")
    assert code == 1
    assert said.startswith(f"hpcproxy: {name} leads elsewhere now: something set it since")
    assert "s3cret" not in said


@every_shell
def test_an_address_in_brackets_is_no_end_for_httpx(shell: str, source: str) -> None:
    environ = {**os.environ, "no_proxy": "[::1],a.site,[fd00::7]"}
    with tunnel_state():
        shown = interactive(shell, f'{source}printf "%s" "$no_proxy"', environ)[1]
    assert shown.endswith(",::1,a.site,fd00::7")


@every_shell
def test_the_users_own_no_proxy_stays_in_force(shell: str, source: str) -> None:
    show = f'{source}printf "%s\\n" "$no_proxy" "$NO_PROXY"'
    with tunnel_state():
        for name in ("no_proxy", "NO_PROXY"):
            _, shown = interactive(shell, show, {**os.environ, name: "theirs.example"})
            assert set(shown.splitlines()) == {"localhost,127.0.0.1,.local,theirs.example"}


@every_shell
def test_what_the_verbs_say_and_return(shell: str, source: str) -> None:
    code = "printf '%s\\n' $?\n"
    nothing = f"{source}proxy_status\n{code}proxy_off\n{code}proxy_on\n{code}"
    assert interactive(shell, nothing)[1].splitlines() == [
        "hpcproxy: off",
        "1",
        "hpcproxy: off",
        "0",
        "hpcproxy: no tunnel of yours is up on this machine; start one with: hpcproxy up",
        "1",
    ]
    with tunnel_state() as state:
        url = url_of(state)
        words = ("proxy_off", "proxy_status", "proxy_on", "proxy_status", f"rm -r {state}\nproxy_status")
        text = source + "".join(f"{verb}\n{code}" for verb in words)
        assert interactive(shell, text)[1].splitlines() == [
            "hpcproxy: off; your own proxy settings are back",
            "0",
            f"hpcproxy: off in this shell; a tunnel is up at {url} (proxy_on uses it)",
            "1",
            f"hpcproxy: on, {url}",
            "0",
            f"hpcproxy: on, {url}",
            "0",
            f"hpcproxy: down, nothing of yours listens at {url} now",
            "1",
        ]


# ------------------------------------------------------------------------------------------------ not ours, not up


def _is_used(shell: str, source: str) -> bool:
    code, shown = interactive(shell, f'{source}printf "%s" "${{http_proxy-none}}"')
    assert code == 0
    assert "none" in shown or "://" in shown
    return shown != "none"


@every_shell
def test_a_state_without_its_listener_is_not_used(shell: str, source: str) -> None:
    with tunnel_state(listening=False):
        assert not _is_used(shell, source)


@every_shell
@pytest.mark.parametrize("line", [{"uid": "12345"}, {"listen": "0100007F:0001"}, {"listen": ""}, {"uid": ""}], ids=str)
def test_a_state_that_does_not_fit_the_listener_is_not_used(shell: str, line: dict[str, str], source: str) -> None:
    with tunnel_state(**line):
        assert not _is_used(shell, source)


@every_shell
def test_a_half_written_state_is_not_used(shell: str, source: str) -> None:
    with tunnel_state() as state:
        text = (state / "env").read_text()
        (state / "env").write_text("".join(text.splitlines(keepends=True)[:3]))
        assert not _is_used(shell, source)
        (state / "env").unlink()
        assert not _is_used(shell, source)


@every_shell
@pytest.mark.parametrize("version", ["2", "", "01", "1a"])
def test_a_state_of_another_version_is_said_and_not_used(shell: str, version: str, source: str) -> None:
    with tunnel_state(version=version) as state:
        assert not _is_used(shell, source)
        said = f"hpcproxy: another version of hpcproxy has started the tunnel in {state}; it is not used"
        code, shown = interactive(shell, f"set -u\n{source}proxy_status || proxy_on || printf 'no\\n'")
        assert (code, shown.splitlines()) == (0, [said, said, "no"])


@every_shell
def test_a_link_is_not_followed(shell: str, source: str, tmp_path: Path) -> None:
    with tunnel_state() as state:
        assert _is_used(shell, source)
        state.rename(tmp_path / "elsewhere")
        state.symlink_to(tmp_path / "elsewhere")
        assert not _is_used(shell, source)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to somebody else")
@every_shell
@pytest.mark.parametrize("name", ["", "env"], ids=["directory", "file in it"])
def test_somebody_elses_state_is_not_used(shell: str, name: str, source: str) -> None:
    with tunnel_state() as state:
        os.chown(state / name, 65534, 65534)
        assert not _is_used(shell, source)


@every_shell
def test_nothing_in_a_state_is_executed(shell: str, source: str, tmp_path: Path) -> None:
    with tunnel_state(url="$(touch x); `touch x`", no_proxy="'; touch x; '"):
        _, shown = interactive(shell, f'cd {tmp_path}\n{source}printf "%s" "$http_proxy"')
    assert shown == "$(touch x); `touch x`"
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------ in a job


@every_shell
def test_in_a_job_the_jobs_own_tunnel_is_used_and_no_other(shell: str, source: str) -> None:
    show = f'{source}printf "%s" "${{http_proxy-none}}"'
    environ = {**os.environ, "SLURM_JOB_ID": "77"}
    with tunnel_state("shell"), tunnel_state("777"):
        assert interactive(shell, show, environ) == (0, "none")
        with tunnel_state("77") as state:
            assert interactive(shell, show, environ) == (0, url_of(state))


@every_shell
def test_in_a_job_what_the_login_shell_exported_is_forgotten(shell: str, source: str) -> None:
    with tunnel_state("shell"):
        inner = shlex.quote(f'{source}printf "%s" "${{http_proxy-none}} ${{HPCPROXY_URL-none}}"')
        again = shlex.join(argv_of(shell, "-i", "-c"))
        text = f"{source}SLURM_JOB_ID=78 http_proxy=$http_proxy {again} {inner}"
        assert interactive(shell, text, {**os.environ, "ALL_PROXY": "theirs"})[1].endswith("none none")


def _fake_job_script(account: Account, body: str) -> None:
    (account.home.directory / "job.sh").write_text(f"#!/bin/bash\n{body}\n")


@every_shell
@pytest.mark.parametrize("autostart", [False, True])
def test_autostart_starts_the_jobs_tunnel_in_a_job_only(shell: str, autostart: bool, account: Account) -> None:
    verbs.install_bashrc(account, verbs.settings_of(account, {"jump": ["u@h"], "autostart": autostart}), dry_run=False)
    source = f". {account.home.directory}/bashrc.sh\n"
    show = f'{source}printf "%s" "${{http_proxy-none}}"'
    with tunnel_state("80") as state:
        hidden = state.rename(state.parent / "elsewhere")
        _fake_job_script(account, f"printf '%s\\n' '{hidden}'")
        url = url_of(hidden)
        assert interactive(shell, show) == (0, "none")
        expected = url if autostart else "none"
        assert interactive(shell, show, {**os.environ, "SLURM_JOB_ID": "80"}) == (0, expected)
    _fake_job_script(account, "printf 'hpcproxy: no tunnel: because\\n' >&2; exit 1")
    code, shown = interactive(shell, show, {**os.environ, "SLURM_JOB_ID": "80"})
    assert (code, shown) == (0, "hpcproxy: no tunnel: because\nnone" if autostart else "none")


@every_shell
def test_the_block_in_bashrc_finds_the_fragment(shell: str, source: str, home: Path) -> None:
    del source
    with tunnel_state() as state:
        code, shown = interactive(shell, f'set -eu\n. {home}/.bashrc\nprintf "%s" "$http_proxy"')
    assert (code, shown) == (0, url_of(state))
    for path in (home / ".hpcproxy").iterdir():
        path.unlink()
    assert interactive(shell, f"set -eu\n. {home}/.bashrc\nprintf on") == (0, "on")


@every_shell
@pytest.mark.parametrize(
    ("status", "words", "up"),
    [
        (
            "version=1 ready=true since=1.5 jump=u@jump reconnects=2 requests=30 pid=7",
            r" through u@jump, up for \d+ s, 2 reconnects, 30 requests",
            "0",
        ),
        ("version=1 ready=true since=1795364822 jump=u@jump reconnects=0", r" through .*, 0 reconnects", "0"),
        ('version=1 ready=false jump= last_error=u@jump:\u00a0"away"', r", but cut off .*: u@jump:.\"away\"", "1"),
        ("version=1 ready=false jump= last_error=", ", but cut off at the moment: ssh is not up yet", "1"),
        ("", OTHERS_STATUS, "0"),
        ("$(touch x)", OTHERS_STATUS, "0"),
        ("version=2 ready=false", OTHERS_STATUS, "0"),
    ],
)
def test_the_status_says_how_it_is(shell: str, source: str, status: str, words: str, up: str) -> None:
    with tunnel_state() as state:
        (state / "status").write_text("".join(f"{line}\n" for line in status.split(" ")))
        said, code = interactive(shell, f"{source}proxy_on >/dev/null\nproxy_status\nprintf '%s\\n' \"$?\"\n")[
            1
        ].splitlines()
        assert re.fullmatch(re.escape(f"hpcproxy: on, {url_of(state)}") + words, said)
        assert code == up
