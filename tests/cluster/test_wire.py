"""What goes over the wire, with a real bash at the other end that works on a directory of its own."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import paramiko
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcproxy.cluster import fan_out, protocol
from hpcproxy.cluster.outcome import HostOutcome
from hpcproxy.files.render import Bundle
from tests.cluster.cases import script_of
from tests.cluster.host import TOKEN, Host
from tests.snapshot import tree
from tests.sshd import USER, Sshd, make_key


@pytest.mark.parametrize("inspected", [True, False])
def test_whether_slurm_runs_our_epilog_is_left_on_record(
    host: Host, monkeypatch: pytest.MonkeyPatch, inspected: bool
) -> None:
    """By plain `deploy` too, on hosts that have all files: our Prolog goes by it."""
    monkeypatch.setattr(protocol, "PROGRAMS", host.root / "etc")
    bundle, mark = host.bundle(a_hook="1"), host.root / "etc/in-force"

    def applied(in_force: bool | None) -> str:
        if not inspected and (host.root / "store/owned").exists():
            (host.root / "store/owned").write_text(f"{host.root}/etc/a.d/a_hook\n{host.root}/none\n")
        return host.talk(protocol.message(bundle, "apply", TOKEN, slurm=protocol.SlurmPlace(in_force=in_force))).word

    assert (applied(False), mark.exists()) == ("changed", False)
    assert (applied(True), mark.exists()) == ("changed", True)
    assert [applied(True), applied(None)] == ["unchanged"] * 2
    assert mark.exists(), "who does not know leaves it"
    assert (applied(False), mark.exists()) == ("changed", False)
    assert applied(False) == "unchanged"
    assert applied(True) == "changed"
    assert host.do("remove", bundle).word == "changed"
    assert not mark.exists()


def test_apply_is_idempotent_and_remove_leaves_nothing(host: Host) -> None:
    before = tree(host.root)
    bundle = host.bundle(a_hook="one\n", program="two\n")
    assert host.do("look", bundle).word == "would"
    assert tree(host.root) == before
    assert host.do("apply", bundle).word == "changed"
    assert (host.root / "lib/ours/program").read_text() == "two\n"
    once = tree(host.root, times=True)
    answer = host.do("apply", bundle)
    assert (answer.word, answer.changes) == ("unchanged", ())
    assert {k: v for k, v in tree(host.root, times=True).items() if k != "."} == {
        k: v for k, v in once.items() if k != "."
    }
    assert host.do("remove", bundle).word == "changed"
    assert tree(host.root) == before


def test_an_archive_that_is_cut_short_changes_nothing(host: Host) -> None:
    host.do("apply", host.bundle(a_hook="1", program="x" * 100_000))
    noise = random.Random(1).randbytes(50_000).hex()  # noqa: S311 - no secret: it does not compress
    message = protocol.message(host.bundle(a_hook="2", program=noise), "apply", TOKEN)
    before = tree(host.root)
    for cut in (200, 20_000):
        assert host.talk(message[:-cut]).word == "failed"
        assert tree(host.root) == before


def test_files_that_are_whole_count_not_what_is_around_them(host: Host) -> None:
    """The last byte is gzip's own."""
    message = protocol.message(host.bundle(a_hook="1"), "apply", TOKEN)
    assert host.talk(message[:-1]).word == "changed"
    assert (host.root / "etc/a.d/a_hook").read_text() == "1"


def test_a_wrong_byte_in_the_archive_changes_nothing(host: Host) -> None:
    bundle = host.bundle(a_hook="1")
    other = Bundle(tuple(replace(file, content=b"evil") for file in bundle.files))
    script = script_of(protocol.message(bundle, "apply", TOKEN))
    answer = host.talk(
        protocol.framed(script, protocol.archive(other.files, protocol.Place(protocol.STORE, protocol.LOCK_FILE)))
    )
    assert (answer.word, answer.text) == ("failed", "the archive did not arrive whole")
    assert not (host.root / "etc/a.d/a_hook").exists()


