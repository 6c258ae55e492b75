"""Values that somebody careless or malicious may hand us, for every string that reaches a shell or ssh."""

from __future__ import annotations

# `touch x` would leave a file called x in the current directory: a test that executes one of these finds it.
HOSTILE = (
    "a b",
    'a"b',
    "a'; touch x",
    "$(touch x)",
    "`touch x`",
    "a\nb",
    "a\n\ntouch x\n",
    "-oProxyCommand=touch x",
    "--help",
    "a;touch x",
    "a|touch x",
    "a&touch x",
    "a>x",
    "a\\",
    "*",
    "~root",
    "!!",
    "#a",
    "{{ port }}",
    "{# a #}",
    "%h",
    "größe",
    "节点",
    "\x1b[31m",
    "\x7f",
    "a\tb",
    "",
    " ",
)
