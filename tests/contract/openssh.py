"""What the ssh of releases that are not to be had here says, as their own sources have it (EL 7, 8 and 9).

Words on the wire only: how ssh calls itself, what its configuration knows (readconf.c), what it writes when it fails
(ssh.c, sshconnect.c, sshconnect2.c, kex.c, packet.c, authfile.c, channels.c, misc.c, clientloop.c).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Options of option_list.SET that came later than 7.4, and with which release.
_SINCE = {
    "RemoteCommand": (7, 6),
    "KnownHostsCommand": (8, 5),
    "LogVerbose": (8, 5),
    "ForkAfterAuthentication": (8, 7),
    "SessionType": (8, 7),
    "ChannelTimeout": (9, 2),
    "EnableEscapeCommandline": (9, 2),
    "ObscureKeystrokeTiming": (9, 5),
    "WarnWeakCrypto": (10, 1),
}


@dataclass(frozen=True)
class Release:
    """One ssh: what `-V` says, and by situation the lines of its log with the layer that they mean."""

    number: tuple[int, int]
    says: str
    logs: Mapping[str, tuple[str, str]]

    def knows(self, option: str) -> bool:
        """Whether its configuration has `option` (option_list names all that are ours)."""
        return self.number >= _SINCE.get(option, (0, 0))


_UP = "Authenticated to h ([192.0.2.1]:22)."
_SEEN = "debug1: kex.c:kex_exchange_identification():1 (pid=7): Local version string SSH-2.0-OpenSSH_8.7"
_SAME: Mapping[str, tuple[str, str]] = {
    "no such name": ("ssh: Could not resolve hostname h: Name or service not known", "name"),
    "nothing listens": ("ssh: connect to host h port 22: Connection refused", "route"),
    "no route": ("ssh: connect to host h port 22: No route to host", "route"),
    "no answer": ("ssh: connect to host h port 22: Connection timed out", "route"),
    "a key that nobody pinned": (
        "No ED25519 host key is known for h and you have requested strict checking.\nHost key verification failed.",
        "host-key",
    ),
    "another key": ("@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\nmore", "host-key"),
    "a revoked key": ("@       WARNING: REVOKED HOST KEY DETECTED!               @\nmore", "host-key"),
    "a list of revoked keys": ("Host key ED25519 SHA256:x revoked by file /etc/revoked", "host-key"),
    "nothing in common": (
        "Unable to negotiate with 192.0.2.1 port 22: no matching key exchange method found. Their offer: x",
        "ssh",
    ),
    "a key that others may read": ("Permissions 0644 for '/k' are too open.\nmore", "key"),
    "a key that is none": ('Load key "/k": invalid format', "key"),
    "too many keys": (
        "Received disconnect from 192.0.2.1 port 22:2: Too many authentication failures\nAuthentication failed.",
        "key",
    ),
    "forbidden": (f"{_UP}\nchannel 2: open failed: administratively prohibited: open failed", "forwarding"),
    "silence": (f"{_UP}\nTimeout, server h not responding.", "route"),
    "hung up when up": (f"{_UP}\nConnection closed by 192.0.2.1 port 22", "ssh"),
    "ended by it": (f"{_UP}\nReceived disconnect from 192.0.2.1 port 22:11: bye\nDisconnected", "ssh"),
    "others may write it": ("Bad owner or permissions on /home/u/.ssh/config", "config"),
    "an option that is none": (
        (
            "/home/u/.ssh/config: line 3: Bad configuration option: nonsense\n"
            "/home/u/.ssh/config: terminating, 1 bad configuration options"
        ),
        "config",
    ),
    "an option that it was built without": (
        (
            '/etc/ssh/ssh_config line 9: Unsupported option "gssapiauthentication"\n'
            "ssh: connect to host h port 22: Connection refused"
        ),
        "route",
    ),
}
_FROM_8_0: Mapping[str, tuple[str, str]] = {
    **_SAME,
    "hung up before the login": ("kex_exchange_identification: Connection closed by remote host", "busy"),
    "reset before the login": ("kex_exchange_identification: read: Connection reset by peer", "busy"),
    "hung up during the login": ("Connection closed by 192.0.2.1 port 22", "ssh"),
    "stays silent": ("Connection timed out during banner exchange", "route"),
    "a refused key": ("u@h: Permission denied (publickey,gssapi-with-mic).", "key"),
    "no keys taken": ("u@h: Permission denied (password,keyboard-interactive).", "key"),
    "a second factor": (
        "Authenticated with partial success.\nu@h: Permission denied (keyboard-interactive).",
        "key",
    ),
    "no such address here": ("bind 192.0.2.7: Cannot assign requested address", "config"),
    "no space": ("unix_listener: cannot bind to path ctl.x: No space left on device", "node"),
}

RELEASES: Mapping[str, Release] = {
    "7.4": Release(
        (7, 4),
        "OpenSSH_7.4p1, OpenSSL 1.0.2k-fips  26 Jan 2017",
        {
            **_SAME,
            "hung up before the login": ("ssh_exchange_identification: Connection closed by remote host", "busy"),
            "reset before the login": ("ssh_exchange_identification: read: Connection reset by peer", "busy"),
            "stays silent": ("Connection timed out during banner exchange", "route"),
            "hung up as it began": ("write: Broken pipe", "busy"),
            "hung up during the login": ("Authentication failed.", "ssh"),
            "no such address here": ("bind: 192.0.2.7: Cannot assign requested address", "config"),
            "a port that is taken": (
                (
                    f"{_UP}\nbind: Address already in use\n"
                    "channel_setup_fwd_listener_tcpip: cannot listen to port: 2015\n"
                    "slave-requested dynamic forward 127.64.0.1:2015 -> * failed"
                ),
                "port",
            ),
            # Nobody's name before it, which came with 7.6.
            "a refused key": ("Permission denied (publickey,gssapi-keyex,gssapi-with-mic).", "key"),
            "no keys taken": ("Permission denied (password,keyboard-interactive).", "key"),
            "a second factor": (
                "Authenticated with partial success.\nPermission denied (keyboard-interactive).",
                "key",
            ),
        },
    ),
    "8.0": Release((8, 0), "OpenSSH_8.0p1, OpenSSL 1.1.1k  FIPS 25 Mar 2021", _FROM_8_0),
    "8.7": Release(
        (8, 7),
        "OpenSSH_8.7p1, OpenSSL 3.0.7 1 Nov 2022",
        {
            **_FROM_8_0,
            "hung up before the login": (
                "kex_exchange_identification: Connection closed by remote host\nConnection closed by 192.0.2.1 port 22",
                "busy",
            ),
            "reset before the login": (
                "kex_exchange_identification: read: Connection reset by peer\nConnection reset by 192.0.2.1 port 22",
                "busy",
            ),
            "hung up before the login, as it tells more": (f"{_SEEN}\nConnection closed by 192.0.2.1 port 22", "busy"),
            "a hop that ends as it begins": (
                (
                    "debug1: kex.c:kex_exchange_identification():1 (pid=7): write: Broken pipe\n"
                    "banner exchange: Connection to UNKNOWN port 65535: Broken pipe"
                ),
                "hop",
            ),
            "stays silent": (
                "Connection timed out during banner exchange\nConnection to 192.0.2.1 port 22 timed out",
                "route",
            ),
            "a second factor": (
                'Authenticated using "publickey" with partial success.\nu@h: Permission denied (keyboard-interactive).',
                "key",
            ),
            "hung up when up": (
                'Authenticated to h ([192.0.2.1]:22) using "publickey".\nConnection closed by 192.0.2.1 port 22',
                "ssh",
            ),
            "how far it came": (
                (
                    "debug1: sshconnect2.c:userauth_pubkey():1 (pid=7): Offering public key: /k ED25519 SHA256:x\n"
                    "u@h: Permission denied (publickey)."
                ),
                "key",
            ),
        },
    ),
}

# Knows what its release knows and refuses the rest, as the real one; `-G` says what it would do.
PROGRAM = """#!/usr/bin/env python3
import sys
says, known, logverbose = {says!r}, {known!r}, {logverbose!r}
words, ignored, verbose, asking = sys.argv[1:], "", "", False
if words == ["-V"]:
    sys.exit(print(says, file=sys.stderr))
while words and words[0] != "--":
    word = words.pop(0)
    if word == "-G":
        asking = True
    elif word == "-o":
        name, _, value = words.pop(0).partition("=")
        if name == "IgnoreUnknown":
            ignored = value
        elif name not in known and ignored != "*":
            sys.exit("command-line: line 0: Bad configuration option: " + name.lower())
        elif name == "LogVerbose" and name in known:
            verbose = value
    elif word in ("-E", "-S", "-F", "-i", "-p", "-W"):
        words.pop(0)
    elif word not in ("-N", "-M", "-T", "-x", "-a", "-k"):
        sys.exit("unknown option -- " + word.lstrip("-"))
if not asking:
    sys.exit(255)
print("user u\\nhostname", words[1])
print("ciphers chacha20-poly1305@openssh.com,aes128-ctr,aes128-gcm@openssh.com")
if logverbose:
    print("logverbose", verbose)
"""


def program(release: Release, options: list[str]) -> str:
    """Return the text of a fake ssh of `release`, which knows of `options` what that knows."""
    known = sorted(option for option in [*options, "LogVerbose"] if release.knows(option))
    return PROGRAM.format(says=release.says, known=known, logverbose=release.knows("LogVerbose"))
