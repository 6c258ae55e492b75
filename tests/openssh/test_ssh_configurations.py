# ruff: noqa: E501, SIM905 - configurations are easier to read in one line
"""What plain ssh can do with a configuration `init` can do; what ssh cannot take is named in ssh's own words.

Each configuration is of a kind that people have; the comment says where it is known from.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from hpcproxy.account import verbs
from hpcproxy.account.account import Account
from hpcproxy.account.verbs import InitReport, Trial
from hpcproxy.openssh import configuration
from tests import ssh_at_hand
from tests.keys import accept
from tests.sshd import USER, Sshd

Write = Callable[[Any], Path]

# <port>, <user> and the like stand for this test's own; the name that is asked for is always `gate`.
_GATE = "Host gate\n HostName 127.0.0.1\n Port <port>\n User <user>\n IdentityFile <key>\n"
_GOOD = {
    # fabric/fabric#2339
    "comments behind values": "Host gate # ours\n HostName 127.0.0.1 # here\n Port <port> # odd\n User <user> # me\n IdentityFile <key> # k\n",
    # paramiko/paramiko#1609
    "include": "Include <dir>/included.conf\nHost *\n ServerAliveInterval 60\n",
    # paramiko/paramiko#2361
    "match final all": _GATE + "Match final all\n Compression no\nMatch canonical Host *\n ControlMaster auto\n",
    "match originalhost and exec": 'Match originalhost gate exec "test -d <dir>"\n HostName 127.0.0.1\n Port <port>\n User <user>\n'
    " IdentityFile <key>\n",
    "match host of the resolved name": "Host gate\n HostName 127.0.0.1\nMatch host 127.0.0.*,!10.*\n Port <port>\n User <user>\n IdentityFile <key>\n",
    "match localuser": f"Match localuser <user>\n User <user>\n{_GATE}",
    # lablup/bssh#279
    "alias of the key": _GATE + " HostKeyAlias gw.hpc.example\n",
    "one alias for a farm of gateways": _GATE + " HostKeyAlias gw*.example\n",
    # paramiko/paramiko#2551
    "a shell in ProxyCommand": _GATE
    + " ProxyCommand bash -c 'exec 3<>/dev/tcp/%h/%p; cat <&3 & cat >&3; kill $!' 2>/dev/null\n",
    "a variable in ProxyCommand": _GATE + " ProxyCommand $HOME/px %h %p\n",
    "ProxyCommand with quotes and tokens": _GATE + ' ProxyCommand sh -c \'exec "$0" "$@"\' "$HOME/px" %h %p\n',
    # paramiko/paramiko#1588: none takes back what a pattern gave
    "ProxyCommand none": f"Host gate\n ProxyCommand none\n{_GATE}Host *\n ProxyCommand false\n",
    "ProxyJump none": f"Host gate\n ProxyJump none\n{_GATE}Host *\n ProxyJump nowhere.invalid\n",
    "equals signs and quotes": 'Host=gate\n HostName="127.0.0.1"\n Port=<port>\n User = <user>\n IdentityFile="<key>"\n',
    "CRLF and tabs": _GATE.replace("\n", "\r\n").replace(" ", "\t"),
    "upper case": "HOST gate\n HOSTNAME 127.0.0.1\n PORT <port>\n USER <user>\n IDENTITYFILE <key>\n",
    "only one kind of key": _GATE + " HostKeyAlgorithms ssh-ed25519\n",
    "kinds taken away": _GATE + " HostKeyAlgorithms -ssh-rsa,ecdsa*\n",
    "algorithms": _GATE
    + " KexAlgorithms curve25519-sha256\n Ciphers aes256-ctr\n MACs hmac-sha2-256-etm@openssh.com\n",
    "tokens": "Host gate\n HostName 127.0.0.1\n Port <port>\n User <user>\n IdentityFile <dir>/key_%n_%r_%p\n",
    "CanonicalizeHostname": f"CanonicalizeHostname yes\nCanonicalDomains nosuch.invalid\nCanonicalizeFallbackLocal yes\n{_GATE}",
    "AddressFamily": _GATE + " AddressFamily inet\n BindAddress 127.0.0.1\n",
    # everything that changes what a connection looks like to its user
    "everything else": _GATE
    + " RemoteCommand tmux new -A -s main\n RequestTTY force\n PermitLocalCommand yes\n LocalCommand touch <dir>/ran\n"
    " VisualHostKey yes\n ForwardX11 yes\n ForwardAgent yes\n SendEnv LANG\n SetEnv A=b\n AddKeysToAgent yes\n LogLevel QUIET\n"
    " CheckHostIP yes\n HashKnownHosts yes\n StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n EscapeChar none\n"
    " BatchMode no\n NumberOfPasswordPrompts 5\n UpdateHostKeys yes\n ExitOnForwardFailure no\n ConnectTimeout 1\n"
    " IgnoreUnknown UseKeychain,Foo\n UseKeychain yes\n LocalForward 1 localhost:1\n RemoteForward 1 localhost:1\n",
    # the site's own way to know keys must not make one known here
    "NoHostAuthenticationForLocalhost": _GATE + " NoHostAuthenticationForLocalhost yes\n VerifyHostKeyDNS yes\n",
    "KnownHostsCommand": _GATE + " KnownHostsCommand /bin/echo %H <hostkey>\n",
    "no public keys": _GATE + " PubkeyAuthentication no\n GSSAPIAuthentication yes\n",
    # openssh/openssh-portable#231
    "a tunnel of the user's": _GATE
    + " DynamicForward 2015\n SessionType none\n StdinNull yes\n ForkAfterAuthentication yes\n",
    "a master of the user's": _GATE + " ControlMaster auto\n ControlPath <dir>/%C\n ControlPersist 1\n",
    # paramiko/paramiko#2522, #2615
    "match with an equals sign": "Match host=gat*\n HostName 127.0.0.1\n Port <port>\n User <user>\n IdentityFile <key>\n",
    # paramiko/paramiko#1297: another's user in a Match that is not for this host, options without indentation behind it
    "match of another host and user": f"Match Host 10.0.*.* User ec2-user\n User nobody\n{_GATE}Host *\n IdentityFile <dir>/none\nVisualHostKey yes\n",
    # alebeck/boring#20: Fedora's system-wide file, and its crypto policy behind it
    "crypto policy behind match final": "Include <dir>/50-redhat.conf\n" + _GATE,
    # jumpserver/jumpserver#10782: an old name of an option, an include of what is not there, a user with @
    "old names and a missing include": "Host *\n HostkeyAlgorithms +ssh-rsa\n PubkeyAcceptedKeyTypes +ssh-rsa\n\nInclude <dir>/orbstack/ssh/*\n\n"
    + _GATE.replace("User <user>", "User u@asset@10.0.0.1")
    + " PreferredAuthentications publickey\n",
    # paramiko/paramiko#1544: the line of Amazon's manual
    "ProxyCommand with quotes within quotes": "host gate mi-*\n    ProxyCommand sh -c \"$HOME/px %h %p 'portNumber=%p'\"\n"
    + _GATE,
    "bytes that are no UTF-8": b"# Schl\xfcssel\n" + _GATE.encode() + b" LocalCommand echo \xff\n",
}


# What is wrong, the configuration, what is said of it.
_NAMED = {
    "an alias that is two": (_GATE + " HostKeyAlias gw1,gw2\n", "host-key: gate: by the name 'gw1,gw2' (HostKeyAlias)"),
    "an alias with a blank": (_GATE + ' HostKeyAlias "gw 1"\n', "host-key: gate: by the name 'gw 1' (HostKeyAlias)"),
    "an alias like a comment": (_GATE + ' HostKeyAlias "#1"\n', "host-key: gate: by the name '#1' (HostKeyAlias)"),
    "a list of revoked keys that is gone": (
        _GATE + " RevokedHostKeys <dir>/gone\n",
        "config: gate: ssh cannot read the list of revoked keys <dir>/gone (No such file or directory)",
    ),
    "a variable that is not set": (
        _GATE.replace("<key>", "${NOBODY_HAS_SET}/id"),
        "config: gate: the configuration of ssh names the variable ${NOBODY_HAS_SET}, which is not set here",
    ),
    "a ProxyCommand without a word": (
        _GATE + " ProxyCommand sleep 1000\n",
        "gate: nothing comes through its ProxyCommand within 1 s; see ~/.ssh/config",
    ),
}

# What is wrong, the configuration, ssh's own words about it.
_BAD = {
    "an option of a newer ssh": ("Host gate\n ObscureThing yes\n", "line 2: Bad configuration option: obscurething"),
    "Host without a name": ("User x\nHost\n", "line 2"),
    "Match with an unknown word": ("Match planet earth\n", "line 1"),
    "a port that is none": (_GATE.replace("<port>", "22nd"), "line 3"),
    "a value that is missing": ("Host gate\n HostName\n", "line 2"),
    "a quote that is open": ('Host gate\n HostName "127.0.0.1\n', "line 2"),
    "bytes": (b"\x01\xff\xfe bad\n", "line 1"),
    # paramiko/paramiko#2632: a word of OpenSSH 9.4 where ssh is older, or an address that is none where it is not
    "a Match of a newer ssh": ("Match localnetwork 9.8.7.6/x\n ProxyJump nowhere.invalid\n", "line 1"),
    "an include of itself": ("Include <dir>/loop.conf\n", "include"),
}


def _filled(text: str | bytes, server: Sshd, directory: Path) -> bytes:
    values = {
        "<hostkey>": server.host_key,
        "<port>": str(server.port),
        "<user>": USER,
        "<key>": str(server.identity),
        "<dir>": str(directory),
    }
    data = text.encode() if isinstance(text, str) else text
    for name, value in values.items():
        data = data.replace(name.encode(), value.encode())
    return data


def _init(account: Account) -> InitReport:
    return verbs.init(
        account, verbs.settings_of(account, {"jump": ["gate"]}), Trial(login=False), consent=accept, say=lambda _: None
    )


def _write(ssh_config: Write, text: str | bytes, server: Sshd, home: Path, directory: Path) -> None:
    ssh_config(_filled(text, server, directory))
    (directory / "included.conf").write_bytes(_filled(_GATE, server, directory))
    (directory / "50-redhat.conf").write_text(
        f"Match final all\n Include {directory}/policy.config\n GSSAPIAuthentication yes\n"
    )
    (directory / "policy.config").write_text(
        "Ciphers aes256-gcm@openssh.com,aes256-ctr\nRequiredRSASize 2048\nGSSAPIKexAlgorithms gss-nistp256-sha256-\n"
    )
    (directory / "loop.conf").write_text(f"Include {directory}/loop.conf\n")
    (directory / f"key_gate_{USER}_{server.port}").write_bytes(server.identity.read_bytes())
    program = home / "px"
    program.write_text("#!/bin/bash\nexec 3<>/dev/tcp/$1/$2; cat <&3 & cat >&3; kill $!\n")
    program.chmod(0o755)


def _ssh_takes_it(account: Account) -> str:
    """What ssh itself says of the list that `init` made; it goes no further than the host's key."""
    lists = ["-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={account.home.known_hosts}"]
    lists += ["-o", "GlobalKnownHostsFile=/dev/null", "-o", "LogLevel=DEBUG1", "-o", "BatchMode=yes"]
    lists += ["-o", "NoHostAuthenticationForLocalhost=no", "-o", "ControlPath=none"]
    lists += ["-o", "KnownHostsCommand=none"] * ssh_at_hand.knows("KnownHostsCommand")
    argv = ["ssh", *lists, "-o", "PubkeyAuthentication=no", "-W", "127.0.0.1:1", "gate"]
    return configuration.run(argv, 60).stderr.decode(errors="replace")


