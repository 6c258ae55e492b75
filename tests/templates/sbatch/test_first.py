"""In a job of many nodes one logs in first: what the others wait for, and what becomes of them."""

from __future__ import annotations

import os
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sshd import Sshd
from tests.supervisor import write_script
from tests.waiting import until

# One process for each node, all of them here; each is told what srun is told on stdin.
_SRUN = """#!/bin/bash
[[ $1 != --version ]] || exit 1
while [[ $1 != /bin/bash ]]; do
    if [[ $1 == --nodes=* ]]; then nodes=${1#--nodes=}; fi
    shift
done
pipes=()
for ((n = 0; n < nodes; n++)); do
    exec {pipe}<> <(:)
    pipes+=("$pipe")
    (
        for other in "${pipes[@]}"; do exec {other}>&-; done
        SLURM_NODEID=$n SLURMD_NODENAME=n$n SLURM_STEP_ID=0 exec "$@"
    ) <"/proc/self/fd/$pipe" &
done
while read -r line; do for pipe in "${pipes[@]}"; do printf '%s\\n' "$line" >&"$pipe"; done; done
for pipe in "${pipes[@]}"; do exec {pipe}>&-; done
wait
"""
# A supervisor that would log in, or not: the first as FIRST says.
_SUPERVISOR = """
if [[ -n ${HPCPROXY_FOLLOWS-} && $SLURM_NODEID != 0 ]]; then read -r -t 20 line || line=none; fi
printf '%s %s\\n' "$SLURMD_NODENAME" "${line-}" >>"$LOGINS"
if [[ $SLURM_NODEID == 0 ]]; then
    sleep 0.5
    touch "$LOGINS.first"  # of which nobody has heard before the next line
    printf '%s\\n' "$FIRST"
else
    [[ -e $LOGINS.first || -z ${HPCPROXY_FOLLOWS-} ]] || touch "$LOGINS.too-early"
    printf 'ready %s j\\n' "$SLURMD_NODENAME"
fi
until [[ -e $LOGINS.over ]] || ((SECONDS > 60)); do sleep 0.1; done
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], tuple[str, list[str]]]:
    """job(nodes, first) starts one whose first node says `first`; returns what is said and who would have logged in."""

    def start(nodes: int, first: str) -> tuple[str, list[str]]:
        script = write_script(tmp_path / "home", jump="u@h", ready_timeout_s=5)
        script.write_text(_SUPERVISOR)
        programs = tmp_path / "bin"
        programs.mkdir()
        for name, text in (("srun", _SRUN), ("scancel", "#!/bin/sh\n")):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        mine = {"SLURM_JOB_ID": "77", "SLURM_JOB_NUM_NODES": str(nodes), "SLURMD_NODENAME": "n0"}
        environ = {**os.environ, **mine, "LOGINS": str(tmp_path / "logins"), "FIRST": first}
        argv = ["/bin/bash", "-p", str(script.with_name("job.sh")), "start"]
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False, timeout=60)
        logins = tmp_path / "logins"
        until(lambda: logins.read_text().count("\n") == nodes, "each has been told, or that nobody is left to tell it")
        (tmp_path / "logins.over").touch()
        assert not (tmp_path / "logins.too-early").exists()
        return done.stderr, sorted(logins.read_text().splitlines())

    return start


def test_few_nodes_log_in_at_once(job: Callable[[int, str], tuple[str, list[str]]]) -> None:
    _said, logins = job(4, "ready n0 j")
    assert logins == ["n0 ", "n1 ", "n2 ", "n3 "]


@pytest.mark.parametrize(
    "first", ["ready n0 j", "failed n0 route j: it does not answer", "failed n0 busy j: it hung up"]
)
def test_the_others_follow_one_that_is_in_or_whose_failure_will_pass(
    first: str, job: Callable[[int, str], tuple[str, list[str]]]
) -> None:
    _said, logins = job(6, first)
    assert logins == ["n0 ", *(f"n{number} go" for number in range(1, 6))]


def test_a_refused_key_is_refused_once(job: Callable[[int, str], tuple[str, list[str]]]) -> None:
    """P7: with 24 of them at once sshd's PerSourcePenalties shut the cluster's address out for two minutes."""
    said, logins = job(24, "gave-up n0 key j: it refused the key")
    assert logins == sorted(["n0 ", *(f"n{number} none" for number in range(1, 24))])
    assert said == "hpcproxy: no tunnel: n0: key: j: it refused the key; the job runs on without it\n"


@pytest.mark.parametrize("word", ["go\n", ""], ids=["told", "nobody is left to tell"])
def test_a_supervisor_waits_until_it_is_told(word: str, jump_host: Sshd, tmp_path: Path, mode: str) -> None:
    script = write_script(tmp_path / "home", jump_host.known_hosts, agent=mode == "agent", **_of(jump_host))
    mine = {"HPCPROXY_FOLLOWS": "1", "HPCPROXY_HOLDER": "1", "SLURM_NODEID": "3", "SLURMD_NODENAME": "n3"}
    argv = ["/bin/bash", "-p", str(script), "hold", str(os.getpid()), "0"]
    before = (jump_host.directory / "log").read_text().count("Connection from")
    with subprocess.Popen(
        argv, env={**os.environ, **mine}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as supervisor:
        assert supervisor.stdin is not None
        assert supervisor.stdout is not None
        lines = iter(supervisor.stdout.readline, "")
        assert next(line for line in lines if line.startswith("mode n3 "))
        state = Path(os.environ["TMPDIR"])
        until(lambda: list(state.glob(f"hpcproxy-*/{os.getpid()}.0-*/turn")), "it has taken its turn")
        assert (jump_host.directory / "log").read_text().count("Connection from") == before
        supervisor.stdin.write(word)
        supervisor.stdin.close()
        assert next(lines).startswith("ready n3 ")
        supervisor.terminate()
        assert supervisor.wait(30) == 0


def test_the_first_does_not_wait_for_its_place(jump_host: Sshd, tmp_path: Path, mode: str) -> None:
    """All others wait for it: of a thousand nodes its turn, and then theirs, took twice what the job waits."""
    settings = {**_of(jump_host), "logins_per_s": 1}
    script = write_script(tmp_path / "home", jump_host.known_hosts, agent=mode == "agent", **settings)
    job = os.getpid()
    late = next(name for name in map("n{}".format, range(1000)) if zlib.crc32(f"{job} {name}".encode()) >> 16 > 0xC000)
    mine = {"HPCPROXY_FOLLOWS": "1", "HPCPROXY_HOLDER": "1", "SLURM_NODEID": "0", "SLURMD_NODENAME": late}
    argv = ["/bin/bash", "-p", str(script), "hold", str(job), "0"]
    said = tmp_path / "said"
    environ = {**os.environ, **mine, "SLURM_JOB_NUM_NODES": "1000"}
    with said.open("w") as out, subprocess.Popen(argv, env=environ, stdin=subprocess.DEVNULL, stdout=out) as supervisor:
        try:
            until(lambda: f"ready {late} " in said.read_text(), "it is in")
        finally:
            supervisor.terminate()
            assert supervisor.wait(30) == 0


def _of(jump_host: Sshd) -> dict[str, object]:
    return {name: value for name, value in jump_host.settings.items() if name != "known_hosts"}
