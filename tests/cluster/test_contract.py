"""`verify --contract` on scripts that are right, and on scripts that break each thing that Slurm demands."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from hpcproxy.cluster import contract, inventory, protocol, slurm_conf
from hpcproxy.cluster.inventory import Inventory, Policy
from hpcproxy.files.plan import EPILOG, PROLOG, TASK_PROLOG
from hpcproxy.files.render import Bundle, render
from tests.cluster.cases import plan, script_of

TOKEN = "hpcproxy-token"  # noqa: S105 - no secret: it marks lines

# Says its word when whoever started it has long ended, as the real one does for a user whom the node does not know.
SUPERVISOR = """#!/bin/bash
mkdir -p {run}/holders
read -r -a stat </proc/$$/stat
printf '%s %s\\n' "$$" "${{stat[21]}}" >{run}/holders/$1.$2
while kill -0 $PPID; do sleep 0.02; done 2>/dev/null
sleep 0.5
printf 'gave-up here account\\n' >>{run}/holders/$1.$2.said
"""


@dataclass
class Node:
    """The scripts of a node, below a directory of the test's own; `slow`: what the last check called so."""

    root: Path
    bundle: Bundle
    told: Inventory
    slow: list[str] = field(default_factory=list)

    def path(self, name: str) -> Path:
        return next(Path(file.artifact.path) for file in self.bundle.files if file.artifact.name == name)

    def breaches(
        self, scripts: contract.Set | None = None, *, instead: tuple[str, str] = ("", ""), **settings: int
    ) -> list[str]:
        """What the check names; `settings` take the place of its own bounds, and of a line of it stands another."""
        script = script_of(contract.contract_message(self.bundle, self.told, TOKEN, scripts)).decode()
        assert instead[0] in script
        script = script.replace(*instead, 1) if instead[0] else script
        # This machine may be busy; how long they take is a check of one test only.
        for name, value in {"slow_ms": 60_000, "pipe_ms": 3000, **settings}.items():  # as whole words
            own = next(word for word in script.split() if word.startswith(f"{name}="))
            script = script.replace(own, f"{name}={value}", 1)
        message = protocol.framed(script.encode())
        done = subprocess.run(["/bin/bash", "-p", "-s"], input=message, capture_output=True, check=True, timeout=60)
        assert done.stderr == b""
        answer = protocol.parse(done.stdout, TOKEN)
        self.slow = [change.path for change in answer.changes if change.action == "slow"]
        named = [change.path for change in answer.changes if change.action == "breach"]
        if os.geteuid() != 0:
            named = [text for text in named if "must be root's" not in text]
        else:
            assert answer.word == ("failed" if named else "unchanged")
        return [text.replace(f"{self.root}/", "") for text in named]


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    return make(tmp_path, monkeypatch)


def make(root: Path, monkeypatch: pytest.MonkeyPatch, **told: Any) -> Node:
    monkeypatch.setattr(contract, "RUN", root / "run")
    whole = plan(**told)
    values = {**whole.values, "run": root / "run", "home": root}
    places = {PROLOG: root / "prolog.d/50-hpcproxy", EPILOG: root / "epilog.d/50-hpcproxy"}
    artifacts = tuple(
        replace(artifact, path=places.get(artifact.name, root / artifact.name)) for artifact in whole.artifacts
    )
    bundle = render(replace(whole, values=values, artifacts=artifacts))
    for file in bundle.files:
        file.artifact.path.parent.mkdir(exist_ok=True)
        file.artifact.path.write_bytes(file.content)
        file.artifact.path.chmod(file.artifact.mode)
    (root / "supervisor.sh").write_text(SUPERVISOR.format(run=root / "run"))
    yaml = f"nodes: c1\nsettings: {{jump: j}}\nslurm_directory: {root}\n"
    return Node(
        root, bundle, inventory.parse("case", yaml).model_copy(update={"policy": Policy(**told.get("policy", {}))})
    )


def test_what_we_install_is_without_breach(node: Node) -> None:
    assert node.breaches() == []
    assert node.breaches() == [], "a second time"
    assert list((node.root / "run" / "holders").iterdir()) == []


def test_the_job_of_the_check_meets_the_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert make(tmp_path, monkeypatch, policy={"partitions": ["gpu"]}).breaches() == []


