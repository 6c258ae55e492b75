"""The ways in which a tunnel can fail: the layer, words of the reason, and the settings that provoke it for real."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests import lying, servers, ssh_at_hand, sshd
from tests.sshd import Sshd


@contextlib.contextmanager
def _configured(path: Path, *lines: str) -> Iterator[None]:
    """Have `ssh` read these lines as the user's own configuration: what it really reads is found by the account."""
    (path / "ssh_config").write_text("\n".join(("Host 127.0.0.1", *lines, "")))
    with ssh_at_hand.stood_for(path, 'exec SSH "$@"'):
        yield


Case = tuple[str, str, dict[str, Any]]
CASES: dict[str, Callable[[Sshd, Path], contextlib.AbstractContextManager[Case]]] = {}


def case(function: Callable[[Sshd, Path], Iterator[Case]]) -> None:
    """Name a way to fail: it yields the layer, words of the reason, and the settings."""
    CASES[function.__name__.lstrip("_").replace("_", " ")] = contextlib.contextmanager(function)


@case
def _refused(server: Sshd, _path: Path) -> Iterator[Case]:
    yield "route", "nothing listens", {**server.settings, "jump": f"u@127.0.0.1:{servers.free_port()}"}


@case
def _black_hole(server: Sshd, _path: Path) -> Iterator[Case]:
    with servers.black_hole() as port:
        yield "route", "does not answer", {**server.settings, "jump": f"u@127.0.0.1:{port}", "connect_timeout_s": 1}


@case
def _silent(server: Sshd, _path: Path) -> Iterator[Case]:
    with servers.silent() as port:
        yield "route", "stays silent", {**server.settings, "jump": f"u@127.0.0.1:{port}", "connect_timeout_s": 1}


@case
def _hanging_up(server: Sshd, _path: Path) -> Iterator[Case]:
    with servers.hanging_up() as port:
        yield "busy", "hung up", {**server.settings, "jump": f"u@127.0.0.1:{port}"}


@case
def _unresolvable(server: Sshd, _path: Path) -> Iterator[Case]:
    yield "name", "does not resolve", {**server.settings, "jump": "u@no-such-host.invalid"}


@case
def _host_key_unknown(server: Sshd, _path: Path) -> Iterator[Case]:
    yield "host-key", "is not pinned", {**server.settings, "known_hosts": ""}


@case
def _host_key_changed(server: Sshd, path: Path) -> Iterator[Case]:
    other = sshd.make_key(path / "other_host_key").with_suffix(".pub").read_text()
    known_hosts = f"[127.0.0.1]:{server.port} {other}"
    yield "host-key", "shows another key than the one pinned", {**server.settings, "known_hosts": known_hosts}


@case
def _key_missing(server: Sshd, path: Path) -> Iterator[Case]:
    yield "key", "does not exist or cannot be read", {**server.settings, "identity": str(path / "none")}


@case
def _key_refused(server: Sshd, path: Path) -> Iterator[Case]:
    yield "key", "refused the key", {**server.settings, "identity": str(sshd.make_key(path / "id"))}


@case
def _key_with_passphrase(server: Sshd, path: Path) -> Iterator[Case]:
    key = sshd.make_key(path / "id", passphrase="secret")  # noqa: S106 - nobody's
    yield "key", "has a passphrase and no ssh-agent is there", {**server.settings, "identity": str(key)}


@case
def _greeting_and_hanging_up(server: Sshd, path: Path) -> Iterator[Case]:
    """The words of an OpenSSH 9.5 whose connection is closed before the login."""
    with servers.greeting_and_hanging_up() as port:
        yield "busy", "hung up before the login", {**server.settings, "jump": f"u@127.0.0.1:{port}"}


@case
def _no_ssh_server(server: Sshd, _path: Path) -> Iterator[Case]:
    with servers.internet() as url:
        port = url.split(":")[2].split("/")[0]
        yield "route", "what answers there is no ssh server", {**server.settings, "jump": f"u@127.0.0.1:{port}"}


@case
def _host_key_revoked(server: Sshd, _path: Path) -> Iterator[Case]:
    known_hosts = server.known_hosts + f"@revoked * {server.host_key}\n"
    yield "host-key", "marked as revoked", {**server.settings, "known_hosts": known_hosts}


