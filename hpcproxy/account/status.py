"""The verb `status`: the tunnels here, or those of a job, and whether the installed files are as the settings say."""

from __future__ import annotations

from pathlib import Path

from hpcproxy.account import job_status, tunnels
from hpcproxy.account.account import Account
from hpcproxy.account.tunnels import Tunnel
from hpcproxy.config.places import INSTALLED, PROGRAMS
from hpcproxy.files import stamp


def here(account: Account) -> tuple[list[Tunnel], list[Path]]:
    """Return our tunnels on this machine, and the installed files that are not as the settings say."""
    return tunnels.find(account.environ), _drift(account)


def of_job(account: Account, job: str) -> list[Tunnel | str]:
    """Return the tunnel of `job` on each of its nodes, or the node's name where there is none; raises TunnelError."""
    return job_status.collect(job, [account.home.directory / "job.sh", PROGRAMS / "job.sh"], account.environ)


def _drift(account: Account) -> list[Path]:
    home = account.home
    if stamp.fits(home, account.user_home, account.site_config):
        return []
    if _is_missing(home.directory) and _is_missing(account.site_config):
        return [home.directory / name for name in INSTALLED]  # no settings, so none can be wrong, and no file
    from hpcproxy.account import checks, verbs  # noqa: PLC0415 - what renders takes a third of a second to load

    return checks.drift(verbs.bundle_of(account, verbs.settings_of(account).config))


def _is_missing(path: Path) -> bool:
    """Whether `path` is certainly not there; what cannot be looked at may be."""
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False
