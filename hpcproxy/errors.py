"""Every error a user can meet. Each carries data and builds its sentence from it.

HpcproxyError            exit code 1
├── UsageError           exit code 2: the command line cannot mean anything
├── ConfigError          exit code 2: a configuration file, key or value is wrong
├── BlockError           a file's marked block cannot be changed without guessing
├── ScriptError          a job script cannot take the hook line
├── FileError            a file of the user's cannot be read or written
├── RenderError          a template asks for what it may not have
├── TunnelError          the tunnel does not work; names the layer that failed
├── LabError             the lab cannot be built here, or is not there
├── process
│   └── TooMuchError     a program says more than any answer holds
└── cluster              what a roll-out makes a host's own line of, where it is one host's
    ├── become.NotRootError          a login could not become root
    ├── fan_out.NoGatewayError       the gateway before the hosts cannot be used
    ├── openssh_session.SshError     ssh did not get in
    ├── plugin.NamedError            a line of somebody's names the plugin
    ├── pool.NoThreadError           this machine starts no more threads
    └── protocol.NoAnswerError       a host ended the conversation without its last line
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class HpcproxyError(Exception):
    """Base of all errors of hpcproxy; `exit_code` is what the process ends with."""

    exit_code = 1


class UsageError(HpcproxyError):
    """The command line contradicts itself or lacks something."""

    exit_code = 2


class ConfigError(HpcproxyError):
    """A configuration value is wrong: says file, key, reason and what is valid."""

    exit_code = 2

    def __init__(self, path: str, key: str, reason: str, valid: Sequence[str] = ()) -> None:
        self.path, self.key, self.reason, self.valid = path, key, reason, tuple(valid)
        where = f"{path}: {key}" if key else path
        hint = f"; valid: {', '.join(self.valid)}" if self.valid else ""
        super().__init__(f"{where}: {reason}{hint}")


class BlockError(HpcproxyError):
    """The markers of our block in `path` are damaged; the file was left as it is."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}; the file is unchanged, mend the marker lines by hand and try again")


class ScriptError(HpcproxyError):
    """The job script at `path` cannot take the hook line, for `reason`."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


class FileError(HpcproxyError):
    """Reading or writing `path` failed, for `reason`; what was there is still there."""

    def __init__(self, path: Path | str, reason: str, advice: str = "") -> None:
        self.path, self.reason, self.advice = path, reason, advice
        super().__init__(f"{path}: {reason}{'; ' + advice if advice else ''}")


class RenderError(HpcproxyError):
    """Template `template` could not be rendered safely."""

    def __init__(self, template: str, reason: str) -> None:
        self.template, self.reason = template, reason
        super().__init__(f"template {template}: {reason}")


@dataclass(frozen=True)
class Reason:
    """What went wrong: the `layer` that failed, why, what to do; `permanent`: waiting will not help.

    The one type for that, whoever found out: a probe, the pinning of a key, a job, a roll-out. What ssh says and what
    it means is one table of them (`openssh/reasons.py`).
    """

    layer: str
    reason: str
    advice: str = ""
    permanent: bool = False

    def __str__(self) -> str:
        return f"{self.reason}; {self.advice}" if self.advice else self.reason


class TunnelError(HpcproxyError):
    """The tunnel through `jump` failed, for `why`."""

    def __init__(self, layer: str, reason: str, advice: str = "", jump: str = "") -> None:
        self.why, self.jump = Reason(layer, reason, advice), jump
        super().__init__(f"{layer}: {f'{jump}: ' if jump else ''}{self.why}")

    @classmethod
    def of(cls, why: Reason, jump: str = "") -> TunnelError:
        """Return the error that says `why`."""
        error = cls(why.layer, why.reason, why.advice, jump)
        error.why = why
        return error

    @property
    def layer(self) -> str:
        """What failed."""
        return self.why.layer


class LabError(HpcproxyError):
    """The lab cannot be built or used here."""