@case
def _host_key_revoked_by_the_users_list(server: Sshd, path: Path) -> Iterator[Case]:
    (path / "revoked").write_text(server.host_key)
    with _configured(path, f"RevokedHostKeys {path}/revoked"):
        yield "host-key", f"is revoked by {path}/revoked", server.settings


@case
def _nothing_in_common(_server: Sshd, path: Path) -> Iterator[Case]:
    with sshd.running(path / "other", "Ciphers aes256-ctr") as other, _configured(path, "Ciphers aes128-ctr"):
        yield "ssh", "have no cipher in common; it offers aes256-ctr", other.settings


@case
def _key_for_all_to_read(_server: Sshd, path: Path) -> Iterator[Case]:
    with sshd.running(path / "own") as own:
        own.identity.chmod(0o644)
        yield "key", f"others may read it (mode 0644); run: chmod 600 {own.identity}", own.settings


@case
def _certificate_expired(_server: Sshd, path: Path) -> Iterator[Case]:
    with sshd.running(path / "own") as own:
        authority = sshd.make_key(path / "ca")
        argv = ["ssh-keygen", "-q", "-s", authority, "-I", "x", "-n", sshd.USER, "-V", "-2d:-1d", f"{own.identity}.pub"]
        subprocess.run(argv, check=True)
        (own.directory / "authorized_keys").write_text(f"cert-authority {authority.with_suffix('.pub').read_text()}")
        yield "key", f"the certificate {own.identity}-cert.pub expired at 20", own.settings


@case
def _second_factor(_server: Sshd, path: Path) -> Iterator[Case]:
    more = "PasswordAuthentication yes\nAuthenticationMethods publickey,password"
    with sshd.running(path / "own", more) as own:
        yield "key", "took the key and wants a second factor", own.settings


@case
def _passwords_only(_server: Sshd, path: Path) -> Iterator[Case]:
    with sshd.running(path / "own", "PasswordAuthentication yes\nPubkeyAuthentication no") as own:
        yield "key", "takes no keys at all, only password", own.settings


@case
def _public_keys_turned_off_here(server: Sshd, path: Path) -> Iterator[Case]:
    with _configured(path, "PubkeyAuthentication no"):
        yield "key", "turns public keys off for it (PubkeyAuthentication no", server.settings


@case
def _public_keys_not_preferred(server: Sshd, path: Path) -> Iterator[Case]:
    with _configured(path, "PreferredAuthentications password,keyboard-interactive"):
        yield "key", "leaves public keys out (PreferredAuthentications", server.settings


@case
def _no_key_of_a_kind_that_is_allowed_here(server: Sshd, path: Path) -> Iterator[Case]:
    with _configured(path, "PubkeyAcceptedKeyTypes rsa-sha2-512"):  # its name before OpenSSH 8.5, which is taken still
        yield "key", "ssh had no key to offer it: ", server.settings


@case
def _address_that_is_not_here(server: Sshd, path: Path) -> Iterator[Case]:
    with _configured(path, "BindAddress 192.0.2.77"):
        yield "config", "connect from 192.0.2.77 (BindAddress)", server.settings


@case
def _key_from_elsewhere_only(_server: Sshd, path: Path) -> Iterator[Case]:
    with sshd.running(path / "own") as own:
        keys = own.directory / "authorized_keys"
        keys.write_text(f'from="192.0.2.9" {keys.read_text()}')
        said = f"refused the key {own.identity}; is the public half in its authorized_keys, without a from="
        yield "key", said, own.settings


@case
def _account_not_alive(_server: Sshd, path: Path) -> Iterator[Case]:
    with sshd.running(path / "own", f"DenyUsers {sshd.USER}") as own:
        yield "key", "and the account there alive?", own.settings


@case
def _too_many_keys(_server: Sshd, path: Path) -> Iterator[Case]:
    keys = [sshd.make_key(path / name) for name in ("one", "two")]
    lines = [f"IdentityFile {key}" for key in keys]
    with sshd.running(path / "own", "MaxAuthTries 1") as own, _configured(path, *lines):
        yield "key", "refused too many keys", {**own.settings, "identity": None}


@case
def _key_named_with_a_token(server: Sshd, path: Path) -> Iterator[Case]:
    key = sshd.make_key(path / f"id_{sshd.USER}")
    with _configured(path, f"IdentityFile {path}/id_%r"):
        yield "key", f"refused the key {key};", {**server.settings, "identity": None}


