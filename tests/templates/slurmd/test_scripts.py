"""The scripts for nodes: every combination passes the checkers in silence, and they do what slurmd demands."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from hpcproxy.account import tunnels
from hpcproxy.cluster import contract, enable, inventory, protocol
from hpcproxy.files.render import Bundle, File, render
from tests import style
from tests.cluster.cases import combinations, plan, script_of
from tests.hostile import HOSTILE
from tests.waiting import until

SCRIPTS = ("prolog", "epilog", "taskprolog", "supervisor.sh", "tunnel.sh", "job.sh")
SOURCED = ("prologue.sh", "epilogue.sh", "hpcproxy.sh")


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Every different script, on disk."""
    directory = tmp_path_factory.mktemp("site")
    files: dict[str, File] = {}
    for case in combinations():
        bundle = render(case)
        files |= {file.digest: file for file in bundle.files if file.artifact.name in (*SCRIPTS, *SOURCED)}
    paths = []
    for digest, file in files.items():
        paths.append(directory / f"{digest[:12]}-{file.artifact.name}")
        paths[-1].write_bytes(file.content)
    told = inventory.parse("case", "nodes: c1\nsettings: {jump: j}\n")
    messages = {
        **{f"{action}.sh": protocol.message(bundle, action, "t") for action in protocol.ACTIONS},
        "edit.sh": protocol.reading(("/a b",), "t", ("true",)),
        "contract.sh": contract.contract_message(bundle, told, "t"),
    }
    for name, content in messages.items():
        paths.append(directory / name)
        paths[-1].write_bytes(script_of(content))
    for name, command in {
        "scontrol": enable.scontrol(told, "ping"),
        "heard": enable.wait_for_slurmd(told, "1"),
    }.items():
        paths.append(directory / f"{name}.sh")
        paths[-1].write_text(f"#!/bin/bash\n{command[3]}")
    paths.append(directory / "inspect.sh")
    paths[-1].write_bytes(protocol.inspection(bundle, "t", protocol.Place(protocol.STORE, protocol.LOCK_FILE)))
    return paths


