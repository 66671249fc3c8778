"""Folders that are made once and shared by all jobs; where they grow too large, the least recently used go first."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict, TypeVar

from filelock import FileLock, Timeout

from graft.config.types import Natural, Positive

Value = TypeVar("Value")
UNFINISHED, LOCKS = "unfinished-", "locks"
UNWRITABLE = (errno.EACCES, errno.EDQUOT, errno.ENOSPC, errno.ENOTDIR, errno.EPERM, errno.EROFS)
FREE_BYTES = 2**30  # of the disk that stay free for other things


class CacheSettings(TypedDict):
    """The keys of `cache`."""

    features: bool
    augmented_views: Natural
    decoded: bool
    limit_gb: Positive


class NoRoom(Exception):
    """An entry is larger than the cache may become or than the disk has room for, or nothing can be written there."""


class DiskCache:
    """A folder of entries, each a folder named by its key, which is a hash of all that its content depends on.

    An entry is made under a lock in a folder of another name, and renamed once it is complete: concurrent jobs wait for
    the first, and one that is killed leaves nothing that looks finished. What is removed while another process has it
    mapped stays readable there (not on Windows, where it stays).
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder = Path(folder)
        self.limit_bytes = limit_bytes

    def get(self, key: str, size: int, make: Callable[[Path], None], read: Callable[[Path], Value]) -> Value:
        """What `read` finds in the entry's folder, which `make` fills if there is none; `size` in bytes is expected.

        Raises NoRoom. An entry that cannot be read, after a power cut say, is made again.
        """
        try:
            (self.folder / LOCKS).mkdir(parents=True, exist_ok=True)
            return self._get(key, size, make, read)
        except OSError as error:
            if error.errno in UNWRITABLE:
                raise NoRoom(str(error)) from error
            raise

    def _get(self, key: str, size: int, make: Callable[[Path], None], read: Callable[[Path], Value]) -> Value:
        entry = self.folder / key
        with self._lock(key):
            if entry.exists():
                try:
                    value = read(entry)
                    os.utime(entry)  # the time of its last use
                    return value
                except (OSError, ValueError, KeyError):
                    shutil.rmtree(entry)
            self._make_room(size, key)
            unfinished = self.folder / f"{UNFINISHED}{key}"
            shutil.rmtree(unfinished, ignore_errors=True)  # of a job that was killed
            unfinished.mkdir(parents=True)
            try:
                make(unfinished)
                unfinished.rename(entry)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
            return read(entry)

    def has(self, key: str) -> bool:
        """Whether there is an entry now."""
        return (self.folder / key).exists()

    def _lock(self, key: str, timeout: float = -1) -> FileLock:
        return FileLock(self.folder / LOCKS / key, timeout=timeout)

    def _make_room(self, size: int, key: str) -> None:
        """Remove the least recently used entries until `size` more bytes fit, those being made or read apart."""
        if size > self.limit_bytes:
            raise NoRoom(f"{size / 2**30:.1f} GiB are more than cache.limit_gb={self.limit_bytes / 2**30:g}")
        with self._lock("room"):
            entries = [path for path in self.folder.iterdir() if path.name not in (LOCKS, UNFINISHED + key)]
            used = {entry: used_at(entry) for entry in entries}
            sizes = {entry: size_of(entry) for entry in entries}
            for entry in sorted(entries, key=used.get):
                if sum(sizes.values()) + size <= self.limit_bytes and free_bytes(self.folder) - size >= FREE_BYTES:
                    return
                try:
                    with self._lock(entry.name.removeprefix(UNFINISHED), timeout=0):
                        shutil.rmtree(entry, ignore_errors=True)
                    del sizes[entry]
                except Timeout:
                    continue
        if free_bytes(self.folder) - size < FREE_BYTES:
            raise NoRoom(f"{self.folder} is on a disk with {free_bytes(self.folder) / 2**30:.1f} GiB left")


def used_at(entry: Path) -> float:
    """When an entry was used last; 0 where it has just been removed."""
    try:
        return entry.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def size_of(entry: Path) -> int:
    """Bytes of an entry's files."""
    return sum(file.stat().st_size for file in entry.rglob("*") if file.is_file())


def free_bytes(folder: Path) -> int:
    """Free bytes of the disk that a folder is on."""
    return shutil.disk_usage(folder).free