# What an older ssh does not take.
_NEWER = {
    "comments behind values": "a comment behind a value",
    "KnownHostsCommand": "KnownHostsCommand",
    "a tunnel of the user's": "SessionType",
    "crypto policy behind match final": "RequiredRSASize",
    "Host without a name": "an error for a Host without a name",
}


@pytest.mark.parametrize("kind", _GOOD)
def test_what_is_pinned_is_what_ssh_looks_up(
    ssh_config: Write, account: Account, jump_host: Sshd, home: Path, tmp_path: Path, kind: str
) -> None:
    if kind in _NEWER:
        ssh_at_hand.needs(_NEWER[kind])
    _write(ssh_config, _GOOD[kind], jump_host, home, tmp_path)
    report = _init(account)
    assert [one.error for one in report.keys] == [None]
    assert jump_host.host_key in account.home.known_hosts.read_text()
    said = _ssh_takes_it(account)
    assert "SSH2_MSG_SERVICE_ACCEPT received" in said, said
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", _BAD)
def test_what_ssh_cannot_take_is_said_in_its_words(
    ssh_config: Write, account: Account, jump_host: Sshd, home: Path, tmp_path: Path, kind: str
) -> None:
    if kind in _NEWER:
        ssh_at_hand.needs(_NEWER[kind])
    text, words = _BAD[kind]
    _write(ssh_config, text, jump_host, home, tmp_path)
    (shown,) = _init(account).keys
    assert shown.error is not None
    assert words in str(shown.error).lower() or words in str(shown.error)
    assert str(shown.error).startswith("ssh: gate: ")
    assert str(shown.error).isprintable()


