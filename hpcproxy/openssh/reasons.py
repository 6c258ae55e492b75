"""What ssh says and what it means, the one table, for the agent, the scripts, probes, pinning and roll-outs. Pure.

ssh writes its log where -E says, and only that: what the jump host has to say (its banner) and what stands on the way
(ProxyJump, ProxyCommand) goes to stderr. Lines are read in the order of time, and the first that decides is the reason:
what a far end can smuggle into a line of ssh's own stands behind that line's beginning. Messages: the sources of
OpenSSH 7.4 to 10.5, `ssh.c`, `sshconnect.c`, `sshconnect2.c`, `authfile.c`, `readconf.c`, `channels.c`, `packet.c`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hpcproxy.errors import Reason

# Layers that are no reasons. PHASE: the login has come as far as `reason` says, UP makes what was before void.
# GREETED: it said something that no sshd says. SEEN: this ssh tells how far it is, and no login has begun.
# OFFERED: group 1 is a key that was offered, and the login has come as far as that.
# HOP: what is on the way to the jump host ended, whatever was said before.
PHASE, OFFERED, HOP, SKIP = "phase", "offered", "hop", "skip"
_PROGRESS = (PHASE, OFFERED, HOP, SKIP)
UP, LOGIN, GREETED, SEEN = "up", "login", "greeted", "seen"


@dataclass(frozen=True)
class Failure:
    """What a line that `pattern` matches means.

    `pattern` is an extended regular expression that bash and Python read alike. It counts in `phase` only, if that is
    not empty. After a row without `more` nothing counts: ssh ends there, and what a far end has put behind a line
    break is none of ssh's. In its words %0 is the line, %1 and %2 are the pattern's groups, %k the keys that were
    offered, %t what was said beside the log, in quotation marks, %u who was to log in.
    """

    pattern: str
    why: Reason
    phase: str = ""
    more: bool = False

    def as_row(self) -> dict[str, str | bool]:
        """Return what the agent and the scripts get of it, whose readers see reason and advice as one."""
        return {
            "pattern": self.pattern,
            "layer": self.why.layer,
            "reason": str(self.why),
            "permanent": self.why.permanent,
            "phase": self.phase,
            "more": self.more,
        }


def _lasting(
    pattern: str, layer: str, reason: str, advice: str = "", *, phase: str = "", more: bool = False
) -> Failure:
    return Failure(pattern, Reason(layer, reason, advice, permanent=True), phase, more)


def _passing(
    pattern: str, layer: str, reason: str, advice: str = "", *, phase: str = "", more: bool = False
) -> Failure:
    return Failure(pattern, Reason(layer, reason, advice), phase, more)


_PIN_IT = ("host-key", "the jump host's key is not pinned", "run: hpcproxy init --jump USER@HOST")
_NO_ANSWER = ("route", "it does not answer", "is its address right, its firewall open?")
_SILENT = "it accepts connections and stays silent"
_NO_SSH = ("route", "what answers there is no ssh server", "is the port right?")
_HUNG_UP = ("ssh", "it hung up during the login", "is the account there alive?%t")
_NOTHING_OFFERED = (
    "key",
    (
        "ssh had no key to offer it: is IdentityFile a key, its kind among PubkeyAcceptedAlgorithms, publickey among"
        " PreferredAuthentications? ssh -v says which%k"
    ),
)
_NO_ROUTE = "no route to it from here"
# It says why (MaxStartups, PerSourcePenalties) in a line that ssh shows at its debug levels only.
_BUSY = (
    "busy",
    "it hung up before the login: it has too many logins at once, or shuts this cluster's address out for a while",
)

# For each line the first row that matches.
FAILURES: Sequence[Failure] = (
    _passing("^Authenticated to ", PHASE, UP),
    _passing("^Local version string ", PHASE, SEEN),
    _passing("^SSH2_MSG_SERVICE_ACCEPT received", PHASE, LOGIN),
    _passing("^Offering public key: (.*) [A-Z0-9-]+ SHA256:", OFFERED, OFFERED),
    _passing("^(/.*|command-line):? line [0-9]+: (Unsupported|Deprecated) option ", SKIP, SKIP),
    _passing(
        "^((banner exchange|ssh_dispatch_run_fatal|packet_write_wait): )?Connection .*UNKNOWN port 65535",
        HOP,
        "the way to it (ProxyJump or ProxyCommand in ~/.ssh/config) ends before it",
    ),
    # ---------------------------------------------------------------------------------------------- this side
    _lasting(
        "^(bind( .*)?: )?Address already in use$",
        "port",
        "the port is taken by another process of this node and nothing of theirs is used",
        "choose another port",
    ),
    _lasting("^(/.*|command-line):? line [0-9]+: ", "config", "ssh cannot read its configuration: %0"),
    _lasting(
        "^Bad owner or permissions on (.*)$", "config", "ssh does not read %1, which others may write", "chmod 600"
    ),
    _lasting(
        "^bind:? (.*): Cannot assign requested address$",
        "config",
        "the configuration of ssh has it connect from %1 (BindAddress), which is none of this machine's addresses",
    ),
    _passing("^unix_listener: .*: No space left on device$", "node", "no space is left for ssh's socket: %0"),
    _lasting(
        "^vdollar_percent_expand: env var (.*) has no value",
        "config",
        "the configuration of ssh names the variable %1, which is not set here",
    ),
    # ---------------------------------------------------------------------------------------------- the way
    _passing(
        "^ssh: Could not resolve hostname .*: Address family for hostname not supported",
        "name",
        "it has no address of the kind that the configuration of ssh asks for (AddressFamily)",
    ),
    _passing("^ssh: Could not resolve hostname ", "name", "its name does not resolve here", "use its address"),
    _passing("^ssh: connect to host .*: (No route to host|Network is unreachable)$", "route", _NO_ROUTE),
    _passing("^ssh: connect to host .*: Connection refused$", "route", "nothing listens at its ssh port"),
    _passing("^ssh: connect to host .*: Connection timed out$", *_NO_ANSWER),
    _passing("^Connection timed out during banner exchange", "route", _SILENT, more=True),
    _passing("^Timeout, server .* not responding", "route", "it stopped answering"),
    _passing("^Connection .* timed out$", *_NO_ANSWER),
    _passing(
        "^(kex_exchange_identification: )?banner line [0-9]+: (Exceeded MaxStartups|Not allowed at this time)",
        SKIP,
        SKIP,
    ),
    _passing("^(kex_exchange_identification: )?banner line [0-9]+: ", PHASE, GREETED),
    _passing("^(kex|ssh)_exchange_identification: ", *_NO_SSH, phase=GREETED, more=True),
    _passing("^(kex|ssh)_exchange_identification: ", *_BUSY, more=True),
    _passing("^banner exchange: Connection ", *_BUSY, more=True),
    _passing("^write: (Broken pipe|Connection reset by peer)$", *_BUSY, more=True),  # the last word up to 7.5
    # ---------------------------------------------------------------------------------------------- its key
    _lasting(
        "^@ +WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! +@",
        "host-key",
        "the jump host shows another key than the one pinned",
        "ask its admin, then run: hpcproxy init --replace-key",
    ),
    _lasting(
        "^@ +WARNING: REVOKED HOST KEY DETECTED! +@",
        "host-key",
        "the jump host shows a key that is marked as revoked",
        "do not connect, ask its admin",
    ),
    _lasting(
        "^Error checking host key .* in revoked keys file (.*): (.*)$",
        "config",
        "ssh cannot read the list of revoked keys %1 (%2), and then believes no host",
        "RevokedHostKeys in its configuration names it",
    ),
    _lasting("^Host key .* revoked by file (.*)$", "host-key", "the jump host's key is revoked by %1", "ask its admin"),
    _lasting("^Host key verification failed", *_PIN_IT),
    _lasting("^No .* host key is known for ", *_PIN_IT),
    _lasting(
        "^Unable to negotiate with .*: no matching ([a-z -]+) found. Their offer: (.*)$",
        "ssh",
        "it and the ssh of this node have no %1 in common; it offers %2",
    ),
    # ---------------------------------------------------------------------------------------------- the login
    _lasting(
        "^Authenticated .*with partial success",
        "key",
        "it took the key and wants a second factor too, which no job can give",
        "ask its admin for a login by key alone",
        more=True,
    ),
    _lasting(
        "^Permissions (0[0-7]+) for '(.*)' are too open",
        "key",
        "ssh does not use the key %2, for others may read it (mode %1)",
        "run: chmod 600 %2",
        more=True,
    ),
    _lasting(
        r'^Load key "(.*\.pub)": ',
        "key",
        "%1 is the public half of a key, which is no use here",
        "name the other one, without .pub (IdentityFile, or hpcproxy init --identity)",
        more=True,
    ),
    _lasting(
        '^Load key "(.*)": (error in libcrypto|invalid format)',
        "key",
        "ssh cannot read the key %1 (%2): cut short, or with the line ends of Windows? ssh-keygen -y -f %1 tries it",
        more=True,
    ),
    # It has taken the key by then (up to OpenSSH 8.2 without the key's name).
    _lasting(
        '^sign_and_send_pubkey: signing failed for [A-Z0-9]+-SK "(.*)"( from agent)?: ',
        "key",
        "the key %1 needs its security key plugged in and touched, which no job can do",
        "use one that is a file alone",
        more=True,
    ),
    _lasting(
        "^sign_and_send_pubkey: signing failed( for .*)?: agent refused operation",
        "key",
        "it took a key with which the ssh-agent then did not sign: is it locked, or does it ask for a confirmation?",
        "no job can give one",
        more=True,
    ),
    _lasting(
        "^((send_pubkey_test|sign_and_send_pubkey): )?no mutual signature ",
        "key",
        "it takes no signature of the kind that this key makes:%k",
        "make another (ssh-keygen -t ed25519) and put its public half there",
        more=True,
    ),
    _lasting(
        "^Received disconnect from .*:2: Too many authentication failures",
        "key",
        "it refused too many keys",
        "name the right one with: hpcproxy init --identity",
    ),
    # Up to OpenSSH 7.5 without the account before it.
    _lasting(r"^([^:]*: )?Permission denied \(([^)]*,)?publickey", *_NOTHING_OFFERED, phase=LOGIN),
    _lasting(
        r"^([^:]*: )?Permission denied \(([^)]*,)?publickey",
        "key",
        "it refused the key%k",
        "is the public half in its authorized_keys, without a from= that shuts this node out, and the account there"
        " alive?",
    ),
    _lasting(
        r"^([^:]*: )?Permission denied \((.*)\)",
        "key",
        "it takes no keys at all, only %2, which a job cannot give",
        "ask your site for a login by key",
    ),
    _lasting(
        "^channel [0-9]+: open failed: administratively prohibited",
        "forwarding",
        "the jump host does not allow forwarding, by its own rule (AllowTcpForwarding) or your key's in"
        " authorized_keys (restrict)",
        "ask your site. If it lets through to certain hosts (PermitOpen), name one in your settings (allow)",
    ),
    # ---------------------------------------------------------------------------------------------- the end
    _passing("^Received disconnect from .* port [0-9]+:[0-9]+: (.*)$", "ssh", "it ended the connection: %1"),
    _passing("^Authentication failed[.]$", *_HUNG_UP),
    _passing("^Connection (closed|reset) by ", "ssh", "it hung up", phase=UP),
    _passing("^Connection (closed|reset) by ", *_HUNG_UP, phase=LOGIN),
    _passing("^Connection (closed|reset) by ", *_HUNG_UP, phase=OFFERED),
    _passing("^Connection (closed|reset) by ", *_NO_SSH, phase=GREETED, more=True),
    _passing("^Connection (closed|reset) by ", *_BUSY, phase=SEEN, more=True),
    # Up to OpenSSH 8.4 nothing says how far a login is, but an end before it has a word in front (above).
    _passing("^Connection (closed|reset) by ", *_HUNG_UP),
)

FAR_END = "far end"
# What ssh says of a channel that the jump host could not open, behind "open failed: "; the first match counts.
_OPEN_FAILURES: Sequence[Failure] = (
    _passing(
        "administratively prohibited",
        FAR_END,
        "the jump host does not allow forwarding to it",
        "this is its admin's rule",
    ),
    _passing("Name or service not known", FAR_END, "its name does not resolve at the jump host"),
    _passing("Temporary failure in name resolution", FAR_END, "its name does not resolve at the jump host"),
    _passing("Connection refused", FAR_END, "nothing listens there"),
    _passing("timed out", FAR_END, "it does not answer the jump host"),
    _passing("No route to host", FAR_END, "the jump host has no route to it"),
    _passing("Network is unreachable", FAR_END, "the jump host has no route to it"),
)

# A host of an admin's inventory, whoever found out: Paramiko, or ssh, of which only the last line on stderr is known.
# Its reader has other means than a user has of a jump host: `trust` and the inventory's keys.
NO_NAME = Reason("name", "its name does not resolve here")
NOBODY = Reason("route", "nothing listens at its ssh port")
NO_KEY_KEPT = Reason("host-key", "its host key is not known", "look at it with: hpcproxy trust", permanent=True)
ANOTHER_KEY = Reason(
    "host-key",
    "shows another host key than the one in known_hosts",
    "look into it, then: hpcproxy trust --replace-key",
    permanent=True,
)
REFUSED = Reason("key", "refuses the login of %u", permanent=True)
REFUSED_ROOT = replace(REFUSED, advice="where root may not log in, say user: and become: sudo")
_OF_HOSTS: Sequence[Failure] = (
    _lasting(
        "Too many authentication failures",
        "key",
        "refuses the login of %u: it was offered more keys than it takes",
        "name one with identity:",
    ),
    Failure(r"Permission denied \(", REFUSED),
    _lasting(
        "Host key verification failed",
        "host-key",
        "its host key is not known, or is not the known one",
        "hpcproxy trust shows it",
    ),
    Failure("Could not resolve hostname", NO_NAME),
    Failure("Connection refused", NOBODY),
    _passing("timed out", "route", "does not answer"),
    _passing("", "ssh", "ssh failed: %0"),
)


def open_failure(line: str) -> str:
    """Return in words why a channel was not opened, from ssh's line about it; the line's own text if it is unknown."""
    found = (str(row.why) for row in _OPEN_FAILURES if re.search(row.pattern, line))
    return next(found, line.rpartition("open failed: ")[2])


def of_host(last_line: str, user: str) -> Reason:
    """Return what ssh's last line means where a host of the inventory was to be logged in to as `user`."""
    why = next(row.why for row in _OF_HOSTS if re.search(row.pattern, last_line))
    return refused(user) if why is REFUSED else _filled(why, {"%0": last_line, "%u": user})


def refused(user: str) -> Reason:
    """Return that a host of the inventory refuses the login of `user`."""
    return _filled(REFUSED_ROOT if user == "root" else REFUSED, {"%u": user})


def meaning(lines: Sequence[str]) -> Reason | None:
    """Return what the first of `lines` means that decides, where nothing tells how far a login is."""
    for line in (line.strip() for line in lines):
        for failure in FAILURES:
            counts = failure.why.layer not in _PROGRESS and failure.phase in ("", SEEN)
            found = re.search(failure.pattern, line) if counts else None
            if found:
                groups = {f"%{number}": part or "" for number, part in enumerate(found.groups(), 1)}
                return _filled(failure.why, {"%0": line, "%k": "", "%t": "", **groups})
    return None


def _filled(why: Reason, parts: Mapping[str, str]) -> Reason:
    def fill(words: str) -> str:
        return re.sub("%[0-9ktu]", lambda name: parts.get(name.group(), ""), words)

    return replace(why, reason=fill(why.reason), advice=fill(why.advice))
