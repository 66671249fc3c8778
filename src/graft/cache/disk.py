"""Folders that are made once and shared by all jobs; where they grow too large, the least recently used go first."""

import errno
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypedDict, TypeVar

from filelock import FileLock, Timeout

from graft.cache.in_use import InUse, unused
from graft.cache.manifest import MANIFEST, Damaged, check, seal, sync_folder
from graft.config.types import Natural, Positive

Value = TypeVar("Value")
UNFINISHED, LOCKS, ROOM = "unfinished-", "locks", "room"
KEY = re.compile("[0-9a-f]{16}")  # see graft.cache.key
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

    An entry is made under a lock in a folder of another name, sealed with checksums, and renamed once it is complete
    and on the disk: concurrent jobs wait for the first, and one that is killed leaves nothing that looks finished. What
    is damaged is removed, recreated and reported; damage that appears while an entry is in use cannot be seen. Entries
    that some process maps are not removed, and nothing that the cache did not make ever is.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder = Path(folder)
        self.limit_bytes = limit_bytes

    def get(
        self, key: str, size: Callable[[], int], make: Callable[[Path], None], read: Callable[[Path], Value]
    ) -> Value:
        """What `read` finds in the entry's folder, which `make` fills if there is none; `size` in bytes is expected.

        What `read` gives holds on to its files (see graft.cache.in_use), or has read them. Raises NoRoom.
        """
        try:
            (self.folder / LOCKS).mkdir(parents=True, exist_ok=True)
            self._clean()
            with self._lock(key):
                return self._get(key, size, make, read)
        except OSError as error:
            if error.errno in UNWRITABLE:
                raise NoRoom(f"{self.folder} cannot be written ({error.strerror})") from error
            raise

    def _get(
        self, key: str, size: Callable[[], int], make: Callable[[Path], None], read: Callable[[Path], Value]
    ) -> Value:
        entry = self.folder / key
        if os.path.lexists(entry):
            try:
                check(entry)
                value = read(entry)
                with suppress(OSError):  # of another user
                    os.utime(entry)  # the time of its last use
                return value
            except Damaged as damage:
                self._remove(entry)
                print(f"{entry} is damaged ({damage}): it is made again", flush=True)
        self._make_room(size())
        unfinished = self.folder / f"{UNFINISHED}{key}"
        remove(unfinished)
        unfinished.mkdir()
        try:
            make(unfinished)
            seal(unfinished, entry)
            unfinished.rename(entry)
        finally:
            remove(unfinished)
        sync_folder(self.folder)
        return read(entry)

    def has(self, key: str) -> bool:
        """Whether there is an entry now, whole or damaged."""
        return (self.folder / key / MANIFEST).exists()

    def _lock(self, key: str, timeout: float = -1) -> FileLock:
        return FileLock(self.folder / LOCKS / key, timeout=timeout)

    def _clean(self) -> None:
        """Remove what dead makers left: unfinished entries, and locks of what is no entry."""
        unfinished = {path.name.removeprefix(UNFINISHED) for path in self.folder.glob(f"{UNFINISHED}*")}
        locks = {path.name for path in (self.folder / LOCKS).iterdir() if not (self.folder / path.name).exists()}
        for key in filter(KEY.fullmatch, unfinished | locks):
            with suppress(Timeout, OSError), self._lock(key, timeout=0):  # which a live maker holds
                remove(self.folder / f"{UNFINISHED}{key}")
                if not (self.folder / key).exists():
                    (self.folder / LOCKS / key).unlink()  # who waits for it sees that and opens a new one

    def _make_room(self, size: int) -> None:
        """Remove the least recently used entries until `size` more bytes fit, those being made or in use apart."""
        limit = f"cache.limit_gb={self.limit_bytes / 2**30:.4g}"
        if size > self.limit_bytes:
            raise NoRoom(f"{size / 2**30:.1f} GiB are more than {limit}")
        with self._lock(ROOM):
            sizes = {path: size_of(path) for path in self.folder.iterdir() if is_own(path)}
            for path in sorted(sizes, key=used_at):
                if sum(sizes.values()) + size <= self.limit_bytes and free_bytes(self.folder) - size >= FREE_BYTES:
                    return
                if self._evict(path):
                    del sizes[path]
        if sum(sizes.values()) + size > self.limit_bytes:
            raise NoRoom(f"{limit} is taken up by what is in use now")
        if free_bytes(self.folder) - size < FREE_BYTES:
            raise NoRoom(f"{self.folder} is on a disk with {free_bytes(self.folder) / 2**30:.1f} GiB left")

    def _evict(self, entry: Path) -> bool:
        """Remove an entry, unless somebody makes, reads or maps it or it cannot be removed."""
        if not KEY.fullmatch(entry.name):
            return False
        try:
            with self._lock(entry.name, timeout=0), unused(entry):
                self._remove(entry)
            return True
        except (Timeout, InUse, OSError):
            return False

    def _remove(self, entry: Path) -> None:
        """Out of the way first: a process that is killed here leaves something unfinished and not half an entry."""
        gone = self.folder / f"{UNFINISHED}{entry.name}"
        remove(gone)
        entry.rename(gone)
        remove(gone)


def is_own(path: Path) -> bool:
    """Whether the cache made a path: an entry with its manifest, or one that is being made."""
    name = path.name.removeprefix(UNFINISHED)
    return KEY.fullmatch(name) is not None and (name != path.name or (path / MANIFEST).exists())


def used_at(entry: Path) -> float:
    """When an entry was used last; 0 where it has just been removed."""
    try:
        return entry.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def size_of(entry: Path) -> int:
    """Bytes of an entry's files, which another process may be removing."""
    total = 0
    for folder, _, files in os.walk(entry):
        for file in files:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(folder, file)).st_size
    return total


def remove(path: Path) -> None:
    """Remove whatever stands there; links are not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def free_bytes(folder: Path) -> int:
    """Free bytes of the disk that a folder is on."""
    return shutil.disk_usage(folder).free
