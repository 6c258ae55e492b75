"""A coverage-guided fuzzer finds nothing in the parsers within a bounded time."""

import importlib.util
import subprocess
import sys

import pytest

from hpcproxy.node.state import policy
from tests import REPOSITORY


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this Python")
def test_a_fuzzer_finds_nothing(tmp_path):
    argv = [sys.executable, "-m", "tests.node.fuzz", "-max_total_time=15", f"-artifact_prefix={tmp_path}/"]
    done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert " runs in " in done.stderr


# What it found: digits that are none in ASCII, and more of them than Python turns into a number.
@pytest.mark.parametrize("rule", ["10.0.0.0/\u00b3", "h:\u0663", "h:" + "1" * 5000, "10.0.0.0/" + "1" * 5000])
def test_a_rule_with_strange_numbers_is_refused(rule):
    with pytest.raises(policy.BadRule):
        policy.parse_rule(rule)
