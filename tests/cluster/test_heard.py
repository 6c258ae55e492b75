"""What a host says is one printable line of words that are ours, or no answer; secrets are shown nowhere."""

from __future__ import annotations

import base64
import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcproxy import heard
from hpcproxy.cluster import protocol
from hpcproxy.cluster.outcome import HostOutcome, Outcomes
from hpcproxy.files.plan import Artifact
from hpcproxy.files.render import Bundle, File
from tests.cluster.host import TOKEN, Host

ESCAPE = "\x1b]0;TITLE\x07\x1b[2J\x1b[31mALL-NODES-OK\x1b[0m\u202e\u2028"
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmU\n-----END OPENSSH PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    "said",
    [
        f"file create /etc/{ESCAPE}",
        f"file breach {ESCAPE}",
        f"fact python3 {ESCAPE}",
        f"content /etc/{ESCAPE} eA==",
        f"done failed {ESCAPE}",
        "done failed caf\udce9 \udcff",
    ],
)
def test_what_a_host_says_is_shown_as_printable_text(said: str) -> None:
    output = f"{TOKEN} {said}\n{TOKEN} done would\n".encode(errors="surrogateescape")
    answer = protocol.parse(output, TOKEN)
    shown = [answer.text, *answer.facts.values(), *answer.contents, *(change.path for change in answer.changes)]
    assert any(shown)
    assert all(text.isprintable() for text in shown)


@pytest.mark.parametrize("said", [f"done {ESCAPE} x", "done", "file burn /x", f"fact {ESCAPE} x", "fact ../x y"])
def test_a_word_that_is_none_of_ours_is_no_answer(said: str) -> None:
    with pytest.raises(protocol.NoAnswerError) as caught:
        protocol.parse(f"{TOKEN} {said}\n{TOKEN} done unchanged\n".encode(), TOKEN)
    assert str(caught.value).isprintable()


def test_an_answer_of_many_lines_is_none() -> None:
    many = b"".join(b"%s file create /x/%d\n" % (TOKEN.encode(), number) for number in range(10_000))
    with pytest.raises(protocol.NoAnswerError, match="says more than any answer holds"):
        protocol.parse(many + TOKEN.encode() + b" done would\n", TOKEN)


@given(st.lists(st.tuples(st.sampled_from(["file", "fact", "content", "done"]), st.binary(max_size=30)), max_size=5))
def test_whatever_it_says_is_an_answer_of_ours_or_none(lines: list[tuple[str, bytes]]) -> None:
    output = b"".join(b"%s %s %s\n" % (TOKEN.encode(), verb.encode(), said) for verb, said in lines)
    with contextlib.suppress(protocol.NoAnswerError):
        answer = protocol.parse(output, TOKEN)
        assert answer.word in protocol.WORDS
        assert {change.action for change in answer.changes} <= set(protocol.CHANGES)
        assert answer.text.isprintable()


# ---- secrets


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        "-----BEGIN RSA PRIVATE KEY-----",
        "PuTTY-User-Key-File-3: ssh-ed25519",
        "password: hunter2",
        'export WANDB_API_KEY=x\napi_key = "x"',
        "token=abc",
    ],
)
def test_what_looks_like_a_secret_is_one(text: str) -> None:
    assert heard.is_secret(f"# a file\n{text}\n".encode())


@pytest.mark.parametrize(
    "text", ["PasswordAuthentication no", "c1 ssh-ed25519 AAAAC3Nz", "# the password is asked", ""]
)
def test_what_does_not_look_like_a_secret_is_none(text: str) -> None:
    assert not heard.is_secret(text.encode())


def _site(host: Host, *, secret: bool, content: str) -> Bundle:
    (file,) = host.bundle(a_key=content).files
    artifact = Artifact("a_key", "t", file.artifact.path, 0o644, "", file.artifact.owner, secret=secret)
    return Bundle((File(artifact, content.encode()),))


def _shown(host: Host, bundle: Bundle) -> str:
    """Everything that a look with `--diff` is given to show, and what came over the wire for it."""
    answer = host.do("look", bundle, want_content=True)
    outcomes = Outcomes((HostOutcome("c1", answer.word, answer.text, answer),))
    lines = [line for difference in outcomes.differences(bundle) for line in difference.lines]
    assert lines, "the change itself is told"
    return "\n".join([*lines, *(content.decode() for content in answer.contents.values()), repr(bundle), repr(answer)])


@pytest.mark.parametrize("there", [None, "other\n"])
def test_a_files_secret_mark_keeps_it_out_of_every_diff(host: Host, there: str | None) -> None:
    bundle = _site(host, secret=True, content="correct horse\n")
    if there is not None:
        assert host.do("apply", _site(host, secret=True, content=there)).word == "changed"
    shown = _shown(host, bundle)
    assert "horse" not in shown
    assert "other" not in shown
    assert bundle.files[0].digest not in shown


@pytest.mark.parametrize(("before", "after"), [("plain\n", KEY), (KEY, "plain\n"), ("token: x\n", "token: y\n")])
def test_what_looks_like_a_secret_is_kept_out_without_a_mark(host: Host, before: str, after: str) -> None:
    host.do("apply", _site(host, secret=False, content=before))
    answer = host.do("look", _site(host, secret=False, content=after), want_content=True)
    (difference,) = Outcomes((HostOutcome("c1", "would", "", answer),)).differences(
        _site(host, secret=False, content=after)
    )
    assert difference.lines == (f"{difference.path}: {heard.HIDDEN}",)


def test_what_somebody_has_shut_never_leaves_the_host(host: Host) -> None:
    host.do("apply", _site(host, secret=False, content="one\n"))
    (host.root / "etc/a.d/a_key").chmod(0o600)
    assert "-one" not in _shown(host, _site(host, secret=False, content="two\n"))


def test_what_nobody_reads_stays_on_the_host(host: Host) -> None:
    host.do("apply", _site(host, secret=False, content="x" * 300_000))
    assert host.do("look", _site(host, secret=False, content="two\n"), want_content=True).contents == {}


def test_a_diff_shows_no_escape_sequence() -> None:
    said = (
        f"{TOKEN} file change /f\n{TOKEN} content /f {base64.b64encode(ESCAPE.encode()).decode()}\n{TOKEN} done would\n"
    )
    bundle = Bundle((File(Artifact("f", "f", Path("/f"), 0o644, ""), b"x\n"),))
    (difference,) = Outcomes((HostOutcome("c1", "would", "", protocol.parse(said.encode(), TOKEN)),)).differences(
        bundle
    )
    assert all(line.isprintable() for line in difference.lines)
    assert any("ALL-NODES-OK" in line for line in difference.lines)
