"""Every option of ssh has a verdict, and what is set by us holds against whatever a configuration says."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcproxy.openssh import option_list
from tests import servers, ssh_at_hand, sshd
from tests.sshd import Sshd
from tests.supervisor import Supervisor, children, session, write_script
from tests.waiting import until

SSH = ssh_at_hand.SSH

# The keywords of OpenSSH 10.5 (readconf.c), without those that it no longer has a meaning for, and those that other
# builds add. Newer ones come from the ssh at hand.
KEYWORDS = """
addkeystoagent addressfamily batchmode bindaddress bindinterface canonicaldomains canonicalizefallbacklocal
canonicalizehostname canonicalizemaxdots canonicalizepermittedcnames casignaturealgorithms certificatefile
channeltimeout checkhostip ciphers clearallforwardings compression connectionattempts connecttimeout controlmaster
controlpath controlpersist dynamicforward enableescapecommandline enablesshkeysign escapechar exitonforwardfailure
fingerprinthash forkafterauthentication forwardagent forwardx11 forwardx11timeout forwardx11trusted gatewayports
globalknownhostsfile gssapiauthentication gssapidelegatecredentials hashknownhosts host hostbasedacceptedalgorithms
hostbasedauthentication hostkeyalgorithms hostkeyalias hostname identitiesonly identityagent identityfile
ignoreunknown include ipqos kbdinteractiveauthentication kbdinteractivedevices kexalgorithms knownhostscommand
localcommand localforward loglevel logverbose macs match nohostauthenticationforlocalhost numberofpasswordprompts
obscurekeystroketiming passwordauthentication permitlocalcommand permitremoteopen pkcs11provider port
preferredauthentications proxycommand proxyjump proxyusefdpass pubkeyacceptedalgorithms pubkeyauthentication
refuseconnection rekeylimit remotecommand remoteforward requesttty requiredrsasize revokedhostkeys securitykeyprovider
sendenv serveralivecountmax serveraliveinterval sessiontype setenv stdinnull streamlocalbindmask streamlocalbindunlink
stricthostkeychecking syslogfacility tag tcpkeepalive tunnel tunneldevice updatehostkeys user userknownhostsfile
verifyhostkeydns versionaddendum visualhostkey warnweakcrypto xauthlocation
"""
VALUES = {"known_hosts": "/k", "connect_timeout_s": 7, "alive_interval_s": 3, "alive_questions": 2}

# The contrary of all that is set, as a user or a site may have it. A name that this ssh does not know is left out.
HOSTILE = {
    "BatchMode": "no", "RequestTTY": "force", "RemoteCommand": "tmux", "SessionType": "default",
    "PermitLocalCommand": "yes", "ForkAfterAuthentication": "yes", "ForwardAgent": "yes", "ForwardX11": "yes",
    "ForwardX11Trusted": "yes",
    "Tunnel": "yes", "GatewayPorts": "yes", "ClearAllForwardings": "no", "ExitOnForwardFailure": "no",
    "StrictHostKeyChecking": "no", "UserKnownHostsFile": "/dev/zero", "GlobalKnownHostsFile": "/etc/g",
    "KnownHostsCommand": "/bin/echo %H", "VerifyHostKeyDNS": "yes", "NoHostAuthenticationForLocalhost": "yes",
    "UpdateHostKeys": "yes", "CheckHostIP": "yes", "VisualHostKey": "yes", "AddKeysToAgent": "yes",
    "ConnectTimeout": "999", "ConnectionAttempts": "9", "ServerAliveInterval": "999", "ServerAliveCountMax": "99",
    "TCPKeepAlive": "no", "ChannelTimeout": "global=1s", "LogLevel": "QUIET", "WarnWeakCrypto": "yes",
    "ControlPersist": "yes", "EscapeChar": "~", "EnableEscapeCommandline": "yes", "ObscureKeystrokeTiming": "yes",
    "StreamLocalBindUnlink": "yes",
}  # fmt: skip


def _asked(*argv: str) -> dict[str, str]:
    done = subprocess.run([SSH, "-G", *argv, "--", "jump"], capture_output=True, text=True, check=True)
    return dict(line.lower().partition(" ")[::2] for line in done.stdout.splitlines())


def test_every_option_has_one_verdict_with_a_reason() -> None:
    judged = [option.name.lower() for option in (*option_list.SET, *option_list.LEFT)]
    assert len(judged) == len(set(judged))
    assert all(option.reason for option in (*option_list.SET, *option_list.LEFT))
    assert sorted(set(KEYWORDS.split()) - set(judged)) == []


def test_the_ssh_at_hand_has_no_option_that_nobody_has_judged() -> None:
    judged = {option.name.lower() for option in (*option_list.SET, *option_list.LEFT)}
    assert sorted(set(_asked("-F", "/dev/null")) - judged) == []


def test_all_that_is_set_wins_over_any_configuration(tmp_path: Path) -> None:
    assert sorted(HOSTILE) == sorted(option.name for option in option_list.SET)
    config = tmp_path / "config"
    config.write_text("IgnoreUnknown *\n" + "".join(f"{name} {value}\n" for name, value in HOSTILE.items()))
    ours = option_list.words(VALUES)
    alone, against, without = (
        _asked("-F", "/dev/null", *ours),
        _asked("-F", str(config), *ours),
        _asked("-F", str(config)),
    )
    names = {name.lower() for name in HOSTILE}
    assert {name: against.get(name) for name in names} == {name: alone.get(name) for name in names}
    overridden = {name for name in names if name in without and without[name] != against.get(name)}
    # What -G shows in the same way whatever is set has a test of its own below.
    assert len(overridden) > 20
    newer = {name.lower() for name in ("KnownHostsCommand", "ForkAfterAuthentication") if ssh_at_hand.knows(name)}
    assert {"stricthostkeychecking", "batchmode", *newer} <= overridden


def test_an_option_that_ssh_does_not_know_does_not_stop_it(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host *\n    OptionOfANewerSsh yes\n    Port 2022\n")
    assert _asked("-F", str(config), *option_list.words(VALUES), "-o", "AnotherNewOne=1")["port"] == "2022"


# ------------------------------------------------------------------------------------------------ for real


@contextlib.contextmanager
def _configured(path: Path, *lines: str) -> Iterator[None]:
    (path / "ssh_config").write_text("\n".join(("IgnoreUnknown *", *lines, "")))
    with ssh_at_hand.stood_for(path, 'exec SSH "$@"'):
        yield


def _ways_of(server: Sshd) -> list[int]:
    """Return the pids of the connections that the server serves."""
    assert server.process is not None
    return children(server.process.pid)


def test_a_changed_key_does_not_pass_by_the_sites_own_command(
    hold: Callable[..., Supervisor], jump_host: Sshd, tmp_path: Path
) -> None:
    command = tmp_path / "keys"
    command.write_text(f'#!/bin/sh\necho "[127.0.0.1]:{jump_host.port} {jump_host.host_key}"\n')
    command.chmod(0o755)
    other = sshd.make_key(tmp_path / "other").with_suffix(".pub").read_text()
    lines = (f"KnownHostsCommand {command}", "NoHostAuthenticationForLocalhost yes", "StrictHostKeyChecking no")
    with _configured(tmp_path, *lines, "VerifyHostKeyDNS yes", f"GlobalKnownHostsFile {tmp_path}/global"):
        (tmp_path / "global").write_text(f"[127.0.0.1]:{jump_host.port} {jump_host.host_key}\n")
        supervisor = hold(**{**jump_host.settings, "known_hosts": f"[127.0.0.1]:{jump_host.port} {other}"})
        assert " host-key " in supervisor.line("failed", "ready")


def test_nothing_of_a_hostile_configuration_changes_what_our_ssh_is(
    hold: Callable[..., Supervisor], tmp_path: Path
) -> None:
    """Each line is from a researcher's own file: tunnels, terminals and sessions written into ~/.ssh/config."""
    taken, free = servers.free_port(), servers.free_port()
    lines = [f"{name} {value}" for name, value in HOSTILE.items() if name not in ("ConnectTimeout", "Tunnel")]
    lines += [f"LocalForward {free} h:1", f"RemoteForward {taken} h:1", f"DynamicForward 127.0.0.1:{taken}"]
    lines += [f"LocalCommand touch {tmp_path}/ran", "ControlMaster auto", f"ControlPath {tmp_path}/master", "SendEnv *"]
    with sshd.running(tmp_path / "own") as own, _configured(tmp_path, *lines), servers.internet():
        supervisor = hold(**own.settings)
        assert supervisor.line("ready", "failed").startswith("ready ")
        (pid,) = supervisor.ssh_pids
        assert pid in session(supervisor.process.pid) or os.getsid(pid) == pid
        assert not (tmp_path / "ran").exists()
        assert not (tmp_path / "master").exists()
        listening = {row.split()[1].rpartition(":")[2] for row in Path("/proc/net/tcp").read_text().splitlines()[1:]}
        assert not {f"{port:04X}" for port in (taken, free)} & listening
        assert supervisor.end() == 0
        until(lambda: not _ways_of(own), "nobody is logged in any more")


