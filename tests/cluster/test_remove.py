"""`undeploy` on one host: what Slurm still runs stays, and what nobody can know of stays too."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hpcproxy.cluster import protocol
from hpcproxy.files.plan import EPILOG, PROLOG, TASK_PROLOG, Artifact
from hpcproxy.files.render import Bundle, File
from tests.cluster.host import ME, TOKEN, Host

UNABLE = "echo 'slurm_load_ctl_conf error: Unable to contact slurm controller (connect failure)' >&2; exit 1"


@pytest.fixture
def bundle(host: Host) -> Bundle:
    """Our three scripts, put in place."""
    paths = {
        TASK_PROLOG: host.root / "lib/taskprolog",
        EPILOG: host.root / "etc/epilog.d/50-hpcproxy",
        PROLOG: host.root / "etc/prolog.d/50-hpcproxy",
    }
    files = (File(Artifact(name, "t", path, 0o755, "", ME), b"#!/bin/sh\n") for name, path in paths.items())
    ours = Bundle(tuple(files))
    assert host.do("apply", ours).word == "changed"
    return ours


def removed(host: Host, bundle: Bundle, slurm_bin: str | None = None) -> protocol.Answer:
    return host.talk(
        protocol.message(bundle, "remove", TOKEN, slurm=protocol.SlurmPlace(slurm_bin or str(host.root / "bin")))
    )


def slurm(host: Host, script: str) -> None:
    """`scontrol` does `script`, and there is a slurm.conf."""
    (host.root / "bin").mkdir(exist_ok=True)
    (host.root / "bin/scontrol").write_text(f"#!/bin/bash\n{script}\n")
    (host.root / "bin/scontrol").chmod(0o755)
    (host.root / "etc/slurm.conf").touch()


def says(host: Host, *lines: str) -> None:
    slurm(host, "\n".join(f"echo '{line}'" for line in lines) or "true")


def there(host: Host) -> bool:
    return (host.root / "etc/prolog.d/50-hpcproxy").exists()


def test_where_no_slurm_is_there_is_none_to_ask(host: Host, bundle: Bundle) -> None:
    slurm(host, UNABLE)
    (host.root / "etc/slurm.conf").unlink()
    assert removed(host, bundle).word == "changed"
    assert not there(host)


def test_where_slurm_does_not_say_the_files_stay(host: Host, bundle: Bundle) -> None:
    slurm(host, UNABLE)
    answer = removed(host, bundle)
    assert answer.text.startswith("whether Slurm still needs the files cannot be known, so they stay: ")
    assert "Unable to contact slurm controller" in answer.text
    assert there(host)


def test_a_slurm_without_its_programs_is_named(host: Host, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.cluster.host.script_of", lambda message: message)
    (host.root / "etc/slurm.conf").touch()
    message = protocol.message(bundle, "remove", TOKEN).replace(b"command -v scontrol", b"command -v no-contr1")
    answer = host.talk(message)
    assert "say where with slurm_bin" in answer.text
    assert there(host)


@pytest.mark.parametrize(
    ("line", "beside", "words"),
    [
        ("Prolog = {etc}/prolog.d/*", "", "slurm.conf still says Prolog={etc}/prolog.d/*, where nothing would be left"),
        ("Prolog = {etc}/prolog.d/[0-9]*", "README", "where nothing would be left to run"),
        ("Prolog[1] = {etc}/prolog.d/*", "60-no-run-bit", "where nothing would be left to run"),
        ("Prolog = {etc}/*.d/*", "", "where nothing would be left to run"),
        ("Epilog = {etc}/epilog.d/50-hpcproxy", "", "slurm.conf still says Epilog="),
        ("TaskProlog = {root}/lib/taskprolog", "", "slurm.conf still says TaskProlog="),
        ("Prolog = {etc}/prolog.d/*", "60-site+x", ""),
        ("Prolog = {etc}/other.d/*", "", ""),
        ("PrologFlags = Alloc", "", ""),
        ("PrologSlurmctld = {etc}/prolog.d/50-hpcproxy", "", ""),
    ],
)
def test_what_slurm_would_miss_stays(host: Host, bundle: Bundle, line: str, beside: str, words: str) -> None:
    paths = {"root": str(host.root), "etc": str(host.root / "etc")}
    says(host, line.format(**paths))
    if beside:
        path = host.root / "etc/prolog.d" / beside.removesuffix("+x")
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755 if beside.endswith("+x") else 0o644)
    answer = removed(host, bundle)
    assert (answer.word == "failed") == bool(words)
    assert words.format(**paths) in answer.text
    assert there(host) == bool(words)


def test_while_a_job_runs_whose_slurmstepd_keeps_the_epilog_of_its_start(host: Host, bundle: Bundle) -> None:
    says(host, "PrologFlags = Alloc,RunInJob")
    with _process(host.root / "slurmstepd"):
        assert "a job runs here" in removed(host, bundle).text
        assert there(host)
    assert removed(host, bundle).word == "changed"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who trusts himself, and a user whom he does not")
@pytest.mark.parametrize("name", ["slurmd", "slurmctld"])
def test_a_users_process_of_a_daemons_name_lends_root_no_program_and_no_configuration(
    host: Host, bundle: Bundle, name: str
) -> None:
    """Root ran `scontrol` from beside whoever was called so, with his slurm.conf."""
    with tempfile.TemporaryDirectory(dir="/tmp") as home:
        Path(home).chmod(0o755)
        own = Path(home, "sbin")
        own.mkdir()
        stolen = Path(home, "stolen")
        (own / "scontrol").write_text(f'#!/bin/bash\nid -u >{stolen}; echo "$SLURM_CONF" >>{stolen}\n')
        (own / "scontrol").chmod(0o755)
        (host.root / "etc/slurm.conf").touch()
        with _process(own / name, "-f", f"{home}/slurm.conf", uid=2002):
            removed(host, bundle, slurm_bin="/nonexistent")
        assert not stolen.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, and a user whom he does not trust")
def test_a_users_process_called_slurmstepd_is_no_job(host: Host, bundle: Bundle) -> None:
    says(host, "PrologFlags = Alloc,RunInJob")
    with tempfile.TemporaryDirectory(dir="/tmp") as home:
        Path(home).chmod(0o755)
        with _process(Path(home, "slurmstepd"), uid=2002):
            assert removed(host, bundle).word == "changed"


@contextmanager
def _process(program: Path, *more: str, uid: int | None = None) -> Iterator[None]:
    """A process of that name, which sleeps whatever words it has."""
    bash = Path("/bin/bash" if more else "/bin/sleep").resolve()
    program.write_bytes(bash.read_bytes())
    program.chmod(0o755)
    words = ["-c", "read -t 60; exit", "x", *more] if more else ["60"]
    with subprocess.Popen([program, *words], user=uid, stdin=subprocess.PIPE) as process:
        try:
            yield
        finally:
            process.kill()
