"""What leads a program elsewhere than through the tunnel, as one table for `wrap` and for the hook. Pure.

Each pattern is an extended regular expression that bash and Python read alike: classes and groups, no escapes; the
hook looks with these while it waits for the tunnel (others.sh), `wrap` and `install-bashrc` before (overrides.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_BEGIN = "(^|[ \t;&|({`'\"])"
# Where a variable may be named: as above, in a list (srun --export=ALL,NAME=…), and as a container's.
_GIVEN = "(^|[ \t;&|({`'\",=])((APPTAINER|SINGULARITY)ENV_)?"
_NAME = "((https?|all|ftp|HTTPS?|ALL|FTP)_(proxy|PROXY))"
_REST = "([^|;&#]*[ \t])?"
_SPELLED = "((https?|all|ftp|HTTPS?|ALL|FTP)_|[{][a-zA-Z,]+[}]_)(proxy|PROXY)"

# An assignment that says nothing new: from a variable of the same kind.
HARMLESS = f"[a-zA-Z_]+=[\"']?[$][{{]?({_NAME}|HPCPROXY_URL)[}}]?[\"']?"
# A file that is read by the script's own shell: group 4 is its name, behind a home, the job's directory, or nothing.
SOURCED = "(^|[ \t;&|])(source|[.])[ \t]+[\"']?(~/|[$][{]?HOME[}]?/|[$][{]?SLURM_SUBMIT_DIR[}]?/)?([a-zA-Z0-9_./-]+)"


@dataclass(frozen=True)
class Row:
    """A line that `pattern` matches does `what`, in which % is group number `group`."""

    pattern: str
    group: int
    what: str


_WINS = "which wins over the tunnel; take it out"
# The first row that matches counts.
LINES: Sequence[Row] = (
    Row(f"{_GIVEN}({_SPELLED})=", 4, f"sets %, {_WINS}"),
    Row(f"{_BEGIN}setenv[ \t]+({_SPELLED})[ \t]", 2, f"sets %, {_WINS}"),
    Row(
        f"{_GIVEN}(no_proxy|NO_PROXY)=[\"']?([^ \t;&|\"']*,)?[*]([,\"' \t;&|)]|$)",
        4,
        "sets % to *, so that no program uses the tunnel; take it out",
    ),
    Row(f"{_BEGIN}(auto)?ssh[ \t]{_REST}-([a-zA-Z0-9]*D|o[ \t]*[\"']?DynamicForward[ \t=])[ \t]*[^ \t]", 0,
        "opens a forward by hand (ssh -D); the tunnel takes its place, take it out"),
    Row(f"{_BEGIN}(sshuttle|proxychains4?|tsocks|torsocks)[ \t]", 2, "leads programs elsewhere by %; take it out"),
    Row(
        f"{_BEGIN}(curl|git|pip3?|wget|conda|mamba|npm|yarn|pnpm)[ \t]{_REST}"
        "(-x|--proxy|--preproxy|--socks[45][a-z0-9-]*|-c[ \t]*[\"']?https?[.]proxy|-e[ \t]*[\"']?https?_proxy"
        "|config[ \t]([^|;&#]*[ \t.])?[a-zA-Z_.-]*prox(y|ies|y_servers)[a-zA-Z_.-]*)[ \t=]+[\"']?[^ \t-]",
        2,
        f"tells % a proxy of its own, {_WINS}",
    ),
    Row("[ \t](--(https?-)?proxy(-server)?)[ \t=][\"']?([a-z0-9+]+://|[a-zA-Z0-9.-]+:[0-9])", 1,
        f"gives a program a proxy of its own (%), {_WINS}"),
    Row("-D(https?[.]proxyHost|socksProxyHost)=", 1, f"gives Java a proxy of its own (%), {_WINS}"),
    Row(f"{_BEGIN}for[ \t]+[a-zA-Z0-9_]+[ \t]+in[ \t]([^;]*[ \t])?{_NAME}([ \t;]|$)", 3,
        "treats % in a loop: if it sets it, that wins over the tunnel"),
    Row(f"{_BEGIN}(module[ \t]+(load|add|swap)|ml)[ \t]+([^;&|#]*[ \t])?([^ \t;&|#/]*prox[^ \t;&|#]*)", 5,
        "loads %, which may set another proxy; the tunnel takes its place"),
)  # fmt: skip
# The same, for what stands behind the hook and takes it back.
TAKEN: Sequence[Row] = (
    Row(f"{_BEGIN}unset[ \t]+(-v[ \t]+)?([a-zA-Z_ \t]*[ \t])?({_SPELLED})([ \t;&|]|$)", 4,
        "takes % away, and with it the tunnel; take it out"),
    Row(f"{_BEGIN}env[ \t]{_REST}(-u[ \t]*|--unset=){_NAME}([ \t;&|]|$)", 4, "takes % away, and with it the tunnel;"
        " take it out"),
)  # fmt: skip

# Files of tools, below the home if they do not begin with a slash; where it says so, group 2 is the setting's name.
_CURL = "^[ \t]*(--?)?(proxy|socks[45][a-z0-9-]*|preproxy|x)([ \t]*[=:][ \t]*|[ \t]+)[^ \t=:]"
_INI = "^([ \t]*)(proxy)[ \t]*[=:][ \t]*[^ \t]"
_CONDA = "^([ \t]*)(proxy_servers)[ \t]*:"
_NPM = "^([ \t]*)(proxy|https?-proxy)[ \t]*=[ \t]*[^ \tn]"
TOOLS: Sequence[tuple[str, str, str]] = (
    ("curl", ".curlrc", _CURL),
    ("curl", ".config/curlrc", _CURL),
    ("wget", ".wgetrc", "^([ \t]*)(https?_proxy|use_proxy)[ \t]*=[ \t]*[^ \t]"),
    ("npm", ".npmrc", _NPM),
    ("npm", "/etc/npmrc", _NPM),
    ("yarn", ".yarnrc.yml", "^([ \t]*)(https?Proxy)[ \t]*:"),
    ("git", ".gitconfig", _INI),
    ("git", ".config/git/config", _INI),
    ("git", "/etc/gitconfig", _INI),
    ("pip", ".config/pip/pip.conf", _INI),
    ("pip", ".pip/pip.conf", _INI),
    ("pip", "/etc/pip.conf", _INI),
    ("conda", ".condarc", _CONDA),
    ("conda", ".conda/.condarc", _CONDA),
    ("conda", ".mambarc", _CONDA),
    ("conda", "/etc/conda/.condarc", _CONDA),
    ("cargo", ".cargo/config.toml", _INI),
    ("R", ".Renviron", "^([ \t]*)((https?|HTTPS?)_(proxy|PROXY))[ \t]*=[ \t]*[^ \t]"),
    ("aria2", ".aria2/aria2.conf", "^([ \t]*)((all|https?)-proxy)[ \t]*=[ \t]*[^ \t]"),
    ("gradle", ".gradle/gradle.properties", "^([ \t]*)(systemProp[.]https?[.]proxyHost)[ \t]*=[ \t]*[^ \t]"),
    ("s3cmd", ".s3cfg", "^([ \t]*)(proxy_host)[ \t]*=[ \t]*[^ \t]"),
)
TOOL_READS = "reads % here, which wins over the tunnel"

# Variables of tools that know none of the usual ones, or prefer their own; a value that the pattern matches counts.
_ANY, _JAVA = ".", "[pP]roxyHost="
VARIABLES: Sequence[tuple[str, str, str]] = (
    ("npm", "npm_config_proxy", _ANY),
    ("npm", "npm_config_https_proxy", _ANY),
    ("npm", "NPM_CONFIG_PROXY", _ANY),
    ("npm", "NPM_CONFIG_HTTPS_PROXY", _ANY),
    ("yarn", "YARN_HTTPS_PROXY", _ANY),
    ("cargo", "CARGO_HTTP_PROXY", _ANY),
    ("git", "GIT_PROXY_COMMAND", _ANY),
    ("Java", "JAVA_TOOL_OPTIONS", _JAVA),
    ("Java", "_JAVA_OPTIONS", _JAVA),
    ("Maven", "MAVEN_OPTS", _JAVA),
    ("gradle", "GRADLE_OPTS", _JAVA),
)
VARIABLE_GIVES = "gives % a proxy of its own, which wins over the tunnel"
# Values with an address that only tunnels have (`hpcproxy env`): 127.64.0.0 and beyond.
OURS = "(^|[^0-9.])127[.](6[4-9]|[7-9][0-9]|1[0-9][0-9]|2[0-9][0-9])[.]"
