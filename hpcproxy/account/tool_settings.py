"""What programs that read no proxy variables need to use a tunnel, in their own words. Pure.

Shell lines for those that read variables or options (`eval "$(hpcproxy env --java)"`), a file's text for those that
read a file (`hpcproxy env --maven >settings.xml`).
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit
from xml.sax.saxutils import escape

from hpcproxy.errors import TunnelError, UsageError
from hpcproxy.files import variables
from hpcproxy.quoting import ShellText, csh, fish, word

_SCHEMES = ("http", "socks5", "socks5h")
# An entry of no_proxy that any program could mean; Java splits its options at blanks, and a value must not add one.
_ENTRY = re.compile(
    r"\*|[*.]?[A-Za-z0-9_][A-Za-z0-9._-]*(/\d{1,2})?(:\d+)?|\[?[0-9A-Fa-f]*:[0-9A-Fa-f:.]*\]?(/\d{1,3})?"
)
_OCTETS = 4
_LONG_JAVA_BYTES = 1000  # Java 8 drops a JAVA_TOOL_OPTIONS of 1024 bytes and more without a word


@dataclass(frozen=True)
class Present:
    """A tunnel that is there: its address, what is reached without it, and the variables that are set already."""

    scheme: str
    host: str
    port: int
    direct: tuple[str, ...]
    environ: Mapping[str, str]

    @classmethod
    def of(cls, url: str, no_proxy: str, environ: Mapping[str, str]) -> Present:
        """Return the tunnel at `url`; raises TunnelError for what is no address of ours."""
        try:
            parts = urlsplit(url)
            host = ipaddress.IPv4Address(parts.hostname or "")
            port = parts.port or 0
        except ValueError:
            host, port = ipaddress.IPv4Address(0), 0
        if not (host.is_loopback and port and parts.scheme in _SCHEMES and url == f"{parts.scheme}://{host}:{port}"):
            raise TunnelError("tunnel", f"{url!r} is no address of a tunnel")
        entries = dict.fromkeys(entry for entry in re.split(r"[,\s]+", no_proxy) if _ENTRY.fullmatch(entry))
        return cls(parts.scheme, str(host), port, tuple(entries), environ)

    @property
    def url(self) -> str:
        """What the proxy variables say."""
        return f"{self.scheme}://{self.host}:{self.port}"

    @property
    def no_proxy(self) -> str:
        """What is reached directly, as the variables have it."""
        return ",".join(self.direct)

    def variables(self) -> dict[str, str]:
        """Return the variables that most programs read."""
        direct = dict.fromkeys(variables.named(variables.DIRECT), self.no_proxy)
        return {**dict.fromkeys(variables.named(variables.URL), self.url), **direct}


@dataclass(frozen=True)
class Lines:
    """What a program needs: variables to set and to unset, or a file's text; `limits` are for the reader."""

    variables: Mapping[str, str]
    unset: tuple[str, ...] = ()
    text: str = ""
    limits: tuple[str, ...] = ()

    def shown(self, shell: str = "sh") -> str:
        """Return it as `shell`, one of SHELLS, or the program itself reads it; raises TunnelError if it cannot."""
        if self.text:
            return self.text
        unset, put, quoted = SHELLS[shell]
        try:
            given = [put.format(name, quoted(value)) for name, value in self.variables.items()]
        except ValueError as error:
            raise TunnelError("configuration", f"{shell}: {error}") from None
        return "".join([*(unset.format(name) for name in self.unset), *given])

    def as_json(self) -> str:
        """Return it for another program."""
        plain = {"variables": dict(self.variables), "unset": list(self.unset), "limits": list(self.limits)}
        return json.dumps({**plain, "text": self.text} if self.text else plain) + "\n"


# How each shell takes a variable away and how it gets one; `eval` of csh joins lines with blanks, so each ends in `;`.
SHELLS: Mapping[str, tuple[str, str, Callable[[str], ShellText]]] = {
    "sh": ("unset {}\n", "export {}={}\n", word),
    "bash": ("unset {}\n", "export {}={}\n", word),
    "zsh": ("unset {}\n", "export {}={}\n", word),
    "fish": ("set -e {};\n", "set -gx {} {};\n", fish),
    "csh": ("unsetenv {};\n", "setenv {} {};\n", csh),
    "tcsh": ("unsetenv {};\n", "setenv {} {};\n", csh),
}


def lines(tool: str, present: Present) -> Lines:
    """Return what `tool`, one of TOOLS or empty for every shell's variables, needs; raises TunnelError if it cannot."""
    return TOOLS[tool](present) if tool else _shell(present)


def one_of(chosen: Mapping[str, bool]) -> str:
    """Return the one tool that was asked for, or the empty string; raises UsageError for several."""
    wanted = [name for name, yes in chosen.items() if yes]
    if len(wanted) > 1:
        raise UsageError(f"{' and '.join(f'--{name}' for name in wanted)} exclude each other")
    return wanted[0] if wanted else ""


def _shell(present: Present) -> Lines:
    node = dict.fromkeys(variables.named(variables.NODE), "1") if present.scheme == "http" else {}
    return Lines({**present.variables(), **node}, variables.named(variables.UNSET))


def _java(present: Present) -> Lines:
    """The properties of java.net (Oracle's net-properties.html); https has no list of its own, it reads http's."""
    _needs_http(present, "Java resolves names before it asks a SOCKS proxy")
    words = [
        f"-D{scheme}.{key}"
        for scheme in ("http", "https")
        for key in (f"proxyHost={present.host}", f"proxyPort={present.port}")
    ]
    words.append(f"-Dhttp.nonProxyHosts={'|'.join(patterns(present.direct))}")
    kept = [have for have in present.environ.get("JAVA_TOOL_OPTIONS", "").split() if not _ours(have)]
    value = " ".join([*kept, *words])
    limit = (
        "Java 8 reads no JAVA_TOOL_OPTIONS of 1024 bytes or more, and this one is longer; give it to java as arguments"
    )
    return Lines({"JAVA_TOOL_OPTIONS": value}, limits=(limit,) if len(value) > _LONG_JAVA_BYTES else ())