def _script(text: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(f"#!/bin/bash\n{text}\n") and None


def _in_its_group(path: Path) -> None:
    path.write_text(path.read_text().replace("setsid /bin/bash", "/bin/bash"))


# What breaks the contract, and in which words the check names it.
BREACHES = {
    "needs an environment": (PROLOG, _script(': "${HOME:?}"'), "ends with code 1; anything but 0 drains the node"),
    "fails": (EPILOG, _script("exit 3"), "ends with code 3; anything but 0 drains the node"),
    "keeps stdout": (PROLOG, _script("setsid sleep 20 2>/dev/null &"), "leaves its output open after its end"),
    "keeps stderr": (EPILOG, _script("setsid sleep 20 >/dev/null &"), "leaves its output open after its end"),
    "keeps it in its group": (PROLOG, _script("sleep 20 &"), "leaves its output open after its end"),
    "starts in its group": (PROLOG, _in_its_group, "starts nothing that outlives it; slurmd kills its process group"),
    "no run bit": (PROLOG, lambda path: path.chmod(0o644), "has no run bit"),
    "not there": (EPILOG, lambda path: path.unlink(), "is missing"),
    "writable for others": (PROLOG, lambda path: path.chmod(0o757), "must be root's, mode 0755"),
    "never ends": (EPILOG, _script("sleep 60"), "is not over after 2 s"),
    "prints what Slurm does not know": (TASK_PROLOG, _script("echo hello"), "prints what Slurm does not know: hello"),
    "fails a task": (TASK_PROLOG, _script("exit 1"), "ends with code 1; anything but 0"),
    "leaves state": (EPILOG, _script("true"), "leaves the job's state behind"),
}


@pytest.mark.parametrize("breach", BREACHES)
def test_each_breach_is_named(node: Node, breach: str) -> None:
    name, break_it, words = BREACHES[breach]
    if "root's" in words and os.geteuid() != 0:
        pytest.skip("nothing here is root's: all of it is named for that")
    path = node.path(name)
    break_it(path)
    named = node.breaches(limit_s=2, pipe_ms=1000, supervisor_s=2)
    where = str(path).replace(f"{node.root}/", "")
    assert [text for text in named if where in text and words in text], named


def test_a_task_prolog_of_the_sites_that_is_not_there_is_named_itself(node: Node) -> None:
    node.told = node.told.model_copy(update={"site_task_prolog": Path("/nowhere/task_prolog.sh")})
    (named,) = node.breaches()
    assert named.startswith("/nowhere/task_prolog.sh, which ours shall run first, is not there")


def _slow_at_first(path: Path, times: int) -> None:
    """As on a node that is busy when it is measured."""
    mark = path.with_name("times")
    path.write_text(f"#!/bin/bash\necho x >>{mark}; (($(wc -l <{mark}) > {times})) || sleep 0.5\n")


def test_a_slow_node_is_measured_again_before_anything_is_said(node: Node) -> None:
    _slow_at_first(node.path(TASK_PROLOG), 2)
    assert node.breaches(slow_ms=400) == node.slow == []


def test_slow_is_no_breach_where_slurmd_waits_and_one_where_it_kills(node: Node) -> None:
    """One overloaded node must not keep a whole cluster from being enabled."""
    _slow_at_first(node.path(EPILOG), 1000)
    named = node.breaches(slow_ms=400)
    assert [text for text in named if "state behind" not in text] == []
    words = f"{node.path(EPILOG)} took longer than 400 ms, 3 times: the node is slow or busy, and so its jobs begin"
    assert node.slow == [words] * 2
    kills = contract.Set((), (), timeout_s=1)
    (named, *_) = node.breaches(kills, slow_ms=400, given_ms=900)
    assert named.startswith("epilog.d/50-hpcproxy takes more than half of the 900 ms after which slurmd kills it")
    assert contract.effective(slurm_conf.parse("PrologEpilogTimeout = 5 sec\n"), node.told).timeout_s == 5
    assert contract.effective(slurm_conf.parse("PrologEpilogTimeout = 65534\n"), node.told).timeout_s == 0


def test_what_is_broken_is_named_once_and_not_measured_on(node: Node) -> None:
    node.path(PROLOG).write_text("#!/bin/bash\nsleep 0.5\nexit 3\n")
    node.path(TASK_PROLOG).write_text("#!/bin/bash\necho hello\nsleep 0.5\nexit 1\n")
    named = node.breaches(slow_ms=400, supervisor_s=1)
    assert [text for text in named if "ends with code" in text] == [
        "prolog.d/50-hpcproxy ends with code 3; anything but 0 drains the node",
        f"{node.path(TASK_PROLOG).name} ends with code 1; anything but 0 cancels the task",
    ]
    assert [text for text in named if "what Slurm does not know: hello" in text]
    assert node.slow == []


# What lies beside ours, and in which words the check names it.
BESIDE = {
    "no run bit": (lambda path: _file(path, "#!/bin/sh\n", 0o644), "has no run bit"),
    "a directory": (lambda path: path.mkdir(), "is no file"),
    "leads nowhere": (lambda path: path.symlink_to("/nowhere"), "is a link that leads nowhere"),
    "empty": (lambda path: _file(path, ""), "is empty"),
    "no first line": (lambda path: _file(path, "exit 0\n"), "does not begin with #!"),
    "interpreter": (lambda path: _file(path, "#!/nowhere/sh -e\n"), "wants /nowhere/sh, which is not here"),
    "line ends": (lambda path: _file(path, "#!/bin/sh\r\nexit 0\r\n"), "has line ends of Windows"),
    "writable": (lambda path: _file(path, "#!/bin/sh\n", 0o775), "can be written by others than root"),
}


def _file(path: Path, text: str, mode: int = 0o755) -> None:
    path.write_text(text)
    path.chmod(mode)


@pytest.mark.parametrize("thing", BESIDE)
def test_what_slurm_would_run_for_the_first_time_is_in_doubt(node: Node, thing: str) -> None:
    """Once only: what the site runs already is the site's."""
    make_it, words = BESIDE[thing]
    directory = node.path(PROLOG).parent
    make_it(directory / "60-site")
    (named,) = node.breaches()
    assert named.startswith("prolog.d/60-site ")
    assert words in named
    assert node.breaches(contract.Set((f"{directory}/*",), (f"{directory}/*",))) == []
    assert node.breaches(contract.Set((), (str(node.path(PROLOG)),))) == [], "a line that names ours runs no other"


@pytest.mark.parametrize("name", ["60-gpu.sh.rpmsave", "README", "60-site~", "60-site.bak"])
def test_names_of_what_is_no_script(node: Node, name: str) -> None:
    _file(node.path(EPILOG).parent / name, "#!/bin/sh\n")
    (named,) = node.breaches()
    assert "looks like a" in named


def test_a_script_of_the_controllers_is_no_prolog(node: Node) -> None:
    directory = node.path(PROLOG).parent
    _file(directory / "60-ctld", "#!/bin/sh\n")
    own = f"{directory}/60-ctld"
    assert node.breaches(contract.Set((), (f"{directory}/*",), (own,))) == [
        "prolog.d/60-ctld is a script of the controller's, and is run before ours"
    ]


def test_files_beside_ours_are_looked_at_in_slurms_order_and_never_run(node: Node) -> None:
    directory = node.path(PROLOG).parent
    _file(directory / "90-site", f"#!/bin/sh\ntouch {node.root}/ran\n", 0o644)
    _file(directory / "10-site~", "#!/bin/sh\n")
    (directory / "20-more").mkdir()
    _file(directory / ".hidden", "x")
    assert node.breaches() == [
        "prolog.d/90-site has no run bit; Slurm runs it before ours",
        "prolog.d/20-more is no file; Slurm takes everything there for a script, this one after ours",
        "prolog.d/10-site~ looks like a backup, and is run after ours",
    ]
    assert not (node.root / "ran").exists()


@pytest.mark.parametrize("same", [True, False])
def test_a_slurmd_that_reads_another_slurm_conf_is_named(node: Node, same: bool, tmp_path: Path) -> None:
    """What is changed would be in force for nobody there."""
    (node.root / "slurm.conf").write_text("")
    read = node.root / "slurm.conf" if same else tmp_path / "elsewhere.conf"
    read.write_text("")
    line = f"find_slurm() {{ SLURM_CONF={read}; }}; is_slurmd() {{ :; }}; look_at_slurm"
    named = node.breaches(instead=("    look_at_slurm\n", f"    {line}\n"))
    where = str(read).replace(f"{node.root}/", "")
    words = f"slurmd reads {where} here, not slurm.conf; say where it is with slurm_directory"
    assert named == ([] if same else [words])
