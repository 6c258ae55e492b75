"""lib/sourced/proxies.sh: whose a proxy is, by the address that it means and not by its spelling."""

from __future__ import annotations

import ipaddress
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcproxy.files.render import TEMPLATES
from tests.shells import SHELLS, script

PROXIES_SH = TEMPLATES / "lib" / "sourced" / "proxies.sh"
every_shell = pytest.mark.parametrize("shell", SHELLS)

# Neither of the site's nor at the recipe's port nor at an address of ours.
ELSEWHERE, LOOPBACK, OURS = "elsewhere", "loopback", "ours"
SPELLINGS = {
    "http://proxy.site:3128": ELSEWHERE,
    "proxy.site": ELSEWHERE,
    "http://u:p@10.1.2.3:8080/": ELSEWHERE,
    "http://127.0.0.1@proxy.site:2015": ELSEWHERE,
    "http://proxy.site:3128/127.0.0.1:2015": ELSEWHERE,
    "socks5h://[2001:db8::1]:1080": ELSEWHERE,
    "socks5h://[fe80::1%lo]:2015": ELSEWHERE,
    "http://128.0.0.1:2015": ELSEWHERE,
    "http://0.0.0.5:2015": ELSEWHERE,
    "http://1:2015": ELSEWHERE,
    "http://0.0.0.0.1:2015": ELSEWHERE,
    "http://08.0.0.1:2015": ELSEWHERE,
    "http://localhost.example.com:2015": ELSEWHERE,
    "http://notlocalhost:2015": ELSEWHERE,
    "http://127.0.0.1.example.com:2015": ELSEWHERE,
    "": LOOPBACK,
    " \t ": LOOPBACK,
    "http://": LOOPBACK,
    "http://127.0.0.1:7890": LOOPBACK,
    "http://127.0.0.1:20150": LOOPBACK,
    "http://[::1]:1": LOOPBACK,
    "::1": LOOPBACK,
    "localhost": LOOPBACK,
    "127.63.255.255:1": LOOPBACK,
    "http://127.0.0.1:2015": OURS,
    "  HTTP://127.0.0.1:2015/ ": OURS,
    "SOCKS5H://u:p@LocalHost:2015/": OURS,
    "127.0.0.1:2015": OURS,
    "127.1:2015": OURS,
    "http://2130706433:2015": OURS,
    "http://0x7f.1:2015": OURS,
    "http://0177.0.0.01:2015": OURS,
    "http://0.0.0.0:2015": OURS,
    "http://0:2015": OURS,
    "http://localhost.:2015": OURS,
    "http://ip6-localhost:2015": OURS,
    "http://localhost.localdomain:2015": OURS,
    "http://localhost6.localdomain6:2015": OURS,
    "http://x.localhost:2015": OURS,
    "socks5://[::1]:2015": OURS,
    "socks5://[::]:2015": OURS,
    "http://[0:0:0:0:0:0:0:1]:2015": OURS,
    "http://[::ffff:127.0.0.1]:2015": OURS,
    "http://[::FFFF:7f00:1]:2015": OURS,
    "http://127.64.0.1:9": OURS,
    "127.128.7.209": OURS,
    "http://127.255.255.254:2015": OURS,
    "http://[::ffff:127.64.0.1]:1": OURS,
    "http://[::ffff:7f40:1]:3": OURS,
}
_SORT = f"""
. {PROXIES_SH}
__hpcproxy_port=2015
__hpcproxy_own_recipe() {{ return 1; }}
while IFS= read -r value; do
    if __hpcproxy_elsewhere "$value"; then
        echo {ELSEWHERE}
    elif __hpcproxy_stray "$value"; then
        echo {OURS}
    else
        echo {LOOPBACK}
    fi
done"""


