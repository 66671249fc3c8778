import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from graft.cache.disk import DiskCache, NoRoom

CONTENT = "content"


def make_entry(size=100, calls=None):
    def make(folder: Path) -> None:
        if calls is not None:
            calls.append(folder)
        (folder / CONTENT).write_bytes(b"x" * size)

    return make


def read_entry(folder: Path) -> bytes:
    return (folder / CONTENT).read_bytes()


def keys(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"locks"}


def test_an_entry_is_made_once(tmp_path):
    calls = []
    cache = DiskCache(tmp_path, 1000)
    for _ in range(3):
        assert cache.get("a", 100, make_entry(calls=calls), read_entry) == b"x" * 100
    assert len(calls) == 1


def test_the_least_recently_used_go_first(tmp_path):
    cache = DiskCache(tmp_path, 300)
    for age, key in enumerate("abc"):
        cache.get(key, 100, make_entry(), read_entry)
        os.utime(tmp_path / key, (age, age))
    cache.get("a", 100, make_entry(), read_entry)
    cache.get("d", 100, make_entry(), read_entry)
    assert keys(tmp_path) == {"a", "c", "d"}
    cache.get("e", 200, make_entry(200), read_entry)
    assert len(keys(tmp_path)) == 2


def test_what_is_too_large_is_refused_and_costs_nothing_else(tmp_path):
    cache = DiskCache(tmp_path, 300)
    cache.get("a", 100, make_entry(), read_entry)
    with pytest.raises(NoRoom, match="limit_gb"):
        cache.get("b", 301, make_entry(301), read_entry)
    assert keys(tmp_path) == {"a"}


def test_a_broken_entry_is_made_again(tmp_path):
    cache = DiskCache(tmp_path, 300)
    cache.get("a", 100, make_entry(), read_entry)
    (tmp_path / "a" / CONTENT).unlink()
    assert cache.get("a", 100, make_entry(), read_entry) == b"x" * 100


def test_a_failed_entry_leaves_nothing(tmp_path):
    def fail(folder: Path) -> None:
        (folder / CONTENT).write_text("half")
        raise RuntimeError("no")

    cache = DiskCache(tmp_path, 300)
    with pytest.raises(RuntimeError, match="no"):
        cache.get("a", 100, fail, read_entry)
    assert keys(tmp_path) == set()


def ask(folder, log, seconds):
    def make(unfinished: Path) -> None:
        with open(log, "a") as file:
            file.write("made\n")
        (unfinished / CONTENT).write_text("ha")
        time.sleep(seconds)
        (unfinished / CONTENT).write_text("half and whole")

    DiskCache(folder, 1000).get("a", 100, make, read_entry)


def start(*arguments):
    process = multiprocessing.get_context("spawn").Process(target=ask, args=arguments)
    process.start()
    return process


def test_concurrent_jobs_wait_for_the_first(tmp_path):
    processes = [start(tmp_path / "cache", tmp_path / "log", 0.2) for _ in range(3)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "made\n"


def test_after_a_kill_the_entry_is_made_anew(tmp_path):
    process = start(tmp_path / "cache", tmp_path / "log", 60)
    while not (tmp_path / "log").exists():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    ask(tmp_path / "cache", tmp_path / "log", 0)
    assert read_entry(tmp_path / "cache" / "a") == b"half and whole"
    assert keys(tmp_path / "cache") == {"a"}


def test_what_a_killed_job_left_makes_room(tmp_path):
    (tmp_path / "unfinished-z").mkdir()
    (tmp_path / "unfinished-z" / CONTENT).write_bytes(b"x" * 250)
    DiskCache(tmp_path, 300).get("a", 100, make_entry(), read_entry)
    assert keys(tmp_path) == {"a"}