@pytest.mark.parametrize("kind", _NAMED)
def test_what_no_ssh_of_the_users_could_use_is_named_and_nothing_is_pinned(
    ssh_config: Write, account: Account, jump_host: Sshd, home: Path, tmp_path: Path, kind: str
) -> None:
    text, words = _NAMED[kind]
    _write(ssh_config, text, jump_host, home, tmp_path)
    settings = verbs.settings_of(account, {"jump": ["gate"], "connect_timeout_s": 1})
    (shown,) = verbs.init(account, settings, Trial(login=False), consent=accept, say=lambda _: None).keys
    assert words.replace("<dir>", str(tmp_path)) in str(shown.error)
    assert not account.home.known_hosts.exists()


# ------------------------------------------------------------------------------------------------ generated

_WORDS = st.sampled_from(
    'yes no none ask gate * !x 127.0.0.1 <port> 0 -1 %h %% %x ${HOME} ~ "a|b" \' " # caf\xe9 \x7f all final host exec true '
    "sh|-c|: user@host [::1]:22 1-2 =".split()
).map(lambda word: word.replace("|", " "))
_KEYWORDS = st.sampled_from(
    "Host Match HostName User HostKeyAlias ProxyJump ProxyCommand UserKnownHostsFile Include IdentityFile HostKeyAlgorithms "
    "CanonicalizeHostname AddressFamily CheckHostIP LogLevel # Bogus".split()
)
_LINES = st.lists(
    st.tuples(_KEYWORDS, st.lists(_WORDS, max_size=3)).map(lambda line: f"{line[0]} {' '.join(line[1])}"), max_size=4
)


