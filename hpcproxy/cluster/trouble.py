"""Why a host gave no answer: which row of the table of reasons an error is, whoever raised it."""

from __future__ import annotations

import socket

import paramiko

from hpcproxy import heard
from hpcproxy.cluster import pool
from hpcproxy.cluster.openssh_session import SshError
from hpcproxy.errors import HpcproxyError, Reason, TunnelError
from hpcproxy.openssh import reasons


def explain(error: Exception, user: str, timeout_s: float) -> Reason:  # noqa: C901, PLR0911 - one line for each thing
    """Return why there is no answer and what to do, in the words of the table (openssh/reasons.py) where it has any."""
    if isinstance(error, SshError):
        return reasons.of_host(str(error), user)
    if isinstance(error, HpcproxyError):
        layer = error.layer if isinstance(error, TunnelError) else "host"
        return Reason(layer, heard.line(str(error), 1000))
    if isinstance(error, paramiko.ssh_exception.NoValidConnectionsError):  # one error for each address of the name
        error = next(iter(error.errors.values()))
    if isinstance(error, socket.gaierror):
        return reasons.NO_NAME
    if isinstance(error, paramiko.BadHostKeyException):
        return reasons.ANOTHER_KEY
    if isinstance(error, paramiko.AuthenticationException):
        return reasons.refused(user)
    if isinstance(error, (TimeoutError, socket.timeout)):
        return Reason("route", f"does not answer within {timeout_s:g} s")
    if isinstance(error, ConnectionRefusedError):
        return reasons.NOBODY
    if isinstance(error, paramiko.SSHException):
        return _explain_ssh(str(error), timeout_s)
    if isinstance(error, OSError):
        return Reason("route", f"cannot be reached: {heard.line(error.strerror or str(error))}")
    if isinstance(error, EOFError):
        return Reason("ssh", "hung up")
    if pool.is_lacking(error):
        return Reason("client", pool.NO_THREAD)
    return Reason("host", f"what came cannot be understood, {type(error).__name__}: {heard.line(str(error))}")


def is_refusal(error: paramiko.SSHException) -> bool:
    """Whether `error` came of what was offered, not of a host that is silent or speaks no ssh."""
    text = str(error)
    return not any(words in text for words in ("banner", "No existing session", "what came is none", "Timeout"))


def _explain_ssh(text: str, timeout_s: float) -> Reason:
    if "not found in known_hosts" in text:
        return reasons.NO_KEY_KEPT
    if "banner" in text or "No existing session" in text:
        return Reason("route", f"accepts connections and stays silent for {timeout_s:g} s")
    return Reason("ssh", f"ssh failed: {heard.line(text) or 'it hung up'}")
