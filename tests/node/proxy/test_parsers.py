"""The pure parts: whatever comes, they answer or refuse; however it is cut, they answer the same."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcproxy.node.proxy import head as request
from hpcproxy.node.proxy import socks
from hpcproxy.node.proxy.replies import ANSWERS, http_answer
from hpcproxy.node.upstream import mux, open_error, ssh_log, target

TOKENS = st.text("abcXYZ09-_!~", min_size=1, max_size=20)
VALUES = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40)
HEADERS = st.lists(st.tuples(TOKENS, VALUES), max_size=8)
PARSERS = [
    (request.parse_request, request.BadRequest),
    (request.parse_response, request.BadRequest),
    (socks.parse_greeting, ()),
    (socks.parse_request4, socks.BadSocks),
    (socks.parse_request5, socks.BadSocks),
    (mux.parse, mux.BadPacket),
]


@pytest.mark.parametrize("parse, refusal", PARSERS)
@given(data=st.one_of(st.binary(max_size=300), st.binary(max_size=40).map(lambda b: b"GET http://h/ HTTP/1.1\r\n" + b)))
def test_parsers_take_anything(parse, refusal, data):
    try:
        found = parse(data)
    except refusal:
        return
    assert found is None or 0 < found[0] <= len(data)


@given(TOKENS, HEADERS, st.binary(max_size=50))
def test_a_request_is_read_as_it_was_written(method, headers, rest):
    data = request.write_head("{} http://h/ HTTP/1.1".format(method), headers)
    size, found = request.parse_request(data + rest)
    assert (size, found.method, found.headers) == (len(data), method, headers)


@given(HEADERS)
def test_a_request_is_never_read_before_it_is_whole(headers):
    data = request.write_head("GET http://h/ HTTP/1.1", headers)
    for cut in range(len(data)):
        assert request.parse_request(data[:cut]) is None


@given(st.binary(max_size=200))
def test_what_is_read_cannot_be_read_otherwise(data):
    """A head that passes has no line that another reader would split, join or trim differently."""
    try:
        found = request.parse_request(data)
    except request.BadRequest:
        return
    if found is not None:
        again = request.write_head("x", found[1].headers)
        assert again.count(b"\n") == again.count(b"\r\n") == len(found[1].headers) + 2


def test_one_empty_line_before_a_request_is_ignored():
    data = b"GET http://h/ HTTP/1.1\r\nA: b\r\n\r\n"
    size, found = request.parse_request(b"\r\n" + data + b"rest")
    assert (size, found) == (len(data) + 2, request.parse_request(data)[1])
    for cut in range(len(data) + 2):
        assert request.parse_request((b"\r\n" + data)[:cut]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\nGET http://h/ HTTP/1.1\r\n\r\n",
        b"\nGET http://h/ HTTP/1.1\r\n\r\n",
        b"\r\rGET http://h/ HTTP/1.1\r\n\r\n",
        b"GET http://h/ HTTP/1.1\n\n",
        b"GET http://h/ HTTP/1.1\nA: b\r\n\r\n",
        b"GET http://h/ HTTP/1.1\r\nA : b\r\n\r\n",
    ],
)
def test_nothing_else_is_mended_in_a_request(data):
    with pytest.raises(request.BadRequest):
        request.parse_request(data)


OK = "HTTP/1.1 200 OK"


@pytest.mark.parametrize(
    "head, headers",
    [
        (b"HTTP/1.1 200 OK\n\n", []),
        (b"HTTP/1.1 200 OK\nA: b\n\n", [("A", "b")]),
        (b"HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\n", [("A", "b"), ("C", "d")]),
        (b"HTTP/1.1 200 OK\nA: b\n\r\n", [("A", "b")]),
        (b"HTTP/1.1 200 OK\r\nA \t: b\r\n\r\n", [("A", "b")]),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n", [("Transfer-Encoding", "chunked")]),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n", [("Content-Length", "5")]),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\n", [("Content-Length", "5")]),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\n", [("Content-Length", "5")]),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nA: b\r\n\r\n", [("A", "b")]),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: Chunked\r\n\r\n",
            [("Transfer-Encoding", "chunked")],
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity, chunked\r\n\r\n", [("Transfer-Encoding", "chunked")]),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            [("Transfer-Encoding", "chunked")],
        ),
        (b"HTTP/1.1 200 OK\r\n: nobody\r\nA: b\x01c\r\n\r\n", [("A", "b\x01c")]),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\td\r\n\r\n", [("A", "b c d")]),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n chunked\r\n\r\n", [("Transfer-Encoding", "chunked")]),
        (b"HTTP/1.1 200 OK\r\nno header\r\nA: b\r\n\r\n", [("A", "b")]),
        (b"HTTP/1.1 200 OK\r\nA: b\rC: d\r\n\r\n", [("A", "b C: d")]),
        (b"HTTP/1.1 200 OK\r\r\nA: b\r\r\n\r\n", [("A", "b")]),
        (b"HTTP/1.1  200  OK\r\nA: b\r\n\r\n", [("A", "b")]),
    ],
)
def test_what_is_mended_in_a_response(head, headers):
    size, found = request.parse_response(head + b"\nrest")
    assert (size, found.line, found.headers) == (len(head), OK, headers)
    for cut in range(len(head)):
        assert request.parse_response(head[:cut]) is None
    assert request.body_length(found.headers, 1) in (None, 5, -1)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nA: \0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n A: b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n \r\nContent-Length: 5\r\n\r\n",
        b"HTTP/2 200 OK\r\nA: b\r\n\r\n",
        b"HTTP/1.1200 OK\r\nA: b\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\nA: b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n : b\r\n\r\n",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_what_is_not_mended_in_a_response(head):
    with pytest.raises(request.BadRequest):
        request.parse_response(head)


@pytest.mark.parametrize("codings", ["gzip, chunked", "chunked, gzip", "xchunked"])
def test_another_coding_of_a_response_is_no_framing_of_ours(codings):
    head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: {}\r\n\r\n".format(codings).encode()
    _, found = request.parse_response(head)
    with pytest.raises(request.BadRequest):
        request.body_length(found.headers, 1)


def test_a_path_in_utf8_is_passed_on_as_it_is():
    line = "GET http://h/größe HTTP/1.1\r\n\r\n".encode()
    _, found = request.parse_request(line)
    assert request.write_head("GET " + found.target + " HTTP/1.1", []) == line


@pytest.mark.parametrize("value", ["5, 6", "5,", "5, x", "x, x", "5 5"])
def test_content_lengths_that_differ_are_refused_in_a_response(value):
    _, found = request.parse_response("{}\r\nContent-Length: {}\r\n\r\n".format(OK, value).encode())
    with pytest.raises(request.BadRequest):
        request.body_length(found.headers, 1)


@given(st.binary(max_size=200).map(lambda b: b"HTTP/1.1 200 OK\n" + b))
def test_what_is_passed_on_of_a_response_cannot_be_read_otherwise(data):
    try:
        found = request.parse_response(data)
    except request.BadRequest:
        return
    if found is not None:
        again = request.write_head(found[1].line, found[1].headers)
        assert again.count(b"\n") == again.count(b"\r") == again.count(b"\r\n") == len(found[1].headers) + 2
        assert request.split_head(again) is not None


@pytest.mark.parametrize(
    "headers, length",
    [
        ([], None),
        ([("Content-Length", "0")], 0),
        ([("content-length", "12")], 12),
        ([("Transfer-Encoding", "chunked")], -1),
        ([("Transfer-Encoding", "Chunked")], -1),
    ],
)
def test_body_length(headers, length):
    assert request.body_length(headers, 1) == length


@pytest.mark.parametrize(
    "headers",
    [
        [("Content-Length", "1"), ("Content-Length", "1")],
        [("Content-Length", "1"), ("Transfer-Encoding", "chunked")],
        [("Content-Length", "-1")],
        [("Content-Length", "")],
        [("Content-Length", "1 ")],
        [("Content-Length", "\u00b2")],
        [("Content-Length", "9" * 19)],
        [("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")],
        [("Transfer-Encoding", "gzip, chunked")],
        [("Transfer-Encoding", "")],
    ],
)
def test_body_lengths_that_can_be_read_in_two_ways(headers):
    with pytest.raises(request.BadRequest):
        request.body_length(headers, 1)


@pytest.mark.parametrize(
    "url, found",
    [
        ("http://h", (("h", 80), "h", "/")),
        ("HTTP://h:81/a?b#c", (("h", 81), "h:81", "/a?b")),
        ("http://h?q", (("h", 80), "h", "/?q")),
        ("http://[::1]:3080/", (("::1", 3080), "[::1]:3080", "/")),
        ("http://[::1]/x", (("::1", 80), "[::1]", "/x")),
    ],
)
def test_urls(url, found):
    assert request.split_url(url) == found


@given(st.text(max_size=60))
def test_urls_and_authorities_are_read_or_refused(text):
    for read, refusal in ((request.split_url, request.BadRequest), (target.parse_authority, target.BadTarget)):
        try:
            found = read(text)
        except refusal:
            continue
        host, port = found[0] if read is request.split_url else found
        assert 0 < port < 65536
        assert not set(host) & set(" \r\n\t/@[]\0")
        assert not host.startswith("-")


def test_no_nominated_header_removes_what_frames_the_message():
    headers = [
        ("Connection", "content-length, host, x"),
        ("Content-Length", "5"),
        ("Host", "h"),
        ("X", "1"),
        ("Y", "2"),
    ]
    assert request.end_to_end(headers) == [("Content-Length", "5"), ("Host", "h"), ("Y", "2")]


def test_mux_packets():
    # As PROTOCOL.mux writes them: length, type, fields.
    assert mux.hello() == bytes.fromhex("00000008 00000001 00000004".replace(" ", ""))
    assert mux.open_channel(7, "h", 443) == bytes.fromhex(
        "0000001510000008000000070000000000000001" + "68" + "000001bb"
    )
    assert mux.parse(bytes.fromhex("0000000c800000060000000100000005")) == (16, mux.Reply(mux.SESSION_OPENED, 5, ""))
    refused = bytes.fromhex("0000000e800000030000000100000002") + b"no"
    assert mux.parse(refused + b"more") == (18, mux.Reply(mux.FAILURE, 1, "no"))
    assert mux.parse(refused[:-1]) is None


LOG = """debug2: mux.c:mux_master_process_stdio_fwd():977 (pid=1): channel 2: stdio fwd to a.example:80
debug3: mux.c:mux_master_process_stdio_fwd():994 (pid=1): got fds stdin 7, stdout 8
debug2: mux.c:mux_master_process_stdio_fwd():1027 (pid=1): channel_new: 3 control 2
debug2: mux.c:mux_master_process_stdio_fwd():977 (pid=1): channel 4: stdio fwd to b.example:443
debug2: mux.c:mux_master_process_stdio_fwd():1027 (pid=1): channel_new: 5 control 4
channels.c:channel_input_open_failure():3563 (pid=1): channel 5: open failed: connect failed: Name or service not known
debug2: channels.c:channel_input_open_failure():3567 (pid=1): channel 5: callback start
channels.c:channel_input_open_failure():3563 (pid=1): channel 3: open failed: connect failed: Connection refused"""


def test_reasons_belong_to_their_targets():
    log = ssh_log.SshLog()
    assert all(log.feed(line) for line in LOG.splitlines())
    assert log.reason(target.Target("a.example", 80)) == "connect failed: Connection refused"
    assert log.reason(target.Target("b.example", 443)) == "connect failed: Name or service not known"
    assert log.reason(target.Target("b.example", 443)) == ""
    assert not log.feed("Permission denied (publickey).")


def test_an_old_ssh_gives_the_reasons_in_order():
    log = ssh_log.SshLog()
    for number, words in ((2, "one"), (1, "two")):
        assert log.feed("channel {}: open failed: connect failed: {}".format(number, words))
    assert [log.reason(target.Target("h", 1)) for _ in range(3)] == ["connect failed: one", "connect failed: two", ""]


def test_the_end_of_file_of_a_channel():
    log, ends = ssh_log.SshLog(), []
    closed = "debug2: nchan.c:chan_shutdown_write():381 (pid=1): channel 3: (i0 o1 sock -1 wfd 8 efd -1 [closed])"
    control = "debug2: nchan.c:chan_shutdown_write():381 (pid=1): channel 2: (i3 o1 sock 6 wfd 6 efd -1 [closed])"
    end = lambda: ends.append(1)  # noqa: E731
    for line in LOG.splitlines()[:3]:
        log.feed(line)
    log.attach(3, end)
    assert log.feed(control)
    assert ends == []
    assert log.feed(closed)
    assert ends == [1]
    log.detach(3, end)
    assert log.feed(closed)
    assert ends == [1]
    for line in [*LOG.splitlines()[:3], closed]:  # the number again, ended before anybody attached
        log.feed(line)
    log.attach(3, end)
    assert ends == [1, 1]


@settings(max_examples=50)
@given(st.text(max_size=100))
def test_any_line_of_sshs_is_taken(line):
    ssh_log.SshLog().feed(line)
    assert open_error.explain(line).kind in ANSWERS


@given(st.sampled_from(sorted(ANSWERS)), st.text(max_size=400))
def test_an_answer_is_one_response_whatever_the_reason(kind, reason):
    answer = http_answer(kind, reason)
    size, found = request.parse_response(answer)
    assert found.status == ANSWERS[kind].status
    assert int(request.values(found.headers, "content-length")[0]) == len(answer) - size
