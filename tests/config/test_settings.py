"""One table of settings: the reference, the scripts' values and the agent's settings are made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcproxy.config.layers import Layer, resolve
from hpcproxy.config.model import AGENT, CLIENT, KEYS, SHELL, Config, Setting, settings
from hpcproxy.config.places import Home
from hpcproxy.files.plan import account_plan
from hpcproxy.files.render import TEMPLATES
from hpcproxy.node.state import settings as agents
from tests.settings_page import PAGE, page

# What the agent gets beside the settings, from whoever made its file.
DERIVED = {
    "version",
    "ways",
    "failures",
    "probe",
    "probe_https",
    "direct_targets",
    "proxy_ca",
    "proxy_ca_targets",
    "rules_of",
    "closed",
    "jump_hosts",
    "syslog",
}
FOR_AGENT = [row for row in settings() if AGENT in row.needs and row.key != "jump"]
BOUNDED = [row for row in FOR_AGENT if row.low is not None]
# The agent is told a time of the lab's and of the tests' too, which no person can type: 0.1 s, 3600 s.
LEAST_S, MOST_S = 0.1, 3600


def _agent(**values: Any) -> dict[str, Any]:
    config = resolve(Layer("test", {"jump": "u@h", **values}))
    # As it is read: from its file.
    made: dict[str, Any] = json.loads(json.dumps(account_plan(config, Home(Path("/home/u/.hpcproxy"))).agent))
    return made


def test_the_reference_is_the_table() -> None:
    assert PAGE.read_text() == page(), "run: invoke golden"


def test_every_row_has_a_text_and_somebody_who_needs_it() -> None:
    assert tuple(row.key for row in settings()) == KEYS == tuple(Config.model_fields)
    for row in settings():
        assert row.text
        assert row.needs
        assert set(row.needs) <= {CLIENT, SHELL, AGENT}
        assert (row.low is None) == (row.high is None)


def test_scripts_get_what_they_need_and_use_it() -> None:
    values = account_plan(Config(), Home(Path("/home/u/.hpcproxy"))).values
    used = "".join(path.read_text() for path in TEMPLATES.rglob("*.j2"))
    needed = {row.key for row in settings() if SHELL in row.needs} - {"jump"}
    assert needed <= set(values)
    assert not {row.key for row in settings() if SHELL not in row.needs} & set(values)
    # The key goes into ssh's options; whether a certificate is beside it the script asks itself.
    assert [key for key in needed if f"{{{{ {key} | " not in used] == []


def test_the_agent_gets_what_it_needs_and_knows_no_other_key() -> None:
    assert set(_agent()) == {row.key for row in FOR_AGENT} | DERIVED == set(agents.KEYS)


@pytest.mark.parametrize("row", FOR_AGENT, ids=lambda row: row.key)
def test_the_agents_default_is_the_tables(row: Setting) -> None:
    default = list(row.default) if isinstance(row.default, tuple) else row.default
    assert agents.DEFAULTS[row.key] == (bool(default) if row.key == "access_syslog" else default)


@pytest.mark.parametrize("row", BOUNDED, ids=lambda row: row.key)
def test_the_agent_takes_what_the_table_allows_and_refuses_what_lies_beyond_its_own_bounds(row: Setting) -> None:
    for value in (row.low, row.high):
        assert getattr(agents.read(_agent(**{row.key: value})), row.key) == value
    assert row.low is not None
    assert row.high is not None
    least, most = (row.low, row.high) if not row.key.endswith("_s") else (min(row.low, LEAST_S), MOST_S)
    for value in (least - 1, most + 1_000_000):
        with pytest.raises(agents.BadSettings, match=f"^{row.key}: "):
            agents.read({**_agent(), row.key: value})


def test_the_agent_knows_the_levels_of_the_table() -> None:
    for level in ("error", "info", "debug"):
        assert agents.read(_agent(log_level=level)).log_level == level
