"""When an agent that was told to end goes: whom it stays for, how long, and when it asks Slurm."""

import signal
import time

import pytest

from hpcproxy.node.io.loop import Loop
from hpcproxy.node.life import shutdown


class Record:
    def __init__(self):
        self.lines = []

    def log(self, line):
        self.lines.append(line)


class Others:
    """The job's other processes: there for so many looks."""

    def __init__(self, looks):
        self.looks, self.seen = looks, 0

    def is_there(self):
        self.seen += 1
        return self.seen <= self.looks


@pytest.fixture
def told(monkeypatch):
    """told(looks, grace_s, running) gives (whether it ends, its log, how often Slurm was asked, seconds, looks)."""
    monkeypatch.setattr(shutdown, "POLL_S", 0.02)

    def tell(looks, grace_s, running=False, number=signal.SIGTERM, job="7"):
        loop, record, others, asked = Loop(lambda error: record.lines.append(repr(error))), Record(), Others(looks), []
        monkeypatch.setattr(shutdown, "JobProcesses", lambda job, uid: others)

        async def goes_on(loop, job, deadline):
            asked.append(job)
            return running

        monkeypatch.setattr(shutdown, "goes_on", goes_on)
        ending = shutdown.Ending(loop, record, job, grace_s)
        ended = []

        async def watch():
            ending.signalled(number)
            ended.append(loop.stopping)
            if ending.task is not None:
                await ending.task.join()
                ended.append(loop.stopping)
            loop.stopping = True

        loop.spawn(watch())
        begun = time.monotonic()
        loop.run()
        loop.close()
        return ended[-1], record.lines, len(asked), time.monotonic() - begun, others.seen

    return tell


def test_alone_it_goes_at_once_and_asks_nobody(told):
    ends, lines, asked, _seconds, looks = told(0, 1000)
    assert (ends, lines, asked, looks) == (True, [], 0, 1)


def test_it_goes_as_soon_as_the_others_have_gone(told):
    ends, lines, asked, _seconds, looks = told(4, 1000)
    assert (ends, asked, looks) == (True, 0, 5)
    assert lines == ["told to end; stays at most 1000 s for the job's other processes"]


def test_it_goes_when_the_others_will_be_killed(told):
    ends, lines, asked, seconds, _looks = told(10**6, 0.2)
    assert (ends, asked, len(lines)) == (True, 1, 1), "Slurm is asked once"
    assert seconds >= 0.2


def test_a_warning_is_none_of_its_ends(told):
    ends, lines, asked, seconds, _looks = told(10**6, 0.2, running=True)
    assert (ends, asked, lines[-1]) == (False, 1, "the job goes on, and so does its tunnel")
    assert seconds >= 0.1, "not before it has been waited for a while"


def test_without_a_grace_period_nobody_is_asked(told):
    ends, lines, asked, _seconds, looks = told(10**6, 0.0, running=True)
    assert (ends, asked, lines, looks) == (True, 0, [], 1)


@pytest.mark.parametrize(
    "number, job, ends",
    [
        (signal.SIGURG, "7", True),
        (signal.SIGINT, "7", False),
        (signal.SIGUSR1, "7", False),
        (signal.SIGINT, "", True),
        (signal.SIGUSR1, "", True),
        (signal.SIGTERM, "", True),
    ],
)
def test_which_signals_end_it_at_once(told, number, job, ends):
    assert told(10**6, 1000, number=number, job=job)[0] is ends


@pytest.mark.parametrize(
    "text, seconds",
    [
        (b"", 30.0),
        (b"ClusterName=x\n", 30.0),
        (b"KillWait=50\n", 50.0),
        (b" \tkillwait = 50 # seconds\n", 50.0),
        (b"KillWait=50\nKillWait=60\n", 60.0),
        (b"#KillWait=50\n", 30.0),
        (b"UnKillWait=50\n", 30.0),
        (b"KillWait=1\n", 2.0),
        (b"KillWait=x\n", 30.0),
    ],
)
def test_how_long_slurm_lets_them_live(text, seconds, tmp_path, monkeypatch):
    (tmp_path / "slurm.conf").write_bytes(text)
    monkeypatch.setattr(shutdown, "CONFIGURATIONS", (str(tmp_path / "none"), str(tmp_path / "slurm.conf")))
    monkeypatch.delenv("SLURM_CONF", raising=False)
    assert shutdown.kill_wait_s() == seconds
    (tmp_path / "other").write_bytes(b"KillWait=70\n")
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "other"))
    assert shutdown.kill_wait_s() == 70
    monkeypatch.setattr(shutdown, "CONFIGURATIONS", ())
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "nowhere"))
    assert shutdown.kill_wait_s() == 30


@pytest.mark.parametrize(
    "said, seconds, on",
    [
        ("7 RUNNING", 0, True),
        (" 7 SUSPENDED ", 0, True),
        ("slurm says\n7 RUNNING", 0, True),
        ("7 COMPLETING", 0, False),
        ("77 RUNNING", 0, False),
        ("", 0, False),
        ("7 RUNNING", 60, False),
    ],
)
def test_only_a_running_job_goes_on_and_silence_is_its_end(said, seconds, on, tmp_path, monkeypatch):
    (tmp_path / "squeue").write_text(
        "#!/bin/sh\n[ \"$*\" = '--noheader --jobs=7 --format=%A %T' ] || exit 1\n"
        "printf '%s\\n' '{}'\nexec sleep {}\n".format(said, seconds)
    )
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    loop, found = Loop(lambda error: found.append(repr(error))), []

    async def ask():
        found.append(await shutdown.goes_on(loop, "7", time.monotonic() + (0.3 if seconds else 60)))
        loop.stopping = True

    loop.spawn(ask())
    loop.run()
    loop.close()
    assert found == [on]
