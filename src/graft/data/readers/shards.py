"""Shards as WebDataset has them: tar files, local or behind an address, in which files with one name are one sample.

Chunks of LitData's are read in their place.
"""

import fnmatch
import json
import re
import struct
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

import fsspec

from graft.data.readers import litdata_chunks
from graft.errors import GraftError, first_line, listed

NAME = re.compile(r"^((?:.*/)?[^./][^./]*)\.([^/]*)$")  # key and ending: all up to the first dot of a file's name
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")
INDICES = ("sizes.json", "index.json")  # number of samples by shard: WebDataset's own, and that of its `wids`
CLASSES = "classes.txt"
EXTRAS = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "az": "adlfs",
    "hf": "huggingface_hub",
}
MOST_SHARDS = 1_000_000
BUFFER = 2**20  # bytes read at a time
WAITS = (1.0, 5.0, 30.0)  # seconds before what failed behind an address is tried again


@dataclass(frozen=True)
class Entry:
    """A sample of a shard: its number and key, and its files' contents by ending."""

    number: int
    key: str
    files: Mapping[str, bytes]


class Unreachable(GraftError):
    """A place that does not answer, or not as it should."""


class Damaged(Exception):
    """A shard that cannot be read on; the samples before were."""


def expanded(pattern: str) -> list[str]:
    """The names that a pattern's `{000..099}` and `{a,b}` mean, in their order. GraftError for far too many."""
    if not (found := RANGE.search(pattern)):
        return [pattern]
    first, last, words = found.groups()
    if words is not None:
        chosen: Sequence[str] = words.split(",")
    else:
        if int(last) < int(first):
            raise GraftError(f"{pattern}: {found.group()} counts down. Write the smaller number first.")
        if int(last) - int(first) >= MOST_SHARDS:
            raise GraftError(f"{pattern}: {found.group()} means more than {MOST_SHARDS:,} shards.")
        chosen = [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [name for one in chosen for name in expanded(f"{before}{one}{after}")]


class Place:
    """A folder of shards, local or behind an address such as s3://bucket/photos, and what stands in it."""

    def __init__(self, root: str, key: str) -> None:
        """`key` of the config names the folder in messages. GraftError where a library for the address is missing."""
        self.root = root.rstrip("/") or root
        self.key = key
        protocol = root.partition("://")[0] if "://" in root else "file"
        try:
            self.files, self.path = fsspec.core.url_to_fs(self.root)
        except ImportError as error:
            package = EXTRAS.get(protocol, "")
            install = f"Install it: pip install {package}" if package else first_line(error)
            raise GraftError(f"{key}={root}: {protocol}:// needs a package that is not there. {install}") from None
        except ValueError as error:
            raise GraftError(
                f"{key}={root}: {first_line(error)}. Give a folder, or an address such as s3://..."
            ) from None
        self.local = protocol in ("file", "local")

    def read(self, name: str) -> bytes | None:
        """The content of a small file; None where there is none."""
        with suppress(FileNotFoundError, NotADirectoryError), self._explained(name):
            return self.files.cat_file(f"{self.path}/{name}")
        return None

    def index(self) -> dict[str, int]:
        """Number of samples of each shard that the folder's `sizes.json` or `index.json` names; empty without one."""
        for name in INDICES:
            if (content := self.read(name)) is None:
                continue
            try:
                return counts_in(json.loads(content))
            except (ValueError, TypeError, KeyError, AttributeError):
                raise GraftError(
                    f"{self.key}={self.root}: {name} is no index of shards. It has the number of samples of each: "
                    '{"train-000000.tar": 1000, ...}'
                ) from None
        return {}

    def names(self, pattern: str, index: Mapping[str, int]) -> list[str]:
        """The shards that a pattern means: all of `{000..099}`, or those there are of `*`; empty where none is."""
        if "*" not in pattern and "?" not in pattern:
            return expanded(pattern)
        if known := [name for name in index if fnmatch.fnmatch(name, pattern)]:
            return sorted(known)
        with self._explained(pattern):
            found = self.files.glob(f"{self.path}/{pattern}")
        return sorted(one.rpartition("/")[2] if "/" not in pattern else one[len(self.path) + 1 :] for one in found)

    def size(self, name: str) -> int | None:
        """Bytes of a shard; None where the place does not say. GraftError where it is not there."""
        try:
            with self._explained(name):
                return self.files.info(f"{self.path}/{name}").get("size")
        except FileNotFoundError:
            raise GraftError(f"{self.key}={self.root}: there is no shard {name}.") from None

    def entries(self, name: str, start: int = 0, endings: Sequence[str] | None = None) -> Iterator[Entry]:
        """The samples of a shard from the `start`-th on, in their order, of their files those of some `endings`.

        Behind an address what fails is tried again, from where it failed. Raises Damaged where the shard cannot be read
        on, GraftError where it is not there.
        """
        waits = iter(() if self.local else WAITS)
        while True:
            try:
                for entry in self._entries(name, start, endings):
                    yield entry
                    start, waits = entry.number + 1, iter(() if self.local else WAITS)
                return
            except (Damaged, Unreachable):
                if (seconds := next(waits, None)) is None:
                    raise
                time.sleep(seconds)

    def _entries(self, name: str, start: int, endings: Sequence[str] | None) -> Iterator[Entry]:
        try:
            with self._explained(name), self.files.open(f"{self.path}/{name}", "rb", **self._options()) as file:
                if name.endswith(litdata_chunks.ENDING):
                    yield from self._chunk(file, name, start, endings)
                    return
                yield from entries_of(file, start, endings, seeks=self.local and name.endswith(".tar"))
        except FileNotFoundError:
            raise GraftError(f"{self.key}={self.root}: there is no shard {name}.") from None

    def _chunk(self, file: IO[bytes], name: str, start: int, endings: Sequence[str] | None) -> Iterator[Entry]:
        """The samples of an open chunk of LitData's, whose folder has an index."""
        folder = name.rpartition("/")[0]
        try:
            fields = litdata_chunks.fields_of(self.read(f"{folder}/index.json".lstrip("/")))
            for number, files in litdata_chunks.samples_of(file, fields, start, content=endings != ()):
                yield Entry(number, str(number), files)
        except litdata_chunks.Unreadable as error:
            raise GraftError(f"{self.key}={self.root}: {name} cannot be read: {error}.") from None
        except (ValueError, struct.error) as error:
            raise Damaged(first_line(error)) from error

    def _options(self) -> dict[str, Any]:
        return {} if self.local else {"cache_type": "readahead", "block_size": 4 * BUFFER}

    def _explained(self, name: str) -> "Explained":
        return Explained(self, name)


class Explained:
    """Turns what a file system raises in the block into one message; a file that is not there stays as it is."""

    def __init__(self, place: Place, name: str) -> None:
        self.place = place
        self.name = name

    def __enter__(self) -> None:
        """Nothing."""

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """One message."""
        if error is None or isinstance(error, Damaged | GraftError | FileNotFoundError | GeneratorExit):
            return
        if isinstance(error, Exception):
            raise Unreachable(
                f"{self.place.key}={self.place.root}: {self.name} cannot be read "
                f"({type(error).__name__}: {first_line(error)})."
            ) from error


def counts_in(index: Any) -> dict[str, int]:
    """Samples by shard of a `sizes.json` of WebDataset's, of a `wids` index, or by chunk of LitData's."""
    if litdata_chunks.is_index(index):
        return litdata_chunks.chunk_sizes(index)
    if "shardlist" in index:
        return {one["url"].rpartition("/")[2]: int(one["nsamples"]) for one in index["shardlist"]}
    return {name: int(count) for name, count in index.items() if not name.startswith("__")}


def entries_of(file: IO[bytes], start: int, endings: Sequence[str] | None, *, seeks: bool) -> Iterator[Entry]:
    """The samples of an open shard; Damaged where it cannot be read on. What is not wanted is not kept."""
    number, key = -1, ""
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=file, mode="r:" if seeks else "r|*", bufsize=BUFFER) as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # it would keep them all
                found = NAME.match(member.name)
                if not member.isfile() or not found or found[1].rpartition("/")[2].startswith("__"):
                    continue
                if found[1] != key:
                    if number >= start:
                        yield Entry(number, key, files)
                    number, key, files = number + 1, found[1], {}
                ending = found[2].lower()
                if number >= start and (endings is None or ending in endings):
                    content = tar.extractfile(member)
                    files[ending] = b"" if content is None else content.read()
                    if len(files[ending]) < member.size:
                        raise Damaged(f"it ends in the middle of {member.name}")
            # tarfile takes a damaged header for the end, whose mark is two blocks of zeros; it has read the first
            end = tar.fileobj.read(tarfile.BLOCKSIZE) if tar.fileobj else b""
            if len(end) < tarfile.BLOCKSIZE or any(end):
                raise Damaged("it is damaged, or ends before its end is marked")
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError) or not isinstance(error, tarfile.TarError | EOFError | ValueError):
            raise
        raise Damaged(first_line(error)) from error
    if number >= start:
        yield Entry(number, key, files)


def count(place: Place, name: str) -> int:
    """Number of samples of a shard, by its files' names alone. Raises Damaged."""
    return sum(1 for _ in place.entries(name, endings=()))


def missing_shards(place: Place, names: Sequence[str]) -> None:
    """Raise GraftError for shards that are not there: behind an address only the first and the last are asked."""
    asked = names if place.local else [*{names[0]: None, names[-1]: None}]
    missing = []
    for name in asked:
        try:
            place.files.info(f"{place.path}/{name}")
        except FileNotFoundError:
            missing.append(name)
        except Exception as error:
            raise GraftError(f"{place.key}={place.root}: {name} cannot be read ({first_line(error)}).") from error
    if missing:
        raise GraftError(f"{place.key}={place.root}: there is no shard {listed(missing)}.")
