"""Who owns the other end of a connection on this node: the kernel is asked, never the client.

An exact NETLINK_SOCK_DIAG query (sock_diag(7), inet_diag_req_v2) names the uid of one socket in about 0.1 ms; where the
kernel lacks it, /proc/net/tcp and tcp6 are read. In doubt the answer is None and the connection is closed: that is the
safe side.

A socket that its process has closed already (an orphan) has inode 0 and shows uid 0, whoever opened it. Believing that
would let anybody pass as root who sends and closes quickly; so no inode, no owner.

Who owns an address is not who sent what came from there. Once a client has reset its connection, our socket can still
be read and the address is free: the next owner, whom the kernel then names truly, is not the sender. So the owner is
asked first, and our own socket afterwards: if it is connected still, it was all the time, and whoever had the other end
has it yet. (Two sockets of one address pair exist for a moment while a reset is under way; the newcomer's is in
SYN_SENT until ours is gone, and so is nobody.)

A client may reach our IPv4 address by a socket of AF_INET6 (Java does): the kernel finds that socket by the IPv4
addresses, and shows them mapped, ::ffff:127.0.0.1 (RFC 4291, 2.5.5.2).
"""

import os
import socket
import struct
from typing import FrozenSet, List, Optional, Tuple

from .tcp_info import TCP_INFO

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST = 1
NLMSG_ERROR = 2
ANY_STATE = 0xFFFFFFFF
NO_COOKIE = 0xFFFFFFFF
# inet_diag_req_v2: family, protocol, ext, pad, states; inet_diag_sockid: sport, dport, src[4], dst[4], if, cookie[2]
QUERY = struct.Struct("=IHHII" + "BBBBI" + "HH16s16sIII")
# inet_diag_msg: family, state, timer, retrans; inet_diag_sockid; expires, rqueue, wqueue, uid, inode
REPLY = struct.Struct("=IHHII" + "BBBB" + "HH16s16sIII" + "IIIII")
HEADER = 16  # of nlmsghdr, in which the number of the question stands
SEQUENCE, SEQUENCE_AT = struct.Struct("=I"), 8
REPLY_BYTES = 1024
UCRED = struct.Struct("=iII")  # of unix(7): pid, uid, gid
OVERFLOW_UID = 65534
MAPPED = b"\0" * 10 + b"\xff\xff"  # the IPv4 address follows
# States of linux/tcp_states.h. A client's end once its handshake is over: ESTABLISHED, FIN_WAIT1, FIN_WAIT2,
# CLOSE_WAIT, LAST_ACK, CLOSING. Ours while the client is there: ESTABLISHED; CLOSE_WAIT where it has ended its sending.
JOINED = frozenset([1, 4, 5, 8, 9, 11])
CONNECTED = frozenset([1, 8])
TABLES = ("/proc/net/tcp", "/proc/net/tcp6")

Address = Tuple[str, int]


class Peers:
    """Answers whose socket it is; keeps one netlink socket open."""

    def __init__(self) -> None:
        self.netlink: Optional[socket.socket] = None
        self.asked = 0
        try:
            self.netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
            self.netlink.setblocking(False)
        except OSError:
            pass  # a kernel without it: the tables serve

    def close(self) -> None:
        """No more answers."""
        if self.netlink is not None:
            self.netlink.close()

    def owner(self, client: Address, here: Address) -> Optional[int]:
        """The uid that owns the socket at `client` connected to `here`, or None in doubt."""
        if self.netlink is not None:
            try:
                return self._ask(self.netlink, client, here)
            except OSError:
                self.netlink.close()
                self.netlink = None  # forbidden or missing here; the slow way is as true
        return owner_in_proc(client, here)

    def client(self, sock: socket.socket, address: Address) -> Optional[int]:
        """The uid at the other end of `sock`, accepted from `address`, that sent what it holds; None in doubt."""
        uid = self.owner(address, sock.getsockname())
        # In this order: asked before, ours could be reset and the address change hands in between.
        return uid if connected(sock) else None

    def gone(self, sock: socket.socket) -> bool:
        """Nobody has the other end of the accepted `sock` any more; not so of a client that only ended its sending."""
        try:
            return self.owner(sock.getpeername(), sock.getsockname()) is None
        except OSError:
            return True  # reset

    def _ask(self, netlink: socket.socket, client: Address, here: Address) -> Optional[int]:
        self.asked = self.asked % ANY_STATE + 1
        netlink.send(query(client, here, self.asked))
        while True:
            # The kernel answers within the send call; an empty queue is an error, never "allowed".
            reply = netlink.recv(REPLY_BYTES)
            # What came late for an earlier question must not answer this one.
            if len(reply) >= HEADER and SEQUENCE.unpack_from(reply, SEQUENCE_AT)[0] == self.asked:
                return read_reply(reply, client, here)


