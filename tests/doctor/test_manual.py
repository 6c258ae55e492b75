"""docs/doctor.md shows what the program prints, and every check that there is."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from hpcproxy.account.account import Account
from hpcproxy.doctor import graph, of_endpoints, table
from hpcproxy.doctor.finding import Found, Mark
from hpcproxy.doctor.of_endpoints import ENDPOINTS
from hpcproxy.doctor.patient import Patient
from tests import sshd
from tests.doctor import internet, manual
from tests.doctor.conftest import set_up

pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


def _found(account: Account) -> list[Found]:
    patient = Patient(account)
    try:
        return graph.run(table.of(patient), patient, 300)
    finally:
        patient.temporary.end()


def test_the_page_shows_what_the_program_prints(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS", "PIP_CERT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    runs, names = {}, {os.environ["TMPDIR"]: "/tmp"}
    with sshd.running(tmp_path / "own") as own, internet.running(tmp_path / "far") as far:
        monkeypatch.setenv("SSL_CERT_FILE", str(far.authority))
        monkeypatch.setattr(of_endpoints, "ENDPOINTS", [(name, far.base, variable) for name, _, variable in ENDPOINTS])
        place = far.base.removeprefix("https://")
        names |= {
            f" -p {own.port} {sshd.USER}@127.0.0.1": " alice@jump1",
            own.jump: "alice@jump1",
            place: "ipinfo.io:443",
            "127.0.0.1": "ipinfo.io",
            str(own.identity): f"{account.user_home}/.ssh/id_hpcproxy",
        }
        runs["fresh"] = manual.report(_found(account), names, account.user_home)
        set_up(account, own, check_url=far.url)
        well = _found(account)
        runs["well"] = manual.report(well, names, account.user_home)
        (own.directory / "authorized_keys").write_text("")
        runs["refused"] = manual.report(_found(account), names, account.user_home)
    # Those have tests of their own in which they are content (test_variables.py, test_job.py).
    assert {one.name for one in well if one.finding.mark is not Mark.GOOD} == {"variables", "nodes of this job"}
    target = tmp_path / "doctor.md"
    target.write_text(manual.made(runs))
    assert target.read_text() == manual.PAGE.read_text(), f"after a look at what changed: cp {target} docs/doctor.md"


def test_the_page_has_every_check() -> None:
    text = manual.PAGE.read_text()
    assert [check.name for check in table.ALL if f"| **{check.name}** |" not in text] == []
    assert len(table.ALL) >= 30


def test_every_check_has_a_test_that_breaks_it() -> None:
    """Endpoints and tools have theirs for each row of their tables."""
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    broken = re.findall(r'is_bad\(\s*(?:found\[|look\([^"]*)"([^"]+)"', text)
    wanted = {check.name for check in table.ALL if check.family not in {"endpoints", "tools"}}
    assert (
        wanted
        - {*broken, *re.findall(r'found = look\([^"]*"([^"]+)"[^\n]*\n(?:    .*\n){0,4}?    is_bad\(found,', text)}
        == set()
    )