@pytest.fixture
def inspect(host: Host) -> Callable[[], str]:
    """A host that has a version; returns how it answers to a message whose script says nothing."""
    bundle = host.bundle(a_hook="1", program="2")
    assert host.do("apply", bundle).word == "changed"

    def answer() -> str:
        first = protocol.inspection(bundle, TOKEN, protocol.Place(protocol.STORE, protocol.LOCK_FILE))
        try:
            return host.talk(protocol.framed(b":\n", bytes(300_000), first)).word
        except protocol.NoAnswerError:
            return ""

    return answer


def test_one_inspection_is_enough_for_a_host_that_has_all(inspect: Callable[[], str]) -> None:
    assert inspect() == "unchanged"


@pytest.mark.parametrize(
    "harm",
    [
        "echo 3 >lib/ours/program",
        "chmod 0600 lib/ours/program",
        "chmod 4644 lib/ours/program",
        "rm etc/a.d/a_hook",
        "mv lib/ours/program there; ln -s ../../there lib/ours/program",
        "rm lib/ours/program; mkfifo -m 0644 lib/ours/program",
        "rm lib/ours/program; mkdir -m 0644 lib/ours/program",
        "echo x >more; echo $PWD/more >>store/owned",
        "rm store/owned",
        "rm store/manifest",
        "echo >>store/manifest",
        "sed -i 's/0644/x[$(touch evil)]/' store/manifest",
        ": >store/manifest",
        "touch lock",
    ],
)
def test_whatever_is_not_as_it_should_be_is_looked_at_closely(
    host: Host, inspect: Callable[[], str], harm: str
) -> None:
    subprocess.run(["bash", "-ec", harm], cwd=host.root, check=True)
    assert inspect() == ""
    assert not (host.root / "evil").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")
def test_a_file_of_another_owner_is_looked_at_closely(host: Host, inspect: Callable[[], str]) -> None:
    shutil.chown(host.root / "lib/ours/program", "nobody")
    assert inspect() == ""


def test_an_inspection_is_enough_after_every_change_too(host: Host, inspect: Callable[[], str]) -> None:
    host.do("apply", host.bundle(a_first="0", a_hook="2"))
    assert inspect() == ""
    host.do("apply", host.bundle(a_hook="1", program="2"))
    assert inspect() == "unchanged"


def test_what_follows_the_script_is_never_read_as_shell(host: Host) -> None:
    """Whatever the script does: here it ends at once, without a word, and without reading on."""
    message = protocol.framed(b":\n", b"printf 'hpcproxy-token done changed\\n'\n")
    with pytest.raises(protocol.NoAnswerError):
        host.talk(message)


def test_somebody_elses_file_is_kept_unless_it_is_the_same(host: Host) -> None:
    (host.root / "etc/a.d").mkdir()
    path = host.root / "etc/a.d/a_hook"
    path.write_text("theirs")
    before = tree(host.root)
    answer = host.do("apply", host.bundle(a_hook="ours"))
    assert answer.text == f"somebody else's file is in the way, kept as it is: {path}"
    assert tree(host.root) == before
    path.write_text("ours")
    assert host.do("apply", host.bundle(a_hook="ours")).word == "changed"


def test_a_link_or_directory_in_the_way_is_somebody_elses(host: Host) -> None:
    (host.root / "etc/a.d").mkdir()
    (host.root / "etc/a.d/a_hook").symlink_to("/nowhere")
    assert host.do("apply", host.bundle(a_hook="ours")).word == "failed"
    assert (host.root / "etc/a.d/a_hook").is_symlink()


def test_no_file_is_ever_staged_where_others_read_whole_directories(host: Host) -> None:
    host.do("apply", host.bundle(a_hook="1"))
    assert [path.name for path in (host.root / "etc/a.d").iterdir()] == ["a_hook"]
    assert sorted(path.name for path in (host.root / "etc").iterdir()) == ["a.d"]


