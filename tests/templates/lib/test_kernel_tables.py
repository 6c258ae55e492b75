"""Tables of the kernel's that grow with what a host does are not read by shells line by line.

Of each line a shell gives back what it has read too much of, and for that the kernel begins anew at the table's first:
a host of eight thousand connections was looked through for minutes, one of 1600 mounts for twenty seconds.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from hpcproxy.files.render import TEMPLATES

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
PORT = 2015
ASKS = {
    "sourced/listening.sh": f"__hpcproxy_uid={os.getuid()} __hpcproxy_listen=00000000:{PORT:04X}; __hpcproxy_listening",
    "sourced/proxies.sh": f"__hpcproxy_port={PORT}; __hpcproxy_own_recipe localhost",
    "any/address.sh": f"address=127.0.0.1 port={PORT} reason=''; name_taker; [[ -n $reason ]]",
    "host/receive.sh": f"taken=''; answer() {{ taken=1; }}; port={PORT}; name_stranger; [[ -n $taken ]]",
}
# Few lines each; `fd` is a pipe, and in `if_inet6` there is a line for each address.
_SMALL = {"status", "environ", "fd/$1", "fdinfo/$space", "if_inet6"}
MOUNTS = """none /a\\040b tmpfs rw,size=4k 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 ro,nsdelegate 0 0
cgroup /sys/fs/cgroup/freezer cgroup rw,nosuid,freezer 0 0
cgroup /sys/fs/cgroup/cpu cgroup rw,nosuid,cpu 0 0
cgroup2 /run/cg cgroup2 rw,nsdelegate 0 0
"""


def _functions(part: str, table: str, instead: Path) -> str:
    text = (TEMPLATES / "lib" / part).read_text().partition("\nmain() {\n")[0]
    assert table in text
    return text.replace(table, str(instead))


def _bash(text: str) -> subprocess.CompletedProcess[str]:
    argv = ["/bin/bash", "-p", "-uc", text]
    return subprocess.run(argv, check=False, timeout=60, capture_output=True, text=True)


def _row(port: int, state: str) -> str:
    words = f"00000000:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000"
    return f"   0: {words} {os.getuid():5} 0 7 1 0 100 0 0 10 0\n"


@pytest.mark.parametrize("part", ASKS)
def test_of_the_sockets_only_the_listeners_are_read_which_come_first(part: str, tmp_path: Path) -> None:
    """Documentation/networking/proc_net_tcp.rst: the listening ones first, then the others."""
    functions = _functions(part, "/proc/net", tmp_path)
    (tmp_path / "tcp6").write_text(HEAD)
    other, ours, connection = _row(22, "0A"), _row(PORT, "0A"), _row(PORT, "01")
    for rows, found in ((other + ours + connection, 0), (other + connection, 1), (other + connection + ours, 1)):
        (tmp_path / "tcp").write_text(HEAD + rows)
        assert _bash(f"{functions}\n{ASKS[part]}").returncode == found, rows


def test_other_tables_are_read_at_once() -> None:
    loops = {
        match[1]
        for part in (TEMPLATES / "lib").rglob("*.sh")
        for match in re.finditer(r"(?m)^ *done [^\n]*<\"?/proc/(?:net|self)/(\S+?)\"?(?: |$)", part.read_text())
    }
    assert loops == {"tcp", "$table", *_SMALL}


def test_what_is_mounted_and_where_cgroups_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "mounts").write_text(MOUNTS)
    hierarchies = _functions("any/hierarchies.sh", "/proc/self/mounts", tmp_path / "mounts")
    assert _bash(f'{hierarchies}\nfind_hierarchies; echo "${{hierarchies[*]}}"').stdout.split() == [
        "/run/cg",
        "/sys/fs/cgroup/freezer",
    ]
    scrap = _functions("any/scrap.sh", "/proc/self/mounts", tmp_path / "mounts")
    for where, mounted in (("/run/cg", 0), ("/a\\040b", 0), ("/run", 1), ("none", 1)):
        assert _bash(f"{scrap}\nis_mounted '{where}'").returncode == mounted, where
