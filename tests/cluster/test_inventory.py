from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hpcproxy.cluster import inventory, slurm_conf
from hpcproxy.cluster.inventory import Inventory
from hpcproxy.cluster.outcome import HostOutcome, Outcomes
from hpcproxy.cluster.protocol import Answer, Change
from hpcproxy.errors import ConfigError
from hpcproxy.files.plan import Artifact
from hpcproxy.files.render import Bundle, File
from tests import REPOSITORY
from tests.hostile import HOSTILE


def told(**values: object) -> Inventory:
    return inventory.parse("i", yaml.safe_dump({"nodes": "c[1-4]", **values}, allow_unicode=True))


def test_the_least_inventory() -> None:
    found = told()
    assert inventory.hosts(found) == ("c1", "c2", "c3", "c4")
    assert (found.user, found.port, found.mode) == ("root", 22, "user")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"polcy": {}}, "polcy: unknown key; valid: nodes, user, port, identity, gateway"),
        ({"policy": {"comments": True}}, "policy.comments: .*; valid: comment, partitions, accounts"),
        ({"policy": {"partitions": ["a b"]}}, "policy.partitions: expected a name or a list of names"),
        ({"nodes": "c[1-"}, "nodes: 'c\\[1-' is no node set"),
        ({"nodes": ""}, "nodes: '' names no host"),
        ({"nodes": "c1;reboot"}, "nodes: 'c1;reboot' is no host name"),
        ({"mode": "other"}, "mode: .*'user' or 'service'"),
        ({"port": 0}, "port: "),
        ({"user": "root; id"}, "user: 'root; id' is not the name of an account"),
        ({"gateway": "a@b@c"}, "gateway: .* is not"),
        ({"identity": "keys/id"}, "identity: 'keys/id' must be an absolute path"),
    ],
)
def test_what_is_wrong_is_said_with_what_is_valid(values: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        told(**values)


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_names_are_refused(value: str) -> None:
    for values in (
        {"nodes": f"c1,{value}x" if value.strip() else "c1 c2;x"},
        {"user": value},
        {"service_account": value},
        {"policy": {"accounts": [value]}},
    ):
        with pytest.raises(ConfigError):
            told(**values)


def test_a_limit_names_hosts_of_the_inventory() -> None:
    names = inventory.hosts(told())
    assert inventory.limit(names, "c[2-3]") == ("c2", "c3")
    with pytest.raises(ConfigError, match=r"c9 is not in the inventory; valid: c\[1-4\]"):
        inventory.limit(names, "c[2,9]")


def test_reading_a_file(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("nodes: c1\n")
    with pytest.raises(ConfigError, match="settings: names no jump host"):
        inventory.read(path)
    path.write_text("nodes: c1\nmode: service\nsettings: {jump: j, allow: '*'}\n")
    with pytest.raises(ConfigError, match="service_key: is missing; make one with"):
        inventory.read(path)
    path.write_text("nodes: c1\nsettings: {jmp: j}\n")
    with pytest.raises(ConfigError, match="settings"):
        inventory.read(path)
    path.write_text("nodes: c1\nsettings: {jump: j}\n")
    assert inventory.read(path)[0].known_hosts == tmp_path / "known_hosts"


@pytest.mark.parametrize("allow", ["", ", allow: []"])
def test_service_mode_does_not_open_everything_by_saying_nothing(tmp_path: Path, allow: str) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(f"nodes: c1\nmode: service\nservice_key: /k\nsettings: {{jump: j{allow}}}\n")
    with pytest.raises(
        ConfigError, match=r"settings: `allow` is missing: .* or say `allow: \[\"\*\"\]` if that is meant"
    ):
        inventory.read(path)
    path.write_text(f"nodes: c1\nsettings: {{jump: j{allow}}}\n")
    inventory.read(path)  # the user's ssh is his own login
    with pytest.raises(ConfigError, match="`allow` is missing"):
        inventory.read(path, key_needed=False)  # jump-kit writes what is for service mode
    path.write_text("nodes: c1\nmode: service\nservice_key: /k\nsettings: {jump: j, allow: ['*']}\n")
    assert inventory.read(path)[1].allow == ("*",)


def test_service_mode_is_not_had_without_the_agent(tmp_path: Path) -> None:
    """ssh asks nobody who he is: every user of the node would have the service key's way."""
    path = tmp_path / "site.yaml"
    text = "nodes: c1\nmode: {}\nservice_key: /k\nsettings: {{jump: j, allow: ['*'], agent: false}}\n"
    path.write_text(text.format("service"))
    for key_needed in (True, False):
        with pytest.raises(ConfigError, match="would open the service key to every user of a node"):
            inventory.read(path, key_needed=key_needed)
    path.write_text(text.format("user"))
    assert inventory.read(path)[1].agent is False


def test_the_manual_names_every_key_of_the_inventory() -> None:
    text = (REPOSITORY / "docs" / "admin-reference.md").read_text()
    assert [key for key in inventory.KEYS if f"`{key}`" not in text] == []


# ---- slurm.conf

RUNNING = """Configuration data as of 2026-11-22T13:41:49
Prolog                  = (null)
Epilog                  = (null)
TaskProlog              = (null)
PrologFlags             = (null)
"""


@pytest.mark.parametrize(
    ("version", "tracking", "flags", "words"),
    [
        ("22.05.8", "proctrack/cgroup", "Alloc", []),
        ("24.05.0-0rc1", "proctrack/linuxproc", "Alloc", []),
        ("24.05.3", "proctrack/cgroup", "Alloc", ["beside its job, and the Epilog ends it; so it would"]),
        ("25.11", "proctrack/cgroup", "Alloc,Contain,RunInJob", ["a tunnel leaves its job's cgroup for its own"]),
        ("unknown", "proctrack/cgroup", "Alloc", []),
    ],
)
def test_whose_process_a_tunnel_is(version: str, tracking: str, flags: str, words: list[str]) -> None:
    """No Slurm of 24.05 is at hand here: the text is as its `scontrol show config` prints it."""
    running = slurm_conf.parse(f"SLURM_VERSION = {version}\nProctrackType = {tracking}\nPrologFlags = {flags}\n")
    said = slurm_conf.remarks(running, told())
    assert len(said) == len(words)
    assert all(word in line for word, line in zip(words, said))


def test_a_configless_slurm_is_told_where_files_must_be() -> None:
    running = slurm_conf.parse(
        "SLURM_VERSION = 22.05.8\nSlurmctldParameters = idle_on_node_suspend,enable_configless\n"
    )
    (line,) = slurm_conf.remarks(running, told())
    assert "only the controllers have a slurm.conf" in line
    assert "files of the nodes, in /etc/slurm and /usr/libexec/hpcproxy" in line


def test_nodes_from_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scontrol = tmp_path / "scontrol"
    monkeypatch.setenv("PATH", str(tmp_path))
    found = told(nodes="slurm")
    with pytest.raises(ConfigError, match=r"scontrol: nodes: names no nodes here: .*; list them in the inventory"):
        inventory.hosts(found)
    scontrol.write_text(
        "#!/bin/sh\n[ \"$*\" = '--all show nodes --oneliner' ] && printf 'NodeName=c1 A=1\\nNodeName=c2 B=x\\n'\n"
    )
    scontrol.chmod(0o755)
    assert inventory.hosts(found) == ("c1", "c2"), "whatever partition they are in"
    listed = "NodeName=localhost NodeAddr=10.0.0.1\\nNodeName=gpu-1.invalid X=1 NodeAddr=10.0.0.7 State=IDLE\\n"
    scontrol.write_text(f"#!/bin/sh\nprintf '{listed}NodeName=gpu-2.invalid NodeAddr=fd00::7\\n'\n")
    known = {"localhost", "10.0.0.7", "gpu-2.invalid"}
    assert set(inventory.hosts(found)) == known, "the address where the name is none"
    monkeypatch.setenv("PATH", "/nowhere")
    assert len(inventory.hosts(told(nodes="slurm", slurm_bin=str(tmp_path)))) == 3
    monkeypatch.setenv("PATH", str(tmp_path))
    scontrol.write_text("#!/bin/sh\necho 'scontrol: error: unable to contact the controller' >&2\nexit 1\n")
    with pytest.raises(ConfigError, match="names no nodes here"):
        inventory.hosts(found)
    scontrol.write_text("#!/bin/sh\necho 'NodeName=$(reboot)'\n")
    with pytest.raises(ConfigError, match=r"is no host name|is no node set"):
        inventory.hosts(found)


# ---- outcomes


def test_outcomes_are_folded_by_cause() -> None:
    hosts = [HostOutcome(f"c{n}", "changed") for n in (1, 2, 4)] + [HostOutcome("c3", "unreached", "gone")]
    outcomes = Outcomes(tuple(hosts))
    assert [(row.word, row.count, row.hosts, row.cause) for row in outcomes.rows()] == [
        ("changed", 3, "c[1-2,4]", ""),
        ("unreached", 1, "c3", "gone"),
    ]
    assert not outcomes.good
    assert outcomes.failed == ("c3",)


def test_merging_keeps_the_worst_word_of_each_host() -> None:
    first = Outcomes((HostOutcome("a", "unchanged"), HostOutcome("b", "changed"), HostOutcome("c", "failed", "x")))
    later = Outcomes((HostOutcome("a", "changed"), HostOutcome("b", "unchanged"), HostOutcome("c", "changed")))
    assert [(host.host, host.word) for host in first.merged(later).hosts] == [
        ("a", "changed"),
        ("b", "changed"),
        ("c", "failed"),
    ]


def test_differences_are_folded_by_content() -> None:
    def host(name: str, content: bytes) -> HostOutcome:
        return HostOutcome(name, "would", "", Answer("would", "", (Change("change", "/f"),), {"/f": content}))

    bundle = Bundle((File(Artifact("f", "f", Path("/f"), 0o644, ""), b""),))
    found = Outcomes((host("a1", b"x\n"), host("a2", b"x\n"), host("a3", b"y\n"))).differences(bundle)
    assert [(difference.hosts, difference.lines[3:]) for difference in found] == [("a[1-2]", ("-x",)), ("a3", ("-y",))]


def test_what_hosts_lack_is_said_once_with_its_hosts() -> None:
    def host(name: str, **facts: str) -> HostOutcome:
        return HostOutcome(name, "unchanged", "", Answer("unchanged", facts=facts))

    stranger = host("a4", taken="port 2015 is uid 2002's at all addresses")
    lacking = (host("a1", ssh="missing", clock="1000"), host("a2", ssh="missing"), host("a3", clock="2000"))
    outcomes = Outcomes((*lacking, stranger))
    assert outcomes.cautions(1000.5) == [
        "a[1-2]: ssh is missing: jobs get no tunnel there",
        "a3: the clock is wrong by more than a minute: TLS may fail in jobs",
        "a4: port 2015 is uid 2002's at all addresses: jobs may get no tunnel; end that, or say another `port`",
    ]