@case
def _a_line_that_ssh_cannot_read(server: Sshd, path: Path) -> Iterator[Case]:
    with _configured(path, "Compression perhaps"):
        yield "config", f"{path}/ssh_config line 2: ", server.settings


@case
def _hop_not_there(server: Sshd, path: Path) -> Iterator[Case]:
    hop = f"u@127.0.0.2:{servers.free_port()}"
    with _configured(path, f"ProxyJump {hop}"):
        said = f"ssh: connect to host 127.0.0.2 port {hop.rpartition(':')[2]}: Connection refused"
        yield "hop", f'ends before it: "{said}"', server.settings


@case
def _hop_that_ends_while_ssh_speaks(server: Sshd, path: Path) -> Iterator[Case]:
    """ssh finds out by its own next word (Broken pipe), not by the end of what it reads."""
    with _configured(path, "ProxyCommand sh -c 'exec <&-; echo no way through >&2; echo SSH-2.0-OpenSSH_9.9; sleep 2'"):
        yield "hop", 'ends before it: "no way through"', server.settings


@case
def _hop_refuses_the_key(server: Sshd, path: Path) -> Iterator[Case]:
    with sshd.running(path / "hop", f"DenyUsers {sshd.USER}") as hop:
        known = path / "hop_known_hosts"
        known.write_text(hop.known_hosts)
        options = f"-F /dev/null -i {hop.identity} -o UserKnownHostsFile={known} -o BatchMode=yes -p {hop.port}"
        with _configured(path, f"ProxyCommand {ssh_at_hand.SSH} {options} -W %h:%p {sshd.USER}@127.0.0.1"):
            settings = {**server.settings, "connect_timeout_s": 20}
            yield "hop", f'"{sshd.USER}@127.0.0.1: Permission denied (publickey)."', settings


@case
def _key_that_is_broken(server: Sshd, path: Path) -> Iterator[Case]:
    """openssl/openssl#20054, #13443: copied through a machine with other line endings, or cut short."""
    key = path / "cut"
    key.write_text(server.identity.read_text()[:60])
    key.chmod(0o600)
    yield "key", f"ssh cannot read the key {key}", {**server.settings, "identity": str(key)}


@case
def _public_half_named_as_the_key(server: Sshd, path: Path) -> Iterator[Case]:
    """openssl/openssl#18279."""
    (path / "id.pub").write_text(Path(f"{server.identity}.pub").read_text())
    (path / "id.pub").chmod(0o600)
    with _configured(path, f"IdentityFile {path}/id.pub"):
        yield "key", f"{path}/id.pub is the public half", {**server.settings, "identity": None}


@case
def _certificate_of_another_name_expired(_server: Sshd, path: Path) -> Iterator[Case]:
    """smallstep/step-ssh-example#2, mfat/sshpilot#107: CertificateFile names it."""
    with sshd.running(path / "own") as own:
        authority = sshd.make_key(path / "ca")
        argv = ["ssh-keygen", "-q", "-s", authority, "-I", "x", "-n", sshd.USER, "-V", "-2d:-1d", f"{own.identity}.pub"]
        subprocess.run(argv, check=True)
        Path(f"{own.identity}-cert.pub").rename(path / "today.pub")
        (own.directory / "authorized_keys").write_text(f"cert-authority {authority.with_suffix('.pub').read_text()}")
        with _configured(path, f"CertificateFile {path}/today.pub"):
            yield "key", f"the certificate {path}/today.pub expired at 20", own.settings


@case
def _certificate_for_another_account(_server: Sshd, path: Path) -> Iterator[Case]:
    """cloudflare/cloudflared#899: the certificate's names are not the account's."""
    with sshd.running(path / "own") as own:
        authority = sshd.make_key(path / "ca")
        argv = [
            "ssh-keygen",
            "-q",
            "-s",
            authority,
            "-I",
            "x",
            "-n",
            "mail@site",
            "-V",
            "-1d:+1d",
            f"{own.identity}.pub",
        ]
        subprocess.run(argv, check=True)
        (own.directory / "authorized_keys").write_text(f"cert-authority {authority.with_suffix('.pub').read_text()}")
        yield "key", f"the certificate {own.identity}-cert.pub is for mail@site", own.settings


