"""What a program needs to use the tunnel: as its own reader takes it, quoted, refused where there is no tunnel."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from hpcproxy import floors
from hpcproxy.account.tool_settings import TOOLS, Present, lines, one_of, patterns
from hpcproxy.errors import TunnelError, UsageError
from tests.cli.test_cli import run
from tests.hostile import HOSTILE
from tests.shells import program_of

URL = "http://127.64.1.2:2015"
DIRECT = "localhost,127.0.0.1,::1,0.0.0.0,127.0.0.0/8,c1,c1.cluster.org,192.168.31.101,.local,10.0.0.0/8"


def present(no_proxy: str = DIRECT, url: str = URL, **environ: str) -> Present:
    return Present.of(url, no_proxy, environ)


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ("localhost", ["localhost"]),
        ("localhost.", ["localhost."]),
        ("c1.cluster.org", ["c1.cluster.org", "*.c1.cluster.org"]),
        (".cluster.org", ["*.cluster.org"]),
        ("*.cluster.org", ["*.cluster.org"]),
        ("*", ["*"]),
        ("192.168.31.101", ["192.168.31.101"]),
        ("127.0.0.0/8", ["127.*"]),
        ("192.168.0.0/16", ["192.168.*"]),
        ("172.16.0.0/12", [f"172.{second}.*" for second in range(16, 32)]),
        ("10.1.2.0/24", ["10.1.2.*"]),
        ("10.1.2.8/30", ["10.1.2.8", "10.1.2.9", "10.1.2.10", "10.1.2.11"]),
        ("10.1.2.9/30", ["10.1.2.8", "10.1.2.9", "10.1.2.10", "10.1.2.11"]),
        ("0.0.0.0/0", ["*"]),
        ("10.1.1.1:8080", ["10.1.1.1"]),
        ("::1", ["[::1]"]),
        ("[::1]", ["[::1]"]),
        ("fd00::/8", []),
    ],
)
def test_an_entry_of_no_proxy_in_javas_words(entry: str, found: list[str]) -> None:
    assert patterns([entry]) == found


def test_java_is_told_of_both_schemes_and_of_what_is_direct() -> None:
    shown = lines("java", present()).variables["JAVA_TOOL_OPTIONS"].split()
    assert shown[:4] == [
        "-Dhttp.proxyHost=127.64.1.2",
        "-Dhttp.proxyPort=2015",
        "-Dhttps.proxyHost=127.64.1.2",
        "-Dhttps.proxyPort=2015",
    ]
    direct = shown[4].partition("=")[2].split("|")
    assert {"localhost", "127.*", "[::1]", "c1", "c1.cluster.org", "192.168.31.101", "*.local", "10.*"} <= set(direct)


def test_what_was_in_java_tool_options_stays_and_ours_is_there_once() -> None:
    first = lines("java", present(JAVA_TOOL_OPTIONS="-Xmx1g -Dhttp.proxyHost=old")).variables["JAVA_TOOL_OPTIONS"]
    again = lines("java", present(JAVA_TOOL_OPTIONS=first)).variables["JAVA_TOOL_OPTIONS"]
    assert first == again
    assert first.split()[0] == "-Xmx1g"
    assert "old" not in first


def test_a_list_that_java_8_would_drop_is_said() -> None:
    assert lines("java", present()).limits == ()
    assert "Java 8" in lines("java", present(",".join(f"node-{number:04}" for number in range(200)))).limits[0]


def test_mavens_settings_are_xml_with_a_proxy_for_each_scheme() -> None:
    tree = ET.fromstring(lines("maven", present()).text)  # noqa: S314 - our own text
    found = [{part.tag: part.text for part in proxy} for proxy in tree.iter("proxy")]
    assert [proxy["protocol"] for proxy in found] == ["http", "https"]
    assert {(proxy["host"], proxy["port"], proxy["active"]) for proxy in found} == {("127.64.1.2", "2015", "true")}
    assert "192.168.31.101" in (found[0]["nonProxyHosts"] or "").split("|")


def test_dockers_file_has_what_its_client_reads() -> None:
    found = json.loads(lines("docker", present()).text)["proxies"]["default"]
    assert found == {"httpProxy": URL, "httpsProxy": URL, "noProxy": DIRECT}
    assert any("--network=host" in limit for limit in lines("docker", present()).limits)


def test_apptainer_hands_in_every_variable() -> None:
    found = lines("apptainer", present()).variables
    assert found["APPTAINERENV_https_proxy"] == found["SINGULARITYENV_HTTP_PROXY"] == URL
    assert found["APPTAINERENV_no_proxy"] == found["APPTAINERENV_NO_PROXY"] == DIRECT


@pytest.mark.parametrize(
    ("before", "at"),
    [
        ({}, 0),
        ({"GIT_CONFIG_COUNT": "2", "GIT_CONFIG_KEY_1": "user.name"}, 2),
        ({"GIT_CONFIG_COUNT": "2", "GIT_CONFIG_KEY_1": "http.proxy"}, 1),
        ({"GIT_CONFIG_COUNT": "$(touch x)"}, 0),
    ],
)
def test_git_keeps_what_it_was_told_already(before: dict[str, str], at: int) -> None:
    found = lines("git", present(**before)).variables
    assert found == {
        f"GIT_CONFIG_KEY_{at}": "http.proxy",
        f"GIT_CONFIG_VALUE_{at}": URL,
        "GIT_CONFIG_COUNT": str(at + 1),
    }


def test_git_itself_reads_it_so(tmp_path: Path) -> None:
    says = subprocess.run(["git", "--version"], capture_output=True, text=True, check=True).stdout
    if floors.version(says.split()[2]) < (2, 31):
        pytest.skip("git reads GIT_CONFIG_COUNT from 2.31 on")
    (tmp_path / ".gitconfig").write_text("[http]\n\tproxy = http://elsewhere:1\n")
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **lines("git", present()).variables}
    asked = subprocess.run(
        ["git", "config", "http.proxy"], capture_output=True, text=True, env=environ, check=True, cwd=tmp_path
    )
    assert asked.stdout.strip() == URL


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        ("", {}),
        ("no JSON", {}),
        ("[1]", {}),
        ('{"block_size": 5, "client_kwargs": {"auth": "x", "trust_env": false}}', {"block_size": 5, "auth": "x"}),
        ('{"client_kwargs": 1}', {}),
    ],
)
def test_fsspec_trusts_the_variables_and_keeps_what_it_was_told(before: str, kept: dict[str, object]) -> None:
    found = lines("fsspec", present(FSSPEC_HTTP=before)).variables
    http = json.loads(found["FSSPEC_HTTP"])
    assert http.pop("client_kwargs") | http == {**kept, "trust_env": True}
    assert json.loads(found["FSSPEC_GS"]) == {"session_kwargs": {"trust_env": True}}


@pytest.mark.parametrize("shell", ["bash", "dash"])
@pytest.mark.parametrize("tool", ["", "java", "apptainer", "git", "fsspec"])
@pytest.mark.parametrize("hostile", [*HOSTILE, "*", "a*b"])
def test_a_shell_takes_every_value_as_it_is(shell: str, tool: str, hostile: str, tmp_path: Path) -> None:
    found = lines(tool, present(f"c1,{hostile}", JAVA_TOOL_OPTIONS=hostile, FSSPEC_HTTP=json.dumps({"a": hostile})))
    script = found.shown() + "".join(f'printf "%s\\0" "${name}"\n' for name in found.variables)
    done = subprocess.run([shell, "-euc", script], capture_output=True, cwd=tmp_path, check=True)
    assert done.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1] == list(found.variables.values())
    assert list(tmp_path.iterdir()) == []


_READ = {  # how each shell reads our lines, and then prints every variable
    "zsh": ["zsh", "-fuc", 'eval "$(cat "$1")"; shift; for name; do printf "%s\\0" "${(P)name}"; done', "zsh"],
    "fish": ["fish", "--no-config", "-c", "source $argv[1]; for name in $argv[2..]; printf '%s\\0' $$name; end"],
    "tcsh": ["tcsh", "-f", "-c", 'eval "`cat $SOURCE`"; eval "env printenv -0 $WANTED"'],
}


@pytest.mark.parametrize("shell", _READ)
@pytest.mark.parametrize("hostile", [*HOSTILE, "*", "a*b", "it's  two", "a!b!!", "\\!", "$HOME", "`id`", "~", "{a,b}"])
def test_other_shells_take_every_value_as_it_is_or_are_told_that_they_cannot(
    shell: str, hostile: str, tmp_path: Path
) -> None:
    program_of(shell)
    found = lines("", present("c1", HOSTILE=hostile))
    found = replace(found, variables={**found.variables, "HOSTILE": hostile})
    source = tmp_path / "lines"
    try:
        source.write_text(found.shown(shell), encoding="utf-8", errors="surrogateescape")
    except TunnelError:
        assert shell == "tcsh"
        assert set("\r\n") & set(hostile)
        return
    names = list(found.variables)
    given = [] if shell == "tcsh" else [str(source), *names]
    env = {**os.environ, "SOURCE": str(source), "WANTED": " ".join(names), "ALL_PROXY": "theirs", "TERM": "dumb"}
    done = subprocess.run([*_READ[shell], *given], capture_output=True, cwd=tmp_path, env=env, check=True)
    assert done.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1] == list(found.variables.values())
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_entry_adds_an_option_to_java(hostile: str) -> None:
    shown = lines("java", present(f"{hostile},c1")).variables["JAVA_TOOL_OPTIONS"].split()
    assert len(shown) == 5


@pytest.mark.parametrize(
    "url",
    ["", "x", "http://127.1.1.1", "http://10.1.1.1:80", "ftp://127.1.1.1:1", "http://127.1.1.1:99999", f"{URL}/ -Dx=y"],
)
def test_what_is_no_address_of_a_tunnel_is_refused(url: str) -> None:
    with pytest.raises(TunnelError, match="no address of a tunnel"):
        present(url=url)


@pytest.mark.parametrize("tool", ["java", "maven", "fsspec"])
def test_java_has_no_use_for_socks(tool: str) -> None:
    with pytest.raises(TunnelError, match="it needs the agent"):
        lines(tool, present(url="socks5h://127.64.1.2:2015"))


def test_one_tool_at_a_time() -> None:
    assert one_of(dict.fromkeys(TOOLS, False)) == ""
    with pytest.raises(UsageError, match="--java and --git exclude each other"):
        one_of({"java": True, "maven": False, "git": True})


def test_outside_a_job_one_line_says_so() -> None:
    for flag in (*(f"--{tool}" for tool in TOOLS), "--json"):
        done = run("env", flag)
        assert done.returncode == 1
        assert (done.stdout, done.stderr.count("\n")) == ("", 1)
        assert "no tunnel of yours is up" in done.stderr


def test_the_command_prints_data_and_says_limits() -> None:
    done = run("env", "--docker", HPCPROXY_URL=URL, no_proxy=DIRECT)
    assert json.loads(done.stdout)["proxies"]["default"]["noProxy"] == DIRECT
    assert "--network=host" in done.stderr
    told = json.loads(run("env", "--json", HPCPROXY_URL=URL, no_proxy=DIRECT).stdout)
    assert told["variables"]["https_proxy"] == URL
    assert "all_proxy" in told["unset"]
