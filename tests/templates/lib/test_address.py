"""lib/any/address.sh: where a tunnel listens, by job and by user; nobody asks anybody for it."""

from __future__ import annotations

import ipaddress
import os
import subprocess

import pytest

from hpcproxy.files.render import TEMPLATES

ADDRESS_SH = TEMPLATES / "lib" / "any" / "address.sh"
JOBS = ipaddress.IPv4Network("127.64.0.0/10")
USERS = ipaddress.IPv4Network("127.128.0.0/9")
CLUSTER = 1 << 26  # FED_MGR_CLUSTER_ID_BEGIN


def _addresses(*keys: object, uid: int | None = None) -> list[ipaddress.IPv4Address]:
    program = f'set -euo pipefail; . {ADDRESS_SH}; for key; do job_address "$key"; echo "$address"; done'
    argv = ["bash", "-c", program, "bash", *map(str, keys)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, user=uid)
    return [ipaddress.IPv4Address(line) for line in done.stdout.split()]


def test_a_jobs_address_is_its_number() -> None:
    numbers = {1: "127.64.0.1", 65536: "127.65.0.0", (1 << 22) - 1: "127.127.255.255", 1 << 22: "127.64.0.0"}
    assert list(map(str, _addresses(*numbers))) == list(numbers.values())


def test_jobs_of_one_number_in_several_clusters_of_a_federation_do_not_meet() -> None:
    for number in (1, 5, 70_000, 4_000_000):
        found = _addresses(*(cluster * CLUSTER + number for cluster in range(64)))
        assert len(set(found)) == 64
        assert all(address in JOBS for address in found)


def test_neighbours_never_meet() -> None:
    for first in (1, 4_194_000, CLUSTER - 500, 3 * CLUSTER - 500, 2**32 - 1001):
        found = _addresses(*range(first, first + 1000))
        assert len(set(found)) == 1000
        assert all(address in JOBS for address in found)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_each_user_of_a_login_node_has_an_address_of_his_own() -> None:
    uids = [0, 1000, 1001, 65534, (1 << 22) - 1, 1 << 22, (1 << 22) + 1000, 1_668_601_104, 1_668_601_105, 2**32 - 2]
    found = [_addresses("shell", uid=uid)[0] for uid in uids]
    assert len(set(found)) == len(uids)
    assert all(address in USERS and str(address) != "127.255.255.255" for address in found)
    assert str(found[1]) == "127.128.3.232"


def test_no_users_address_is_a_jobs() -> None:
    assert _addresses("shell")[0] in USERS
    assert not USERS.overlaps(JOBS)
