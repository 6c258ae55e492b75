"""A `Plan` becomes a `Bundle`: the same list with final bytes and digests. Pure but for reading what it is made of.

The environment enforces quoting: whatever a template prints must be `ShellText` (made by the `sh`, `array` and `table`
filters) or an exact integer, else rendering fails. Comment delimiters are moved because shells use `{#` themselves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from hpcproxy import quoting
from hpcproxy.errors import RenderError
from hpcproxy.files.plan import AGENT_PROGRAM, AGENT_SETTINGS, Artifact, Plan
from hpcproxy.node import build

TEMPLATES = Path(__file__).parents[1] / "templates"


@dataclass(frozen=True)
class File:
    """An artifact with its final bytes."""

    artifact: Artifact
    content: bytes = field(repr=False)

    @property
    def digest(self) -> str:
        """SHA-256 of the content, hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True)
class Bundle:
    """All files of one installation, ready to be written."""

    files: tuple[File, ...]

    def named(self, name: str) -> File | None:
        """Return the file called `name`, if there is one."""
        return next((file for file in self.files if file.artifact.name == name), None)


def render(plan: Plan, templates: Path = TEMPLATES) -> Bundle:
    """Return the files that `plan` describes; raises RenderError if a template prints an unquoted value."""
    environment = _environment(templates)
    return Bundle(tuple(File(artifact, _render_one(environment, artifact, plan)) for artifact in plan.artifacts))


class _Loader(jinja2.FileSystemLoader):
    """`lib/` is static shell: it goes in as it stands, and is not looked through for what a template might have."""

    def load(
        self,
        environment: jinja2.Environment,
        name: str,
        globals: MutableMapping[str, Any] | None = None,  # noqa: A002 - Jinja names it
    ) -> jinja2.Template:
        """Return the template `name`; raises TemplateNotFound."""
        if not name.startswith("lib/"):
            return super().load(environment, name, globals)
        text, path, _ = self.get_source(environment, name)

        def root(*_: object) -> Iterator[str]:
            yield text

        module = {"name": name, "__file__": path, "blocks": {}, "root": root, "debug_info": ""}
        return environment.template_class.from_module_dict(environment, module, globals or {})


def shell_text(source: str, values: dict[str, Any], templates: Path = TEMPLATES) -> str:
    """Return the template `source` with `values`, for what is printed and not part of a plan; raises RenderError."""
    try:
        return _environment(templates).get_template(source).render(values)
    except (jinja2.TemplateError, OSError, ValueError) as error:
        raise RenderError(source, str(error)) from None


def html_text(source: str, values: dict[str, Any], templates: Path = TEMPLATES) -> str:
    """Return the template `source` with `values`, each as text of a page whatever stands in it; raises RenderError.

    In ASCII, so that whatever a terminal's or a file's encoding is, a browser reads what was meant.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates), undefined=jinja2.StrictUndefined, trim_blocks=True, autoescape=True
    )
    try:
        return environment.get_template(source).render(values).encode("ascii", "xmlcharrefreplace").decode()
    except (jinja2.TemplateError, OSError, ValueError) as error:
        raise RenderError(source, str(error)) from None


def _environment(templates: Path) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=_Loader(templates),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        comment_start_string="<#--",
        comment_end_string="--#>",
        finalize=_only_shell_text,
        autoescape=False,  # noqa: S701 - shell, not HTML; `finalize` is the stricter guard here
    )
    environment.filters = {
        "sh": quoting.word,
        "array": quoting.array,
        "table": quoting.table,
        "fish": quoting.fish_list,
        "tcl": quoting.tcl,
        "lua": quoting.lua,
    }
    return environment


def _only_shell_text(value: object) -> object:
    if isinstance(value, quoting.ShellText) or type(value) is int:
        return value
    raise RenderError("", f"prints {value!r} unquoted; pass it through the sh, array or table filter")


def _render_one(environment: jinja2.Environment, artifact: Artifact, plan: Plan) -> bytes:
    if artifact.source == AGENT_PROGRAM:
        return build.build()
    if artifact.source in plan.texts:
        return plan.texts[artifact.source]
    if artifact.source == AGENT_SETTINGS:
        return (json.dumps(plan.agent, indent=2) + "\n").encode()
    try:
        text = environment.get_template(artifact.source).render(plan.values)
    except RenderError as error:
        raise RenderError(artifact.source, error.reason) from None
    except (jinja2.TemplateError, OSError, ValueError) as error:
        raise RenderError(artifact.source, str(error)) from None
    return text.encode("utf-8", "surrogateescape")
