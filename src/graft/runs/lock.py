"""A folder's lock: a file in it that says which process works there, so that a second one is refused.

The file is made by a hard link, which is one step on every file system, NFS too. It is stale when its process is gone
from this machine or, on another one, when it has given no sign of life for STALE_S: times stand in the content, as a
copy has a new mtime. A copied folder is not locked on the machine of its original: the lock knows its folder's inode.

A stale lock is taken over by whoever is first to make the one file that is named by the stale lock's token. That file
is the lock's successor from this moment on, also for those who look before it has taken the lock's place; should its
process die there, it is stale itself and has a successor in the same way.
"""

import json
import os
import re
import secrets
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from graft.runs.process import is_running, machine, start_of

LOCK = ".graft.lock"
HEARTBEAT_S = 60.0
STALE_S = 300.0
TIME = "%Y-%m-%dT%H:%M:%SZ"  # of one length, as a heartbeat is written over the last one


@dataclass(frozen=True)
class Holder:
    """What a lock says of the process that made it; the names are those in the file."""

    host: str
    machine: str
    pid: int
    started: str | None  # see start_of
    since: str
    heartbeat: str
    device: int  # of the folder
    inode: int
    token: str

    def __post_init__(self) -> None:
        """ValueError for what no Graft writes: a token becomes part of a file's name."""
        if type(self.pid) is not int or self.pid < 1 or not re.fullmatch(r"[0-9a-f]{16}", self.token):
            raise ValueError("no lock of Graft's")
        seconds(self.heartbeat)

    @property
    def silent_s(self) -> float:
        """Seconds since the last sign of life, by this machine's clock."""
        return time.time() - seconds(self.heartbeat)

    def is_stale(self, folder: Path) -> bool:
        """Whether nobody works in the folder any more."""
        if self.machine == machine():
            status = folder.stat()
            if (self.device, self.inode) != (status.st_dev, status.st_ino):
                return True
            running = is_running(self.pid, self.started)
            if running is not None:
                return not running
        return self.silent_s > STALE_S

    def content(self) -> bytes:
        """The file's."""
        return (json.dumps(asdict(self)) + "\n").encode()


class LockHeld(Exception):
    """Another process works in the folder."""

    def __init__(self, holder: Holder) -> None:
        super().__init__(describe(holder))
        self.holder = holder


class Lock:
    """`take()` and `release()` a folder; between the two a thread gives the signs of life."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / LOCK
        self.holder: Holder | None = None
        self._file = -1
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_held(self) -> bool:
        """Whether this process holds it; a forked one does not."""
        return self.holder is not None and self.holder.pid == os.getpid()

    def holder_now(self) -> Holder | None:
        """The living process that holds it, which may be this one; None where nobody works in the folder."""
        chain = self._chain()
        return chain[-1] if chain and not chain[-1].is_stale(self.folder) else None

    def take(self) -> Holder | None:
        """Take the lock and return whose it was where a stale one lay there; LockHeld where it is held."""
        self.folder.mkdir(parents=True, exist_ok=True)
        status, pid, now = self.folder.stat(), os.getpid(), text(time.time())
        token = secrets.token_hex(8)
        host = machine().partition(" ")[0]
        mine = Holder(host, machine(), pid, start_of(pid), now, now, status.st_dev, status.st_ino, token)
        written = self.folder / f"{LOCK}.{token}.new"
        try:
            written.write_bytes(mine.content())
            left = self._make(written, mine)
            self._file = os.open(self.path, os.O_RDWR)
        finally:
            written.unlink(missing_ok=True)
        self.holder = mine
        self._stop.clear()
        self._thread = threading.Thread(target=self._live, name="graft lock", daemon=True)
        self._thread.start()
        return left

    def _make(self, written: Path, mine: Holder) -> Holder | None:
        left = None
        while not linked(written, self.path):
            chain = self._chain()
            if not chain:
                continue  # it has just been released
            left = chain[0]
            if not chain[-1].is_stale(self.folder):
                raise LockHeld(chain[-1])
            claim = self._successor(chain[-1])
            if not linked(written, claim):
                continue  # another one was first, and holds it now
            chain = self._chain()
            if not chain or chain[-1].token != mine.token:  # what this process saw as stale has been replaced since
                claim.unlink()
                continue
            written.replace(self.path)
            for one in chain:
                self._successor(one).unlink(missing_ok=True)
            break
        return left

    def _successor(self, holder: Holder) -> Path:
        return self.folder / f"{LOCK}.{holder.token}"

    def _chain(self) -> list[Holder]:
        """The lock's holder, the one that took it over, and so on; empty where there is no lock."""
        chain: list[Holder] = []
        path = self.path
        while (found := read(path)) and found.token not in [one.token for one in chain]:
            chain.append(found)
            path = self._successor(found)
        return chain

    def release(self) -> None:
        """Give the folder back, if it is still this process's."""
        if not self.is_held:
            return
        assert self.holder is not None
        assert self._thread is not None
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join()
        os.close(self._file)
        with suppress(OSError):
            if (found := read(self.path)) and found.token == self.holder.token:
                self.path.unlink()
        self.holder = None

    def _live(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            with suppress(OSError):  # a disk that does not answer may do so next time
                if other := self._lost():
                    print(
                        f"{self.folder} was taken over by {describe(other)}, as this process gave no sign of life. "
                        "It ends at once and writes nothing more.",
                        file=sys.stderr,
                        flush=True,
                    )
                    os._exit(1)  # an exception would save checkpoints and results on its way, over the other's

    def _lost(self) -> Holder | None:
        """Give a sign of life; who holds the lock where that is another process."""
        mine = self.holder
        assert mine is not None
        alive = Holder(**{**asdict(mine), "heartbeat": text(time.time())})
        os.pwrite(self._file, alive.content(), 0)  # into this process's own file, whatever lies at its place now
        os.fsync(self._file)
        found = read(self.path)
        if found is None and self.folder.is_dir():  # removed by hand
            with suppress(FileExistsError):
                file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
                os.write(file, alive.content())
                os.close(self._file)
                self._file = file
        return found if found and found.token != mine.token else None


def linked(written: Path, path: Path) -> bool:
    """Let a file have a second name in one step; False where something has that name already."""
    try:
        os.link(written, path)
    except FileExistsError:
        return False
    except OSError:  # no hard links here, as on exFAT
        try:
            with path.open("xb") as file:
                file.write(written.read_bytes())
        except FileExistsError:
            return False
    return True


def read(path: Path) -> Holder | None:
    """What a lock's file says; None where there is none. One that a power cut has torn is as old as its file."""
    try:
        content, status = path.read_bytes(), path.stat()
    except FileNotFoundError:
        return None
    try:
        return Holder(**json.loads(content))
    except (ValueError, TypeError):
        written = text(status.st_mtime)
        return Holder("an unknown host", "", 1, None, written, written, 0, 0, f"{status.st_ino:016x}"[-16:])


def describe(holder: Holder) -> str:
    """A process as people name it."""
    since = datetime.fromtimestamp(seconds(holder.since)).strftime("%Y-%m-%d %H:%M:%S")
    return f"process {holder.pid} on {holder.host} (since {since})"


def text(moment: float) -> str:
    """Seconds since 1970 as text."""
    return datetime.fromtimestamp(moment, timezone.utc).strftime(TIME)


def seconds(moment: str) -> float:
    """Text as seconds since 1970."""
    return datetime.strptime(moment, TIME).replace(tzinfo=timezone.utc).timestamp()
