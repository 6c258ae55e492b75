"""Layers of YAML and flags become one `Config`. Reads the files it is given; writes nothing.

Precedence, lowest first: the defaults of `model`, the site's file, the user's file, the flags of the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic
import yaml

from hpcproxy.config.model import KEYS, OLD_KEYS, Config
from hpcproxy.errors import ConfigError, FileError

# What PyYAML raises for a text that is none: Python's own errors too, for a tag that does not fit its value,
# a date that is none, a number beyond all bounds.
YAML_ERRORS = (yaml.YAMLError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)


@dataclass(frozen=True)
class Layer:
    """Raw settings and where they came from, for error messages; `text` is what the file says, None: no file."""

    source: str
    values: Mapping[str, Any]
    text: str | None = None


def parse_layer(source: str, text: str) -> Layer:
    """Return the settings in YAML `text`; raises ConfigError on bad YAML, a non-mapping or an unknown key."""
    return Layer(source, _renamed(source, parse_mapping(source, text, KEYS, old=tuple(OLD_KEYS))), text)


def _renamed(source: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` with today's names of keys; raises ConfigError for one that has both of its names."""
    for old, new in OLD_KEYS.items():
        if old in values and new in values:
            raise ConfigError(source, old, f"is the old name of `{new}`, which is given, too")
    return {OLD_KEYS.get(key, key): value for key, value in values.items()}


def parse_mapping(source: str, text: str, keys: tuple[str, ...], old: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the mapping in YAML `text`, whose keys are among `keys` and `old`, each once; raises ConfigError."""
    try:
        values = yaml.safe_load(text)
    except YAML_ERRORS as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else ""
        raise ConfigError(source, where, f"not valid YAML: {getattr(error, 'problem', None) or error}") from None
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ConfigError(source, "", "expected `key: value` lines", keys)
    for key in values:
        if key not in (*keys, *old):
            raise ConfigError(source, str(key), "unknown key", keys)
    _refuse_doubles(source, text)
    return values


def _refuse_doubles(source: str, text: str) -> None:
    """Raise ConfigError for a key given twice: PyYAML would silently take the last."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    names = [name.value for name, _ in root.value] if isinstance(root, yaml.MappingNode) else []
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(source, name, "is given more than once")


def read_layer(path: Path) -> Layer:
    """Return the settings in the file at `path`, none if it does not exist; raises ConfigError or FileError."""
    try:
        text = path.read_bytes().decode()  # a line's end stays what it is
    except FileNotFoundError:
        return Layer(str(path), {})
    except UnicodeDecodeError:
        raise ConfigError(str(path), "", "is not UTF-8 text") from None
    except OSError as error:
        raise FileError(path, f"cannot be read: {error.strerror}") from None
    return parse_layer(str(path), text)


def resolve(*layers: Layer) -> Config:
    """Return the one configuration that `layers`, lowest precedence first, amount to; raises ConfigError.

    A wrong value is reported with the layer it came from, even where a later layer overrides it: a wrong line in a
    file is a mistake to hear of now, not on the day the override goes.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        values = _renamed(layer.source, layer.values)
        _validate(layer.source, values)
        merged.update(values)
    return _validate("settings", merged)


def _validate(source: str, values: Mapping[str, Any]) -> Config:
    try:
        return Config.model_validate(dict(values))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        reason = first["msg"].removeprefix("Value error, ")
        shown = f"{reason} (got {first['input']!r})" if first["type"] != "value_error" else reason
        raise ConfigError(source, key, shown, _valid_values(key)) from None


def _valid_values(key: str) -> tuple[str, ...]:
    field = Config.model_fields.get(key)
    if field is None:
        return KEYS
    if field.annotation is bool:
        return ("true", "false")
    return tuple(getattr(field.annotation, "__args__", ())) if "Literal" in str(field.annotation) else ()