def test_ciphers_that_the_user_has_left_out_stay_out(tmp_path: Path) -> None:
    script = write_script(tmp_path / "home", jump="u@127.0.0.1").read_text()
    functions = script[: script.rindex("case ${1-} in")]
    ask = f"{functions}\nheld=1\nlearn\nprintf '%s\\n' ${{cipher[@]+\"${{cipher[@]}}\"}}\n"
    for line, expected in (
        ("", r"-o\nCiphers=aes128-gcm@openssh\.com,.*"),
        ("Ciphers aes256-ctr,aes128-gcm@openssh.com", r"-o\nCiphers=aes128-gcm@openssh\.com,aes256-ctr"),
        ("Ciphers aes256-ctr", ""),
    ):
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(FileNotFoundError):
            shutil.rmtree(tmp_path / "bin", ignore_errors=True)
            patch.chdir(tmp_path)
            with _configured(tmp_path, line):
                done = subprocess.run(["/bin/bash", "-p", "-c", ask], capture_output=True, text=True, check=True)
        assert re.fullmatch(expected, done.stdout.strip()), (line, done.stdout)


# ------------------------------------------------------------------------------------------------ hosts on the way


def _reads(config: Path, script: Path) -> Path:
    """Return a script that runs `script` where the system's ssh_config is `config`: ssh is called by its own name."""
    found = script.with_name("reads-" + script.name)
    inside = f"PATH={Path(SSH).parent}:$PATH && mount --bind {config.parent} /etc/ssh && exec /bin/bash -p {script}"
    found.write_text(f'exec unshare -m /bin/bash -p -c \'{inside} "$@"\' there "$@"\n')
    return found


