"""How often root's supervisor starts, looks and asks, and what a tunnel may have: its parts, with a clock of ours."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from tests import REPOSITORY

PARTS = REPOSITORY / "templates" / "lib" / "supervisor"
SUPERVISE = PARTS / "supervise.sh"
BEGIN = PARTS / "begin.sh"
JOB = "4711"


def _bash(part: Path, text: str, directory: Path, programs: dict[str, str] | None = None) -> list[str]:
    """The lines that `text` prints, with the functions of `part`; `programs` are what it finds by their names."""
    where = directory / "programs"
    where.mkdir(exist_ok=True)
    for name, script in (programs or {}).items():
        (where / name).write_text(f"#!/bin/bash\n{script}\n")
        (where / name).chmod(0o755)
    head = f"set -u; PATH={where}:$PATH; cd {directory}; home=$PWD run_base=$PWD job={JOB} key={JOB}.0 node=n1"
    argv = ["bash", "-c", f'{head}; . "$0"\n{text}', str(part)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL)
    assert done.stderr == ""
    return done.stdout.splitlines()


_LOOK = """
look_s=300 unseen=0 look_at=0 now=1000
slurm_knows_job() { [[ $seen == known ]]; }
job_is_here() { [[ $seen == here ]]; }
end_by_itself() { printf 'ended\\n'; }
: >in-force
for seen in {seen}; do
    look_for_job
    printf '%s %d %s\\n' "$look_at" "$unseen" "$([[ -e in-force ]] && echo in-force)"
    now=$((now + 1))
