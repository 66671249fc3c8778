"""The folder of a run or of a sweep: the names of its files, whose they are, and what may be removed.

A folder is Graft's where its record says so, whatever else lies in it. Graft writes and removes only files that the
record names, so that a stranger's file in the folder stays.
"""

import contextlib
import functools
import json
import os
import secrets
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, ClassVar

from graft.errors import FolderRefused, in_quotes, listed
from graft.files import disk_message, written_whole
from graft.runs.lock import STALE_S, Lock, LockHeld, describe
from graft.runs.process import is_main_process, machine

RECORD, FORMAT = ".graft.json", 1
OWN_PREFIX = ".graft."  # of the record, of locks, and of both while they are written
CONFIG, OVERRIDES, DONE, ERROR, RESULTS = "config.yaml", "overrides.yaml", "DONE", "error.txt", "results.json"
LEDGER = "ledger.json"  # of a run: every rule's score for every candidate checkpoint
LEDGER_TABLES = ("ledger.csv", "ledger.md", "ledger.tex")  # what `graft ledger` finds
METRICS, CURVES, PREDICTIONS = "metrics.csv", "curves.png", "predictions.parquet"
LR_CURVE, LR_PICTURE = "lr_find.csv", "lr_find.png"
NONFINITE_BATCH = "nonfinite_batch.pt"
CHECKPOINTS = "checkpoints"
LAST_CHECKPOINT = Path(CHECKPOINTS, "last.ckpt")
PREVIOUS = "previous.ckpt"  # the one before last.ckpt, until the run is finished
# In the checkpoints folder: the rule's choice, and networks without what is needed for training only.
BEST, MERGED, WISE_FT, SOUP, SWAD = "best.ckpt", "merged.pt", "wise_ft.pt", "soup.pt", "swad.pt"
COMPRESSED = "compressed.pt"
RUN_FILES = (
    *(CONFIG, OVERRIDES, DONE, ERROR, RESULTS, METRICS, CURVES, PREDICTIONS, LEDGER, *LEDGER_TABLES),
    *("confusion_test_target.png", "confusion_test_source.png", LR_CURVE, LR_PICTURE),
    NONFINITE_BATCH,
    *(f"{CHECKPOINTS}/{name}" for name in (BEST, "last.ckpt", PREVIOUS, COMPRESSED, MERGED, WISE_FT, SOUP, SWAD)),
    *(f"{CHECKPOINTS}/{name}.unfinished" for name in (BEST, "last.ckpt")),
)
STOPPED = ".stopped"  # Ctrl-C was pressed, no further job begins
REFUSED = ".refused"  # jobs whose folder is not this sweep's to write to, a JSON line each
MODEL = "model"  # the folder that predicts by itself, see graft.model
BEST_MODEL = "best_model.json"  # which job of a sweep keeps its model
BEST_LOCK = f"{OWN_PREFIX}best_model.lock"  # of who writes that
REPORT, REPORT_FILES = "report.html", "report"  # a page, and the folder of its figures and tables
INSPECTION = "inspection.json"  # in that folder, what was found with the network and the data opened again
LOOKS = "looks.json"  # which seeds each look at a sweep's answer saw
RACE = "race.json"  # of a race: every job, every decision and the winner
SWEEP_FILES = (
    *("multirun.yaml", "summary.csv", "summary.md", PREDICTIONS, STOPPED, REFUSED, BEST_MODEL, LOOKS, RACE),
    *LEDGER_TABLES,
)


@dataclass(frozen=True)
class Record:
    """What `.graft.json` says; `adopted` is the folder of an older Graft, whose checkpoints carry no id."""

    kind: str
    id: str
    files: tuple[str, ...]
    adopted: bool = False
    format: int = FORMAT


