"""What the shell can tell of a private key without asking for its passphrase."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

REASON_SH = Path(__file__).parent.parent / "templates" / "lib" / "reason.sh"


@pytest.mark.parametrize("passphrase", ["", "secret"], ids=["plain", "encrypted"])
@pytest.mark.parametrize(
    "kind",
    [("-t", "ed25519"), ("-t", "rsa"), ("-t", "rsa", "-m", "PEM"), ("-t", "rsa", "-m", "PKCS8"), ("-t", "ecdsa")],
    ids=" ".join,
)
def test_a_key_that_needs_a_passphrase_is_known_by_its_first_lines(
    kind: tuple[str, ...], passphrase: str, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", *kind, "-N", passphrase, "-f", key], check=True)
    script = 'set -euo pipefail; . "$0"; if needs_passphrase "$1"; then echo encrypted; else echo plain; fi'
    done = subprocess.run(["bash", "-c", script, REASON_SH, key], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("encrypted\n" if passphrase else "plain\n", "")