def unix_owner(sock: socket.socket) -> int:
    """The uid that connected to, or listened at, the other end of a Unix socket when it was joined (SO_PEERCRED)."""
    return int(UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))[1])


def connected(sock: socket.socket) -> bool:
    """`sock` is joined to the client that it was accepted from."""
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, TCP_INFO, 1)[0] in CONNECTED  # its first byte is the state
    except OSError:
        return False


def query(client: Address, here: Address, number: int) -> bytes:
    """The netlink message that asks for exactly this socket; the answer has the same number."""
    return QUERY.pack(
        *(QUERY.size, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, number, 0),
        *(socket.AF_INET, socket.IPPROTO_TCP, 0, 0, ANY_STATE),
        *(socket.htons(client[1]), socket.htons(here[1])),
        *(socket.inet_aton(client[0]), socket.inet_aton(here[0])),
        *(0, NO_COOKIE, NO_COOKIE),
    )


def read_reply(reply: bytes, client: Address, here: Address) -> Optional[int]:
    """The uid in `reply`; None when it is an error, an orphan or another socket. OSError when netlink cannot serve."""
    if len(reply) >= 20 and struct.unpack_from("=H", reply, 4)[0] == NLMSG_ERROR:
        code = -struct.unpack_from("=i", reply, 16)[0]
        if code in (2, 3):  # ENOENT: no such socket, so closed already. (ESRCH the same, older kernels)
            return None
        raise OSError(code, "sock_diag")
    if len(reply) < REPLY.size:
        return None
    fields = REPLY.unpack_from(reply)
    found = (fields[9], fields[10], ipv4_in(fields[5], fields[11]), ipv4_in(fields[5], fields[12]))
    asked = (
        *(socket.htons(client[1]), socket.htons(here[1])),
        *(socket.inet_aton(client[0]), socket.inet_aton(here[0])),
    )
    state, uid, inode = fields[6], fields[19], fields[20]
    if fields[1] != SOCK_DIAG_BY_FAMILY or found != asked or inode == 0 or state not in JOINED:
        return None
    return int(uid)


def ipv4_in(family: int, field: bytes) -> Optional[bytes]:
    """The IPv4 address in an address field of inet_diag_sockid; None if it holds another kind."""
    if family == socket.AF_INET:
        return field[:4]
    if family == socket.AF_INET6 and field.startswith(MAPPED):
        return field[len(MAPPED) :]
    return None


def owner_in_proc(client: Address, here: Address, tables: Tuple[str, str] = TABLES) -> Optional[int]:
    """As Peers.owner, from the tables of all connections: 27 ms with 8,000 sockets on the node."""
    try:
        for path, prefix in zip(tables, (b"", MAPPED)):
            found = find_row(path, [proc_address(client, prefix), proc_address(here, prefix)])
            if found is not None:
                return int(found[7]) if found[9] != "0" and int(found[3], 16) in JOINED else None
    except (OSError, ValueError, IndexError):
        return None  # unreadable: nobody passes
    return None


def find_row(path: str, wanted: List[str]) -> Optional[List[str]]:
    """The fields of the socket between the two addresses `wanted`; OSError."""
    with open(path) as table:
        for line in table:
            fields = line.split()
            if fields[1:3] == wanted:
                return fields
    return None


def proc_address(address: Address, prefix: bytes = b"") -> str:
    """127.0.0.1 port 80 as /proc/net/tcp writes it: each four bytes as one native number, in hex."""
    packed = prefix + socket.inet_aton(address[0])
    words = struct.unpack("={}I".format(len(packed) // 4), packed)
    return "{}:{:04X}".format("".join("{:08X}".format(word) for word in words), address[1])


def who_may_pass(uid: int) -> FrozenSet[int]:
    """`uid` and root, but never the number that the kernel gives to everybody it cannot name.

    Inside a user namespace every user that is not mapped shows as the overflow uid; if that is our own number too, we
    cannot tell them apart, and only root passes.
    """
    if uid == OVERFLOW_UID and not sees_all_users():
        return frozenset([0])
    return frozenset([0, uid])


def sees_all_users() -> bool:
    """This process is in a user namespace in which all uids are themselves."""
    try:
        with open("/proc/self/uid_map") as table:
            return table.read().split() == ["0", "0", "4294967295"]
    except OSError:
        return not os.path.exists("/proc/self/ns/user")  # no namespaces in this kernel, so no unmapped users
