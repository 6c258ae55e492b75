"""A proxy of the site's that intercepts TLS: known by lists of authorities, and what programs are given for it."""

import pytest

from hpcproxy.node.upstream.authority import brought_along
from tests.doctor import internet
from tests.node.site_proxies import HttpMock
from tests.waiting import until


@pytest.fixture
def site(tmp_path):
    """A proxy, and a far end behind it whose certificate the site's own authority has signed."""
    proxy = HttpMock()
    proxy.header = ""
    with internet.running(tmp_path / "far", "Site Authority") as far:
        target = "127.0.0.1:" + far.url.rpartition(":")[2].partition("/")[0]
        way = {"kind": "http", "name": "site", "host": "127.0.0.1", "port": proxy.port, "auth_file": ""}
        yield way, target, far.authority
    proxy.close()


def venv(folder, text):
    """A Python's packages, which bring a list of authorities along."""
    path = folder / "venv" / "lib" / "python3.9" / "site-packages" / "certifi" / "cacert.pem"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return {"VIRTUAL_ENV": str(folder / "venv")}


def test_one_that_only_the_system_believes_is_handed_on(site, tmp_path, start_agent):
    way, target, authority = site
    other = internet.authority(tmp_path, "Somebody Else")[0].read_text()
    environ = dict(venv(tmp_path, other), SSL_CERT_FILE=str(authority))
    agent = start_agent([way], proxy_ca="auto", proxy_ca_targets=[target], environ=environ)
    note, ready = agent.lines()
    assert note == "note c1 authority the proxy intercepts TLS; programs are given {}".format(authority)
    assert ready == "ready c1 site"
    assert (agent.state / "ca").read_text() == "{}\n".format(authority)
    assert "programs are given the authorities in {}".format(authority) in agent.log()


def test_one_that_programs_believe_too_is_none(site, tmp_path, start_agent):
    way, target, authority = site
    environ = dict(venv(tmp_path, authority.read_text()), SSL_CERT_FILE=str(authority))
    agent = start_agent([way], proxy_ca="auto", proxy_ca_targets=[target], environ=environ)
    assert agent.lines() == ["ready c1 site"]
    assert not (agent.state / "ca").exists()


def test_one_that_nobody_believes_is_not_handed_on(site, tmp_path, start_agent):
    way, target, _ = site
    other = internet.authority(tmp_path, "Somebody Else")[0]
    environ = dict(venv(tmp_path, other.read_text()), SSL_CERT_FILE=str(other))
    agent = start_agent([way], proxy_ca="auto", proxy_ca_targets=[target, "127.0.0.1:1"], environ=environ)
    assert agent.lines() == ["ready c1 site"]
    assert not (agent.state / "ca").exists()


def test_a_list_that_the_settings_name_is_handed_on_unasked(site, start_agent):
    agent = start_agent([site[0]], proxy_ca="/etc/site/ca.pem")
    assert agent.lines() == ["ready c1 site"]
    until((agent.state / "ca").exists, "it is there")
    assert (agent.state / "ca").read_text() == "/etc/site/ca.pem\n"


def test_lists_that_programs_bring_along(tmp_path):
    (tmp_path / "conda" / "ssl").mkdir(parents=True)
    (tmp_path / "conda" / "ssl" / "cacert.pem").write_text("")
    environ = dict(venv(tmp_path, ""), CONDA_PREFIX=str(tmp_path / "conda"))
    found = brought_along(environ)
    assert str(tmp_path / "conda" / "ssl" / "cacert.pem") in found
    assert found[0].endswith("/certifi/cacert.pem")
    # A distribution's link to the system's own list is no list of the program's.
    (tmp_path / "linked" / "ssl").mkdir(parents=True)
    (tmp_path / "linked" / "ssl" / "cacert.pem").symlink_to("/etc/ssl/certs/ca-certificates.crt")
    assert not [path for path in brought_along({"CONDA_PREFIX": str(tmp_path / "linked")}) if "linked" in path]
    assert not [path for path in brought_along({"VIRTUAL_ENV": "relative"}) if "relative" in path]
