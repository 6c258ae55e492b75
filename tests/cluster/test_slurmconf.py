"""What slurm.conf is to say, from what Slurm runs with: nothing of the site's is lost, nothing runs twice. Pure."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcproxy.cluster import governed, slurm_conf
from hpcproxy.cluster.inventory import Inventory, group_files, parse

PROLOG = "/etc/slurm/prolog.d/50-hpcproxy"
EPILOG = "/etc/slurm/epilog.d/50-hpcproxy"
TASK = "/usr/libexec/hpcproxy/taskprolog"
OURS = [f"Prolog={PROLOG}", f"Epilog={EPILOG}", f"TaskProlog={TASK}", "PrologFlags=Alloc"]
NOTHING = "Prolog = (null)\nEpilog = (null)\nTaskProlog = (null)\nPrologFlags = (null)\n"


def told(**more: str) -> Inventory:
    return parse("case", "nodes: c[1-4]\nsettings: {jump: j}\n" + "".join(f"{k}: {v}\n" for k, v in more.items()))


def block(text: bytes) -> list[str]:
    """The lines of our block that set something."""
    inside = text.decode().split("# >>> hpcproxy >>>")[-1].split("# <<< hpcproxy <<<")[0]
    return [line for line in inside.splitlines() if "=" in line and not line.startswith("#")]


def test_where_the_site_has_nothing_our_own_files_are_named_and_no_pattern() -> None:
    running = slurm_conf.parse(NOTHING)
    assert slurm_conf.missing(running, told()) == OURS
    assert slurm_conf.in_the_way(running, told()) == []
    assert block(slurm_conf.enable(b"A=1\n", told(), running)) == OURS
    assert slurm_conf.missing(slurm_conf.parse("\n".join(OURS)), told()) == []


@pytest.mark.parametrize(
    ("prolog", "runs"),
    [
        ("/etc/slurm/prolog.d/*", True),
        ("/etc/slurm/prolog.d/[0-9]*", True),
        ("/etc/slurm/prolog.d/[!0-9]*", False),
        ("/etc/slurm/prolog.d/[^0-9]*", False),
        ("/etc/slurm/*", False),
        ("/etc/*/prolog.d/5?-*", True),
        (PROLOG, True),
        ("/etc/slurm/prolog.sh", False),
    ],
)
def test_what_runs_ours_already_stays_as_the_site_wrote_it(prolog: str, runs: bool) -> None:
    running = slurm_conf.parse(f"Prolog = {prolog}\n")
    assert (OURS[0] not in slurm_conf.missing(running, told())) == runs
    assert (slurm_conf.in_the_way(running, told()) == []) == runs
    if runs:
        assert block(slurm_conf.enable(b"", told(), running)) == OURS[1:]


def test_several_lines_add_up_and_nothing_runs_twice() -> None:
    """As newer versions of Slurm print them."""
    running = slurm_conf.parse("Prolog[0] = /a\nProlog[1] = /etc/slurm/prolog.d/*\nEpilog[0] = /b\n")
    assert running["Prolog"] == ("/a", "/etc/slurm/prolog.d/*")
    assert OURS[0] not in slurm_conf.missing(running, told())
    (words,) = slurm_conf.in_the_way(running, told())
    assert words.startswith("Epilog is /b already")
    assert slurm_conf.in_the_way(running, told(site_runs_hooks="true")) == []
    assert slurm_conf.missing(running, told(site_runs_hooks="true")) == OURS[2:]


def test_a_script_of_the_sites_that_runs_what_lies_beside_ours_is_known_by_its_text() -> None:
    """NVIDIA's DeepOps: Prolog=/etc/slurm/prolog.sh, which runs everything in prolog.d."""
    running = slurm_conf.parse("Prolog = /etc/slurm/prolog.sh\nEpilog = /etc/slurm/e[0-9]*\n")
    assert slurm_conf.scripts(running) == ["/etc/slurm/prolog.sh"]
    runner = {"/etc/slurm/prolog.sh": b'for each in "$here"/prolog.d/*; do $each; done'}
    assert slurm_conf.runners(running, runner, told()) == ["Prolog=/etc/slurm/prolog.sh"]
    assert slurm_conf.runners(running, {"/etc/slurm/prolog.sh": b"exit 0"}, told()) == []
    (words,) = slurm_conf.in_the_way(running, told(), ["Prolog=/etc/slurm/prolog.sh"])[:1]
    assert words.endswith("/etc/slurm/prolog.d: if it runs what lies there, say `site_runs_hooks: true`"), "no pattern"
    assert slurm_conf.runners(running, runner, told(site_runs_hooks="true")) == []
    assert slurm_conf.is_in_force(running, told(site_runs_hooks="true"))
    assert not slurm_conf.is_in_force(running, told())


