"""Where the body of an HTTP message ends, however it is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcproxy.node.proxy import body as framing


def chunked(parts, trailer=b""):
    sizes = b"".join(b"%x;a=b\r\n" % len(part) + part + b"\r\n" for part in parts if part)
    return sizes + b"0\r\n" + trailer + b"\r\n"


@pytest.mark.parametrize("size", [b"5", b"0000000000000005", b"0" * 48 + b"5", b"5   ", b"5 \t;x=y"])
def test_a_chunk_size_of_a_fixed_width(size):
    body = framing.Chunked()
    data = size + b"\r\nhello\r\n" + b"0" * 20 + b"  \r\n\r\n"
    assert body.feed(data) == len(data)
    assert body.done


@pytest.mark.parametrize("size", [b"1" * 16, b"0" * 63 + b"5", b"0x5", b"+5", b" 5", b"5 5"])
def test_a_chunk_size_that_is_none(size):
    with pytest.raises(framing.BadBody):
        framing.Chunked().feed(size + b"\r\nhello\r\n")


@given(st.lists(st.binary(max_size=100), max_size=5), st.binary(max_size=30), st.lists(st.integers(1, 40), max_size=60))
def test_chunks_end_at_the_same_place_however_they_come(parts, rest, cuts):
    data = chunked(parts, b"T: v\r\n") + rest
    body, seen, at = framing.Chunked(), b"", 0
    for size in [*cuts, len(data)]:
        seen += data[at : at + size]
        at += size
        while seen and not body.done:
            taken = body.feed(seen)
            seen = seen[taken:]
            if not taken:
                break
    assert body.done
    assert seen + data[at:] == rest


@given(st.binary(max_size=200), st.lists(st.integers(1, 50), max_size=20))
def test_broken_chunks_are_refused_or_awaited(data, cuts):
    whole, first = outcome(data, [len(data)]), outcome(data, cuts)
    assert whole == first


@pytest.mark.parametrize(
    "data, why",
    [
        (b"5;" + b"x" * framing.LONGEST_LINE, "a line of more than"),
        (b"0\r\n" + b"T: vvvvvv\r\n" * (framing.LONGEST_TRAILER // 9 + 1), "trailers of more than"),
        (b"0\r\nnone\r\n", "a trailer line that is none"),
        (b"0\r\nT: v\r\n folded\r\n", "a trailer line that is none"),
        (b"1\r\nxyz", "a chunk longer than its size"),
    ],
)
def test_the_bounds_of_chunks(data, why):
    with pytest.raises(framing.BadBody, match=why):
        framing.Chunked().feed(data)


def outcome(data, cuts):
    body, seen, at, passed = framing.Chunked(), b"", 0, 0
    try:
        for size in [*cuts, len(data) + 1]:
            seen += data[at : at + size]
            at += size
            taken = body.feed(seen)
            passed += taken
            seen = seen[taken:]
    except framing.BadBody:
        return "refused"
    return passed, body.done


@given(st.integers(0, 10**6), st.lists(st.binary(max_size=100), max_size=10))
def test_a_fixed_body_is_counted(length, parts):
    body, passed = framing.Fixed(length), 0
    for part in parts:
        size = min(len(part), body.most())
        body.count(size)
        passed += size
    assert passed == min(length, sum(map(len, parts)))
    assert body.done is (passed == length)
