import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from graft.cache import disk, manifest
from graft.cache.disk import UNFINISHED, DiskCache, NoRoom
from graft.cache.manifest import MANIFEST
from graft.cache.rows import DATA, MappedRows, write_rows

CONTENT = "content"
A, B, C, D, E, Z = (letter * 16 for letter in "abcdef")
BIG = 10_000  # bytes, beside which a manifest's few are nothing


def make_entry(size=BIG, calls=None):
    def make(folder: Path) -> None:
        if calls is not None:
            calls.append(folder)
        (folder / CONTENT).write_bytes(b"x" * size)

    return make


def read_entry(folder: Path) -> bytes:
    return (folder / CONTENT).read_bytes()


def get(cache, key, size=BIG, calls=None):
    return cache.get(key, lambda: size, make_entry(size, calls), read_entry)


def keys(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"locks"}


def test_an_entry_is_made_once(tmp_path):
    calls = []
    cache = DiskCache(tmp_path, 10 * BIG)
    for _ in range(3):
        assert get(cache, A, calls=calls) == b"x" * BIG
    assert len(calls) == 1


def test_the_least_recently_used_go_first(tmp_path):
    cache = DiskCache(tmp_path, int(3.5 * BIG))
    for age, key in enumerate((A, B, C)):
        get(cache, key)
        os.utime(tmp_path / key, (age, age))
    get(cache, A)
    get(cache, D)
    assert keys(tmp_path) == {A, C, D}
    get(cache, E, 2 * BIG)
    assert len(keys(tmp_path)) == 2


def test_what_is_too_large_is_refused_and_costs_nothing_else(tmp_path):
    cache = DiskCache(tmp_path, 3 * BIG)
    get(cache, A)
    with pytest.raises(NoRoom, match="limit_gb"):
        get(cache, B, 4 * BIG)
    assert keys(tmp_path) == {A}


def test_a_failed_entry_leaves_nothing(tmp_path):
    def fail(folder: Path) -> None:
        (folder / CONTENT).write_text("half")
        raise RuntimeError("no")

    cache = DiskCache(tmp_path, BIG)
    with pytest.raises(RuntimeError, match="no"):
        cache.get(A, lambda: 10, fail, read_entry)
    assert keys(tmp_path) == set()


# Damage


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def replace_by(make):
    def damage(entry: Path) -> None:
        (entry / CONTENT).unlink()
        make(entry / CONTENT)

    return damage