@hypothesis.settings(
    max_examples=15,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)
@hypothesis.given(before=_LINES, after=_LINES)
def test_whatever_stands_there_init_does_as_ssh_does_or_says_why(
    ssh_config: Write, account: Account, jump_host: Sshd, tmp_path: Path, before: list[str], after: list[str]
) -> None:
    text = "\n".join([*before, _GATE, *after, "Match all", " ConnectTimeout 1", ""])
    ssh_config(_filled(text.encode("latin-1"), jump_host, tmp_path))
    account.home.known_hosts.unlink(missing_ok=True)
    ours = [
        "-o",
        f"UserKnownHostsFile={tmp_path / 'fresh'}",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "GlobalKnownHostsFile=/dev/null",
    ]
    (tmp_path / "fresh").unlink(missing_ok=True)
    (shown,) = _init(account).keys
    if shown.error is None:
        said = _ssh_takes_it(account)
        assert "SSH2_MSG_SERVICE_ACCEPT received" in said, said
    else:
        assert str(shown.error).isprintable()
        argv = ["ssh", *ours, "-o", "BatchMode=yes", "-o", "PubkeyAuthentication=no", "-W", "127.0.0.1:1", "gate"]
        configuration.run(argv, 60)
        known = tmp_path / "fresh"
        assert not known.exists() or jump_host.host_key not in known.read_text(), "plain ssh gets there"