def _sorted(shell: str, values: list[str]) -> list[str]:
    done = subprocess.run(
        [shell, "-euc", _SORT],
        input="".join(f"{value}\n" for value in values),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


@every_shell
def test_a_proxy_is_known_however_it_is_spelled(shell: str) -> None:
    assert dict(zip(SPELLINGS, _sorted(shell, list(SPELLINGS)))) == SPELLINGS


_part = st.one_of(st.sampled_from(["127", "0", "0x7f", "0177", "64", "128"]), st.integers(0, 300).map(str))
_numeric = st.lists(_part, min_size=1, max_size=4).map(".".join)
_sixes = st.builds(
    lambda head, tail: head + tail,
    st.sampled_from(["::", "::ffff:", "0:0:0:0:0:ffff:", "1::", "2001:db8::", "::0:"]),
    st.sampled_from(["1", "0", "7f00:1", "7f40:2", "7fff:ffff", "8000:1", "127.0.0.1", "127.64.0.1", "10.0.0.1"]),
)


@settings(max_examples=8)
@given(st.lists(_numeric | st.integers(0, 2**32).map(str), min_size=25, max_size=25))
def test_numbers_are_what_the_c_library_takes_them_for(hosts: list[str]) -> None:
    for host, kind in zip(hosts, _sorted("dash", [f"http://{host}:2015" for host in hosts])):
        assert kind == _meant(host), host


@settings(max_examples=5)
@given(st.lists(_sixes, min_size=25, max_size=25))
def test_ipv6_likewise(hosts: list[str]) -> None:
    for host, kind in zip(hosts, _sorted("dash", [f"http://[{host}]:2015" for host in hosts])):
        assert kind == _meant6(host), host


def _meant(host: str) -> str:
    try:
        packed = socket.inet_aton(host)
    except OSError:
        return ELSEWHERE  # a name, whatever it looks like
    return OURS if packed[0] == 127 or packed == b"\0\0\0\0" else ELSEWHERE


def _meant6(host: str) -> str:
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        return ELSEWHERE
    low = int(address) & 0xFFFFFFFF
    within = int(address) >> 32 in (0, 0xFFFF) and (low >> 24 == 127)
    return OURS if within or int(address) in (0, 1) else ELSEWHERE


@every_shell
def test_a_name_is_this_machines_if_etc_hosts_says_so(shell: str, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(
        "# 127.0.0.1 no\n127.0.1.1\tnode7.site node7 # here\n10.0.0.3 node8\n::1 six\n" + "10.0.0.9 x\n" * 99
    )
    text = _SORT.replace(str(PROXIES_SH), str(tmp_path / "proxies.sh"))
    (tmp_path / "proxies.sh").write_text(PROXIES_SH.read_text().replace("</etc/hosts", f"<{hosts}"))
    names = ["node7.site", "node7", "node8", "six", "x", "no"]
    lines = "".join(f"http://{name}:2015\n" for name in names)
    done = subprocess.run([shell, "-euc", text], input=lines, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [OURS, OURS, ELSEWHERE, OURS, ELSEWHERE, ELSEWHERE]


# ------------------------------------------------------------------------------------------------ the user's own recipe


@contextmanager
def _listening(address: str, port: int, uid: int | None = None) -> Iterator[int]:
    """Somebody, this user or `uid`, listens there; 0 chooses a port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as sock:
        sock.bind((address, port))
        if uid is None:
            sock.listen()
            yield sock.getsockname()[1]
            return
        # The kernel has a socket down to who made it.
        sock.close()
        listen = f"s = socket.create_server(({address!r}, {port})); print(1, flush=True)"
        program = f"import socket, time; {listen}; time.sleep(99)"
        with subprocess.Popen(["python3", "-c", program], stdout=subprocess.PIPE, user=uid) as process:
            assert process.stdout is not None
            process.stdout.readline()
            yield port
            process.kill()


def _is_kept(shell: str, port: int, host: str = "127.0.0.1") -> bool:
    text = f". {PROXIES_SH}\n__hpcproxy_port={port}\nif __hpcproxy_stray http://{host}:{port}; then echo away; fi"
    done = script(shell, f"set -eu\n{text}")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout == ""


@every_shell
def test_the_recipe_stays_while_the_users_own_ssh_listens(shell: str) -> None:
    with _listening("127.0.0.1", 0) as port:
        assert _is_kept(shell, port)
        assert _is_kept(shell, port, "localhost")
        assert not _is_kept(shell, port, "127.0.0.2")
    assert not _is_kept(shell, port)


@every_shell
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_stranger_at_the_recipes_port_is_not_the_user(shell: str, address: str) -> None:
    with _listening("127.0.0.1", 0) as port:
        pass
    with _listening(address, port, uid=65534):
        assert not _is_kept(shell, port)
