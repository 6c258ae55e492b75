"""Why a host gave no answer: each error is a row of the one table, with the sentence that an admin reads."""

from __future__ import annotations

import socket

import paramiko
import pytest

from hpcproxy.cluster.openssh_session import SshError
from hpcproxy.cluster.trouble import explain
from hpcproxy.errors import HpcproxyError, Reason, TunnelError
from hpcproxy.openssh import reasons

ROWS = [
    ("Permission denied (publickey).", "adm", "key", "refuses the login of adm"),
    (
        "root@c1: Permission denied (publickey).",
        "root",
        "key",
        "refuses the login of root; where root may not log in, say user: and become: sudo",
    ),
    (
        "Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures",
        "root",
        "key",
        "refuses the login of root: it was offered more keys than it takes; name one with identity:",
    ),
    (
        "Host key verification failed.",
        "adm",
        "host-key",
        "its host key is not known, or is not the known one; hpcproxy trust shows it",
    ),
    ("ssh: Could not resolve hostname c1: Name", "adm", "name", "its name does not resolve here"),
    ("ssh: connect to host c1 port 22: Connection refused", "adm", "route", "nothing listens at its ssh port"),
    ("ssh: connect to host c1 port 22: Connection timed out", "adm", "route", "does not answer"),
    ("100%u of it", "adm", "ssh", "ssh failed: 100%u of it"),
]


@pytest.mark.parametrize(("line", "user", "layer", "said"), ROWS)
def test_the_last_line_of_ssh(line: str, user: str, layer: str, said: str) -> None:
    why = explain(SshError(line), user, 30)
    assert (why.layer, str(why)) == (layer, said)


ERRORS: list[tuple[Exception, Reason]] = [
    (socket.gaierror(), reasons.NO_NAME),
    (ConnectionRefusedError(), reasons.NOBODY),
    (TimeoutError(), Reason("route", "does not answer within 30 s")),
    (OSError(113, "No route to host"), Reason("route", "cannot be reached: No route to host")),
    (EOFError(), Reason("ssh", "hung up")),
    (paramiko.AuthenticationException(), Reason("key", "refuses the login of adm", permanent=True)),
    (paramiko.SSHException("Server 'c1' not found in known_hosts"), reasons.NO_KEY_KEPT),
    (paramiko.SSHException("Error reading SSH protocol banner"),
     Reason("route", "accepts connections and stays silent for 30 s")),
    (paramiko.SSHException(""), Reason("ssh", "ssh failed: it hung up")),
    (TunnelError("name", "not there", "look", "c1"), Reason("name", "name: c1: not there; look")),
    (HpcproxyError("sudo says\nno"), Reason("host", "sudo says?no")),
    (ValueError("odd"), Reason("host", "what came cannot be understood, ValueError: odd")),
]  # fmt: skip


@pytest.mark.parametrize(("error", "why"), ERRORS, ids=lambda value: type(value).__name__)
def test_what_a_library_raises(error: Exception, why: Reason) -> None:
    assert explain(error, "adm", 30) == why


def test_a_key_that_has_changed_is_no_key_that_is_only_unknown() -> None:
    key = paramiko.RSAKey.generate(1024)
    assert explain(paramiko.BadHostKeyException("c1", key, key), "adm", 30) == reasons.ANOTHER_KEY
    assert reasons.ANOTHER_KEY != reasons.NO_KEY_KEPT
    assert str(reasons.ANOTHER_KEY).endswith("known_hosts; look into it, then: hpcproxy trust --replace-key")
    assert str(reasons.NO_KEY_KEPT) == "its host key is not known; look at it with: hpcproxy trust"


def test_a_reason_is_one_sentence_where_it_has_no_advice() -> None:
    assert str(Reason("route", "it is away")) == "it is away"
    error = TunnelError.of(Reason("key", "it refused the key", "ask", permanent=True), "u@h")
    assert (str(error), error.why.permanent) == ("key: u@h: it refused the key; ask", True)
