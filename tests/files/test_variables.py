"""One table of the variables that programs read: fragments, tools and the manual have its names, and no other."""

from __future__ import annotations

import re

from hpcproxy.account.tool_settings import Present
from hpcproxy.files.render import TEMPLATES
from hpcproxy.files.variables import CA, DIRECT, NAMES, NODE, OWN, SAVED, UNSET, URL, VARIABLES, named
from tests import REPOSITORY

PAGE = (REPOSITORY / "docs" / "configuration.md").read_text().partition("## Environment variables")[2]
NAME = r"[A-Za-z_]+"


def _function(part: str, name: str) -> str:
    """Return the text of a function of a fragment."""
    (path,) = (TEMPLATES / "lib").rglob(part)
    (text,) = re.findall(rf"^{name}\(\) {{\n(.*?)^}}", path.read_text(), re.MULTILINE | re.DOTALL)
    return str(text)


def _words(text: str, command: str) -> list[str]:
    """Return what `command` is given in `text`, names and assignments."""
    lines = re.findall(rf"\b{command} ([^;\n]*)", text)
    return [word.partition("=")[0] for line in lines for word in re.findall(rf"{NAME}(?:=\S*)?", line)]


def test_every_variable_is_saved_and_brought_back() -> None:
    saving = re.findall(
        rf'\[ -n "\${{({NAME})\+x}}" \]; then export {SAVED}(\w+)="\$(\w+)"', _function("env.sh", "__hpcproxy_save")
    )
    assert sorted(saving) == sorted((name, name, name) for name in NAMES)
    back = _function("restore.sh", "__hpcproxy_bring_back")
    bringing = re.findall(rf'"\${{{SAVED}(\w+)\+x}}" \]; then\s+export (\w+)="\${SAVED}(\w+)"', back)
    assert sorted(bringing) == sorted((name, name, name) for name in NAMES)
    gone = [word for word in _words(back, "unset") if word not in ("SLURM_OVERLAP", "HPCPROXY_OVERLAP")]
    assert sorted(gone) == sorted([*NAMES, *(SAVED + name for name in NAMES), *OWN])


def test_what_names_a_proxy_is_looked_at_before_it_is_inherited() -> None:
    stray = re.findall(
        rf'"\${{({NAME})-}}" \] && __hpcproxy_stray "\$(\w+)"; then unset (\w+)',
        _function("restore.sh", "__hpcproxy_restore"),
    )
    assert sorted(stray) == sorted((row.name,) * 3 for row in VARIABLES if row.is_proxy)


def test_the_fragments_export_what_the_table_says() -> None:
    text = _function("env.sh", "__hpcproxy_export")
    exported = dict(re.findall(r'\b(\w+)="\$(\w+)"', text))
    assert [name for name in exported if exported[name] == "__hpcproxy_url"] == ["HPCPROXY_URL", *named(URL)]
    assert [name for name in exported if exported[name] == "direct"] == list(named(DIRECT))
    assert sorted(name for name in exported if name.startswith("HPCPROXY_")) == sorted(set(OWN) - {"HPCPROXY_LISTEN"})
    assert "HPCPROXY_LISTEN=" in text
    assert _words(text, "unset") == [*named(UNSET), *named(NODE)]
    assert re.findall(r"export (\w+)=1\b", text) == ["SLURM_OVERLAP", *named(NODE)]


def test_every_name_of_a_list_of_authorities_is_given_and_taken_back() -> None:
    given = re.findall(
        rf'\[ -z "\${{({NAME})-}}" \]; then export (\w+)="\$HPCPROXY_CA"', _function("env.sh", "__hpcproxy_export_ca")
    )
    assert given == [(name, name) for name in CA]
    back = re.findall(
        rf'"\${{({NAME})-}}" = "\$HPCPROXY_CA" \]; then unset (\w+)', _function("restore.sh", "__hpcproxy_take_ca_back")
    )
    assert back == given


def test_programs_get_the_same_variables_from_the_command_line() -> None:
    there = Present("http", "127.64.0.1", 2015, ("a", "b"), {})
    assert there.variables() == {**dict.fromkeys(named(URL), there.url), **dict.fromkeys(named(DIRECT), "a,b")}


def test_the_manual_has_every_variable_where_it_belongs() -> None:
    rows = dict(re.findall(r"^\| (`.*?) \| (.*? \| .*?) \|$", PAGE, re.MULTILINE))
    told = {tuple(re.findall(r"`([\w*]+)`", names)): text for names, text in rows.items()}
    assert OWN in told
    assert (f"{SAVED}*",) in told
    assert sorted(names for row in told for names in row if not names.startswith("HPCPROXY_")) == sorted(
        {*NAMES, *CA} - {*named(UNSET)}
    )
    (sentence,) = re.findall(r"^(`all_proxy`.*?) are unset while the tunnel is on", PAGE, re.MULTILINE | re.DOTALL)
    assert re.findall(r"`(\w+)`", sentence) == list(named(UNSET))