def test_what_is_in_the_way() -> None:
    running = slurm_conf.parse("Prolog = /site/prolog\nTaskProlog = /site/task\nPrologFlags = Contain\n")
    first, second = slurm_conf.in_the_way(running, told())
    assert "Prolog is /site/prolog already" in first
    assert "site_task_prolog: /site/task" in second


def test_a_task_prolog_of_the_sites_that_ours_runs_is_not_in_the_way() -> None:
    """The last value counts, which is ours; what the site wrote stays, and is in force again without our block."""
    named = told(site_task_prolog="/site/task")
    running = slurm_conf.parse("TaskProlog = /site/task\nPrologFlags = Alloc\n")
    assert slurm_conf.in_the_way(running, named) == []
    conf = b"TaskProlog=/site/task\nPrologFlags=Alloc\n"
    enabled = slurm_conf.enable(conf, named, running)
    assert block(enabled) == OURS[:3]
    after = slurm_conf.parse("\n".join([*OURS[:3], "PrologFlags=Alloc"]))
    assert slurm_conf.in_the_way(after, named) == []
    assert slurm_conf.enable(enabled, named, after) == enabled
    assert slurm_conf.disable(enabled, named) == conf
    (words,) = slurm_conf.in_the_way(slurm_conf.parse("TaskProlog = /other\n"), named)
    assert words == "TaskProlog is /other, not /site/task; say `site_task_prolog: /other`, and ours runs it first"


@pytest.mark.parametrize("text", [b"", b"a=1\n", b"a=1", b"a=1\r\n# \xff\r\n", b"a=1 \\\n", b"a=1 \\"])
def test_enable_and_disable_are_inverse(text: bytes) -> None:
    running = slurm_conf.parse(NOTHING)
    enabled = slurm_conf.enable(text, told(), running)
    assert slurm_conf.enable(enabled, told(), slurm_conf.parse("\n".join(OURS))) == enabled, "once in force"
    assert slurm_conf.enable(enabled, told(), running) == enabled, "before it is in force"
    assert slurm_conf.disable(enabled, told()) == text


FLAGS = {
    "quoted": b'PrologFlags="DeferBatch,Serial"\n',
    "continued": b"PrologFlags=DeferBatch,\\\nSerial\n",
    "lower case, with a comment": b"prologflags = DeferBatch,Serial   # one at a time\r\n",
    "included": b"Include mine.conf\n",
}


@pytest.mark.parametrize("conf", FLAGS)
def test_the_sites_own_prolog_flags_are_kept_however_they_are_written(conf: str) -> None:
    """Slurm takes the last value that it reads, which is ours; a second time it runs with that."""
    text = FLAGS[conf]
    running = slurm_conf.parse("PrologFlags = DeferBatch,Serial\n")
    first = slurm_conf.enable(text, told(), running)
    assert block(first)[3:] == ["PrologFlags=DeferBatch,Serial,Alloc"]
    after = slurm_conf.parse("PrologFlags = Alloc,DeferBatch,Serial\n")
    assert slurm_conf.enable(first, told(), after) == first
    assert slurm_conf.disable(first, told()) == text


@pytest.mark.parametrize("own", ["Alloc", "alloc,x", "Contain,X11", "RunInJob"])
def test_flags_that_will_do_are_left_alone(own: str) -> None:
    running = slurm_conf.parse(f"PrologFlags = {own}\n")
    assert block(slurm_conf.enable(f"PrologFlags={own}\n".encode(), told(), running)) == OURS[:3]


def test_a_flag_that_the_site_changes_later_is_seen() -> None:
    first = slurm_conf.enable(b"PrologFlags=Serial\n", told(), slurm_conf.parse("PrologFlags = Serial\n"))
    later = first.replace(b"PrologFlags=Serial\n#", b"PrologFlags=DeferBatch\n#", 1)
    after = slurm_conf.parse("\n".join([*OURS[:3], "PrologFlags = Alloc,Serial"]))
    assert block(slurm_conf.enable(later, told(), after))[3:] == ["PrologFlags=DeferBatch,Alloc"]


