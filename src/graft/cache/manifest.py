"""What tells whether an entry of the cache is whole: a list of its files with their sizes and checksums."""

import errno
import json
import os
import stat
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MANIFEST = "graft-entry.json"
CHUNK = 2**20  # bytes
# Errors that say something of this process and nothing of the file.
OURS = (errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_checked: set[tuple[str, int, int]] = set()  # files whose content this process knows to be right


class Damaged(Exception):
    """An entry does not hold what was written; the message says in what."""


def seal(folder: Path, place: Path) -> None:
    """Write the manifest of a folder's files and all of them to the disk; `place` is where the folder moves next."""
    files = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder).as_posix()
        files[name] = {"bytes": file.stat().st_size, "crc32": checksum(file)}
        sync(file)
        _checked.add(identity(place / name, file.stat()))
    (folder / MANIFEST).write_text(json.dumps({"files": files}, indent=1))
    sync(folder / MANIFEST)
    for path in (*folder.rglob("*"), folder):
        if path.is_dir():
            sync_folder(path)


def check(entry: Path) -> None:
    """Raise Damaged unless the entry's files are what was sealed.

    A file is read once a process, and again where its size or time has changed. It is read and not mapped, in which
    an unreadable sector would kill the process.
    """
    try:
        if entry.is_symlink():
            raise Damaged("it is a link")
        status_of(entry / MANIFEST)
        for name, noted in json.loads((entry / MANIFEST).read_bytes())["files"].items():
            check_file(entry / name, noted)
    except OSError as error:
        if error.errno in OURS:
            raise
        raise Damaged(f"{error.strerror}: {Path(error.filename or MANIFEST).name}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{MANIFEST} is not as it was written") from error


def check_file(file: Path, noted: Mapping[str, Any]) -> None:
    """Raise Damaged unless a file has the size and checksum that its manifest says, OSError if it cannot be read."""
    found = status_of(file)
    if found.st_size != noted["bytes"]:
        raise Damaged(f"{file.name} has {found.st_size:,} bytes, {noted['bytes']:,} were written")
    if identity(file, found) not in _checked:
        if checksum(file) != noted["crc32"]:
            raise Damaged(f"{file.name} holds something else than was written")
        _checked.add(identity(file, found))


def status_of(file: Path) -> os.stat_result:
    """What the system knows of a file; Damaged where a folder, a link or something else stands in its place."""
    found = file.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise Damaged(f"{file.name} is not a file")
    return found


def identity(file: Path, found: os.stat_result) -> tuple[str, int, int]:
    """What changes when a file is written again."""
    return os.path.abspath(file), found.st_size, found.st_mtime_ns


def checksum(file: Path) -> int:
    """CRC-32 of a file's content: it is to find damage, not forgery, at under half of SHA-256's cost."""
    value, buffer = 0, bytearray(CHUNK)
    with file.open("rb", buffering=0) as opened:
        while size := opened.readinto(buffer):
            value = zlib.crc32(memoryview(buffer)[:size], value)
    return value


def sync(file: Path) -> None:
    """Wait until a file's content is on the disk."""
    with file.open("r+b") as opened:
        os.fsync(opened.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until a folder's names are on the disk, where the system can say so."""
    if hasattr(os, "O_DIRECTORY"):
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
