"""The command `hold`: holds the tunnel and the port until it is told to end, whatever kills it meanwhile.

    python3 -I agent.pyz hold --config AGENT_JSON --address A --port P --state DIR [--node NAME] [--uid N]
        [--job N] [--nodes N] [--parent PID] [--ssh-option OPTION] [--ssh-config FILE]
        [--ssh-name NAME] [--log-verbose yes] [--key-note TEXT] [--listener FD] [--jump-addresses A,B]
    python3 -I agent.pyz hold --config AGENT_JSON --socket NAME --state DIR …

With `--socket` it serves other agents of the same user, at a Unix socket by that name in the state directory
(`hpcproxy serve`).

On stdout, one line each: `ready NODE JUMP`, `failed NODE LAYER TEXT`, `gave-up NODE LAYER TEXT`. With `--job` SIGURG
ends it, and SIGTERM as soon as no other process of that job is on this node; without, SIGINT and SIGUSR1 end it too,
and all of them at once. Exit code 0 after `gave-up` and after a signal, 2 when the arguments, agent.json or the state
directory cannot be used.
"""

import os
import resource
import signal
import socket
import sys
from typing import Dict, List, Optional, Tuple

from ..io.loop import Loop
from ..proxy.entrance import Entrance, Loopback, UnixSocket, bind_unix
from ..proxy.listener import Clients, bind, raise_fd_limit
from ..proxy.port import adopt, refuse
from ..proxy.shared import Shared
from ..proxy.taken import listener
from ..state.access_log import Access
from ..state.closed import closed
from ..state.directory import BadFolder, Folder
from ..state.environment import way_of
from ..state.log import Journal
from ..state.policy import pack_address
from ..state.settings import ENVIRONMENT, SSH, BadSettings, Settings, Way, load
from ..state.status import Record
from ..upstream.candidate import Spread
from ..upstream.ssh_log import LOG_VERBOSE
from ..upstream.tunnel import GaveUp, Tunnel
from ..upstream.words import verdict
from .shutdown import HEEDED, Ending
from .supervisor import PASSED_ON, Life, supervise

USAGE = "usage: agent.pyz hold --config FILE --address ADDRESS --port PORT --state DIR [--node NAME] [--uid UID]"
USAGE += " [--job N] [--nodes N] [--parent PID] [--ssh-option OPTION] [--ssh-config FILE] [--ssh-name NAME]"
USAGE += " [--log-verbose yes] [--leads yes] [--key-note TEXT] [--listener FD] [--jump-addresses A,B]"
OPTIONS = (
    *("config", "address", "port", "state", "node", "uid", "job", "nodes", "parent"),
    *("ssh-option", "ssh-config", "ssh-name", "log-verbose", "leads", "key-note", "listener"),
    *("jump-addresses", "socket"),
)


class BadArguments(Exception):
    """The command line cannot mean anything."""


class Arguments:
    """The command line, checked."""

    def __init__(self, given: Dict[str, str]) -> None:
        self.socket = given.get("socket", "")
        for name in ("config", "state") if self.socket else ("config", "address", "port", "state"):
            if name not in given:
                raise BadArguments("--{} is missing".format(name))
        self.config, self.address, self.state = given["config"], given.get("address", "127.0.0.1"), given["state"]
        self.node = given.get("node") or os.uname().nodename.split(".")[0]
        # Known only on the node: an option that this ssh understands, and what is wrong with the keys found here.
        self.ssh_option, self.key_note = given.get("ssh-option"), given.get("key-note")
        self.ssh_config, self.ssh_name = given.get("ssh-config"), given.get("ssh-name", "")
        self.log_verbose = parse_flag("log-verbose", given)
        self.leads = parse_flag("leads", given)
        self.port = 0 if self.socket else parse_number("port", given["port"], 1, 65535)
        self.uid = parse_number("uid", given["uid"], 0, 2**32 - 2) if "uid" in given else os.getuid()
        self.job = str(parse_number("job", given["job"], 1, 2**32 - 1)) if "job" in given else ""
        self.parent = parse_number("parent", given["parent"], 1, 2**31 - 1) if "parent" in given else 0
        # The port, taken by root (proxy/port.py); -1: it is to be taken.
        self.listener = parse_number("listener", given["listener"], 3, 2**20) if "listener" in given else -1
        self.jump_addresses = tuple(given["jump-addresses"].split(",")) if "jump-addresses" in given else ()
        if not all(map(pack_address, self.jump_addresses)):
            raise BadArguments("--jump-addresses: must be addresses, not {!r}".format(given["jump-addresses"]))
        self.nodes = parse_number("nodes", given["nodes"], 1, 10**6) if "nodes" in given else 1
        try:
            socket.inet_pton(socket.AF_INET, self.address)
        except OSError:
            raise BadArguments("--address: {!r} is no IPv4 address".format(self.address))
        if len(self.node.split()) != 1 or not self.node.isprintable():
            raise BadArguments("--node: {!r} is not one word".format(self.node))


