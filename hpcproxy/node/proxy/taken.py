"""Who has the port that we wanted: what the kernel's table of listeners tells, for the words of a failure only."""

from typing import Optional, Tuple

from ..io.peer import proc_address

LISTENS = "0A"
ANY = "0.0.0.0"  # noqa: S104 - whoever listens there has our address as well
TABLES = ("/proc/net/tcp",)


def listener(address: str, port: int, tables: Tuple[str, ...] = TABLES) -> Optional[int]:
    """The uid that listens at `address`, or at all addresses, and `port`; None where the table does not tell."""
    wanted = (proc_address((address, port)), proc_address((ANY, port)))
    try:
        for path in tables:
            with open(path) as table:
                for fields in map(str.split, table):
                    if fields[3] == LISTENS and fields[1] in wanted:
                        return int(fields[7])
    except (OSError, ValueError, IndexError):
        pass
    return None