done
"""


@pytest.mark.parametrize(
    ("seen", "unseen", "ended"),
    [
        ("gone", [1], False),
        ("here known here", [0, 0, 0], False),
        ("gone here gone known gone", [1, 0, 1, 0, 1], False),
        ("here gone gone", [0, 1, 2], True),
    ],
)
def test_a_job_that_is_not_seen_twice_in_a_row_is_over_and_it_is_looked_for_seldom(
    seen: str, unseen: list[int], ended: bool, tmp_path: Path
) -> None:
    said = _bash(SUPERVISE, _LOOK.replace("{seen}", seen), tmp_path)
    assert ("ended" in said) is ended
    looks = [line.split() for line in said if line != "ended"]
    assert [int(look[0]) for look in looks] == [1300 + number for number in range(len(unseen))]
    assert [int(look[1]) for look in looks] == unseen
    assert (tmp_path / "in-force").exists() is not ended


@pytest.mark.parametrize(
    ("answer", "code", "hours", "knows"),
    [
        (f"{JOB} RUNNING", 0, 1, True),
        (f"a warning\n{JOB} COMPLETING", 0, 1, True),
        (f"{JOB}0 RUNNING", 0, 1, False),
        ("", 0, 1, False),
        ("slurm_load_jobs error: Invalid job id specified", 1, 1, False),
        ("Unable to contact slurm controller", 1, 1, True),
        ("Unable to contact slurm controller", 1, 23.99, True),
        ("Unable to contact slurm controller", 1, 24, False),
    ],
)
def test_in_doubt_slurm_knows_it_but_for_a_day_only(
    answer: str, code: int, hours: float, knows: bool, tmp_path: Path
) -> None:
    squeue = f"printf '%s\\n' {shlex.quote(answer)}; exit {code}"
    text = f"slurmd=/nowhere/sbin/slurmd began_at=500 now={500 + int(hours * 3600)}\nslurm_knows_job && echo yes"
    assert _bash(SUPERVISE, text, tmp_path, {"squeue": squeue}) == ["yes"] * knows


# Each life lasts `life` seconds and ends with `code`; after the last pause it is over.
_KEEP = """
look_s=300 task_wait_s=5 jump_count=1 spread_ms=0 time=100
read_record() { supervisor=(1 1) firewall=() group=''; }
job_address() { address=127.0.0.1 port=1; }
spread() { :; }
clock() { now=$time; }
start_tunnel() { printf 'start\\n'; tunnel=(1 1); exec {from}</dev/null; }
heed() { time=$((time + life)); word=$said; }
wait() { return "$ends"; }
note() { printf 'note %s\\n' "$1"; }
look_for_job() { printf 'look at %d\\n' "$now"; look_at=$((now + look_s)); }
pause() {
    printf 'pause %d\\n' "$1"
    time=$((time + $1)) pauses=$((pauses + 1))
    ((pauses < limit)) || exit
}
pauses=0
"""


def _kept(directory: Path, *, life: int, ends: int, said: str = "ready", limit: int = 9) -> list[str]:
    begin = f"life={life} ends={ends} said={said} limit={limit}\nkeep ssh st a 1 1 /h 1 1 /usr/sbin/slurmd"
    return _bash(SUPERVISE, _KEEP + begin, directory)


def test_one_that_is_killed_again_and_again_begins_ever_later(tmp_path: Path) -> None:
    said = _kept(tmp_path, life=3, ends=137)
    assert [line for line in said if line != "start"] == [f"pause {s}" for s in (1, 2, 4, 8, 16, 32, 60, 60, 60)]
    assert said.count("start") == 9


@pytest.mark.parametrize(("life", "second"), [(60, 2), (61, 1)])
def test_one_that_has_lived_for_a_minute_begins_anew_at_once(life: int, second: int, tmp_path: Path) -> None:
    assert _kept(tmp_path, life=life, ends=137, limit=2) == ["start", "pause 1", "start", f"pause {second}"]


@pytest.mark.parametrize("ends", [0, 137])
def test_one_that_gave_up_is_not_begun_anew(ends: int, tmp_path: Path) -> None:
    assert _kept(tmp_path, life=3, ends=ends, said="gave-up") == ["start"]


def test_one_whose_own_mistake_ended_it_is_said_to_have_given_up_and_its_address_stays_its(tmp_path: Path) -> None:
    said = _kept(tmp_path, life=3, ends=2, limit=7)
    assert said[:2] == ["start", "note gave-up n1 supervisor it ended by an error of its own"]
    assert said[2:] == [*["pause 60"] * 5, "look at 403", *["pause 60"] * 2]


_SAID = "said=said said_bytes={size} noted=0 word=''\n"


def test_of_what_a_tunnel_says_only_our_words_count_and_so_many_of_them(tmp_path: Path) -> None:
    (tmp_path / "said").write_text("")
    lines = ["mode n1 agent", "failed n1 key x", "hello", "ready n1 j\x07", "gave-up n1 y", "readyn1"]
    text = _SAID.replace("{size}", "1000") + "".join(f"note {shlex.quote(line)}; echo $word\n" for line in lines)
    assert _bash(SUPERVISE, text, tmp_path) == ["", "", "", "ready", "gave-up", "gave-up"]
    assert (tmp_path / "said").read_text() == "mode n1 agent\nfailed n1 key x\nready n1 j \ngave-up n1 y\n"


@pytest.mark.parametrize(("size", "taken"), [(8, 0), (9, 0), (10, 1), (19, 1), (20, 2)])
def test_what_is_written_down_is_bounded(size: int, taken: int, tmp_path: Path) -> None:
    """`mode n1 a` is nine letters and the end of a line."""
    (tmp_path / "said").write_text("")
    text = _SAID.replace("{size}", str(size)) + "for i in 1 2 3; do note 'mode n1 a' || echo full; done"
    assert _bash(SUPERVISE, text, tmp_path) == ["full"] * (3 - taken)
    assert (tmp_path / "said").read_text() == "mode n1 a\n" * taken


def test_a_tunnel_may_say_64_kib(tmp_path: Path) -> None:
    """Enough for a job of weeks, and nothing to a disk: the bound that stands in the part, not one of a test's."""
    said = tmp_path / "said"
    said.write_text("")
    text = f"said=said noted=0 word=''; while note 'mode n1 {'x' * 1000}'; do ((noted < 1000000)) || exit; done"
    assert _bash(SUPERVISE, text, tmp_path) == []
    assert 65536 - 1100 < said.stat().st_size <= 65536


# Nobody says anything; a second passes by each look, or as long as was waited for.
_HEED = """
look_s=300 word='' noted=0 time=100 said=said began_at=100 late_at=105 look_at=112 said_bytes=1000
clock() { now=$time; }
note() { printf 'note %s\\n' "$1"; word=late; }
look_for_job() { printf 'look at %d\\n' "$now"; look_at=$((now + look_s)); }
lives() { ((time < 125)); }
read() { time=$((time + $5)); return 142; }
tunnel=(1 1); from=0
heed
printf 'over at %d\\n' "$time"
"""


def test_who_waits_is_told_when_it_is_late_and_slurm_is_asked_seldom(tmp_path: Path) -> None:
    assert _bash(SUPERVISE, _HEED, tmp_path) == [
        "note late n1 no jump host has answered within 5 s",
        "look at 115",
        "over at 125",
    ]