@pytest.mark.skipif(
    subprocess.run(["unshare", "-m", "true"], stderr=subprocess.DEVNULL, check=False).returncode != 0,
    reason="needs root, for a mount namespace",
)
@pytest.mark.parametrize("mode", ["agent", "ssh", "probe"])
@pytest.mark.parametrize("way", ["near", "near,far", "near by way of far"])
def test_what_the_configuration_of_a_hop_would_leave_behind_is_not_there(mode: str, way: str, tmp_path: Path) -> None:
    """ssh starts the ssh of a hop itself, with none of our options: there `ControlMaster auto` forks a master."""
    with contextlib.ExitStack() as stack:
        jump, near, far = (stack.enter_context(sshd.running(tmp_path / name)) for name in ("jump", "near", "far"))
        config, masters = tmp_path / "etc" / "ssh_config", tmp_path / "masters"
        config.parent.mkdir()
        masters.mkdir()
        blocks = [
            f"Host {name}\n HostName 127.0.0.1\n Port {server.port}\n IdentityFile {server.identity}\n"
            f" HostKeyAlias {name}\n UserKnownHostsFile {tmp_path}/known\n IdentitiesOnly yes\n IdentityAgent none\n"
            f" ControlMaster auto\n ControlPersist yes\n ControlPath {masters}/%n\n"
            f" PermitLocalCommand yes\n LocalCommand touch {tmp_path}/ran\n"
            for name, server in (("near", near), ("far", far))
        ]
        jumps, *of_near = way.split(" by way of ")
        of_its_own = "".join(f"Host near\n ProxyJump {jump}\n" for jump in of_near)
        config.write_text(f"Host 127.0.0.1\n ProxyJump {jumps}\n{of_its_own}" + "".join(blocks))
        config.chmod(0o644)
        (tmp_path / "known").write_text(f"near {near.host_key}\nfar {far.host_key}\n")
        script = _reads(config, write_script(tmp_path / "home", **{**jump.settings, "agent": mode == "agent"}))
        if mode == "probe":
            done = subprocess.run(["/bin/bash", "-p", script, "probe"], capture_output=True, text=True, check=True)
            assert done.stdout == f"ok {jump.jump}\n"
        else:
            supervisor = Supervisor(script)
            try:
                assert supervisor.line("ready", "failed", "gave-up").startswith("ready ")
                assert _ways_of(near)
                assert bool(_ways_of(far)) == ("far" in way)
                assert list(masters.iterdir()) == [], "a login of the user's would go by ours"
            finally:
                assert supervisor.end(signal.SIGURG) == 0
        assert list(masters.iterdir()) == []
        assert not (tmp_path / "ran").exists()
        for server in (jump, near, far):
            until(lambda server=server: not _ways_of(server), "nobody is logged in any more")


def test_the_program_of_a_hop_is_the_same_for_tunnels_and_for_serve(tmp_path: Path) -> None:
    """Two write it: a node has no Python of ours, and `serve` no tunnel.sh."""
    (tmp_path / "ssh").write_text("#!/bin/bash\nprintf '%s\\n' \"$@\"\n")
    (tmp_path / "serve").write_text(option_list.hop_program())
    script = write_script(tmp_path / "home", jump="u@127.0.0.1").read_text()
    functions = script[: script.rindex("case ${1-} in")]
    ask = ["/bin/bash", "-p", "-c", f"{functions}\nhops=1\nname_ssh"]
    subprocess.run(ask, cwd=tmp_path, check=True)
    given = ["-W", "[a b]:22", "near", "*"]
    (tmp_path / "IgnoreUnknown=all").touch()  # no pattern, whatever lies there
    words = {}
    for name in ("ssh", "serve", "hop"):
        (tmp_path / name).chmod(0o700)
        argv = [f"./{name}", *given]
        environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        words[name] = subprocess.run(
            argv, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
        ).stdout.splitlines()
    assert words["ssh"] == given
    assert words["serve"] == words["hop"] == [*option_list.hop_words(), *given]
