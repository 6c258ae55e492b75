"""Every option of ssh_config(5), with a verdict each: set by us, or left to the user, and why. Pure.

The names are those of OpenSSH 7.4 to 10.5 (the keywords of readconf.c). A test asks the ssh at hand for options that
nobody has judged. What an ssh does not know yet cannot be set in its configuration either: IGNORE_UNKNOWN, the first
option of all, makes it pass over the name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpcproxy.quoting import word

# Homes are shared by machines with older and newer ssh, so a word that this one does not know does not stop it either.
IGNORE_UNKNOWN = ("IgnoreUnknown", "*")


@dataclass(frozen=True)
class Option:
    """One option; `value` is what every ssh of ours gets, None where the user's or the site's counts."""

    name: str
    value: str | None
    reason: str


# A value in braces is one of the moment's (`words`).
SET: Sequence[Option] = (
    Option("BatchMode", "yes", "nobody is there to answer a question"),
    Option("RequestTTY", "no", "no terminal, here or there"),
    Option("RemoteCommand", "none", "nothing runs at the jump host"),
    Option("SessionType", "none", "no session: the same as -N"),
    Option("PermitLocalCommand", "no", "nothing of the configuration runs here when the login is done"),
    Option("ForkAfterAuthentication", "no", "one that forks would stay, logged in, when its supervisor ends it"),
    Option("ForwardAgent", "no", "the jump host gets no use of the user's keys"),
    Option("ForwardX11", "no", "the jump host gets no access to the user's screen"),
    Option("ForwardX11Trusted", "no", "nor to all of it"),
    Option("Tunnel", "no", "no network device"),
    Option("GatewayPorts", "no", "what listens here listens on loopback"),
    Option("ClearAllForwardings", "yes", "a forward of the user's wants a port that another ssh of his has already"),
    Option("ExitOnForwardFailure", "yes", "fail at once where a forward of ours cannot be had"),
    Option("StrictHostKeyChecking", "yes", "only a host whose key was pinned at init time"),
    Option("UserKnownHostsFile", '"{known_hosts}"', "the pinned keys"),
    Option("GlobalKnownHostsFile", "/dev/null", "the site's list is not asked"),
    Option("KnownHostsCommand", "none", "it would let pass what is not pinned"),
    Option("VerifyHostKeyDNS", "no", "whoever answers for DNS would say which key is right"),
    Option("NoHostAuthenticationForLocalhost", "no", "localhost may be a forward to anywhere"),
    Option("UpdateHostKeys", "no", "the pinned keys change at init only"),
    Option("CheckHostIP", "no", "they are looked up by name"),
    Option("VisualHostKey", "no", "a picture of the key is no reason"),
    Option("AddKeysToAgent", "no", "keys stay where they are"),
    Option("ConnectTimeout", "{connect_timeout_s}", "the bound of every attempt"),
    Option("ConnectionAttempts", "1", "the supervisor tries again, with its own patience"),
    Option("ServerAliveInterval", "{alive_interval_s}", "a dead peer is noticed"),
    # ssh gives up at the question after the last: the whole is alive_interval_s times alive_count.
    Option("ServerAliveCountMax", "{alive_questions}", "and when"),
    Option("TCPKeepAlive", "yes", "the kernel notices too"),
    Option("ChannelTimeout", "none", "a connection may be quiet for as long as its program likes"),
    Option("LogLevel", "VERBOSE", "the reasons are told at this level, and that the login is done"),
    Option("WarnWeakCrypto", "no", "a warning is no reason of a failure"),
    Option("ControlPersist", "no", "a master that is ours alone: it ends when its supervisor ends it"),
    Option("EscapeChar", "none", "there is nobody to type it"),
    Option("EnableEscapeCommandline", "no", "nor this"),
    Option("ObscureKeystrokeTiming", "no", "nobody types, and the chaff costs packets"),
    Option("StreamLocalBindUnlink", "no", "no file is removed for a forward"),
)

# What every ssh that ours starts for a host of ProxyJump gets, too: it has the configuration of that host, and none of
# our command line. A master or one that forks would stay behind; a host whose key nobody has confirmed is not logged
# in to. The control socket of a master that the user has already may be used.
HOP: Sequence[str] = (
    *("BatchMode", "RemoteCommand", "PermitLocalCommand", "ForkAfterAuthentication", "ControlPersist"),
    *("ForwardAgent", "ForwardX11", "Tunnel", "ClearAllForwardings", "AddKeysToAgent", "ConnectionAttempts"),
    *("StrictHostKeyChecking", "VerifyHostKeyDNS", "NoHostAuthenticationForLocalhost", "UpdateHostKeys"),
)

_ALGORITHMS = "which algorithms are good enough is the user's and the site's"
_OTHER_LOGINS = "what to log in with; some sites use it in place of keys"

LEFT: Sequence[Option] = tuple(
    Option(name, None, reason)
    for reason, names in (
        ("says where the jump host is", "Host HostName Port User AddressFamily BindAddress BindInterface"),
        ("says where the jump host is", "CanonicalDomains CanonicalizeFallbackLocal CanonicalizeHostname"),
        ("says where the jump host is", "CanonicalizeMaxDots CanonicalizePermittedCNAMEs"),
        ("structure of the file", "Match Include Tag"),
        ("the name of its key among the pinned ones, which init asks ssh for", "HostKeyAlias"),
        ("the way there", "ProxyCommand ProxyJump ProxyUseFdpass"),
        ("what to log in with", "IdentityFile IdentitiesOnly IdentityAgent CertificateFile PKCS11Provider"),
        ("what to log in with", "SecurityKeyProvider PubkeyAuthentication PreferredAuthentications"),
        (_OTHER_LOGINS, "GSSAPIAuthentication GSSAPIKeyExchange"),
        (_OTHER_LOGINS, "GSSAPITrustDns GSSAPIKexAlgorithms"),
        (_OTHER_LOGINS, "GSSAPIRenewalForcesRekey"),
        (_OTHER_LOGINS, "GSSAPIClientIdentity GSSAPIServerIdentity"),
        (_OTHER_LOGINS, "HostbasedAuthentication EnableSSHKeysign"),
        ("-k turns it off: as an option it is an error where ssh has no GSSAPI", "GSSAPIDelegateCredentials"),
        ("BatchMode leaves nobody to ask", "PasswordAuthentication KbdInteractiveAuthentication"),
        ("BatchMode leaves nobody to ask", "KbdInteractiveDevices NumberOfPasswordPrompts"),
        ("BatchMode leaves nobody to ask", "ChallengeResponseAuthentication"),
        (_ALGORITHMS, "Ciphers MACs KexAlgorithms"),
        (_ALGORITHMS, "HostKeyAlgorithms CASignatureAlgorithms"),
        (_ALGORITHMS, "PubkeyAcceptedAlgorithms RekeyLimit"),
        (_ALGORITHMS, "HostbasedAcceptedAlgorithms RequiredRSASize"),
        (f"{_ALGORITHMS}; their names before OpenSSH 8.5", "PubkeyAcceptedKeyTypes HostbasedKeyTypes"),
        ("makes the check of the host key stricter, never weaker", "RevokedHostKeys"),
        ("the site's way with its network", "Compression IPQoS VersionAddendum"),
        ("the user does not want to go there", "RefuseConnection"),
        ("set by us first of all", "IgnoreUnknown"),
        ("said on each command line, for each use another", "ControlMaster ControlPath"),
        ("said where ssh knows it (node/upstream/ssh_log.py)", "LogVerbose"),
        ("void: ClearAllForwardings", "LocalForward RemoteForward DynamicForward PermitRemoteOpen StreamLocalBindMask"),
        ("void: no local command, no session, no device", "LocalCommand SendEnv SetEnv TunnelDevice StdinNull"),
        ("void: no X11", "ForwardX11Timeout XAuthLocation"),
        ("void: nothing is written to a known_hosts, nothing to syslog", "HashKnownHosts SyslogFacility"),
        ("a matter of spelling", "FingerprintHash"),
    )
    for name in names.split()
)


def hop_words() -> list[str]:
    """Return the command line's words for an ssh that ours starts for a host of ProxyJump."""
    pairs = [IGNORE_UNKNOWN, ("ControlMaster", "no"), *((each.name, each.value) for each in SET if each.name in HOP)]
    return [word for name, value in pairs for word in ("-o", f"{name}={value}")]


def hop_program() -> str:
    """Return a program that is ssh with `hop_words`, as is each ssh that it starts; tunnel.sh writes its own."""
    return f'#!/bin/bash -p\nexec -a "$0" ssh {" ".join(str(word(each)) for each in hop_words())} "$@"\n'


def words(values: Mapping[str, object]) -> list[str]:
    """Return the command line's words for all that is set; `values` fill the braces."""
    pairs = [IGNORE_UNKNOWN, *((option.name, option.value) for option in SET)]
    found = [word for name, value in pairs for word in ("-o", f"{name}={(value or '').format(**values)}")]
    # Kerberos tickets are not for the jump host either.
    return [*found, "-k"]
