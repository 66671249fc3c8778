"""Whose a run's or sweep's folder is, what may be removed from it, and that one process at a time works there."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pytest

from graft.errors import FolderRefused
from graft.runs import lock as locks
from graft.runs.folder import RECORD, RUN_FILES, RunFolder, SweepFolder
from graft.runs.lock import LOCK, Holder, Lock, LockHeld
from graft.runs.process import is_running, machine, start_of

LONG_AGO, FAR_AHEAD = "2001-01-01T00:00:00Z", "2999-01-01T00:00:00Z"


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def claimed(path):
    folder = RunFolder(path)
    folder.take()
    folder.claim()
    folder.release()
    return folder


# Whose it is


def test_a_fresh_start_removes_what_the_record_names_and_nothing_else(tmp_path):
    run = claimed(tmp_path / "run")
    for name in (*RUN_FILES, "notes.txt", "checkpoints/precious.pt", "wandb/run/file"):
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        (run.path / name).write_text(name)
    first = run.run_id
    run.start_anew()
    left = {str(name) for name in contents(run.path)}
    assert left == {RECORD, "notes.txt", "checkpoints/precious.pt", "wandb/run/file"}
    assert run.run_id != first
    (run.path / "checkpoints" / "precious.pt").unlink()
    run.start_anew()
    assert not (run.path / "checkpoints").exists()


@pytest.mark.parametrize("name", ["config.yaml", "checkpoints/precious.pt", ".git/HEAD", "DONE", "multirun.yaml", "a"])
@pytest.mark.parametrize("kind", [RunFolder, SweepFolder])
def test_a_folder_with_something_in_it_and_no_record_is_refused_and_stays(tmp_path, kind, name):
    (tmp_path / "project" / name).parent.mkdir(parents=True)
    (tmp_path / "project" / name).write_text("model: mine\n")
    before = contents(tmp_path)
    with pytest.raises(FolderRefused, match=rf"project is no {kind.kind}'s folder.*{name.split('/')[0]}.*{kind.key}="):
        kind(tmp_path / "project").take()
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/etc/x", "..", ".", "", "C:\\x", "..\\x", "\\\\host\\x", "a\0b", ".graft.lock", 3]
)
def test_a_record_that_names_what_is_outside_removes_nothing(tmp_path, name):
    run = claimed(tmp_path / "run")
    record = json.loads((run.path / RECORD).read_text())
    (run.path / RECORD).write_text(json.dumps({**record, "files": [*record["files"], name]}))
    (tmp_path / "x").write_text("precious")
    before = contents(tmp_path)
    for act in (run.take, run.start_anew):
        with pytest.raises(FolderRefused, match=r"\.graft\.json"):
            act()
    assert contents(tmp_path) == before


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '{"kind": "run", "id": "a", "files": null}'])
def test_a_record_that_cannot_be_read_is_named(tmp_path, text):
    run = claimed(tmp_path / "run")
    (run.path / RECORD).write_text(text)
    with pytest.raises(FolderRefused, match=r"\.graft\.json cannot be read"):
        run.take()


@pytest.mark.parametrize("link", ["checkpoints", "metrics.csv", "checkpoints/best.ckpt"])
def test_nothing_is_written_or_removed_through_a_link(tmp_path, link):
    run = claimed(tmp_path / "run")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "best.ckpt").write_text("precious")
    (run.path / link).parent.mkdir(exist_ok=True)
    (run.path / link).symlink_to(outside if link == "checkpoints" else outside / "best.ckpt")
    with pytest.raises(FolderRefused, match="is a link"):
        run.take()
    run.start_anew()
    assert (outside / "best.ckpt").read_text() == "precious"


def test_a_file_in_the_place_of_a_newer_graft_s_is_not_overwritten(tmp_path):
    run = claimed(tmp_path / "run")
    record = json.loads((run.path / RECORD).read_text())
    (run.path / RECORD).write_text(json.dumps({**record, "files": ["config.yaml"]}))
    (run.path / "curves.png").write_text("mine")
    with pytest.raises(FolderRefused, match=r"curves\.png is in the way"):
        run.take()
    (run.path / "curves.png").unlink()
    claimed(run.path)
    assert set(RUN_FILES) <= set(run.record.files)


def test_runs_and_sweeps_do_not_share_a_folder(tmp_path):
    claimed(tmp_path / "run")
    with pytest.raises(FolderRefused, match="is the folder of a run, not of a sweep"):
        SweepFolder(tmp_path / "run").take()


# One process at a time


def holder(folder, **changes):
    """What a lock of this very process in this folder says."""
    status = folder.stat()
    found = Holder(
        *("far", machine(), os.getpid(), start_of(os.getpid()), FAR_AHEAD, FAR_AHEAD),
        *(status.st_dev, status.st_ino, "0123456789abcdef"),
    )
    return replace(found, **changes)


@pytest.fixture
def ended():
    """Id and start of a process that has just been killed; its parent has not looked yet."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        started = start_of(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        yield {"pid": process.pid, "started": started}


def test_a_lock_is_held_released_and_taken_again(tmp_path):
    first, second = Lock(tmp_path / "run"), Lock(tmp_path / "run")
    assert first.take() is None
    with pytest.raises(LockHeld, match=f"process {os.getpid()} on "):
        second.take()
    first.release()
    assert list((tmp_path / "run").iterdir()) == []
    assert second.take() is None
    second.release()


def test_a_process_is_known_by_its_id_and_its_start(ended):
    assert is_running(os.getpid(), start_of(os.getpid())) is True
    assert is_running(os.getpid(), "another") is False
    assert is_running(**ended) is False
    assert is_running(2**22 + 1, "1") is False


