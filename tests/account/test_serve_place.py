"""Where `serve` has its sockets."""

from __future__ import annotations

import socket
from pathlib import Path

from hpcproxy.account.serve import _directory


def test_a_directory_whose_name_is_too_long_for_a_socket_is_not_taken(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    with _directory({"TMPDIR": str(long)}) as found:
        assert long not in found.parents
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(found / "rev.4194304"))
    assert not found.exists()
    assert list(long.iterdir()) == []