def test_a_directory_that_cannot_be_written(host: Host) -> None:
    (host.root / "etc").chmod(0o555)
    answer = host.do("apply", host.bundle(a_hook="1"))
    (host.root / "etc").chmod(0o755)
    assert answer.word == "failed"
    assert "Permission denied" in answer.text


def test_content_comes_back_for_a_diff(host: Host) -> None:
    host.do("apply", host.bundle(a_hook="größe\n"))
    answer = host.do("look", host.bundle(a_hook="new\n"), want_content=True)
    assert answer.contents == {str(host.root / "etc/a.d/a_hook"): "größe\n".encode()}
    assert answer.facts["bash"]


# ---- files of somebody's


def test_an_edit_needs_the_file_as_it_was(host: Host) -> None:
    path = host.root / "etc" / "slurm.conf"
    path.write_bytes(b"a=1\n\xff")
    path.chmod(0o640)
    answer = host.talk(protocol.reading((str(path), f"{path}.none"), TOKEN, ("printf", "said")))
    assert answer.contents == {str(path): b"a=1\n\xff", "output": b"said\n"}
    edit = protocol.Edit(str(path), b"a=1\n\xff", b"a=2\n\xff")
    assert host.talk(protocol.editing((edit,), TOKEN)).word == "changed"
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"a=2\n\xff", 0o640)
    assert host.talk(protocol.editing((edit,), TOKEN)).word == "unchanged"
    late = protocol.Edit(str(path), b"a=1\n\xff", b"a=3\n")
    assert "changed by somebody else meanwhile" in host.talk(protocol.editing((late,), TOKEN)).text
    assert path.read_bytes() == b"a=2\n\xff"
    assert host.talk(protocol.editing((protocol.Edit(str(path), b"a=2\n\xff", None),), TOKEN)).word == "changed"
    assert not path.exists()
    assert host.talk(protocol.editing((protocol.Edit(str(path), None, b"new"),), TOKEN)).word == "changed"
    assert path.read_bytes() == b"new"


def test_an_edit_goes_through_a_link(host: Host) -> None:
    real, link = host.root / "etc" / "real", host.root / "etc" / "link"
    real.write_text("1")
    link.symlink_to("real")
    assert host.talk(protocol.editing((protocol.Edit(str(link), b"1", b"2"),), TOKEN)).word == "changed"
    assert link.is_symlink()
    assert real.read_text() == "2"


# ---- answers


def test_lines_of_others_are_not_taken_for_ours() -> None:
    output = f"welcome\ndone failed x\nno newline{TOKEN} file create /a b\n{TOKEN} fact ssh 9\n{TOKEN} done changed\n"
    answer = protocol.parse(output.encode(), TOKEN)
    assert (answer.word, answer.changes, answer.facts) == (
        "changed",
        (protocol.Change("create", "/a b"),),
        {"ssh": "9"},
    )


@given(st.binary(max_size=200))
def test_any_noise_is_no_answer(noise: bytes) -> None:
    with pytest.raises(protocol.NoAnswerError):
        protocol.parse(noise, TOKEN)


def test_the_same_files_make_the_same_archive(host: Host) -> None:
    bundle = host.bundle(a_hook="1", program="2")
    place = protocol.Place(protocol.STORE, protocol.LOCK_FILE)
    assert protocol.archive(bundle.files, place) == protocol.archive(bundle.files, place)


# ---- a host that falls silent


class _Deaf(paramiko.ServerInterface):
    """Lets everybody in and never answers what is to be run."""

    def __init__(self, ended: threading.Event) -> None:
        self.ended = ended

    def get_allowed_auths(self, username: str) -> str:  # noqa: ARG002 - as Paramiko calls it
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:  # noqa: ARG002 - as Paramiko calls it
        return paramiko.AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:  # noqa: ARG002 - as Paramiko calls it
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:  # noqa: ARG002 - as Paramiko calls it
        self.ended.wait()
        return False