@pytest.mark.parametrize(
    ("changes", "stale"),
    [
        ({}, False),
        ({"heartbeat": LONG_AGO}, False),  # stopped or swapped out, but there
        ({"started": "another"}, True),  # its id was given again
        ({"inode": 1}, True),  # a copy of a folder in which that process works
        ({"machine": "far"}, False),
        ({"machine": "far", "heartbeat": LONG_AGO}, True),
        ({"machine": "far", "inode": 1, "heartbeat": LONG_AGO}, True),
        ({"started": None, "heartbeat": LONG_AGO}, True),  # not told when it began
    ],
)
def test_which_locks_are_stale(tmp_path, changes, stale):
    (tmp_path / LOCK).write_bytes(holder(tmp_path, **changes).content())
    os.utime(tmp_path / LOCK)  # a fresh time of the file says nothing
    lock = Lock(tmp_path)
    if stale:
        assert lock.take().pid == os.getpid()
        lock.release()
        assert list(tmp_path.iterdir()) == []
    else:
        with pytest.raises(LockHeld):
            lock.take()


@pytest.mark.parametrize("text", [b"", b"\0" * 64, b"{}", b"[]", json.dumps({"token": "../../x"}).encode()])
def test_a_torn_lock_is_as_old_as_its_file(tmp_path, text):
    (tmp_path / LOCK).write_bytes(text)
    with pytest.raises(LockHeld, match="an unknown host"):
        Lock(tmp_path).take()
    os.utime(tmp_path / LOCK, (0, 0))
    lock = Lock(tmp_path)
    lock.take()
    lock.release()


@pytest.mark.parametrize("token", ["../../x", "", "0123456789abcdeg", "0123456789abcdef\n"])
def test_a_token_cannot_lead_out_of_the_folder(tmp_path, token):
    content = asdict(holder(tmp_path)) | {"token": token}
    with pytest.raises(ValueError, match="no lock"):
        Holder(**content)


def test_a_killed_runs_folder_is_free_at_once_also_when_moved(tmp_path, ended, capsys):
    run = claimed(tmp_path / "run")
    (run.path / LOCK).write_bytes(holder(run.path, **ended).content())
    run.path.rename(tmp_path / "moved")
    moved = RunFolder(tmp_path / "moved")
    moved.take()
    assert "left it; that process is gone" in capsys.readouterr().out
    moved.release()
    assert str(tmp_path) not in (moved.path / RECORD).read_text()


def test_a_copy_of_a_folder_that_is_worked_in_is_free(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.take()
    run.claim()
    shutil.copytree(run.path, tmp_path / "copy")
    copy = RunFolder(tmp_path / "copy")
    assert (copy.path / LOCK).exists()
    copy.take()
    assert copy.run_id == run.run_id
    copy.release()
    assert (run.path / LOCK).exists()
    run.release()
    assert not (run.path / LOCK).exists()


TAKE = """
import sys, time
from pathlib import Path
from graft.runs.lock import Lock, LockHeld
print("ready", flush=True)
sys.stdin.readline()
taken = []
for folder in sys.argv[1:]:
    try:
        Lock(Path(folder)).take()
        taken.append(folder)
    except LockHeld:
        pass
print(*taken, flush=True)
sys.stdin.readline()
"""


def test_of_processes_that_see_a_stale_lock_exactly_one_takes_it(tmp_path, ended):
    folders = []
    for number in range(60):
        folder = tmp_path / str(number)
        folder.mkdir()
        folders.append(folder)
        stale = holder(folder, **ended)
        if number % 3:
            (folder / LOCK).write_bytes(stale.content())
        if number % 3 == 2:  # one that was taking it over died, too
            (folder / f"{LOCK}.{stale.token}").write_bytes(replace(stale, token="fedcba9876543210").content())
    command = [sys.executable, "-c", TAKE, *map(str, folders)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(5)]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        taken = [folder for process in processes for folder in process.stdout.readline().split()]
    finally:
        for process in processes:
            process.communicate()
    assert sorted(taken) == sorted(map(str, folders))


HOLD = """
import sys, time
from pathlib import Path
from graft.runs import lock
lock.HEARTBEAT_S = 0.02
lock.Lock(Path(sys.argv[1])).take()
print("taken", flush=True)
time.sleep(60)
print("still here", flush=True)
"""


@pytest.fixture
def held(tmp_path):
    """A process that holds the lock of tmp_path / "run" and gives signs of life every moment."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "taken\n"
        yield process
        process.kill()


def until(condition):
    for _ in range(600):
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_a_sign_of_life_stands_in_the_content_and_a_removed_lock_comes_back(tmp_path, held):
    file = tmp_path / "run" / LOCK
    first = locks.read(file)
    assert until(lambda: locks.read(file).heartbeat > first.heartbeat)
    file.unlink()
    assert until(file.exists)
    assert until(lambda: locks.read(file).token == first.token)


def test_a_process_whose_lock_was_taken_ends_at_once(tmp_path, held):
    folder = tmp_path / "run"
    other = holder(folder, host="elsewhere")
    (folder / "other").write_bytes(other.content())
    (folder / "other").replace(folder / LOCK)
    out, err = held.communicate(timeout=60)
    assert held.returncode == 1
    assert (out, f"taken over by process {os.getpid()} on elsewhere" in err) == ("", True)
    assert locks.read(folder / LOCK).token == other.token


def test_a_forked_process_neither_holds_nor_releases(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.take()
    if not (child := os.fork()):
        held = run.is_held
        run.release()
        os._exit(int(held))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (run.path / LOCK).exists()
    run.release()
    assert not run.path.exists()