def parse_flag(name: str, given: Dict[str, str]) -> bool:
    """Whether `name` is given as yes; BadArguments."""
    text = given.get(name, "no")
    if text not in ("yes", "no"):
        raise BadArguments("--{}: must be yes or no, not {!r}".format(name, text))
    return text == "yes"


def parse_number(name: str, text: str, low: int, high: int) -> int:
    """`text` as a number in bounds; BadArguments."""
    if not (text.isdecimal() and len(text) < 12 and low <= int(text) <= high):
        raise BadArguments("--{}: must be a number from {} to {}, not {!r}".format(name, low, high, text))
    return int(text)


def parse(words: List[str]) -> Arguments:
    """The arguments after the program's name; BadArguments."""
    if not words or words[0] != "hold":
        raise BadArguments("the command is missing" if not words else "no command {!r}".format(words[0]))
    given: Dict[str, str] = {}
    rest = iter(words[1:])
    for word in rest:
        name, equals, value = word[2:].partition("=")
        if not word.startswith("--") or name not in OPTIONS or name in given:
            raise BadArguments("{!r} is not understood here".format(word))
        found = value if equals else next(rest, None)
        if found is None:
            raise BadArguments("--{} needs a value".format(name))
        given[name] = found
    return Arguments(given)


def main(words: List[str]) -> int:
    """The exit code."""
    occupy_standard_descriptors()
    try:
        arguments = parse(words)
        settings = here(load(arguments.config), arguments)
        folder = Folder(arguments.state)
    except BadArguments as error:
        print("hpcproxy agent: {}\n{}".format(error, USAGE), file=sys.stderr)
        return 2
    except (BadSettings, BadFolder) as error:
        print("hpcproxy agent: {}".format(error), file=sys.stderr)
        return 2
    # No core: what ssh and we have in memory is the user's key and what his programs send.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    folder.enter()
    try:
        return occupy(arguments, settings, folder)
    finally:
        folder.remove()


def here(settings: Settings, arguments: Arguments) -> Settings:
    """`settings` with what only this node knows."""
    failures = settings.failures
    words: Tuple[str, ...] = ("-o", arguments.ssh_option) if arguments.ssh_option is not None else ()
    if arguments.ssh_config is not None:
        words += ("-F", arguments.ssh_config)
    if arguments.log_verbose:
        words += ("-o", LOG_VERBOSE)
    ways = tuple(way_here(way, words, arguments.ssh_name) for way in settings.ways)
    if arguments.key_note is not None:
        note = arguments.key_note.replace("%", "%%")
        # The row of a refused key is the one that names the keys.
        failures = tuple(row._replace(reason=note) if "%k" in row.reason else row for row in failures)
    policy = settings.policy._replace(closed=closed(settings.closed, settings.jump_hosts + arguments.jump_addresses))
    return settings._replace(ways=ways, failures=failures, policy=policy)


def way_here(way: Way, words: Tuple[str, ...], called: str) -> Way:
    """`way` as it is on this node: ssh with `words` more, under the name `called`; the environment's proxy."""
    if way.kind == ENVIRONMENT:
        return way_of(os.environ, way.auth_file)
    return way._replace(argv=way.argv[:1] + words + way.argv[1:], called=called) if way.kind == SSH else way


def occupy_standard_descriptors() -> None:
    """Descriptors 0 to 2 are open, if only to /dev/null: else a client's socket could become our stdout."""
    while True:
        fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        if fd > 2:
            os.close(fd)
            return


def occupy(arguments: Arguments, settings: Settings, folder: Folder) -> int:
    """Take the port, which stays ours until the end, and have the work done; the exit code."""
    try:
        listener = take(arguments)
    except OSError as error:
        loop = Loop(lambda error: None)  # runs nothing
        recorder(loop, arguments, settings, folder).gave_up(port_trouble(settings, arguments, error))
        return 0
    folder.write_pid()
    with listener:
        return supervise(lambda life: hold(arguments, settings, folder, listener, life), arguments.parent)


