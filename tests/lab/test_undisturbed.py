"""The hook disturbs nothing of the job: its shell, its exit code, its steps, its resources, its output."""

from __future__ import annotations

import pytest

from .researcher import FETCH, OUTER1, Researcher

pytestmark = pytest.mark.lab

_SHELL_STATE = r"""
look() { printf '%s|' "$-" "${IFS}" "$(umask)" "$PWD" "$(trap)" "$(set +o)" "$(shopt -p 2>/dev/null)" "$(ulimit -a)" \
    "$(declare -F 2>/dev/null | grep -v hpcproxy)" "$(jobs)" | md5sum; }
trap 'printf "exit trap, code %s\n" "$?"' EXIT
trap 'printf "ERR trap\n"' ERR
set -eEuo pipefail -C
IFS=:
umask 027
cd /var
look
HOOK
look
IFS=' '
"""


def test_the_shell_of_the_job_is_as_before(either: Researcher) -> None:
    hook = "if [ -r ~/.hpcproxy/prologue.sh ]; then . ~/.hpcproxy/prologue.sh; fi"
    script = "#!/bin/bash\n#SBATCH -N2\n" + _SHELL_STATE.replace("HOOK", hook) + 'wait\necho "$http_proxy"\nexit 7\n'
    result = either.lab.wait_job(either.lab.submit(script))
    before, after, url, trapped = result.output.splitlines()
    assert before == after
    assert url == either.url(result.job_id)
    assert trapped == "exit trap, code 7"
    assert (result.exit_code, result.derived_exit_code) == (7, 0)


def test_a_plain_wait_returns_and_the_output_is_the_jobs_own(either: Researcher) -> None:
    result = either.job("sleep 0.1 &\nwait\necho done\n")
    assert result.output == "done\n"


def test_the_jobs_own_steps_have_all_that_was_allocated(alice: Researcher) -> None:
    options = "#SBATCH -N3 --ntasks-per-node=2 --cpus-per-task=2 --mem=900 --gres=gpu:2 --exclusive"
    body = f"""srun --cpus-per-task=2 --mem=900 --gres=gpu:2 sh -c 'echo gpus $CUDA_VISIBLE_DEVICES; {FETCH}' &
wait
srun -n12 --ntasks-per-node=4 --cpus-per-task=1 --mem=900 echo core
"""
    result = alice.job(body, options)
    assert (result.state, result.exit_code) == ("COMPLETED", 0), result.output
    assert result.output.count(OUTER1) == 6
    assert result.output.count("core") == 12
    assert "error" not in result.output


def test_options_of_the_jobs_steps_do_not_reach_ours(alice: Researcher) -> None:
    body = """export SLURM_NTASKS=6 SLURM_CPU_BIND=verbose SLURM_LABELIO=1 SLURM_EXCLUSIVE=1 SLURM_STDOUTMODE=/dev/null
export SLURM_MEM_PER_CPU=100 SLURM_TASK_PROLOG=/bin/false SLURM_KILL_BAD_EXIT=1
. ~/.hpcproxy/prologue.sh
unset ${!SLURM_*}
curl -sS https://internet.test/ip
"""
    result = alice.lab.wait_job(alice.lab.submit("#!/bin/bash\n#SBATCH -N3\n" + body))
    assert result.output == f"{OUTER1}\n", result.output


_OWN_PROXY = """export no_proxy=.mine.example all_proxy=socks5://127.0.0.1:1 https_proxy=%s
. ~/.hpcproxy/prologue.sh
echo "${no_proxy##*,} ${all_proxy-unset} $https_proxy ${http_proxy-unset}"
. ~/.hpcproxy/epilogue.sh 2>/dev/null
echo "$no_proxy $all_proxy $https_proxy ${http_proxy-unset}"
"""
_KEPT = "hpcproxy: the proxy that your environment names stays in force (replace_proxy: true changes that)"


@pytest.mark.parametrize(
    ("proxy", "replace", "kept"),
    [
        ("http://site:3128", False, True),
        ("http://site:3128", True, False),
        ("socks5://127.0.0.1:2015", False, False),  # the old recipe by hand
    ],
    ids=["site", "site, replaced", "by hand"],
)
def test_the_users_own_variables_are_merged_and_come_back(
    alice: Researcher, proxy: str, replace: bool, kept: bool
) -> None:
    alice.set(replace_proxy=replace)
    result = alice.lab.wait_job(alice.lab.submit(f"#!/bin/bash\n#SBATCH -N1\n{_OWN_PROXY % proxy}"))
    url = alice.url(result.job_id)
    during = f".mine.example socks5://127.0.0.1:1 {proxy} unset" if kept else f".mine.example unset {url} {url}"
    # Of an address that anybody of the node may hold nothing comes back.
    after = f".mine.example socks5://127.0.0.1:1 {'' if '127.0.0.1:2015' in proxy else proxy} unset"
    assert result.output.splitlines() == [*([_KEPT] if kept else []), during, after]


def test_no_proxy_names_the_jobs_nodes_and_their_addresses(alice: Researcher) -> None:
    entries = alice.job('echo "$no_proxy"\n').output.strip().split(",")
    for entry in ("c1", "c2", "c3", "192.168.31.101", "192.168.31.102", "192.168.31.103", "localhost", "10.0.0.0/8"):
        assert entry in entries
    assert len(entries) == len(set(entries))
