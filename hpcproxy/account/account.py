"""Whose account is worked on, and with which environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpcproxy.config.places import SITE_CONFIG, Home
from hpcproxy.errors import UsageError


@dataclass(frozen=True)
class Account:
    """Whose account we work on and with which environment; made once, at the edge."""

    user_home: Path
    home: Home
    environ: Mapping[str, str]
    site_config: Path = SITE_CONFIG

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Account:
        """Return the account that `environ` describes; raises UsageError without HOME, ConfigError for a bad path."""
        if not environ.get("HOME"):
            raise UsageError("HOME is not set, so there is no account to work on")
        user_home = Path(environ["HOME"])
        return cls(user_home, Home.at(user_home, environ.get("HPCPROXY_HOME")), environ)

    @property
    def bashrc(self) -> Path:
        """The rc file that gets the pointer block."""
        return self.user_home / ".bashrc"