DAMAGE = {
    "flipped": lambda entry: flip(entry / CONTENT),
    "zeros": lambda entry: (entry / CONTENT).write_bytes(bytes(BIG)),
    "cut": lambda entry: os.truncate(entry / CONTENT, BIG // 2),
    "empty": lambda entry: os.truncate(entry / CONTENT, 0),
    "gone": lambda entry: (entry / CONTENT).unlink(),
    "folder": replace_by(Path.mkdir),
    "pipe": replace_by(os.mkfifo),
    "link": replace_by(lambda path: path.symlink_to("/dev/zero")),
    "manifest gone": lambda entry: (entry / MANIFEST).unlink(),
    "manifest torn": lambda entry: os.truncate(entry / MANIFEST, 20),
    "manifest zeros": lambda entry: (entry / MANIFEST).write_bytes(bytes(50)),
    "manifest of another kind": lambda entry: (entry / MANIFEST).write_text(json.dumps([1])),
    "manifest a pipe": lambda entry: ((entry / MANIFEST).unlink(), os.mkfifo(entry / MANIFEST)),
    "everything": lambda entry: [path.unlink() for path in entry.iterdir()],
    "a file": lambda entry: (shutil.rmtree(entry), entry.write_text("file")),
    "a dead link": lambda entry: (shutil.rmtree(entry), entry.symlink_to("nowhere")),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_what_is_damaged_is_made_again_and_said(tmp_path, capsys, damage):
    cache, calls = DiskCache(tmp_path, 10 * BIG), []
    get(cache, A, calls=calls)
    damage(tmp_path / A)
    for _ in range(2):
        assert get(cache, A, calls=calls) == b"x" * BIG
    assert len(calls) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{tmp_path / A} is damaged (")
    assert line.endswith("): it is made again")
    assert keys(tmp_path) == {A}


def test_what_a_link_points_to_is_not_touched(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_text("precious")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / A).symlink_to(tmp_path / "photos")
    get(DiskCache(tmp_path / "cache", 10 * BIG), A)
    assert (tmp_path / "photos" / "1.jpg").read_text() == "precious"


def test_a_file_is_checked_once_a_process_and_again_where_it_has_changed(tmp_path, monkeypatch):
    read = []
    checksum = manifest.checksum
    monkeypatch.setattr(manifest, "checksum", lambda file: (read.append(file.name), checksum(file))[1])
    cache = DiskCache(tmp_path, 10 * BIG)
    for _ in range(3):
        get(cache, A)
    assert read == [CONTENT]  # when it was made
    manifest._checked.clear()  # as in another process
    for _ in range(3):
        get(cache, A)
    assert read == [CONTENT] * 2
    os.utime(tmp_path / A / CONTENT, (1, 1))
    for _ in range(3):
        get(cache, A)
    assert read == [CONTENT] * 3


# What is not the cache's own


def test_what_others_keep_in_the_folder_is_neither_removed_nor_counted(tmp_path):
    others = ["thesis/draft.txt", "unfinished-symphony/score.txt", f"{Z}/photo.jpg", "notes.txt", "locks/door.txt"]
    for name in others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * 5 * BIG)
    cache = DiskCache(tmp_path, int(2.5 * BIG))
    for key in (A, B, C, D):
        get(cache, key)
    assert [name for name in others if not (tmp_path / name).exists()] == []
    assert {C, D} <= keys(tmp_path)
    assert not {A, B} & keys(tmp_path)


# Several processes


def ask(folder, log, seconds, key=A):
    def make(unfinished: Path) -> None:
        with open(log, "a") as file:
            file.write("made\n")
        (unfinished / CONTENT).write_text("ha")
        time.sleep(seconds)
        (unfinished / CONTENT).write_text("half and whole")

    DiskCache(folder, 10 * BIG).get(key, lambda: 100, make, read_entry)


def map_entry(folder, log, seconds):
    rows = DiskCache(folder, 10 * BIG).get(A, lambda: 4 * BIG, make_rows, MappedRows)
    Path(log).touch()
    time.sleep(seconds)
    assert rows[0:1].sum() == 250


def make_rows(folder: Path) -> None:
    write_rows(folder, [torch.ones(40, 250)])


def evict(folder, log):
    """Remove the entries, to be killed once they are out of the way."""
    disk.shutil.rmtree = lambda path, **_: (Path(log).touch(), time.sleep(60))
    get(DiskCache(folder, 2 * BIG), B, BIG + BIG // 2)


def start(work, *arguments):
    process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    process.start()
    return process


def wait_for(path):
    for _ in range(2000):
        if path.exists():
            return
        time.sleep(0.01)
    raise AssertionError(f"{path} never came")


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def test_concurrent_jobs_wait_for_the_first(tmp_path):
    processes = [start(ask, tmp_path / "cache", tmp_path / "log", 0.2) for _ in range(3)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "made\n"


def test_after_a_kill_the_entry_is_made_anew(tmp_path):
    process = start(ask, tmp_path / "cache", tmp_path / "log", 60)
    wait_for(tmp_path / "log")
    kill(process)
    ask(tmp_path / "cache", tmp_path / "log", 0)
    assert read_entry(tmp_path / "cache" / A) == b"half and whole"
    assert keys(tmp_path / "cache") == {A}


def test_the_next_use_removes_what_dead_makers_left_and_nothing_of_live_ones(tmp_path):
    cache = tmp_path / "cache"
    dead, live = (start(ask, cache, tmp_path / name, 60, key) for name, key in (("dead", A), ("live", B)))
    wait_for(tmp_path / "dead")
    wait_for(tmp_path / "live")
    kill(dead)
    (cache / "locks" / Z).touch()  # of one that was killed before it made anything
    get(DiskCache(cache, 10 * BIG), C)
    assert keys(cache) == {C, f"{UNFINISHED}{B}"}
    assert {path.name for path in (cache / "locks").iterdir()} == {B, C, "room"}
    kill(live)
    get(DiskCache(cache, 10 * BIG), C)
    assert keys(cache) == {C}


def test_a_kill_in_the_middle_of_eviction_leaves_no_half_entry(tmp_path):
    cache = DiskCache(tmp_path / "cache", 10 * BIG)
    get(cache, A)
    process = start(evict, tmp_path / "cache", tmp_path / "log")
    wait_for(tmp_path / "log")
    kill(process)
    assert not cache.has(A)
    get(cache, C)
    assert keys(tmp_path / "cache") == {C}


def test_what_another_process_maps_is_not_evicted(tmp_path):
    folder = tmp_path / "cache"
    process = start(map_entry, folder, tmp_path / "log", 60)
    wait_for(tmp_path / "log")
    cache = DiskCache(folder, 6 * BIG)
    with pytest.raises(NoRoom, match=r"cache\.limit_gb=.* in use"):
        get(cache, B, 3 * BIG)
    assert keys(folder) == {A}
    kill(process)
    get(cache, B, 3 * BIG)
    assert keys(folder) == {B}


def test_what_this_process_maps_is_not_evicted_until_it_lets_go(tmp_path):
    cache = DiskCache(tmp_path, 6 * BIG)
    rows = cache.get(A, lambda: 4 * BIG, make_rows, MappedRows)
    with pytest.raises(NoRoom, match="in use"):
        get(cache, B, 3 * BIG)
    del rows
    get(cache, B, 3 * BIG)
    assert keys(tmp_path) == {B}


def test_what_is_mapped_outlives_damage_that_others_mend(tmp_path):
    cache = DiskCache(tmp_path, 10**6)
    rows = cache.get(A, lambda: 4 * BIG, make_rows, MappedRows)
    os.utime(tmp_path / A / DATA, (1, 1))
    (tmp_path / A / MANIFEST).unlink()
    again = cache.get(A, lambda: 4 * BIG, make_rows, MappedRows)
    assert torch.equal(rows[:], again[:])