def take(arguments: Arguments) -> socket.socket:
    """Where clients come in is ours; OSError."""
    if arguments.socket:
        return bind_unix(arguments.socket)
    return adopt(arguments.listener) if arguments.listener >= 0 else bind(arguments.address, arguments.port)


def entrance(arguments: Arguments, listener: socket.socket) -> Entrance:
    """How it is known there who they are."""
    return (UnixSocket if arguments.socket else Loopback)(listener, arguments.uid)


def recorder(loop: Loop, arguments: Arguments, settings: Settings, folder: Folder) -> Record:
    """What is said of this tunnel goes where the settings want it."""
    journal = Journal(arguments.job or "shell", arguments.node, settings.log_level, settings.syslog)
    access = Access(journal, arguments.uid, settings.access_log, settings.access_syslog)
    return Record(loop, folder.fd, journal, (arguments.address, arguments.port), access)


def hold(arguments: Arguments, settings: Settings, folder: Folder, listener: socket.socket, life: Life) -> int:
    """Hold the tunnel until a signal comes or there is no hope."""
    loop = Loop(lambda error: record.log("error {!r}".format(error)))
    record = recorder(loop, arguments, settings, folder)
    record.pid, record.restarts = folder.pid, life.restarts
    if life.restarts:
        record.log("the agent was ended by {}; another takes its place".format(life.cause))
    watch_signals(loop, record, Ending(loop, record, arguments.job, settings.grace_s))
    max_connections = raise_fd_limit(settings.max_connections)
    if max_connections < settings.max_connections:
        record.log("the limit on descriptors allows {} connections".format(max_connections))
    logins = sum(way.kind == SSH for way in settings.ways)
    spread = Spread(arguments.job, arguments.node, arguments.nodes, logins, settings.logins_per_s)
    if arguments.leads:
        spread.delay_s = 0.0
    tunnel = Tunnel(loop, settings, folder, record, spread)
    clients = Clients(loop, Shared(loop, settings, tunnel, record, entrance(arguments, listener)), max_connections)
    loop.spawn(clients.accept())
    orphaned = loop.spawn(end_with(loop, life.lifeline, record))
    loop.spawn(keep(loop, tunnel, record))
    record.write_status()
    try:
        loop.run()
    finally:
        tunnel.stop()
        loop.close()  # requests under way end here, each with its line
        record.access.close()
        # A process that is killed closes its descriptors before it stops being our parent.
        if orphaned.done or os.getppid() != folder.pid:
            folder.remove()  # whose part that was has been killed
        elif arguments.listener >= 0:
            refuse(listener)
        clients.close()
    return 0


async def keep(loop: Loop, tunnel: Tunnel, record: Record) -> None:
    """The tunnel is kept up; the agent ends when there is none and never was."""
    try:
        await tunnel.keep()
    except GaveUp as error:
        record.gave_up(str(error))
    finally:
        loop.stopping = True


async def end_with(loop: Loop, lifeline: int, record: Record) -> None:
    """Without the supervisor the agent ends: what holds the job's step is gone, and Slurm counts it as over."""
    await loop.watch(lifeline).wait_readable()
    record.log("its supervisor was killed")
    loop.stopping = True


def port_trouble(settings: Settings, arguments: Arguments, error: OSError) -> str:
    """Layer and reason why the port is not ours; those of agent.json's table, so that they are the shell's words."""
    words = os.strerror(error.errno or 0)
    known = verdict(settings.failures, [words])
    if known is not None:
        uid = listener(arguments.address, arguments.port)
        return "{} {}{}".format(known.layer, known.reason, "" if uid is None else " (uid {} has it)".format(uid))
    return "port {}:{}: {}".format(arguments.address, arguments.port, words)


def watch_signals(loop: Loop, record: Record, ending: Ending) -> None:
    """`ending` hears of its signals, SIGUSR2 has status.json written; the supervisor has had others ignored."""
    inner, outer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    loop.watch(inner)  # any wake-up ends the poll; the handler has run by then

    def told(number: int, frame: Optional[object]) -> None:
        """`ending` hears of it."""
        ending.signalled(number)

    async def write() -> None:
        """status.json is the present state."""
        record.write_status()

    def report(number: int, frame: Optional[object]) -> None:
        """status.json is written as soon as the loop comes round."""
        loop.spawn(write())

    signal.signal(signal.SIGUSR2, report)
    for number in HEEDED:
        signal.signal(number, told)
    signal.set_wakeup_fd(outer)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
