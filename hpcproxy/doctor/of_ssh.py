"""Checks of ssh on this machine: the program, its configuration, key, ssh-agent. Starts OpenSSH's programs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from hpcproxy import floors, heard, process
from hpcproxy.account import job_status
from hpcproxy.doctor import machine
from hpcproxy.doctor.finding import Check, Finding, bad, good
from hpcproxy.doctor.patient import Patient
from hpcproxy.errors import HpcproxyError, TunnelError
from hpcproxy.openssh import hops, reasons
from hpcproxy.openssh.configuration import Resolved

_SSH = "ssh"
_ASK_S = 10
_SITES = "your site's own tunnel is up, by an account and a key of its own or yours"
_TIME = "%Y-%m-%dT%H:%M:%S"
_MAKE = "ssh-keygen -t ed25519 -N '' -f ~/.ssh/id_hpcproxy"
_NO_AGENT, _EMPTY = 2, 1  # exit codes of ssh-add -l (ssh-add(1))


def _program(patient: Patient) -> Finding:
    try:
        said = process.run(("ssh", "-V"), timeout_s=_ASK_S, environ=patient.account.environ)
    except OSError as error:
        return bad(
            f"ssh cannot be run: {error.strerror}", "install OpenSSH's client (openssh-client), or have it on PATH"
        )
    except subprocess.TimeoutExpired:
        return bad(f"ssh -V has not answered for {_ASK_S} s", "type -a ssh: is it a wrapper?")
    line = heard.last_line(said.stderr or said.stdout)
    if floors.OPENSSH.too_old(line):
        return bad(floors.OPENSSH.too_old(line), "ask your site for a newer OpenSSH")
    if not line.startswith("OpenSSH"):
        return bad(f"ssh is none of OpenSSH's: {line}", "have OpenSSH's ssh first on PATH")
    return good(line.partition(",")[0])


def _resolved(patient: Patient) -> Iterator[Resolved]:
    """Yield what ssh makes of each jump host; raises what keeps it from that."""
    for answer in patient.resolved().values():
        if isinstance(answer, HpcproxyError):
            raise answer
        yield answer


def _configuration(patient: Patient) -> Finding:
    found = []
    if patient.spared():
        return good(patient.spared())
    if not patient.config().jump:
        return good(_SITES)
    for one in _resolved(patient):
        way = "".join(f"{hop.jump} ► " for hop in hops.of(one))
        found.append(f"{way}{one.user}@{one.hostname}:{one.port}" + (" by a ProxyCommand" if one.proxy_command else ""))
    return good(f"ssh reads it; it leads to {', '.join(found)}")


@dataclass(frozen=True)
class _Key:
    """A private key that ssh would offer; `fault` is why it is no use in a job."""

    path: Path
    fault: str


def _keys(patient: Patient) -> list[_Key]:
    """Return the key files that are there, each tried with ssh-keygen, which reads a key as ssh does."""
    named = patient.config().identity
    paths = [named] if named else [path for one in _resolved(patient) for path in one.identity_files]
    return [_Key(path, _fault(path)) for path in dict.fromkeys(paths) if path.exists() or path == named]


def _fault(path: Path) -> str:
    done = process.run(("ssh-keygen", "-y", "-P", "", "-f", str(path)), timeout_s=_ASK_S)
    lines = done.stderr.decode(errors="replace").splitlines()
    if done.returncode == 0:
        touched = done.stdout.startswith(b"sk-")
        return f"{path} is a security key's, which nobody can touch inside a job" if touched else ""
    known = reasons.meaning(lines)
    if known is not None:
        return str(known)
    if any("incorrect passphrase" in line for line in lines):
        return f"{path} has a passphrase, which nobody can type inside a job"
    return f"{path}: {heard.last_line(done.stderr) or 'ssh-keygen cannot read it'}"


def _key(patient: Patient) -> Finding:
    if patient.spared():
        return good(patient.spared())
    if not patient.config().jump_hosts:
        return good(_SITES)
    keys = _keys(patient)
    up = [tunnel for tunnel in patient.tunnel() if tunnel.ready]
    if up and all(key.fault for key in keys):
        return good(f"not by a file that ssh-keygen can read here, yet the tunnel to {up[-1].jump} is up")
    if not keys:
        return bad("there is no private key where ssh looks for one", f"{_MAKE} and: hpcproxy init --identity")
    usable = [key for key in keys if not key.fault]
    if usable and (usable[0] is keys[0] or patient.config().identity is None):
        return good(f"{usable[0].path}, without a passphrase")
    fault = keys[0].fault
    _, run, command = fault.partition("; run: ")
    return bad(fault, command if run else f"{_MAKE} and: hpcproxy init --identity ~/.ssh/id_hpcproxy")


def _agent(patient: Patient) -> Finding:
    environ = patient.account.environ
    if "SSH_AUTH_SOCK" not in environ:
        return good("none here, and no job has one")
    try:
        code = process.run(("ssh-add", "-l"), timeout_s=_ASK_S, environ=environ).returncode
    except subprocess.TimeoutExpired:
        words = (
            f"the ssh-agent at SSH_AUTH_SOCK takes connections and stays silent for {_ASK_S} s, and so does every ssh"
            " here"
        )
        return bad(words, "unset SSH_AUTH_SOCK")
    except OSError as error:
        raise TunnelError("ssh", f"ssh-add cannot be run: {error.strerror}") from None
    if code == _NO_AGENT:
        return good("SSH_AUTH_SOCK leads to none that answers; no job needs one")
    return good("it answers, without a key" if code == _EMPTY else "it has keys, which no job has")


def _certificate(patient: Patient) -> Finding:
    limit, whose = _limit(patient)
    seen = []
    for one in _resolved(patient):
        named = patient.config().identity
        beside = [Path(f"{path}-cert.pub") for path in ([named] if named else one.identity_files)]
        paths = [path for path in dict.fromkeys((*one.certificate_files, *beside)) if path.exists()]
        for certificate in machine.certificates(one.user, paths, patient.account.environ) if paths else ():
            seen.append(certificate.path)
            if certificate.fault:
                return bad(certificate.fault, "get a new certificate, as your site has it")
            if certificate.end and certificate.end < limit:
                words = f"{certificate.path} ends at {certificate.end}, {whose}: a tunnel that breaks then stays away"
                return bad(words, "get a longer certificate, or a key without one")
    return good(f"{seen[0]} lasts" if seen else "none, and none is needed for a plain key")


def _limit(patient: Patient) -> tuple[str, str]:
    """Return until when a certificate has to last, as certificate.sh spells it, and what that is."""
    environ = patient.account.environ
    own = environ.get("SLURM_JOB_END_TIME", "")
    if patient.job:
        return job_status.end_of(patient.job, environ), f"before the time limit of job {patient.job}"
    if own.isascii() and own.isdecimal():
        return datetime.fromtimestamp(int(own)).strftime(_TIME), "before the time limit of this job"  # noqa: DTZ006
    soon = datetime.now() + timedelta(days=14)  # noqa: DTZ005 - local time, as ssh-keygen and squeue have it
    return soon.strftime(_TIME), "within two weeks"


CHECKS: tuple[Check[Patient], ...] = (
    Check("ssh", _SSH, "Is OpenSSH's client there, and new enough?", "install OpenSSH's client", _program),
    Check(
        "ssh configuration",
        _SSH,
        "Can ssh read its configuration, and where does the jump host's name lead?",
        "mend that line of ~/.ssh/config; plain ssh fails in the same way",
        _configuration,
        ("ssh", "jump host"),
    ),
    Check(
        "ssh-agent",
        _SSH,
        "Does the ssh-agent, if there is one, answer? One that hangs makes every ssh hang.",
        "unset SSH_AUTH_SOCK",
        _agent,
        ("ssh",),
    ),
    Check(
        "key",
        _SSH,
        "Is there a private key that ssh can read, with no passphrase and for nobody else to read?",
        _MAKE,
        _key,
        ("ssh configuration",),
    ),
    Check(
        "certificate",
        _SSH,
        "If there is a certificate: is it in force, for this account, and does it outlast the job (or two weeks)?",
        "get a longer certificate",
        _certificate,
        ("ssh configuration",),
    ),
)
