"""The demo without root: on loopback, with an SSH server in this process for a jump host. Runs processes.

All of it happens in a home of its own; the user's keys, proxy settings and tunnels are neither read nor touched.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from hpcproxy import quoting
from hpcproxy.account import tunnels
from hpcproxy.demo import traces
from hpcproxy.demo.story import TIMED_OUT, Act, Output, show_scene, tell
from hpcproxy.errors import HpcproxyError

try:
    from hpcproxy.demo import jumphost
except ImportError:
    raise HpcproxyError("the demo without root needs asyncssh; install it with: pip install 'hpcproxy[demo]'") from None

_COMMAND_TIMEOUT_S = 60
_END_TIMEOUT_S = 10
_PACKAGE_PARENT = Path(__file__).parents[2]
_BASHRC = b"# settings that were here before\nalias ll='ls -l'\n"
_URL = f"http://{jumphost.INTERNET_NAME}/ip"


def run(console: Console) -> bool:
    """Tell the story on `console`; True if every step came out as expected. Leaves nothing behind, whatever happens.

    Raises HpcproxyError if there is no ssh client.
    """
    if shutil.which("ssh") is None:
        raise HpcproxyError("the demo needs the OpenSSH client; there is no ssh on PATH")
    with _account() as account, jumphost.site(account.identity) as site:
        show_scene(
            console,
            "hpcproxy, shown on loopback: a tunnel through ssh -D, with no root and no cluster",
            _scene(account, site),
        )
        return tell(console, _acts(account, site, _free_port()))


@dataclass(frozen=True)
class _Account:
    """A home and a place for temporary files that exist for the demo only."""

    root: Path

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def temporary(self) -> Path:
        return self.root / "tmp"

    @property
    def identity(self) -> Path:
        return self.home / ".ssh" / "id_ed25519"

    @property
    def environ(self) -> dict[str, str]:
        """What programs of the demo get: nothing of the user's but where programs are and which language is spoken."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "USER", "LOGNAME") if name in os.environ}
        return {**kept, "HOME": str(self.home), "TMPDIR": str(self.temporary), "SHELL": "/bin/bash", "TERM": "dumb"}

    def bash(self, *commands: str) -> Output:
        """Run `commands`, exactly as they are shown, with this very hpcproxy as `hpcproxy`."""
        python = f"PYTHONPATH={quoting.word(_PACKAGE_PARENT)} {quoting.word(sys.executable)} -m hpcproxy"
        prelude = f'set -e; hpcproxy() {{ {python} "$@"; }}\n'
        text, code = _run(["/bin/bash", "-c", prelude + "\n".join(commands)], self.home, self.environ)
        return Output(text.replace(str(self.home), "~"), code)


