"""Checks of one job: the tunnels of its nodes, and what its programs reach without one. Starts a step of the job."""

from __future__ import annotations

import urllib.request

from hpcproxy.account.tunnels import Tunnel
from hpcproxy.doctor import machine
from hpcproxy.doctor.finding import Check, Finding, bad, good, untried
from hpcproxy.doctor.patient import Patient

_JOB = "job"
_SHOWN = 4  # names of nodes in one sentence


def _nodes_reached(patient: Patient) -> Finding:
    environ = patient.account.environ
    if not environ.get("SLURM_JOB_ID"):
        return untried("this is no shell of a job")
    direct = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if not environ.get("HPCPROXY_URL"):
        return untried("this shell uses no tunnel")
    proxies = {"no": direct}
    past = [
        node
        for node in machine.nodes(environ)
        if not urllib.request.proxy_bypass_environment(node, proxies)  # type: ignore[attr-defined]
    ]
    if past:
        words = f"no_proxy lacks {_some(past)}, so programs ask the jump host for nodes of this very job"
        return bad(words, f'export no_proxy="$no_proxy,{",".join(past)}" NO_PROXY="$no_proxy,{",".join(past)}"')
    return good("this job's nodes reach each other without the tunnel")


def _answers(patient: Patient) -> Finding:
    found = patient.ways_of_job()
    return good(f"{len(found)} of its nodes answered")


def _all_up(patient: Patient) -> Finding:
    found = patient.ways_of_job()
    without = [one for one in found if isinstance(one, str)]
    if without:
        return bad(f"there is no tunnel on {_some(without)}", "hpcproxy wrap --check JOB.sh, and the job's own output")
    down = [one for one in found if isinstance(one, Tunnel) and not one.ready]
    if down:
        words = f"the tunnel is down on {_some([one.node for one in down])}: {down[0].last_error or 'not up yet'}"
        return bad(words, f"hpcproxy doctor --job {patient.job}, in a minute")
    jumps = sorted({one.jump or "-" for one in found if isinstance(one, Tunnel)})
    return good(f"up on all {len(found)}, through {', '.join(jumps)}")


def _agents(patient: Patient) -> Finding:
    found = [one for one in patient.ways_of_job() if isinstance(one, Tunnel)]
    bare = [one.node for one in found if not one.url.startswith("http://")]
    if bare and patient.config().agent:
        words = (
            f"ssh itself listens on {_some(bare)}, for want of python3 on a node of the job: any user can use its port"
        )
        return bad(words, "ask your site for python3 on all nodes")
    ports = sorted({one.url for one in found})
    return good(f"at {', '.join(ports)} on each node")


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


HERE: tuple[Check[Patient], ...] = (
    Check(
        "nodes of this job",
        _JOB,
        "In a job: do its nodes reach each other without the tunnel (`no_proxy`)?",
        'export no_proxy="$no_proxy,NODE"',
        _nodes_reached,
    ),
)
NAMED: tuple[Check[Patient], ...] = (
    Check("job", _JOB, "With `--job`: does Slurm know the job, and do its nodes answer?", "squeue --me", _answers),
    Check(
        "tunnels of the job",
        _JOB,
        "With `--job`: is the tunnel up on all of its nodes?",
        "hpcproxy wrap --check JOB.sh",
        _all_up,
        ("job",),
    ),
    Check(
        "agents of the job",
        _JOB,
        "With `--job`: does the agent listen on all of its nodes?",
        "ask your site for python3 on all nodes",
        _agents,
        ("tunnels of the job", "settings"),
    ),
)
