"""What jump-kit writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcproxy.cluster import firewall, inventory, jumpkit, kit
from hpcproxy.config.layers import Layer, resolve
from hpcproxy.errors import FileError


def test_a_forward_only_key() -> None:
    config = resolve(Layer("c", {"jump": "svc@j", "allow": ["api.example.org:443", "10.1.2.3", "[2001:db8::1]:443"]}))
    line = jumpkit.authorized_keys_line("ssh-ed25519 AAAA c\n", config)
    assert line == (
        'restrict,port-forwarding,command="/usr/sbin/nologin",permitopen="api.example.org:443",'
        'permitopen="10.1.2.3:*",permitopen="[2001:db8::1]:443",permitopen="127.0.0.1:1",permitopen="127.0.0.2:1" '
        "ssh-ed25519 AAAA c\n"
    )
    block = jumpkit.match_block(inventory.parse("i", "nodes: c1\n"), config)
    _comments, match, after = block.partition("Match User svc\n")
    assert match
    assert after.splitlines() == [
        "    AuthorizedKeysFile /etc/ssh/hpcproxy_authorized_keys",
        "    AuthenticationMethods publickey",
        "    AllowTcpForwarding local",
        "    PermitOpen api.example.org:443 10.1.2.3:* [2001:db8::1]:443 127.0.0.1:1 127.0.0.2:1",
        "    PermitListen none",
        "    AllowStreamLocalForwarding no",
        "    AllowAgentForwarding no",
        "    X11Forwarding no",
        "    PermitTunnel no",
        "    PermitTTY no",
        "    PermitUserRC no",
        "    ForceCommand /usr/sbin/nologin",
        "    ClientAliveInterval 30",
    ], "each line is a dialogue that is shut; sshd_config(5)"


def test_the_nodes_are_what_sshd_is_to_be_patient_with() -> None:
    """P7: one refused key shuts out whoever shares the address; as few networks as can be."""
    told = inventory.parse("i", "nodes: c1\n")
    config = resolve(Layer("t", {"jump": "j"}))
    block = jumpkit.match_block(told, config, ["10.0.0.2", "10.0.0.3", "10.0.1.9", "2001:db8::1"])
    assert "\n# PerSourcePenaltyExemptList 10.0.0.2/31,10.0.1.9/32,2001:db8::1/128\n" in block
    assert "\n# PerSourcePenaltyExemptList NETWORK\n" in jumpkit.match_block(told, config)
    assert block.index("Exempt") < block.index("\nMatch ")


def test_rules_that_sshd_cannot_hold_are_named() -> None:
    config = resolve(Layer("c", {"jump": "j", "allow": [".example.org:443", "api.example.org"]}))
    assert jumpkit.targets(config) == ()
    assert jumpkit.beyond_sshd(config) == (".example.org:443",)
    assert "permitopen" not in jumpkit.authorized_keys_line("k", config)
    assert "    PermitOpen any\n" in jumpkit.match_block(inventory.parse("i", "nodes: c1\n"), config)


def _site(tmp_path: Path, settings: str) -> Path:
    path = tmp_path / "site.yaml"
    path.write_text(f"nodes: 10.0.0.[1-2]\nsettings: {settings}\n")
    return path


def test_the_key_line_is_the_keys_own_whatever_lies_beside_it(tmp_path: Path) -> None:
    site, where = _site(tmp_path, "{jump: j, allow: '*'}"), tmp_path / "kit"
    kit.jump_kit(site, where)
    public = where / f"{jumpkit.KEY_FILE}.pub"
    line = (where / jumpkit.LINE_FILE).read_text()
    assert line.endswith(public.read_text())
    for wrong in ("", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ another\n"):
        public.write_text(wrong)
        assert kit.jump_kit(site, where).results[0].outcome.name == "UNCHANGED"
    public.unlink()
    kit.jump_kit(site, where)
    assert (where / jumpkit.LINE_FILE).read_text() == line
    (where / jumpkit.KEY_FILE).write_text("no key\n")
    with pytest.raises(FileError, match="ssh-keygen cannot make or read it"):
        kit.jump_kit(site, where)


def test_each_account_of_the_jump_hosts_is_held(tmp_path: Path) -> None:
    where = tmp_path / "kit"
    kit.jump_kit(_site(tmp_path, "{jump: [fwd@a, tunnel.user@b, fwd@c, d], allow: '*'}"), where)
    assert "Match User fwd,tunnel.user,hpcproxy\n" in (where / jumpkit.MATCH_FILE).read_text()
    for account, table in (("fwd", "fwd"), ("tunnel.user", "tunnel_user"), ("hpcproxy", "hpcproxy")):
        text = (where / f"{account}.{jumpkit.NFT_FILE}").read_text()
        assert f'meta skuid != "{account}" accept' in text
        assert f"table inet hpcproxy_{table} {{" in text
    assert not (where / jumpkit.NFT_FILE).exists()


def test_the_firewall_has_the_nodes_and_what_is_not_known_is_named(tmp_path: Path) -> None:
    where = tmp_path / "kit"
    made = kit.jump_kit(
        _site(tmp_path, "{jump: j, allow: ['*', '10.0.0.1:443', 'localhost:8888', '10.0.0.0/8']}"), where
    )
    assert made.unresolved == ()
    text = (where / jumpkit.NFT_FILE).read_text()
    assert (
        "ip daddr { 169.254.0.0/16, 100.100.100.200/32, 192.0.0.192/32, 168.63.129.16/32, 10.0.0.1/32, 10.0.0.2/32 }"
        in text
    )
    accepted = [line.strip() for line in text.splitlines() if line.endswith("accept") and "daddr" in line]
    assert accepted == [
        "ip daddr 10.0.0.1/32 tcp dport 443 accept",
        "ip daddr 127.0.0.1/32 tcp dport 8888 accept",
        "ip6 daddr ::1/128 tcp dport 8888 accept",
    ]
    assert kit.addresses(["no-such-host.invalid", "127.0.0.1"]) == {"127.0.0.1": ("127.0.0.1",)}
    assert firewall.nft_block("a", ["*"], {}, []).count("daddr {") == 2


def test_a_machine_without_ssh_keygen_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileError, match="ssh-keygen cannot be run: No such file"):
        kit.jump_kit(_site(tmp_path, '{jump: j, allow: ["*"]}'), tmp_path / "kit")
