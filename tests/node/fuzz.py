"""Coverage-guided fuzzing of the parsers: `python -m tests.node.fuzz [libFuzzer options]`, by default for 20 s.

Whatever comes, a parser answers or refuses; anything else ends the run with the input that did it.
"""

import sys

import atheris

with atheris.instrument_imports(include=["hpcproxy.node"]):
    from hpcproxy.node.proxy import head, socks
    from hpcproxy.node.state import policy
    from hpcproxy.node.upstream import mux, target

SECONDS = 20
PARSERS = [
    (head.parse_request, head.BadRequest),
    (head.parse_response, head.BadRequest),
    (socks.parse_greeting, ()),
    (socks.parse_request4, socks.BadSocks),
    (socks.parse_request5, socks.BadSocks),
    (mux.parse, mux.BadPacket),
]
TEXTS = [
    (target.parse_authority, target.BadTarget),
    (head.split_url, (head.BadRequest, target.BadTarget)),
    (policy.parse_rule, policy.BadRule),
    (policy.pack_address, ()),
]


def one_input(data):
    for parse, refusal in PARSERS:
        try:
            found = parse(data)
        except refusal:
            continue
        assert found is None or 0 < found[0] <= len(data), parse
    text = data.decode("latin-1")
    for parse, refusal in TEXTS:
        try:
            parse(text)
        except refusal:
            continue


if __name__ == "__main__":
    bound = [] if any(word.startswith("-max_total_time") for word in sys.argv) else [f"-max_total_time={SECONDS}"]
    atheris.Setup([*sys.argv, *bound, "-max_len=2000"], one_input)
    atheris.Fuzz()
