"""Change single settings in the text of a config.yaml and leave everything else in it, comments too, as it is. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from hpcproxy.config.layers import parse_layer
from hpcproxy.errors import ConfigError


def change(text: str, values: Mapping[str, Any], source: str) -> str:
    """Return `text` with top-level keys set to `values`; a key that is not there is added at the end.

    Raises ConfigError if `text` is not valid to begin with, or of a style that cannot be changed without guessing.
    """
    before = parse_layer(source, text).values
    for key, value in values.items():
        wanted = {**before, key: value}
        if wanted != before:
            text = _change_one(text, key, value)
            # A whole file in braces, an alias, an indented mapping: rare, and better refused than broken.
            if not _says(text, wanted):
                raise ConfigError(source, key, "cannot be changed in a file of this style; change it by hand")
        before = wanted
    return text


def _says(text: str, wanted: Mapping[str, Any]) -> bool:
    try:
        return parse_layer("", text).values == wanted
    except ConfigError:
        return False


def _change_one(text: str, key: str, value: object) -> str:
    line = yaml.safe_dump({key: value}, default_flow_style=False, allow_unicode=True)
    span = _span(text, key)
    if span is None:
        return text + ("\n" if text and not text.endswith("\n") else "") + line
    start, end = span
    # A block scalar's end mark stands behind its final newline, which belongs to the file.
    end = start + len(text[start:end].rstrip())
    return text[:start] + line.rstrip("\n") + text[end:]


def _span(text: str, key: str) -> tuple[int, int] | None:
    """Return where `key: value` begins and ends in `text`, without what follows the value's last character."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        return None
    for name, value in root.value:
        if name.value == key:
            return name.start_mark.index, _end(value)
    return None


def _end(node: yaml.Node) -> int:
    # A block collection's own end mark stands behind the comments that follow it; its last item's does not.
    if isinstance(node, yaml.SequenceNode) and node.value and not node.flow_style:
        return _end(node.value[-1])
    return int(node.end_mark.index)
