"""What Slurm's programs of other releases say and take, read in their own sources: a table, and programs made of it.

Words on the wire only (src/common/slurm_opt.c, proc_args.c, src/api/config_info.c, node_info.c, partition_info.c,
slurm_protocol_defs.c, slurm_errno.c, prep_script_slurmd.c, the cgroup plugins). Slurm 20.11, 22.05, 24.11 and 26.05
run in the lab as well (docs/reach.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_OPTIONS = (
    "ntasks-per-node cpus-per-task mem gres cpu-bind mpi kill-on-bad-exit wait quiet export job-name chdir nodelist"
    " nodes ntasks het-group jobid time immediate version"
)
_PROLOG = (
    "SLURM_JOB_ID SLURM_JOB_UID SLURM_JOB_GID SLURM_JOB_USER SLURM_UID SLURM_NODELIST SLURM_JOB_PARTITION"
    " SLURM_CLUSTER_NAME SLURMD_NODENAME SLURM_SCRIPT_CONTEXT"
)


@dataclass(frozen=True)
class Release:
    """One Slurm. `says` is its version as its programs print it; what else there is has a name each."""

    says: str
    options: str = f"{_OPTIONS} overlap exact whole"
    shares: bool = True  # a step with --overlap leaves others all that the job has, whatever it asks for
    prolog: str = f"{_PROLOG} SLURM_JOB_ACCOUNT SLURM_JOB_COMMENT SLURM_JOB_RESTART_COUNT SLURM_JOB_NUM_NODES"
    array: bool = False  # `scontrol show config` numbers Prologs and Epilogs
    flags: str = "Alloc"
    timeouts: Mapping[str, str] | None = None
    off: str = "IDLE+CLOUD+POWERED_DOWN"
    cgroup: str = "0::/system.slice/slurmstepd.scope/job_77/step_0/user/task_0"

    @property
    def number(self) -> tuple[int, int]:
        """Its version, as floors.version has it."""
        major, minor = self.says.rpartition(" ")[2].split(".")[:2]
        return int(major), int(minor)

    @property
    def config(self) -> str:
        """What `scontrol show config` prints of what we ask about, with a Prolog and an Epilog of the site's."""
        mark = "[0]" if self.array else ""
        lines = {
            f"Epilog{mark}": "/etc/slurm/epilog.d/*",
            "KillWait": "30 sec",
            "ProctrackType": "proctrack/cgroup",
            f"Prolog{mark}": "/etc/slurm/prolog.sh",
            **(self.timeouts or {"PrologEpilogTimeout": "65534"}),
            "PrologFlags": self.flags,
            "SLURM_CONF": "/etc/slurm/slurm.conf",
            "SLURM_VERSION": self.says.rpartition(" ")[2],
            "SlurmctldHost[0]": "ctl(10.0.0.1)",
            "SlurmctldParameters": "(null)",
            "TaskProlog": "(null)",
        }
        body = "".join(f"{name:<23} = {value}\n" for name, value in lines.items())
        return f"Configuration data as of 2026-11-30T12:00:00\n{body}\nSlurmctld(primary) at ctl is UP\n"

    @property
    def nodes(self) -> str:
        """What `scontrol --all show nodes --oneliner` prints of a node that is there and of one of a cloud."""
        version = self.says.rpartition(" ")[2]
        return (
            f"NodeName=c1 Arch=x86_64 CoresPerSocket=1 NodeAddr=10.0.0.11 NodeHostName=c1 Version={version} "
            "State=IDLE ThreadsPerCore=1 Partitions=p\n"
            f"NodeName=cloud1 CoresPerSocket=1 NodeAddr=cloud1 NodeHostName=cloud1 State={self.off} ThreadsPerCore=1\n"
        )