@pytest.mark.parametrize(("size_bytes", "trouble"), [(10, "does not answer within 1 s"), (1_900_000, "hung up")])
def test_a_host_that_falls_silent_after_the_login_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size_bytes: int, trouble: str
) -> None:
    """With what it was sent in its buffers, or while more is sent than they hold: Paramiko would try for ever."""
    connect = socket.create_connection

    def connect_with_little_room(*arguments: Any, **named: Any) -> socket.socket:
        made = connect(*arguments, **named)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return made

    monkeypatch.setattr(socket, "create_connection", connect_with_little_room)
    identity = make_key(tmp_path / "id")
    host_key = paramiko.Ed25519Key.from_private_key_file(str(make_key(tmp_path / "host_key")))
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        port = listener.getsockname()[1]
        (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{port} ssh-ed25519 {host_key.get_base64()}\n")
        fleet = fan_out.Fleet(fan_out.Login("root", port, identity, None, tmp_path / "known_hosts", 1), 1, TOKEN)
        replies: list[HostOutcome] = []
        asking = threading.Thread(target=lambda: replies.extend(fleet.ask({"127.0.0.1": bytes(size_bytes)}).hosts))
        asking.start()
        transport = paramiko.Transport(listener.accept()[0])
        transport.add_server_key(host_key)
        try:
            transport.start_server(server=_Deaf(ended), event=threading.Event())
            asking.join(timeout=30)
            assert [reply.cause for reply in replies] == [trouble]
        finally:
            ended.set()
            transport.close()


@pytest.mark.parametrize("said", ["done unchanged", ""])
def test_a_host_may_end_before_it_has_read_all(tmp_path: Path, jump_host: Sshd, said: str) -> None:
    """By the real sshd, which takes 2 MB before its program reads any; the connection is then over for the sender."""
    (tmp_path / "known_hosts").write_text(jump_host.known_hosts)
    login = fan_out.Login(USER, jump_host.port, jump_host.identity, None, tmp_path / "known_hosts", 30)
    message = f"echo '{TOKEN} {said}'; exit\n".encode() + bytes(20_000_000)
    (reply,) = fan_out.Fleet(login, 1, TOKEN).ask({"127.0.0.1": message}).hosts
    if said:
        assert reply.answer is not None, reply.cause
        assert reply.answer.word == "unchanged"
    else:
        assert reply.cause.startswith("it ended without an answer")


# A key exchange whose first list of names is no text, in a packet as ssh sends it (RFC 4253, 6 and 7.1).
_NO_NAMES = bytes([20]) + bytes(16) + b"\0\0\0\2\xff\xff" + bytes(36 + 5)
_NO_SSH = b"SSH-2.0-none\r\n" + (len(_NO_NAMES) + 1 + 11).to_bytes(4, "big") + bytes([11]) + _NO_NAMES + bytes(11)


def test_bytes_that_are_no_ssh_are_the_trouble_of_one_host(tmp_path: Path) -> None:
    """Paramiko's parser raises what it meets, here a UnicodeDecodeError; the run goes on."""
    identity = make_key(tmp_path / "id")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        (tmp_path / "known_hosts").touch()
        fleet = fan_out.Fleet(fan_out.Login("root", port, identity, None, tmp_path / "known_hosts", 30))
        replies: list[HostOutcome] = []
        asking = threading.Thread(target=lambda: replies.extend(fleet.ask({"127.0.0.1": b"exit\n"}).hosts))
        asking.start()
        client = listener.accept()[0]
        with client:
            client.sendall(_NO_SSH)
            asking.join(timeout=60)
        (reply,) = replies
        assert reply.cause.startswith("ssh failed: what came is none, UnicodeDecodeError")
        waits = [thread.name for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
        assert not waits, "nothing keeps the program from ending"
