from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hpcproxy.errors import BlockError
from hpcproxy.files import block

BODY = b"if true; then :; fi\n"
BLOCK = block.put(b"", BODY)

# Lines that look like ours and are not, so that a sloppier search for the markers would trip over them.
_NEAR_MISSES = [
    b"  " + block.BEGIN,
    block.BEGIN + b"x",
    b"x" + block.END,
    b"# >>> conda initialize >>>",
    b"# <<< conda initialize <<<",
    block.BEGIN[:-1],
    b"#" + block.END,
]
_lines = st.one_of(
    st.sampled_from([b"", b"export A=1", b"\xff\xfe", b"# caf\xe9", b"a\x0cb", b"a\x85b", b"a\rb", *_NEAR_MISSES]),
    st.binary(max_size=20),
)
_endings = st.sampled_from([b"\n", b"\r\n", b"\n", b""])
_texts = st.lists(st.builds(lambda line, ending: line + ending, _lines, _endings), max_size=12).map(b"".join)


def _is_free_of_markers(text: bytes) -> bool:
    return not any(line.rstrip().startswith((block.BEGIN, block.END)) for line in text.split(b"\n"))


def _free(text: bytes) -> bytes:
    assume(_is_free_of_markers(text))
    return text


@settings(max_examples=3000)
@given(_texts)
def test_what_put_did_remove_undoes_byte_for_byte(text: bytes) -> None:
    _free(text)
    assert block.remove(block.put(text, BODY)) == text


@given(_texts)
def test_putting_twice_is_putting_once(text: bytes) -> None:
    once = block.put(_free(text), BODY)
    assert block.put(once, BODY) == once


@given(_texts)
def test_a_new_body_takes_the_old_ones_place(text: bytes) -> None:
    assert block.put(block.put(_free(text), b"old\nlines\n"), BODY) == block.put(text, BODY)


@given(_texts, _texts)
def test_text_around_the_block_never_changes(before: bytes, after: bytes) -> None:
    _free(before)
    _free(after)
    whole = block.put(before, b"old\n") + after
    changed = block.put(whole, BODY)
    assert changed.startswith(before)
    assert changed.endswith(after)
    assert changed == block.put(before, BODY) + after
    assert block.remove(changed).startswith(before)
    assert block.remove(changed).endswith(after)


@given(_texts)
def test_text_without_a_block_is_left_alone(text: bytes) -> None:
    assert block.remove(_free(text)) == text


def test_a_line_appended_behind_the_block_stays_a_line_of_its_own() -> None:
    assert block.remove(block.put(b"no newline", BODY) + b"export A=1\n") == b"no newline\nexport A=1\n"


@pytest.mark.parametrize("text", [b"", b"a", b"a\n", b"a\r\n", b"a\r", b"\n", b"\xff", *_NEAR_MISSES], ids=repr)
def test_named_texts_come_back(text: bytes) -> None:
    assert block.remove(block.put(text, BODY)) == text


def test_the_block_itself_is_readable_by_a_shell_even_in_a_crlf_file() -> None:
    added = block.put(b"export A=1\r\n", BODY).removeprefix(b"export A=1\r\n")
    assert b"\r" not in added
    assert added == block.BEGIN + b"\n" + BODY + block.END + b"\n"


def test_markers_whose_line_ends_an_editor_made_crlf_are_still_ours() -> None:
    crlf = b"a\r\n" + BLOCK.replace(b"\n", b"\r\n") + b"b\r\n"
    assert block.remove(crlf) == b"a\r\nb\r\n"
    assert block.put(crlf, BODY) == b"a\r\n" + BLOCK + b"b\r\n"


_DAMAGED = {
    "no end": block.BEGIN + b"\n" + BODY,
    "no begin": BODY + block.END + b"\n",
    "end before begin": block.END + b"\n" + block.BEGIN + b"\n",
    "two blocks": BLOCK + b"a\n" + BLOCK,
    "two begins": block.BEGIN + b"\n" + BLOCK,
    "two ends": BLOCK + block.END + b"\n",
}


@pytest.mark.parametrize("damage", _DAMAGED)
@pytest.mark.parametrize("around", [b"", b"a\n"])
def test_damaged_markers_are_an_error_that_names_the_file(damage: str, around: bytes) -> None:
    text = around + _DAMAGED[damage] + around
    with pytest.raises(BlockError, match=r"/some/\.bashrc: holds .*; the file is unchanged"):
        block.put(text, BODY, "/some/.bashrc")
    with pytest.raises(BlockError):
        block.remove(text, "/some/.bashrc")