class RunFolder:
    """A run's folder."""

    kind: ClassVar[str] = "run"
    files: ClassVar[tuple[str, ...]] = RUN_FILES
    key: ClassVar[str] = "hydra.run.dir"

    def __init__(self, path: Path | str, beside: Iterable[str] = ()) -> None:
        """`beside` names what others, such as Hydra, may have written to a new folder before."""
        self.path = Path(path)
        self.beside = frozenset(beside)

    # Whose it is

    @property
    def record(self) -> Record | None:
        """The folder's record, None without one; FolderRefused for one that cannot be read or names what is outside."""
        file = self.path / RECORD
        try:
            content = json.loads(file.read_bytes())
            record = Record(**{**content, "files": tuple(content["files"])})
            ours = all(isinstance(text, str) for text in (record.kind, record.id, *record.files))
            if not ours or type(record.format) is not int:
                raise ValueError("not as Graft writes it")
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            raise FolderRefused(f"{self.path} is no folder. {self.advice()}") from None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise FolderRefused(
                f"{file} cannot be read ({type(error).__name__}: {error}), but it says which files here are Graft's. "
                f"{self.advice()}"
            ) from None
        if record.format > FORMAT:
            raise FolderRefused(f"{file} is of a newer Graft (format {record.format}). {self.advice()}")
        if outside := [name for name in record.files if not is_inside(name)]:
            raise FolderRefused(
                f"{file} names {outside[0]!r}, which is not in the folder: Graft did not write this. {self.advice()}"
            )
        return record

    @property
    def run_id(self) -> str | None:
        """What this folder's checkpoints carry."""
        record = self.record
        return record.id if record else None

    def is_new(self) -> bool:
        """Whether nothing is in it but what Graft and Hydra put there to begin."""
        return not self.others()

    def others(self) -> list[str]:
        """Names in the folder without Graft's own of the beginning."""
        if not self.path.exists():
            return []
        names = (path.name for path in self.path.iterdir())
        return sorted(name for name in names if not name.startswith(OWN_PREFIX) and name not in self.beside)

    def is_older(self) -> bool:
        """Whether it has no record, but what a Graft without records left."""
        if self.record:
            return False
        config, overrides = try_read_yaml(self.path / CONFIG), try_read_yaml(self.path / OVERRIDES)
        groups = ("data", "backbone", "strategy", "objective", "training", "paths")
        has_groups = isinstance(config, Mapping) and all(isinstance(config.get(group), Mapping) for group in groups)
        return has_groups and isinstance(overrides, list) and all(isinstance(line, str) for line in overrides)

    def check_owner(self) -> None:
        """FolderRefused where the folder, or a file in it that a run would write, is not Graft's."""
        record = self.record
        if record is None:
            if self.is_new() or self.is_older():
                return
            raise FolderRefused(
                f"{self.path} is no {self.kind}'s folder of Graft's: it holds {listed(self.others())}, but no "
                f"{RECORD}. {self.advice()}"
            )
        if record.kind != self.kind:
            raise FolderRefused(f"{self.path} is the folder of a {record.kind}, not of a {self.kind}. {self.advice()}")
        for name in dict.fromkeys((*record.files, *self.files)):
            if link := first_link(self.path, name):
                raise FolderRefused(
                    f"{link} is a link, so that writing or removing {name} would reach elsewhere. Put the file or "
                    f"folder itself there, or choose another folder. {self.advice()}"
                )
        taken = [name for name in self.files if name not in record.files and (self.path / name).exists()]
        if taken:
            raise FolderRefused(f"{self.path / taken[0]} is in the way: Graft did not write it. {self.advice()}")

    def advice(self) -> str:
        """What to do where the folder is refused."""
        inside = shlex.quote(f"{self.key}={quoted(self.path / f'graft_{self.kind}')}")
        return f"Nothing was changed. Name a new folder, such as {inside}, or leave {self.key} out."

    # Working in it

    def take(self) -> None:
        """Lock the folder for this process; FolderRefused where it is not Graft's or where another process has it."""
        self.check_owner()
        if self.is_held:
            return
        lock = Lock(self.path)
        try:
            left = lock.take()
        except LockHeld as error:
            raise FolderRefused(self.in_use(error)) from None
        except OSError as error:
            why = disk_message(error, self.path) or f"{self.path} cannot be locked: {error}. {self.advice()}"
            raise FolderRefused(why) from None
        _held[self.path.absolute()] = lock
        if left:
            print(f"{self.path}: going on where {describe(left)} left it; that process is gone.", flush=True)
        try:
            self.check_owner()  # another process may have worked here between the first look and the lock
        except FolderRefused:
            self.release()
            raise

    def in_use(self, error: LockHeld) -> str:
        """Why a second process does not begin here."""
        holder = error.holder
        if holder.machine == machine():
            wait = f"Wait for it, or stop it with: kill {holder.pid}."
        else:
            free = max(STALE_S - holder.silent_s, 0)
            wait = f"Wait for it, or stop it there; if it is gone, this folder is free in {free:.0f} s."
        return f"{self.path} is in use by {describe(holder)}. {wait} Or choose another folder: {self.key}=<folder>"

    def holder(self) -> str | None:
        """The process that works in the folder now, as text."""
        found = Lock(self.path).holder_now()
        return describe(found) if found else None

    @property
    def is_held(self) -> bool:
        """Whether this process has locked it."""
        return (lock := _held.get(self.path.absolute())) is not None and lock.is_held

    @property
    def is_writable(self) -> bool:
        """Whether this process works here, and the folder's record says that it may."""
        return self.is_held and self.record is not None

    def release(self) -> None:
        """Unlock the folder, and remove it where nothing was written to it."""
        if self.is_held:
            _held.pop(self.path.absolute()).release()
        with contextlib.suppress(OSError):
            self.path.rmdir()

    @contextlib.contextmanager
    def owned(self, *, adopt: bool) -> Iterator[None]:
        """Claim and lock the folder for a block, in the main process and where that is not done yet."""
        if not is_main_process() or self.is_held:
            yield
            return
        self.take()
        try:
            self.claim(adopt=adopt)
            yield
        finally:
            self.release()

    def claim(self, *, adopt: bool = False) -> None:
        """Write the record before anything else; FolderRefused for an older Graft's folder unless it is adopted."""
        record = self.record
        if record is None:
            if (older := not self.is_new()) and not adopt:
                raise FolderRefused(
                    f"{self.path} is the folder of an older Graft's {self.kind}, which does not say which files are "
                    "its own, so that nothing is removed from it. Go on with it: resume=true. Or delete it, or choose "
                    f"another folder: {self.key}=<folder>"
                )
            self._write(Record(self.kind, secrets.token_hex(8), self.files, adopted=older))
        elif new := [name for name in self.files if name not in record.files]:
            self._write(replace(record, files=(*record.files, *new)))

    def add(self, names: Iterable[str]) -> None:
        """Let the record name further files, before they are written."""
        record = self.record
        assert record is not None
        if new := [name for name in dict.fromkeys(names) if name not in record.files]:
            self._write(replace(record, files=(*record.files, *new)))

    def start_anew(self) -> None:
        """Remove what the record names, and give the folder a new id first: no checkpoint left over is taken then."""
        record = self.record
        assert record is not None
        names = tuple(dict.fromkeys((*record.files, *self.files)))
        self._write(Record(self.kind, secrets.token_hex(8), names))
        there = set(os.listdir(self.path))
        for name in names:
            if PurePosixPath(name).parts[0] in there:
                self._remove(name)

    def remove(self, name: str) -> None:
        """Remove a file that the record names, and the folder it was in where that is empty then."""
        record = self.record
        if record is not None and name in record.files:
            self._remove(name)

    def _remove(self, name: str) -> None:
        if first_link(self.path, name):
            return
        path = self.path / name
        if not path.is_dir():
            path.unlink(missing_ok=True)
        for parent in [path, *path.parents][: len(path.parts) - len(self.path.parts)]:
            with contextlib.suppress(OSError):  # something else is in there
                parent.rmdir()

    def _write(self, record: Record) -> None:
        with written_whole(self.path / RECORD, self.path / f"{RECORD}.unfinished") as file:  # the lock's holder alone
            file.write(json.dumps(asdict(record), indent=1).encode())

    @property
    def checkpoint_ids(self) -> tuple[str | None, ...]:
        """What this run's checkpoints may carry; those of an older Graft carry None."""
        record = self.record
        if record is None:
            return (None,)
        return (record.id, None) if record.adopted else (record.id,)