@case
def _kind_of_key_that_it_does_not_take(_server: Sshd, path: Path) -> Iterator[Case]:
    """Poeschl/Hassio-Addons#392, rumpeltux/viomi-rooting#42: no mutual signature algorithm."""
    with lying.running(path / "old", lambda _: None, old=True) as settings:
        words = f"it takes no signature of the kind that this key makes: {settings['identity']}"
        yield "key", words, settings


@case
def _one_time_password(_server: Sshd, path: Path) -> Iterator[Case]:
    """opskat/opskat#77, Eugeny/tabby#7274: the key, then keyboard-interactive."""
    more = "UsePAM yes\nKbdInteractiveAuthentication yes\nAuthenticationMethods publickey,keyboard-interactive"
    with sshd.running(path / "own", more) as own:
        yield "key", "took the key and wants a second factor", own.settings


@case
def _forwarding_restricted_by_the_key(_server: Sshd, path: Path) -> Iterator[Case]:
    """smalex-z/gopher#90: permitopen without port-forwarding behind restrict."""
    with sshd.running(path / "strict") as strict:
        keys = strict.directory / "authorized_keys"
        keys.write_text('restrict,permitopen="api.wandb.ai:443" ' + keys.read_text())
        yield "forwarding", "authorized_keys", strict.settings


@case
def _forwarding_to_one_host_only(_server: Sshd, path: Path) -> Iterator[Case]:
    """mscdex/ssh2#946, mkj/dropbear#181: permitopen of one name."""
    with sshd.running(path / "strict") as strict:
        keys = strict.directory / "authorized_keys"
        keys.write_text('permitopen="api.wandb.ai:443" ' + keys.read_text())
        yield "forwarding", "name one in your settings (allow)", strict.settings


@case
def _banner_of_a_site(_server: Sshd, path: Path) -> Iterator[Case]:
    """A real sshd's, with sentences that ssh itself has for other failures."""
    (path / "banner").write_text("Idle sessions are timed out.\nHost key verification failed.\n")
    with sshd.running(path / "own", f"Banner {path}/banner") as own:
        (own.directory / "authorized_keys").write_text("")
        yield "key", "refused the key", own.settings


@case
def _lying_banner(_server: Sshd, path: Path) -> Iterator[Case]:
    with lying.running(path / "liar", lying.banner(lying.LIES)) as settings:
        yield "key", "refused the key", settings


@case
def _lying_disconnect(_server: Sshd, path: Path) -> Iterator[Case]:
    with lying.running(path / "liar", lying.disconnect(f"go away{lying.LIES}")) as settings:
        yield "ssh", "it ended the connection: go away", settings


@case
def _hanging_up_at_the_login(_server: Sshd, path: Path) -> Iterator[Case]:
    with lying.running(path / "liar", lying.hang_up) as settings:
        yield "ssh", "hung up during the login", settings


@case
def _hanging_up_at_the_login_with_a_word(_server: Sshd, path: Path) -> Iterator[Case]:
    """What PAM says of an account that has expired, of a password to be changed, of /etc/nologin."""

    def end(transport: Any) -> None:
        lying.banner("Welcome.\nYour account %1 has expired; please contact your system administrator.\n")(transport)
        lying.hang_up(transport)

    with lying.running(path / "pam", end) as settings:
        words = 'alive? It says: "Your account %1 has expired; please contact your system administrator."'
        yield "ssh", words, settings


@case
def _forwarding_refused(_server: Sshd, path: Path) -> Iterator[Case]:
    with sshd.running(path / "strict", "AllowTcpForwarding no") as strict:
        yield "forwarding", "does not allow forwarding", strict.settings


@case
def _forwarding_refused_by_the_key(_server: Sshd, path: Path) -> Iterator[Case]:
    with sshd.running(path / "strict") as strict:
        keys = strict.directory / "authorized_keys"
        keys.write_text("restrict " + keys.read_text())
        yield "forwarding", "does not allow forwarding", strict.settings


# What is known of some of them from an ssh that does not tell how far a login has come, before OpenSSH 8.5.
WITHOUT_LOG_VERBOSE = {
    "greeting and hanging up": ("ssh", "hung up during the login"),
    "no ssh server": ("busy", "hung up before the login"),
    "no key of a kind that is allowed here": ("key", "it refused the key"),
    "key from elsewhere only": ("key", "refused the key; is the public half in its authorized_keys, without a from="),
    "key named with a token": ("key", "refused the key;"),
    "kind of key that it does not take": ("ssh", "No more auth methods available"),
}
