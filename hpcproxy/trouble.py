"""Why a host gave no answer, in words that say what to do."""

from __future__ import annotations

import socket

import paramiko

from hpcproxy import heard
from hpcproxy.errors import HpcproxyError


def explain(error: Exception, user: str, timeout_s: float) -> str:  # noqa: PLR0911 - one line for each thing that can be wrong
    """Return why there is no answer, in words that say what to do."""
    if isinstance(error, HpcproxyError):
        return str(error)
    if isinstance(error, paramiko.ssh_exception.NoValidConnectionsError):  # one error for each address of the name
        error = next(iter(error.errors.values()))
    if isinstance(error, socket.gaierror):
        return "its name does not resolve here"
    if isinstance(error, paramiko.BadHostKeyException):
        return "shows another host key than the one in known_hosts; look into it, then: hpcproxy trust --replace-key"
    if isinstance(error, paramiko.AuthenticationException):
        return f"refuses the login of {user}"
    if isinstance(error, (TimeoutError, socket.timeout)):
        return f"does not answer within {timeout_s:g} s"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens at its ssh port"
    if isinstance(error, paramiko.SSHException):
        return _explain_ssh(str(error), timeout_s)
    if isinstance(error, OSError):
        return f"cannot be reached: {heard.line(error.strerror or str(error))}"
    return "hung up"


def _explain_ssh(text: str, timeout_s: float) -> str:
    if "not found in known_hosts" in text:
        return "its host key is not known; look at it with: hpcproxy trust"
    if "banner" in text or "No existing session" in text:
        return f"accepts connections and stays silent for {timeout_s:g} s"
    return f"ssh failed: {heard.line(text) or 'it hung up'}"