def _ours(option: str) -> bool:
    return bool(re.match(r"-Dhttps?\.(proxyHost|proxyPort|nonProxyHosts)=", option))


def _maven(present: Present) -> Lines:
    """A settings.xml (maven.apache.org, guide-proxies): Maven's own transports do not all read Java's properties."""
    _needs_http(present, "Maven knows HTTP proxies only")
    direct = escape("|".join(patterns(present.direct)))
    proxies = "".join(
        f"    <proxy><id>hpcproxy-{scheme}</id><active>true</active><protocol>{scheme}</protocol>"
        f"<host>{present.host}</host><port>{present.port}</port><nonProxyHosts>{direct}</nonProxyHosts></proxy>\n"
        for scheme in ("http", "https")
    )
    text = f"<settings>\n  <proxies>\n{proxies}  </proxies>\n</settings>\n"
    return Lines({}, text=text, limits=("as global settings your own stay in force: mvn -gs FILE",))


def _docker(present: Present) -> Lines:
    """The `proxies` of a client's config.json (docs.docker.com, engine/cli/proxy): for `run` and for `build`."""
    values = {"httpProxy": present.url, "httpsProxy": present.url, "noProxy": present.no_proxy}
    limits = (
        "the address is the node's own loopback: run and build with --network=host",
        "the daemon pulls images with its own settings, which this does not change",
    )
    return Lines({}, text=json.dumps({"proxies": {"default": values}}, indent=1) + "\n", limits=limits)


def _apptainer(present: Present) -> Lines:
    """APPTAINERENV_NAME (apptainer.org, environment_and_metadata) gets in with --cleanenv and --containall too."""
    both = ("APPTAINERENV", "SINGULARITYENV")
    inside = {f"{prefix}_{name}": value for prefix in both for name, value in present.variables().items()}
    return Lines(inside, limits=("the address is the node's own loopback: not with --net",))


def _git(present: Present) -> Lines:
    """GIT_CONFIG_COUNT (git-config(1), git 2.31 and later): wins over any http.proxy of git's own files."""
    given = present.environ.get("GIT_CONFIG_COUNT", "")
    count = int(given) if re.fullmatch(r"[0-9]{1,4}", given) else 0
    last = count - 1
    if present.environ.get(f"GIT_CONFIG_KEY_{last}") == "http.proxy":  # ours, or one that ours is to win over
        count = last
    names = {f"GIT_CONFIG_KEY_{count}": "http.proxy", f"GIT_CONFIG_VALUE_{count}": present.url}
    return Lines(
        {**names, "GIT_CONFIG_COUNT": str(count + 1)}, limits=("for https; over ssh: hpcproxy nc, see docs/clients.md",)
    )


def _fsspec(present: Present) -> Lines:
    """Fsspec's own defaults, FSSPEC_PROTOCOL (its docs, Configuration); what else the user has there stays."""
    _needs_http(present, "aiohttp, which fsspec uses, knows HTTP proxies only")
    wanted = (("FSSPEC_HTTP", "client_kwargs"), ("FSSPEC_GS", "session_kwargs"))
    return Lines({name: _trusting(present.environ.get(name, ""), key) for name, key in wanted})


def _trusting(given: str, key: str) -> str:
    try:
        have = json.loads(given)
    except ValueError:
        have = {}
    have = have if isinstance(have, dict) else {}  # fsspec takes nothing else
    inner = have.get(key)
    return json.dumps({**have, key: {**(inner if isinstance(inner, dict) else {}), "trust_env": True}})


TOOLS: Mapping[str, Callable[[Present], Lines]] = {
    "java": _java,
    "maven": _maven,
    "docker": _docker,
    "apptainer": _apptainer,
    "git": _git,
    "fsspec": _fsspec,
}


def _needs_http(present: Present, why: str) -> None:
    if present.scheme != "http":
        raise TunnelError(
            "tunnel", f"{why}, and here ssh itself listens", "it needs the agent: python3 on the node, `agent: true`"
        )


def patterns(direct: Iterable[str]) -> list[str]:
    """Return Java's patterns for entries of no_proxy: a name, or one that begins or ends with `*`.

    What names a network is spelled by whole octets. A port cannot be named there: the host is direct at every one.
    """
    return list(dict.fromkeys(pattern for entry in direct for pattern in _patterns(entry)))


def _patterns(entry: str) -> Iterator[str]:
    address = entry.strip("[]")
    if ":" in address and address.count(":") > 1:
        # Java asks with the host as it stands in a URL; networks of IPv6 it cannot say.
        yield from () if "/" in address else (f"[{address}]",)
        return
    name = entry.partition(":")[0]
    try:
        network = ipaddress.IPv4Network(name, strict=False)
    except ValueError:
        yield from _names(name)
        return
    octets = -(-network.prefixlen // 8)
    for part in network.subnets(new_prefix=8 * octets):
        first = str(part.network_address).split(".")[:octets]
        yield ".".join(first if octets == _OCTETS else [*first, "*"])


def _names(name: str) -> Iterator[str]:
    if "/" in name:
        return
    if name.startswith("."):
        yield f"*{name}"
        return
    yield name
    if "." in name.strip(".") and "*" not in name:  # to most programs a domain means what is below it too
        yield f"*.{name}"
