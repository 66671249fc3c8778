"""Files and folders as a user names them, and files that are written whole or not at all."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from graft.errors import printable

UNFINISHED = ".graft."  # before the name of a file that is being written
DISK_ERRORS = {  # what keeps a disk or a folder from being written, whatever is written there
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO, errno.ENOTDIR),
}


def user_path(name: str | Path) -> Path:
    """A path with `~` for the home folder; the name of a user that does not exist stays as it is written."""
    return Path(os.path.expanduser(name))


@contextmanager
def written_whole(path: Path, unfinished: Path | None = None) -> Iterator[BinaryIO]:
    """A file to write to beside its place, where it is moved once all of it is on the disk.

    Raises OSError, which names the file, where it cannot be written; what was there before is still there then.
    """
    unfinished = unfinished or path.with_name(f"{UNFINISHED}{path.name}")
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from error
    finally:
        unfinished.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file whole or not at all, see written_whole."""
    with written_whole(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def disk_message(error: OSError, folder: Path) -> str | None:
    """One line on a disk or folder that cannot be written; None for another error. Messages name `folder` at least."""
    if error.errno not in DISK_ERRORS:
        return None
    place = Path(str(error.filename)) if error.filename else folder
    folder = next((one for one in (folder, *folder.parents) if os.path.exists(one)), folder)  # what is to be writable
    where = f"{folder}" if place == folder else f"{folder} ({place})"
    advice = "Free some space there" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "Make it writable"
    return printable(
        f"{where} cannot be written: {error.strerror} (Errno {error.errno}). {advice}, or choose another folder."
    )
