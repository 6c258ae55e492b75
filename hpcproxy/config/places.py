"""Where files lie: those of an account, of a site and of a node. Loads none of the libraries that settings need."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpcproxy.config.values import safe_path
from hpcproxy.errors import ConfigError

SITE_CONFIG = Path("/etc/hpcproxy/config.yaml")

# Where the Prolog keeps the state of jobs, on every node. Root's: what lies in it cannot be put there by anybody else.
RUN = Path("/run/hpcproxy")

# Where an admin's roll-out puts the scripts and the agent, on every node.
PROGRAMS = Path("/usr/libexec/hpcproxy")

# What `install-bashrc` puts into an account's directory, in its order (files/plan.py says how each is made).
INSTALLED = ("tunnel.sh", "job.sh", "prologue.sh", "epilogue.sh", "bashrc.sh", "agent.json", "agent.pyz")


@dataclass(frozen=True)
class Home:
    """Where the files of one account lie."""

    directory: Path

    @classmethod
    def at(cls, account: Path, override: str | None) -> Home:
        """Return `override` (the value of HPCPROXY_HOME) or `.hpcproxy` in the `account`'s home; raises ConfigError."""
        try:
            return cls(safe_path(Path(override) if override else account / ".hpcproxy"))
        except ValueError as error:
            raise ConfigError("HPCPROXY_HOME" if override else "HOME", "", str(error)) from None

    @property
    def config(self) -> Path:
        """The user's settings."""
        return self.directory / "config.yaml"

    @property
    def known_hosts(self) -> Path:
        """The pinned host keys."""
        return self.directory / "known_hosts"

    @property
    def stamp(self) -> Path:
        """What says that the installed files need not be made again to compare them (files/stamp.py)."""
        return self.directory / "stamp"
