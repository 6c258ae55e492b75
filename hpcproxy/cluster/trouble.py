"""Why a host gave no answer, in words that say what to do."""

from __future__ import annotations

import socket

import paramiko

from hpcproxy import heard
from hpcproxy.cluster import pool
from hpcproxy.cluster.openssh_session import SshError
from hpcproxy.errors import HpcproxyError

_UNKNOWN = "its host key is not known; look at it with: hpcproxy trust"
_NOBODY = "nothing listens at its ssh port"
# What stands in ssh's last line, and what it means; first match wins. `{user}` is who was to log in.
_SSH_WORDS = (
    (
        "Too many authentication failures",
        "refuses the login of {user}: it was offered more keys than it takes; name one with identity:",
    ),
    ("Permission denied (", "refuses the login of {user}"),
    ("Host key verification failed", "its host key is not known, or is not the known one; hpcproxy trust shows it"),
    ("Could not resolve hostname", "its name does not resolve here"),
    ("Connection refused", _NOBODY),
    ("timed out", "does not answer"),
)


def explain(error: Exception, user: str, timeout_s: float) -> str:  # noqa: C901, PLR0911 - one line for each thing
    """Return why there is no answer, in words that say what to do."""
    if isinstance(error, SshError):
        return _explain_last_line(str(error), user)
    if isinstance(error, HpcproxyError):
        return heard.line(str(error), 1000)
    if isinstance(error, paramiko.ssh_exception.NoValidConnectionsError):  # one error for each address of the name
        error = next(iter(error.errors.values()))
    if isinstance(error, socket.gaierror):
        return "its name does not resolve here"
    if isinstance(error, paramiko.BadHostKeyException):
        return "shows another host key than the one in known_hosts; look into it, then: hpcproxy trust --replace-key"
    if isinstance(error, paramiko.AuthenticationException):
        return _refused(user)
    if isinstance(error, (TimeoutError, socket.timeout)):
        return f"does not answer within {timeout_s:g} s"
    if isinstance(error, ConnectionRefusedError):
        return _NOBODY
    if isinstance(error, paramiko.SSHException):
        return _explain_ssh(str(error), timeout_s)
    if isinstance(error, OSError):
        return f"cannot be reached: {heard.line(error.strerror or str(error))}"
    if isinstance(error, EOFError):
        return "hung up"
    if pool.is_lacking(error):
        return pool.NO_THREAD
    return f"what came cannot be understood, {type(error).__name__}: {heard.line(str(error))}"


def is_refusal(error: paramiko.SSHException) -> bool:
    """Whether `error` came of what was offered, not of a host that is silent or speaks no ssh."""
    text = str(error)
    return not any(words in text for words in ("banner", "No existing session", "what came is none", "Timeout"))


def _refused(user: str) -> str:
    more = "; where root may not log in, say user: and become: sudo" if user == "root" else ""
    return f"refuses the login of {user}{more}"


def _explain_last_line(line: str, user: str) -> str:
    found = next((meaning for words, meaning in _SSH_WORDS if words in line), "ssh failed: {line}")
    return _refused(user) if found.endswith("login of {user}") else found.format(user=user, line=line)


def _explain_ssh(text: str, timeout_s: float) -> str:
    if "not found in known_hosts" in text:
        return _UNKNOWN
    if "banner" in text or "No existing session" in text:
        return f"accepts connections and stays silent for {timeout_s:g} s"
    return f"ssh failed: {heard.line(text) or 'it hung up'}"