class SweepFolder(RunFolder):
    """A sweep's folder, around those of its jobs."""

    kind = "sweep"
    files = SWEEP_FILES
    key = "hydra.sweep.dir"

    def is_older(self) -> bool:
        """Whether it has no record, but what a Graft without records left."""
        if self.record:
            return False
        config = try_read_yaml(self.path / "multirun.yaml")
        return isinstance(config, Mapping) and "SweepCallback" in str(config.get("hydra"))

    def refuse(self, job: str, overrides: list[str], message: str) -> None:
        """Keep for the summary why a job did not run whose own folder must not be written to."""
        line = json.dumps({"folder": job, "overrides": overrides, "error": message})
        with (self.path / REFUSED).open("a") as file:  # in one write, so that jobs side by side do not mix
            file.write(line + "\n")

    def refused(self) -> list[dict[str, Any]]:
        """Those jobs: `folder`, `overrides` and `error`; not the half of a line that a full disk took."""
        file = self.path / REFUSED
        found = []
        for line in file.read_text(errors="replace").splitlines() if file.exists() else ():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return [one for one in found if isinstance(one, dict)]


_held: dict[Path, Lock] = {}  # by this process


def release_all() -> None:
    """Unlock whatever this process still has locked, as after an exception that nobody handled."""
    for lock in _held.values():
        lock.release()
    _held.clear()


def in_own_folder(train: Any) -> Any:
    """Let `train(cfg, ...)` claim and lock its run folder where the job around it has not: in a notebook."""

    @functools.wraps(train)
    def owning(cfg: Mapping[str, Any], *more: Any) -> dict[str, Any]:
        with RunFolder(cfg["paths"]["run_dir"]).owned(adopt=bool(cfg["resume"])):
            return train(cfg, *more)

    return owning


@functools.lru_cache(maxsize=256)  # each record that is read names about the same files
def is_inside(name: str) -> bool:
    """Whether a record's name stays in its folder, on any system."""
    path = PurePosixPath(name)
    windows = PureWindowsPath(name)
    parts = {*path.parts, *windows.parts}
    if not parts or path.is_absolute() or windows.anchor or ".." in parts or "\0" in name:
        return False
    return not path.parts[0].startswith(OWN_PREFIX)


def first_link(folder: Path, name: str) -> Path | None:
    """The first link on the way from a folder to a name in it."""
    path = folder
    for part in PurePosixPath(name).parts:
        path = path / part
        if path.is_symlink():
            return path
    return None


def try_read_yaml(path: Path) -> Any:
    """A YAML file's plain content, None where there is none that can be read."""
    import yaml

    try:
        return yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return None


def quoted(path: Path) -> str:
    """A path as the value of a Hydra override."""
    text = str(path)
    if all(character.isalnum() or character in "/-_.+" for character in text):
        return text
    return in_quotes(text)