def _run(argv: list[str], directory: Path, environ: dict[str, str]) -> tuple[str, int]:
    """Return what `argv` printed and its exit code; what it started goes with it where it is late or we are stopped."""
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # so that the signals below reach all of it
        cwd=directory,
        env=environ,
    ) as process:
        try:
            output, _ = process.communicate(timeout=_COMMAND_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            output = _interrupt(process) + f"\n(no end within {_COMMAND_TIMEOUT_S} s)".encode()
            return output.decode(errors="replace"), TIMED_OUT
        except BaseException:
            _interrupt(process)
            raise
    return output.decode(errors="replace"), process.returncode


def _interrupt(process: subprocess.Popen[bytes]) -> bytes:
    """End `process` and its group as Ctrl-C does, so that they clean up; return what they had printed."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    try:
        return process.communicate(timeout=_END_TIMEOUT_S)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()[0]


@contextlib.contextmanager
def _account() -> Iterator[_Account]:
    """Have an account that nobody else can look into; its tunnel, if it has one, and its files go at the end."""
    # In /tmp, not in TMPDIR: a Unix socket's name must be short.
    account = _Account(Path(tempfile.mkdtemp(prefix="hpcproxy-demo-", dir="/tmp")))
    try:
        account.identity.parent.mkdir(mode=0o700, parents=True)
        account.temporary.mkdir(mode=0o700)
        (account.home / ".bashrc").write_bytes(_BASHRC)
        yield account
    finally:
        for tunnel in tunnels.find(account.environ, "shell"):
            if account.temporary in tunnel.directory.parents:
                tunnels.stop(tunnel)
        shutil.rmtree(account.root)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _scene(account: _Account, site: jumphost.Site) -> list[tuple[str, str]]:
    return [
        (
            "jump host",
            f"{site.jump}, an SSH server inside this demo; what it opens comes from {jumphost.OUTER_ADDRESS}",
        ),
        ("internet", f"a web server that only the jump host can name: {_URL} answers with its visitor's address"),
        ("home", f"{account.home}, shown as ~; yours stays as it is, and this one goes at the end"),
    ]


def _acts(account: _Account, site: jumphost.Site, port: int) -> list[Act]:
    curl = shutil.which("curl", path=account.environ["PATH"]) is not None
    return [
        _blocked(account, f"curl -sS {_URL}" if curl else f"cat </dev/tcp/{jumphost.INTERNET_NAME}/80"),
        _act(
            account,
            "Name the jump host",
            (f"hpcproxy init --yes --jump {site.jump} --identity ~/.ssh/id_ed25519",),
            "its host key is pinned, and one login shows that it lets us through",
            "login and forwarding work",
        ),
        _act(
            account,
            "Install, for this account only",
            (f"hpcproxy install-bashrc --port {port}",),
            "~/.hpcproxy/ is there, and one block in ~/.bashrc points to it",
            "~/.bashrc",
        ),
        _act(
            account,
            "Start the tunnel",
            (f"echo 'check_url: {_URL}' >> ~/.hpcproxy/config.yaml", "hpcproxy up"),
            f"ssh holds a forward at an address of this user's own, port {port}",
            f":{port} through ",
        ),
        _act(
            account,
            "Ask the internet who we are",
            ("hpcproxy check",),
            f"the internet sees the jump host's outer address, {jumphost.OUTER_ADDRESS}",
            jumphost.OUTER_ADDRESS,
        ),
        *([_ordinary_program(account)] if curl else []),
        *_end(account, port),
    ]


def _blocked(account: _Account, command: str) -> Act:
    return Act(
        "Before: this shell does not reach the internet",
        (command,),
        lambda: account.bash(command),
        "it fails, for the name does not resolve here",
        lambda output: output.code != 0 and jumphost.OUTER_ADDRESS not in output.text,
    )


def _ordinary_program(account: _Account) -> Act:
    return _act(
        account,
        "The same by an ordinary program, in a shell that reads ~/.bashrc",
        (". ~/.bashrc", "proxy_on", f"curl -sS {_URL}"),
        f"curl, which knows nothing of all this, gets the same answer, {jumphost.OUTER_ADDRESS}",
        f"\n{jumphost.OUTER_ADDRESS}\n",
    )


def _end(account: _Account, port: int) -> list[Act]:
    before = _contents(account)

    def look() -> traces.Traces:
        files = [path for path, content in _contents(account).items() if before.get(path) != content]
        return traces.find(str(account.root), port, files)

    found: list[traces.Traces] = []

    def found_by_looking() -> Output:
        found.append(look())
        where = f"looked at all processes, port {port}, ~ and {account.temporary}"
        return Output("\n".join((where, *found[-1].rows(str(account.home)))))

    return [
        Act(
            "What is on this machine while it is up",
            (),
            found_by_looking,
            "processes, the listener and files of ours are found",
            lambda _: found[-1].all_kinds,
        ),
        _act(
            account,
            "End it and take everything out",
            ("hpcproxy down", "hpcproxy uninstall"),
            "all of it is removed",
            "removed",
        ),
        Act(
            "After: the same look at the same places",
            (),
            found_by_looking,
            "no process, no listener, no file is left, and ~/.bashrc is what it was, byte for byte",
            lambda _: found[-1].none,
        ),
    ]


def _contents(account: _Account) -> dict[Path, bytes]:
    """Return every file of the demo's home and every entry of its temporary directory, with what is in it."""
    places = [*account.home.rglob("*"), *account.temporary.iterdir()]
    return {path: path.read_bytes() if path.is_file() else b"" for path in places}


def _act(account: _Account, title: str, commands: tuple[str, ...], expectation: str, word: str) -> Act:
    """Return the act of running `commands`, which must end well and print `word`."""

    def holds(output: Output) -> bool:
        return output.code == 0 and word in output.text

    return Act(title, commands, lambda: account.bash(*commands), expectation, holds)
