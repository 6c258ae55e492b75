"""The variables that programs read, and tools that have a proxy of their own: each content, and each overridden."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcproxy.account.account import Account
from hpcproxy.doctor import of_tools
from hpcproxy.doctor.finding import Mark
from hpcproxy.files import elsewhere
from tests import servers
from tests.doctor.conftest import is_bad, look, looked

_URL = "http://127.64.0.7:2015"
_NAMES = ("variables", "other proxy", "spellings", "no_proxy", "authorities")
_SECRET = "s3cret"  # noqa: S105 - what must never show


def test_all_is_well_in_a_shell_without_and_with_a_tunnel(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    found = looked(account, *_NAMES)
    assert found.pop("variables").words == "not tried, because this shell uses no tunnel; proxy_on turns it on"
    assert {one.mark for one in found.values()} == {Mark.GOOD}
    monkeypatch.setenv("HPCPROXY_URL", _URL)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, _URL)
    assert {one.mark for one in looked(account, *_NAMES).values()} == {Mark.GOOD}


def test_a_variable_that_was_changed_since(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPCPROXY_URL", _URL)
    monkeypatch.setenv("http_proxy", f"http://u:{_SECRET}@p:1")
    monkeypatch.setenv("https_proxy", _URL)
    found = look(account, "variables")
    is_bad(found, "http_proxy leads elsewhere than to the tunnel", "proxy_on")
    assert _SECRET not in found.words


@pytest.mark.parametrize("spelling", ["http://127.0.0.1:{}", "socks5h://localhost:{}", "127.0.0.1:{}"])
def test_an_old_recipe_whose_tunnel_is_gone(spelling: str, account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", spelling.format(servers.free_port()))
    is_bad(look(account, "other proxy"), "https_proxy leads to this machine, where nobody listens", "unset https_proxy")


def test_a_sites_own_proxy_is_no_fault(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", f"http://u:{_SECRET}@proxy.site.example:3128")
    found = look(account, "other proxy")
    assert (found.mark, "stays in force" in found.words) == (Mark.GOOD, True)
    assert _SECRET not in found.words


def test_two_spellings_that_differ(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://a:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://b:1")
    is_bad(look(account, "spellings"), "https_proxy and HTTPS_PROXY differ", 'export HTTPS_PROXY="$https_proxy"')


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("localhost, *", "no program uses the tunnel"),
        (".wandb.ai,localhost", "go to W&B without"),
        ("huggingface.co", "go to Hugging Face without"),
        (".com", "OpenAI, Anthropic, Gemini, DeepSeek"),
    ],
)
def test_no_proxy_that_keeps_programs_from_the_tunnel(
    value: str, words: str, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", value)
    is_bad(look(account, "no_proxy"), words, "no_proxy")


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"])
def test_authorities_that_are_not_there(name: str, account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "/no/such/bundle.pem")
    is_bad(look(account, "authorities"), f"{name} names /no/such/bundle.pem, which cannot be read", f"unset {name}")


_FILES = {
    "git": (".gitconfig", "[http]\n\tproxy = http://u:s3cret@p:1\n"),
    "curl": (".curlrc", "proxy = http://u:s3cret@p:1\n"),
    "wget": (".wgetrc", "https_proxy = http://u:s3cret@p:1\n"),
    "pip": (".config/pip/pip.conf", "[global]\nproxy = http://u:s3cret@p:1\n"),
    "conda": (".condarc", "proxy_servers:\n  http: http://u:s3cret@p:1\n"),
    "npm": (".npmrc", "https-proxy=http://u:s3cret@p:1\n"),
    "yarn": (".yarnrc.yml", "httpsProxy: http://u:s3cret@p:1\n"),
    "cargo": (".cargo/config.toml", '[http]\nproxy = "u:s3cret@p:1"\n'),
    "docker": (".docker/config.json", '{"proxies": {"default": {"httpProxy": "http://u:s3cret@p:1"}}}'),
    "R": (".Renviron", "https_proxy=http://u:s3cret@p:1\n"),
    "gradle": (".gradle/gradle.properties", "systemProp.https.proxyHost=p\n"),
    "aria2": (".aria2/aria2.conf", "all-proxy=http://u:s3cret@p:1\n"),
    "s3cmd": (".s3cfg", "proxy_host = p\n"),
}
_VARIABLES = {"Java": "JAVA_TOOL_OPTIONS", "Maven": "MAVEN_OPTS"}


def test_tools_without_a_proxy_of_their_own(account: Account) -> None:
    found = looked(account, *of_tools.NAMES)
    assert {one.words for one in found.values()} == {"no proxy of their own"}


@pytest.mark.parametrize("tool", _FILES)
def test_a_tool_with_a_file_of_its_own(tool: str, account: Account) -> None:
    name, text = _FILES[tool]
    path = account.user_home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    found = looked(account, *of_tools.NAMES)
    is_bad(found[tool], str(path), f"{path}")
    assert _SECRET not in found[tool].words + found[tool].fix
    assert [name for name, one in found.items() if one.mark is not Mark.GOOD] == [tool]


@pytest.mark.parametrize("tool", _VARIABLES)
def test_a_tool_with_a_variable_of_its_own(tool: str, account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(_VARIABLES[tool], "-Dhttps.proxyHost=p")
    is_bad(look(account, tool), f"{_VARIABLES[tool]} gives {tool} a proxy of its own", f"unset {_VARIABLES[tool]}")


def test_every_tool_of_the_tables_has_its_check_and_its_test(account: Account) -> None:
    known = {tool for tool, _, _ in (*elsewhere.TOOLS, *elsewhere.VARIABLES)} | {"docker"}
    assert set(of_tools.NAMES) == known == {*_FILES, *_VARIABLES}


def test_a_value_is_shown_nowhere(account: Account, tmp_path: Path) -> None:
    for name, text in _FILES.values():
        (account.user_home / name).parent.mkdir(parents=True, exist_ok=True)
        (account.user_home / name).write_text(text)
    assert _SECRET not in str(looked(account))