def _silent(argv: Sequence[str], paths: Sequence[Path]) -> None:
    done = subprocess.run([*argv, *map(str, paths)], capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""


def test_every_combination_passes_shfmt(rendered: list[Path]) -> None:
    _silent(style.shfmt("-i", "4", "-ci", "-d"), rendered)


def test_every_combination_parses(rendered: list[Path]) -> None:
    assert len(rendered) >= 30
    _silent(["bash", "-c", 'for file; do bash -n "$file" || exit; done', "bash"], rendered)
    sourced = [path for path in rendered if path.name.endswith(SOURCED)]
    _silent(["sh", "-c", 'for file; do dash -n "$file" || exit; done', "sh"], sourced)


def test_every_combination_passes_shellcheck(rendered: list[Path]) -> None:
    for start in range(0, len(rendered), 8):
        # SC2292 would have [[ ]] of what sh reads, too, and the TaskProlog has such parts.
        _silent(style.shellcheck("-e", "SC2292"), rendered[start : start + 8])


# What bash has learned since 4.2, which is RHEL 7's; manual and CHANGES of bash. No older bash is to be had here.
NEWER = {
    "wait -n": r"\bwait -[np]",
    "declare -n": r"\b(local|declare|typeset) -[a-zA-Z]*n",
    "${x@Q}": r"\$\{[A-Za-z_]\w*(\[[^]]*\])?@[A-Za-z]\}",
    "mapfile -d": r"\b(mapfile|readarray) (-\w+ )*-d",
    "EPOCHSECONDS": r"\bEPOCH(SECONDS|REALTIME)\b|\bSRANDOM\b|\bBASH_ARGV0\b",
    "local -": r"\blocal -(\s|$)",
    "[[ -v a[i] ]]": r"-v \w+\[",
    "a[-1]=": r"\w\[-\d+\](\+?=|\})",
    "inherit_errexit": r"inherit_errexit|localvar_inherit|assoc_expand_once",
    "${x,,}-like @U": r"\$\{\w+@[ULu]",
    "printf without -1": r"%\([^)]*\)T'( |$)(?!-1|\")",
    "$<( )": r"\$\{ |\$\{\|",
}


def test_no_script_needs_a_newer_bash_than_it_says(rendered: list[Path]) -> None:
    for path in rendered:
        for name, pattern in NEWER.items():
            assert re.search(pattern, path.read_text(), re.MULTILINE) is None, f"{path.name}: {name}"
    found = {name for name, pattern in NEWER.items() if re.search(pattern, _NEW_BASH, re.MULTILINE)}
    assert found == set(NEWER), "every pattern finds what it is for"


_NEW_BASH = """wait -n
local -n x=y
${x@Q}
mapfile -t -d '' a
$EPOCHSECONDS
local -
[[ -v a[1] ]]
${a[-1]}
shopt -s inherit_errexit
${x@U}
printf '%(%s)T'
${ date; }
"""


def test_an_older_bash_is_named_and_nothing_is_done() -> None:
    """`BASH_VERSINFO` cannot be set; the script is told another."""
    script = script_of(protocol.message(render(plan()), "look", "t")).replace(b"BASH_VERSINFO", b"OLD_VERSION")
    done = subprocess.run(
        ["/bin/bash", "-p", "-s"],
        input=protocol.framed(b"OLD_VERSION=(4 1)\n" + script),
        capture_output=True,
        check=True,
    )
    answer = protocol.parse(done.stdout, "t")
    assert answer.word == "failed"
    assert re.fullmatch(r"bash \S+ is too old, 4\.2 is needed", answer.text)


# ---- the Prolog, without root: as far as it goes before it would start something


def _site(tmp_path: Path, **told: object) -> dict[str, Path]:
    """Prolog, Epilog and TaskProlog whose state is below `tmp_path`; the supervisor only says that it was started."""
    whole = plan(**told)
    values = {**whole.values, "run": tmp_path / "run", "home": tmp_path}
    bundle = render(replace(whole, values=values))
    found = {}
    for file in bundle.files:
        found[file.artifact.name] = tmp_path / file.artifact.name
        found[file.artifact.name].write_bytes(file.content)
        found[file.artifact.name].chmod(0o755)
    (tmp_path / "supervisor.sh").write_text(_SUPERVISOR.format(run=tmp_path / "run"))
    (tmp_path / "in-force").touch()
    return found


_SUPERVISOR = """#!/bin/bash
mkdir -p {run}/holders
read -r -a stat </proc/$$/stat
printf '%s %s\\n' "$$" "${{stat[21]}}" >{run}/holders/$1.$2
printf '%s\\n' "$*" >>{run}/started
exec sleep 60
"""


def _as_slurmd(script: Path, environ: dict[str, str], timeout_s: float = 10) -> tuple[int, str]:
    """Run `script` with nothing but `environ`, read its one pipe to the end, then kill its process group."""
    process = subprocess.Popen(
        [str(script)], env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    output, _ = process.communicate(timeout=timeout_s)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, output.decode()


def _job(**more: str) -> dict[str, str]:
    return {"SLURM_JOB_ID": "77", "SLURM_JOB_UID": "1234", **more}


def _started(tmp_path: Path) -> list[str]:
    path = tmp_path / "run" / "started"
    return path.read_text().splitlines() if path.exists() else []


def test_prolog_starts_a_supervisor_that_survives_it_and_the_epilog_ends_that_one(tmp_path: Path) -> None:
    site = _site(tmp_path)
    assert _as_slurmd(site["prolog"], _job(SLURM_JOB_RESTART_COUNT="2")) == (0, "")  # Slurm 22.05
    assert _started(tmp_path) == ["77 2 1234"]
    pid = int((tmp_path / "run/holders/77.2").read_text().split()[0])
    os.kill(pid, 0)
    assert _as_slurmd(site["epilog"], _job(SLURM_JOB_ID="78")) == (0, "")
    os.kill(pid, 0)
    assert _as_slurmd(site["epilog"], _job()) == (0, "")
    until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text(), "it has ended")
    assert not (tmp_path / "run/holders/77.2").exists()
    assert _as_slurmd(site["epilog"], _job()) == (0, ""), "a second time finds nothing"


def test_epilog_never_ends_a_process_that_only_has_the_pid(tmp_path: Path) -> None:
    site = _site(tmp_path)
    bystander = subprocess.Popen(["sleep", "60"])
    (tmp_path / "run/holders").mkdir(parents=True)
    (tmp_path / "run/holders/77.0").write_text(f"{bystander.pid} 1\n")
    assert _as_slurmd(site["epilog"], _job()) == (0, "")
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


@pytest.mark.parametrize("stopped", [False, True])
def test_epilog_ends_a_supervisor_that_does_not_end_with_all_it_has_started(tmp_path: Path, stopped: bool) -> None:
    """Its user may have stopped every process of it."""
    site = _site(tmp_path)
    deaf = "trap '' TERM; sleep 600 & wait"
    with subprocess.Popen(["bash", "-c", f"trap '' TERM; bash -c {shlex.quote(deaf)} & wait"]) as supervisor:
        pids = [supervisor.pid]
        for _ in range(2):
            children = Path(f"/proc/{pids[-1]}/task/{pids[-1]}/children")
            pids.append(int(until(children.read_text, "it has started another").split()[0]))
        if stopped:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
        since = tunnels.start_time(supervisor.pid)
        (tmp_path / "run/holders").mkdir(parents=True)
        (tmp_path / "run/holders/77.0").write_text(f"{supervisor.pid} {since}\n")
        assert _as_slurmd(site["epilog"], _job()) == (0, "")
        assert supervisor.wait(30) == -signal.SIGKILL
    for pid in pids[1:]:
        until(lambda pid=pid: tunnels.start_time(pid) is None, "what it started is gone")


@pytest.mark.parametrize("missing", ["supervisor.sh", "run"])
def test_prolog_ends_with_zero_whatever_is_missing(tmp_path: Path, missing: str) -> None:
    site = _site(tmp_path)
    if missing == "run":
        (tmp_path / "run").write_text("taken")
    else:
        (tmp_path / "supervisor.sh").unlink()
    for name in ("prolog", "epilog"):
        assert _as_slurmd(site[name], _job())[0] == 0
    assert _as_slurmd(site["prolog"], {}) == (0, "")


@pytest.mark.parametrize("value", [*HOSTILE, "77; touch x", "-1", "0", "99999999999"])
def test_hostile_numbers_start_nothing(tmp_path: Path, value: str) -> None:
    site = _site(tmp_path)
    for name in ("SLURM_JOB_ID", "SLURM_JOB_UID", "SLURM_JOB_RESTART_COUNT"):
        if (name, value) in {("SLURM_JOB_RESTART_COUNT", ""), ("SLURM_JOB_RESTART_COUNT", "0"), ("SLURM_JOB_ID", "0")}:
            continue
        assert _as_slurmd(site["prolog"], _job(**{name: value})) == (0, "")
    assert _started(tmp_path) == []
    assert not Path("x").exists()


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_text_of_the_user_is_compared_and_never_run(tmp_path: Path, value: str) -> None:
    told = {"policy": {"comment": True, "partitions": ["p"], "accounts": ["a"]}}
    site = _site(tmp_path, **told)
    texts = dict.fromkeys(("SLURM_JOB_COMMENT", "SLURM_JOB_PARTITION", "SLURM_JOB_ACCOUNT", "SLURM_JOB_USER"), value)
    done = subprocess.run([site["prolog"]], env=_job(**texts), cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert _started(tmp_path) == []
    assert not (tmp_path / "x").exists()


def test_the_policy(tmp_path: Path) -> None:
    site = _site(tmp_path, policy={"comment": True, "partitions": ["gpu"], "accounts": ["phys"]})
    yes = [
        {"SLURM_JOB_COMMENT": "hpcproxy"},
        {"SLURM_JOB_COMMENT": "x, hpcproxy;y"},
        {"SLURM_JOB_PARTITION": "gpu"},
        {"SLURM_JOB_ACCOUNT": "phys"},
    ]
    no = [{}, {"SLURM_JOB_COMMENT": "nohpcproxy"}, {"SLURM_JOB_PARTITION": "gpu2"}, {"SLURM_JOB_ACCOUNT": "*"}]
    for number, texts in enumerate(yes + no):
        assert _as_slurmd(site["prolog"], _job(SLURM_JOB_ID=str(number + 1), **texts)) == (0, "")
    assert [line.split()[0] for line in _started(tmp_path)] == ["1", "2", "3", "4"]
    for number in range(4):
        _as_slurmd(site["epilog"], _job(SLURM_JOB_ID=str(number + 1)))


# Each condition alone, and jobs that meet it.
CONDITIONS = {
    "comment": ({"comment": True}, {"SLURM_JOB_COMMENT": "hpcproxy"}),
    "partitions": ({"partitions": ["gpu"]}, {"SLURM_JOB_PARTITION": "gpu"}),
    "accounts": ({"accounts": ["phys"]}, {"SLURM_JOB_ACCOUNT": "phys"}),
    "none": ({}, {}),
}


@pytest.mark.parametrize("policy", CONDITIONS)
@pytest.mark.parametrize("met", CONDITIONS)
def test_a_policy_of_one_condition_is_met_by_that_alone(tmp_path: Path, policy: str, met: str) -> None:
    site = _site(tmp_path, policy=CONDITIONS[policy][0])
    assert _as_slurmd(site["prolog"], _job(**CONDITIONS[met][1])) == (0, "")
    assert bool(_started(tmp_path)) is (policy in (met, "none"))
    assert _as_slurmd(site["epilog"], _job()) == (0, "")


def test_prolog_does_nothing_until_the_epilog_has_been_seen_to_run(tmp_path: Path) -> None:
    """Nothing would end what it starts: a site's own glob, or a line of a hand's, may run it alone."""
    site = _site(tmp_path)
    (tmp_path / "in-force").unlink()
    (tmp_path / "run").mkdir()
    uptime_s = int(Path("/proc/uptime").read_text().partition(".")[0])
    (tmp_path / "run/no-epilog").write_text(f"{uptime_s + 3600}\n")
    assert _as_slurmd(site["prolog"], _job()) == (0, "")
    assert _started(tmp_path) == []
    why = "Slurm does not run the Epilog here that would end a tunnel"
    word = f"print hpcproxy: no tunnel from your site: c1: epilog: {why}; ask its admin\n"
    word += f"export HPCPROXY_ERROR=c1 epilog {why}\n"
    assert _as_slurmd(site["taskprolog"], _job(SLURMD_NODENAME="c1")) == (0, word)
    assert _as_slurmd(site["epilog"], {**_job(), "HPCPROXY_CONTRACT": "1"}) == (0, "")
    assert not (tmp_path / "in-force").exists(), "the check is not Slurm"
    assert _as_slurmd(site["epilog"], _job()) == (0, "")
    assert _as_slurmd(site["prolog"], _job()) == (0, "")
    assert [line.split()[0] for line in _started(tmp_path)] == ["77"]
    assert _as_slurmd(site["epilog"], _job()) == (0, "")


# ---- the TaskProlog


def test_taskprolog_without_a_tunnel_prints_nothing(tmp_path: Path) -> None:
    site = _site(tmp_path)
    assert _as_slurmd(site["taskprolog"], _job()) == (0, "")
    assert _as_slurmd(site["taskprolog"], {}) == (0, "")


def test_taskprolog_tells_the_reason_when_the_supervisor_gave_up(tmp_path: Path) -> None:
    site = _site(tmp_path)
    (tmp_path / "run/holders").mkdir(parents=True)
    (tmp_path / "run/holders/77.0.said").write_text("mode c1 agent\ngave-up c1 key no key to log in with\n")
    exported = "export HPCPROXY_ERROR=c1 key no key to log in with\n"
    said = "print hpcproxy: no tunnel from your site: c1: key: no key to log in with; ask its admin\n"
    assert _as_slurmd(site["taskprolog"], _job()) == (0, said + exported)
    for step in ("0", "17"):
        assert _as_slurmd(site["taskprolog"], _job(SLURM_STEP_ID=step)) == (0, exported), "a step's stdout may be data"
    # SLURM_BATCH_SCRIPT (slurm.h), as Slurm 26.05 has it in a batch script's environment, and as a number without sign.
    for batch in ("-5", "4294967291"):
        assert _as_slurmd(site["taskprolog"], _job(SLURM_STEP_ID=batch)) == (0, said + exported)


def test_taskprolog_tells_once_of_a_tunnel_that_is_still_tried(tmp_path: Path) -> None:
    site = _site(tmp_path)
    (tmp_path / "run/holders").mkdir(parents=True)
    words = "mode c1 agent\nfailed c1 route j: does not answer\nlate c1 no jump host has answered within 5 s\n"
    (tmp_path / "run/holders/77.0.said").write_text(words)
    said = "print hpcproxy: your site's tunnel is not up yet: c1: route: j: does not answer; it goes on trying\n"
    assert _as_slurmd(site["taskprolog"], _job()) == (0, said)
    assert _as_slurmd(site["taskprolog"], _job(SLURM_STEP_ID="0")) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_taskprolog_of_a_task_that_is_cancelled_exits_as_ever(tmp_path: Path, number: signal.Signals) -> None:
    site = _site(tmp_path)
    (tmp_path / "run/holders").mkdir(parents=True)
    (tmp_path / "run/holders/77.0.said").write_text("mode c1 agent\n")  # it waits for `ready`
    with subprocess.Popen([site["taskprolog"]], env=_job(), stdout=subprocess.PIPE, start_new_session=True) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        inner = until(children.read_text, "it waits in a process of its own").strip()
        until(Path(f"/proc/{inner}/task/{inner}/children").read_text, "which has come as far as to wait")
        os.killpg(process.pid, number)
        assert process.communicate(timeout=60) == (b"", None)
    assert process.returncode == 0


def test_the_sites_own_taskprolog_runs_first_and_keeps_its_say(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("#!/bin/sh\necho export SITE=1\nexit ${CODE:-0}\n")
    own.chmod(0o755)
    site = _site(tmp_path, site_task_prolog=str(own))
    assert _as_slurmd(site["taskprolog"], _job()) == (0, "export SITE=1\n")
    assert _as_slurmd(site["taskprolog"], _job(CODE="3")) == (3, "export SITE=1\n")


def test_bundle_names_every_file_once() -> None:
    bundle: Bundle = render(plan())
    paths = [file.artifact.path for file in bundle.files]
    assert len(set(paths)) == len(paths)
    assert all(path.is_absolute() for path in paths)
    assert paths[-2:] == [Path("/etc/slurm/epilog.d/50-hpcproxy"), Path("/etc/slurm/prolog.d/50-hpcproxy")]