# A hierarchy whose new groups have the files that a kernel gives them.
_GROUP = """
find_hierarchies() { hierarchies=({places}); }
sweep_groups() { printf 'swept %s %d\\n' "${1##*/}" "$2"; }
mktemp() { local made=${3%-*}-made; mkdir "$made" && (cd "$made" && touch {files}) && printf '%s' "$made"; }
enter_group key
printf 'group %s\\n' "${group#"$PWD"/}"
"""


def _group(directory: Path, places: str, files: str) -> list[str]:
    for place in places.split():
        Path(place).mkdir(exist_ok=True)
    return _bash(BEGIN, _GROUP.replace("{places}", places).replace("{files}", files), directory)


@pytest.mark.parametrize("freezer", ["cgroup.freeze", "freezer.state"])
def test_a_tunnel_has_a_cgroup_with_bounds_of_its_own(freezer: str, tmp_path: Path) -> None:
    said = _group(tmp_path, str(tmp_path / "one"), f"pids.max memory.max {freezer}")
    assert said == ["swept hpcproxy 64", "group one/hpcproxy/key-made"]
    group = tmp_path / "one" / "hpcproxy" / "key-made"
    assert (group / "pids.max").read_text() == "512\n"
    assert (group / "memory.max").read_text() == f"{1 << 30}\n"
    assert int((group / "cgroup.procs").read_text()) > 1
    assert (group / "way").is_dir()
    assert (tmp_path / "one/hpcproxy/cgroup.subtree_control").read_text() in {"+memory\n", "+pids\n+memory\n"}


def test_where_a_kernel_has_no_bounds_none_are_written_and_a_group_that_cannot_be_stopped_is_none(
    tmp_path: Path,
) -> None:
    assert _group(tmp_path, str(tmp_path / "one"), "cgroup.freeze")[-1] == "group one/hpcproxy/key-made"
    assert sorted(path.name for path in (tmp_path / "one/hpcproxy/key-made").iterdir()) == [
        *("cgroup.freeze", "cgroup.procs", "way"),
    ]
    assert _group(tmp_path, str(tmp_path / "two"), "other") == ["group "]


_FIREWALL = """
firewall=(127.64.0.1 2015 {uid})
nft_bounded() {
    printf '%s\\n' "$1: ${2%%;*}"
    [[ $2 != add* ]] || { tries=$((tries + 1)) && ((tries >= {stands})); }
}
tries=0
raise_firewall && echo stands
"""
ADDED = "2: add element inet hpcproxy passes { 127.64.0.1 . 2015 . 1000 }"
MADE = "2: create table inet hpcproxy"


@pytest.mark.parametrize(
    ("stands", "said"),
    [(1, [ADDED, "stands"]), (2, [ADDED, MADE, ADDED, "stands"]), (3, [ADDED, MADE, ADDED])],
)
def test_a_firewall_is_one_more_element_or_a_table_that_is_not_there_yet(
    stands: int, said: list[str], tmp_path: Path
) -> None:
    text = _FIREWALL.replace("{uid}", "1000").replace("{stands}", str(stands))
    found = _bash(BEGIN, text, tmp_path, {"nft": ":", "id": "echo 1000"})
    assert [line for line in found if line.startswith(("2: ", "stands"))] == said


@pytest.mark.parametrize("programs", [{"nft": ":", "id": "echo 4242"}, {"nft": ":", "id": "exit 1"}])
def test_where_somebody_is_called_by_that_number_there_is_no_firewall(programs: dict[str, str], tmp_path: Path) -> None:
    """nft takes a number for a name first."""
    text = _FIREWALL.replace("{uid}", "1000").replace("{stands}", "1")
    assert _bash(BEGIN, text, tmp_path, programs) == []


def test_the_record_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "holders").mkdir()
    text = f"supervisor=(7 8) tunnel=({{tunnel}}) firewall=({{firewall}}) group={{group}}\nwrite_record {JOB}.0"
    record = tmp_path / "holders" / f"{JOB}.0"
    full = text.format(tunnel="9 10", firewall="127.64.0.1 2015 1000", group="/g")
    assert _bash(BEGIN, full, tmp_path) == []
    assert record.read_text() == "keeper 7 8\nway 9 10\ngroup /g\nwall 127.64.0.1 2015 1000\n"
    assert _bash(BEGIN, text.format(tunnel="", firewall="", group="''"), tmp_path) == []
    assert record.read_text() == "keeper 7 8\n"
    assert [path.name for path in record.parent.iterdir()] == [record.name]