def test_what_an_earlier_version_let_slurm_conf_include_becomes_lines() -> None:
    """A file that is included and not there ends every command of Slurm's."""
    old = b"A=1\n# >>> hpcproxy >>>\nInclude hpcproxy.conf\n# <<< hpcproxy <<<\n"
    included = b"Prolog=/etc/slurm/prolog.d/*\nEpilog=/etc/slurm/epilog.d/*\nTaskProlog=%s\nPrologFlags=Serial,Alloc\n"
    included %= TASK.encode()
    running = slurm_conf.parse(included.decode())
    new = slurm_conf.enable(old, told(), running, included)
    assert b"Include" not in new
    assert block(new) == [*OURS[:3], "PrologFlags=Serial,Alloc"]
    assert slurm_conf.disable(old, told()) == b"A=1\n"


@pytest.mark.parametrize(
    ("version", "policy", "named"),
    [
        ("20.11.4", "{comment: true}", ["SLURM_JOB_COMMENT"]),
        ("22.05.8", "{comment: true}", []),
        ("21.08.8", "{accounts: [phys]}", ["SLURM_JOB_ACCOUNT"]),
        ("22.05.8", "{accounts: [phys]}", []),
        ("24.11.5", "{comment: true, accounts: [phys]}", []),
        ("20.11.4", "{partitions: [gpu]}", []),
        ("unknown", "{comment: true}", []),
    ],
)
def test_a_condition_that_this_slurm_can_never_meet_is_named(version: str, policy: str, named: list[str]) -> None:
    said = slurm_conf.unmeetable(slurm_conf.parse(f"SLURM_VERSION = {version}\n"), told(policy=policy))
    assert [word for word, line in zip(named, said) if word in line] == named
    assert len(said) == len(named)


# ---- which nodes

NODES = """NodeName=c1 Arch=x86_64 NodeAddr=c1 NodeHostName=c1 Version=22.05.8 State=IDLE ThreadsPerCore=1
NodeName=gpu-001 NodeAddr=10.0.0.7 NodeHostName=c2 State=MIXED+DRAIN
NodeName=c3 NodeAddr=c3 NodeHostName=c3 State=DOWN*
NodeName=cloud-1 NodeAddr=cloud-1 NodeHostName=cloud-1 State=IDLE+CLOUD+POWERED_DOWN
"""


def test_every_node_that_slurm_conf_governs_is_looked_after_or_named() -> None:
    nodes = governed.parse(NODES)
    here, off = governed.left_out(nodes, ["c1", "c2"])
    assert here.startswith("this slurm.conf is c3's too")
    assert off.startswith("cloud-1 is powered down")
    assert governed.left_out(nodes, ["c1", "10.0.0.7", "c3", "cloud-1"]) == []


def test_nodes_that_slurm_does_not_list_are_known_from_their_partition() -> None:
    """Those of a cloud that are powered down, without `PrivateData=cloud`."""
    partitions = "PartitionName=a Hidden=YES Nodes=c1,dy-[1-3] State=UP\nPartitionName=b Nodes=(null) MaxNodes=1\n"
    nodes = governed.parse(NODES, partitions)
    (words,) = governed.left_out(nodes, ["c1", "c2", "c3", "cloud-1"])
    assert words.startswith("dy-[1-3] is powered down and not in the inventory")
    assert words.endswith("say `keeps_files: true` once it has")
    assert governed.left_out(nodes, ["c1", "c2", "c3"], in_the_image=True) == []
    (words,) = governed.left_out(governed.parse("", "Nodes=x[1- State=UP"), [])
    assert words.startswith("x_1- is")


def test_where_else_slurm_conf_is() -> None:
    running = slurm_conf.parse(
        "SLURM_CONF = /srv/site.conf\nSlurmctldHost[0] = ctl(10.0.0.1)\nSlurmctldHost[1] = ctl2\n"
    )
    path, controller = slurm_conf.elsewhere(running, told(), ["ctl"])
    assert "slurmctld reads /srv/site.conf" in path
    assert controller.startswith("slurmctld may run on ctl2 too")
    assert (
        slurm_conf.elsewhere(
            slurm_conf.parse("SLURM_CONF = /etc/slurm/slurm.conf\nSlurmctldHost[0] = ctl\n"), told(), ["m"]
        )
        == []
    )


def test_the_sites_groups_and_not_the_samples_of_a_python_environment(tmp_path: Path) -> None:
    site, samples = tmp_path / "etc/groups.conf", tmp_path / "venv/etc/clustershell/groups.conf"
    paths = [str(site), str(samples)]
    assert group_files(paths, str(tmp_path / "venv")) == paths, "where the site has none"
    site.parent.mkdir()
    site.touch()
    assert group_files(paths, str(tmp_path / "venv")) == [str(site)]