RELEASES: Mapping[str, Release] = {
    "20.11": Release(  # up to 20.11.2; the next ones have --exact, and are whole without it
        "slurm 20.11.2",
        options=f"{_OPTIONS} overlap whole",
        shares=False,
        prolog=_PROLOG,
        cgroup="6:freezer:/slurm/uid_2001/job_77/step_0",
    ),
    "21.08": Release(
        "slurm 21.08.8-2",
        shares=False,
        prolog=_PROLOG,
        cgroup="6:freezer:/slurm/uid_2001/job_77/step_0",
    ),
    "23.02": Release("slurm 23.02.7"),
    "23.11": Release("slurm 23.11.10", options=f"{_OPTIONS} overlap exact whole external-launcher"),
    "24.05": Release(
        "slurm 24.05.8",
        options=f"{_OPTIONS} overlap exact whole external-launcher",
        array=True,
        flags="Alloc,Contain,RunInJob",
    ),
    "25.05": Release(
        "slurm 25.05.8",
        options=f"{_OPTIONS} overlap exact whole external-launcher",
        array=True,
        timeouts={"EpilogTimeout": "65534", "PrologTimeout": "120"},
    ),
    "25.11": Release(
        "slurm 25.11.7",
        options=f"{_OPTIONS} overlap exact whole external-launcher",
        array=True,
        timeouts={"EpilogTimeout": "30", "PrologTimeout": "120"},
    ),
}
# Below the floor.
TOO_OLD = Release("slurm 20.02.7", options=_OPTIONS, shares=True, prolog=_PROLOG)

# The only node of job 9, here. What another step holds a job's own waits for, for ever; this one says so and ends.
# What a step holds is what it asks for where that is exact, and nothing if it overcommits that, too.
_SRUN = """#!/bin/bash
known=' {options} ' shares={shares} steps={directory}/steps
if [[ $* == --version ]]; then echo '{says}' && exit; fi
overlap=${{SLURM_OVERLAP-}} overcommit=${{SLURM_OVERCOMMIT-}} exact=${{SLURM_EXACT-}}
while [[ $1 == -* ]]; do
    name=${{1#--}} name=${{name%%=*}}
    if [[ $known != *" $name "* ]]; then
        printf "srun: unrecognized option '%s'\\nTry \\"srun --help\\" for more information\\n" "$1" >&2
        exit 1
    fi
    case $name in overlap | exact) printf -v "$name" 1 ;; esac
    shift
done
if [[ $known != *' exact '* ]]; then exact=1; fi
mkdir -p "$steps"
for step in "$steps"/*; do
    if [[ $shares || $overlap || ! -s $step ]] || ! kill -0 "${{step##*/}}" 2>/dev/null; then continue; fi
    echo 'srun: Job 9 step creation temporarily disabled, retrying (Requested nodes are busy)' >&2
    exit 75
done
if [[ $overcommit && $exact ]]; then : >"$steps/$$"; else echo cpus >"$steps/$$"; fi
export SLURMD_NODENAME=c1 SLURM_STEP_ID=0 SLURM_JOB_NODELIST=c1
exec "$@"
"""
_SCONTROL = """#!/bin/bash
case "$*" in
    --version) echo '{says}' ;;
    'show config') cat {directory}/config ;;
    '--all show nodes --oneliner') cat {directory}/nodes ;;
    '--all show partitions --oneliner') echo 'PartitionName=p AllowGroups=ALL Nodes=c1,cloud1 State=UP' ;;
    'show hostnames '*) echo c1 && echo c2 ;;
    'show slurmd') printf 'Boot time                = x\\nLast slurmctld msg time  = 2037-01-01T00:00:00\\n' ;;
    reconfigure) ;;
    *) echo "invalid entity:$2 for keyword:$1" >&2 && exit 1 ;;
esac
"""
_SQUEUE = """#!/bin/bash
case "$*" in
    --version) echo '{says}' ;;
    '--noheader --jobs=9 --format=%A %T') echo '9 RUNNING' ;;
    '--noheader --jobs='*' --format=%A %T') echo 'slurm_load_jobs error: Invalid job id specified' >&2 && exit 1 ;;
    *) echo 'squeue: unrecognized option' >&2 && exit 1 ;;
esac
"""
_SCANCEL = """#!/bin/bash
[[ $1 == --quiet && $2 == --signal=URG && $3 == 9.0 ]] || {{ echo 'scancel: unrecognized option' >&2; exit 1; }}
read -r pid _ <"$TMPDIR"/hpcproxy-*/9.0-*/pid
kill -URG "$pid"
"""


def install(release: Release, directory: Path) -> None:
    """Put the programs of `release` into `directory`."""
    directory.mkdir(exist_ok=True)
    (directory / "config").write_text(release.config)
    (directory / "nodes").write_text(release.nodes)
    values = {
        "says": release.says,
        "options": release.options,
        "shares": "1" if release.shares else "''",
        "directory": directory,
    }
    for name, text in (("srun", _SRUN), ("scontrol", _SCONTROL), ("squeue", _SQUEUE), ("scancel", _SCANCEL)):
        (directory / name).write_text(text.format(**values))
        (directory / name).chmod(0o755)
