"""Every dirty input ends in one error that names it, or in a line that says what became of it; none passes in silence.

Each case is an input and what the message or the note says of it. Samples that `on_bad_sample=skip` leaves out are
counted, and what is then loaded can be read to its end.
"""

import bz2
import contextlib
import gzip
import lzma
import pickle
import re
import shutil
import signal
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from safetensors.torch import save as safetensors_bytes

from graft.backbones.lenet import lenet
from graft.data.domain import Domain
from graft.data.sources.audio_file import AudioFile
from graft.data.sources.audio_folder import AudioFolder
from graft.data.sources.huggingface_dataset import HuggingFaceDataset
from graft.data.sources.image_arrays import ImageArrays
from graft.data.sources.image_file import ImageFile
from graft.data.sources.image_folder import ImageFolder
from graft.data.sources.sequence_arrays import SequenceArrays
from graft.data.sources.sklearn_table import SklearnTable
from graft.data.sources.table_file import TableFile
from graft.data.sources.text_file import TextFile
from graft.data.sources.torchvision import TorchvisionDataset
from graft.errors import GraftError
from graft.weights.loading import load_weights

from .dirty_files import (
    EVERY_FILE,
    HTML,
    IMAGES,
    LFS,
    SOUNDS,
    Damage,
    changed,
    content,
    encoded,
    flipped,
    half,
    in_place_of,
    random_image,
    recorded,
    saved,
    sound,
    zeroed_end,
    zipped,
)

SECONDS = 20  # after which a case counts as one that hangs
LONGEST = 1500  # characters of a message
FAST = 16  # one case of this many is no slow test

Make = Callable[[Path, str], "Domain | list[str]"]


@dataclass(frozen=True)
class Case:
    """An input, made below a folder and read with a value of on_bad_sample, and what is said of it."""

    name: str
    make: Make
    says: str  # a regular expression
    bad: int = 0  # samples that `skip` leaves out; 0 where what is wrong is not single samples
    refused: bool = True
    names: str = ""  # the file, in the message


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    """Raise TimeoutError where something hangs."""

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def lines_of(made: Domain | list[str]) -> tuple[list[str], int]:
    """What is said of an input that is read, every sample to its end, and how many samples were left out."""
    if isinstance(made, list):
        return made, 0
    data = made.load(0)
    for split in (data.train, data.val, data.test):
        for index in range(len(split)):
            split.inputs[torch.tensor([index]) if made.modality in ("table", "sequence") else index]
    assert data.report is not None
    skipped = [f"{one['sample']}: {one['reason']}" for one in data.report.skipped]
    return [*data.notes, *skipped, data.report.sentence()], len(skipped)


# Images, in a folder, a list, and a class of torchvision


def photos(folder: Path, damaged: Damage | None = None) -> Path:
    """Two classes of eight images; one of them is damaged."""
    for label, name in enumerate(("ant", "bee")):
        (folder / name).mkdir(parents=True)
        for i in range(8):
            random_image(10 * label + i).save(folder / name / f"{i}.png")
    if damaged:
        damaged(folder / "ant" / "3.png")
    return folder


def listed(folder: Path, names: list[str], header: str = "path,label") -> Path:
    """A list of files with labels."""
    rows = [f"{name},{name.partition('/')[0]}" for name in names]
    (folder / "list.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder / "list.csv"


def image_folder(damage: Damage, **settings: Any) -> Make:
    return lambda folder, rule: ImageFolder(str(photos(folder, damage)), on_bad_sample=rule, **settings)


def image_file(damage: Damage, **settings: Any) -> Make:
    def make(folder: Path, rule: str) -> Domain:
        photos(folder, damage)
        names = [f"{name}/{i}.png" for i in range(8) for name in ("ant", "bee")]
        return ImageFile(str(listed(folder, names)), on_bad_sample=rule, **settings)

    return make


def pets(damage: Damage | None = None) -> Make:
    """OxfordIIITPet in miniature."""

    def make(folder: Path, rule: str) -> Domain:
        base = folder / "oxford-iiit-pet"
        (base / "images").mkdir(parents=True)
        (base / "annotations").mkdir()
        for split, number in (("trainval", 16), ("test", 4)):
            names = [f"{('Beagle', 'Sphynx')[i % 2]}_{split}{i}" for i in range(number)]
            for i, name in enumerate(names):
                random_image(i + number).save(base / "images" / f"{name}.jpg")
            lines = [f"{name} {i % 2 + 1} 1 1" for i, name in enumerate(names)]
            (base / "annotations" / f"{split}.txt").write_text("\n".join(lines))
        if damage:
            damage(base / "images" / "Beagle_trainval4.jpg")
        return TorchvisionDataset("OxfordIIITPet", str(folder), val_fraction=0.2, on_bad_sample=rule)

    return make


def image_cases() -> Iterator[Case]:
    for name, (damage, says) in IMAGES.items():
        yield Case(f"image_folder: {name}", image_folder(damage), says, bad=1, names="3.png")
        yield Case(f"image_file: {name}", image_file(damage), says, bad=1, names="3.png")
        yield Case(f"torchvision: {name}", pets(damage), says, bad=1, names="Beagle_trainval4.jpg")
    values = content(encoded(_float_image(-1000, 3000), "TIFF"))
    for name, make in {"image_folder": image_folder, "image_file": image_file}.items():
        yield Case(f"{name}: values of a CT", make(values), r"pixel_range=\[-1000,3000\]", names="3.png")
        yield Case(f"{name}: five bands", make(content(_five_bands())), "5 bands|more bands", bad=1, names="3.png")
        yield Case(
            f"{name}: another number of bands", make(content(encoded(random_image(1), "PNG")), channels=4), "channels=3"
        )
        frames = [random_image(i) for i in (5, 6)]
        animated = encoded(random_image(1), "GIF", save_all=True, append_images=frames)
        yield Case(f"{name}: several frames", make(content(animated)), "1 files have several pages", refused=False)


def _float_image(low: float, high: float) -> Any:
    from PIL import Image

    return Image.fromarray(np.linspace(low, high, 144, dtype=np.float32).reshape(12, 12))


def _five_bands() -> bytes:
    """An uncompressed TIFF of 4 x 4 pixels with five bands of bytes."""
    entries = [(256, 4, 4), (257, 4, 4), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 5), (278, 4, 4)]
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in [*entries, (279, 4, 80)][: len(entries)]
    )
    return b"II*\0" + struct.pack("<I", 88) + bytes(range(80)) + directory + bytes(4)


# Folders


def folder_cases() -> Iterator[Case]:
    def both(name: str, change: Damage, says: str, **more: Any) -> Iterator[Case]:
        def images(folder: Path, rule: str) -> Domain:
            change(photos(folder / "data"))
            return ImageFolder(str(folder / "data"), on_bad_sample=rule)

        def sounds(folder: Path, rule: str) -> Domain:
            change(tones(folder / "data"))
            return AudioFolder(str(folder / "data"), on_bad_sample=rule)

        yield Case(f"image_folder, layout: {name}", images, says, **more)
        yield Case(f"audio_folder, layout: {name}", sounds, says, **more)

    def put(name: str, data: bytes = b"x") -> Damage:
        def change(root: Path) -> None:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)

        return change

    def gone(root: Path) -> None:
        shutil.rmtree(root)

    def a_file(root: Path) -> None:
        shutil.rmtree(root)
        root.write_bytes(b"x")

    def to_itself(root: Path) -> None:
        shutil.rmtree(root)
        root.symlink_to(root.name)

    def bare(root: Path) -> None:
        for path in sorted((root / "bee").iterdir()):
            path.unlink()

    def twice(root: Path) -> None:
        for name in ("train", "training"):
            shutil.copytree(root / "ant", root / name / "ant")
            shutil.copytree(root / "bee", root / name / "bee")

    def circle(root: Path) -> None:
        (root / "ant" / "again").symlink_to(root / "ant", target_is_directory=True)

    def copies(root: Path) -> None:
        for path in sorted((root / "ant").iterdir())[:3]:
            shutil.copy(path, root / "bee" / f"copy{path.name}")

    yield from both("no folder", gone, "no such folder", names="data")
    yield from both("a file", a_file, "no such folder|is a file", names="data")
    yield from both("a link to itself", to_itself, "no such folder", names="data")
    yield from both("an empty class", bare, r"no (images|recordings) in .*bee", names="bee")
    yield from both("one class", lambda root: shutil.rmtree(root / "bee"), "at least 2", names="data")
    yield from both("no class", lambda root: [shutil.rmtree(root / n) for n in ("ant", "bee")], "sub-folders")
    yield from both("an archive alone", lambda root: (gone(root), root.mkdir(), put("a.zip")(root)), "sub-folders")
    yield from both("a class of other files", put("cat/a.xyz"), r"no (images|recordings) in .*cat, but 1 \.xyz")
    yield from both("other files", put("ant/notes.txt"), r"1 \.txt files", refused=False)
    yield from both("an archive in a class", put("ant/more.zip"), r"1 \.zip files", refused=False)
    yield from both("a file without an ending", put("ant/Icon\r"), "1 files without an ending", refused=False)
    yield from both("hidden files", put("ant/._3.png"), "1 hidden files", refused=False)
    yield from both("what an archive leaves", put("__MACOSX/ant/a.png"), "1 hidden files", refused=False)
    yield from both("files beside the classes", put("Thumbs.db"), r"1 \.db files", refused=False)
    yield from both("two train folders", twice, "train, training each look like", names="data")
    yield from both("a circle of links", circle, "16 used", refused=False)
    yield from both("copies in another class", copies, "3 .* occur more than once, 3 of them with", refused=False)
    for ending in ("png", "wav"):
        damage = put(f"ant/\udcff\n.{ending}")
        reads = [case for case in both(f"an odd name, {ending}", damage, r"\\udcff\\n.*cannot be read", bad=1)]
        yield reads[ending == "wav"]


# Sounds


def tones(folder: Path, damaged: Damage | None = None) -> Path:
    """Two classes of eight recordings; one of them is damaged."""
    for label, name in enumerate(("ant", "bee")):
        (folder / name).mkdir(parents=True)
        for i in range(8):
            (folder / name / f"{i}.wav").write_bytes(recorded(sound(10 * label + i)))
    if damaged:
        damaged(folder / "ant" / "3.wav")
    return folder


def sound_cases() -> Iterator[Case]:
    def from_folder(damage: Damage) -> Make:
        return lambda folder, rule: AudioFolder(str(tones(folder, damage)), on_bad_sample=rule)

    def from_pattern(damage: Damage) -> Make:
        pattern = r"(?P<label>\w+)/\d"
        return lambda folder, rule: AudioFolder(str(tones(folder, damage)), pattern, on_bad_sample=rule)

    def from_file(damage: Damage) -> Make:
        def make(folder: Path, rule: str) -> Domain:
            tones(folder, damage)
            names = [f"{name}/{i}.wav" for i in range(8) for name in ("ant", "bee")]
            return AudioFile(str(listed(folder, names)), on_bad_sample=rule)

        return make

    for name, (damage, says) in SOUNDS.items():
        yield Case(f"audio_folder: {name}", from_folder(damage), says, bad=1, names="3.wav")
        yield Case(f"audio_file: {name}", from_file(damage), says, bad=1, names="3.wav")
    for name, (damage, says) in EVERY_FILE.items():
        yield Case(f"audio_folder, by name: {name}", from_pattern(damage), says, bad=1, names="3.wav")


# Rows: tables, texts, and lists of files


@dataclass(frozen=True)
class Rows:
    """A kind of file with rows: its header, a row by its number, and how it is read."""

    name: str
    header: str
    row: Callable[[int], str]
    read: Callable[..., Domain]
    file: str = "rows.csv"
    before: Callable[[Path], object] = lambda folder: None

    def text(self, number: int = 40) -> str:
        return "\n".join([self.header, *map(self.row, range(number))]) + "\n"

    def of(self, damage: Damage, file: str | None = None, **settings: Any) -> Make:
        def make(folder: Path, rule: str) -> Domain:
            folder.mkdir(exist_ok=True, parents=True)
            self.before(folder)
            path = folder / (file or self.file)
            path.write_text(self.text(), encoding="utf-8")
            damage(path)
            return self.read(str(path), on_bad_sample=rule, **settings)

        return make


def many_photos(folder: Path) -> None:
    for i in range(40):
        random_image(i).save(folder / f"{i}.png")


def many_tones(folder: Path) -> None:
    for i in range(40):
        (folder / f"{i}.wav").write_bytes(recorded(sound(i)))


def read_table(file: str, **settings: Any) -> Domain:
    return TableFile(file, **{"label": "label", **settings})


TABLE = Rows("table_file", "x,word,label", lambda i: f"{i % 7}.5,w{i % 3},{'ab'[i % 2]}", read_table)
TEXT = Rows("text_file", "id,text,label", lambda i: f"{i % 7}.5,{WORD[i % 2]} film {i},{'ab'[i % 2]}", TextFile)
WORD = ("good", "bad")
PHOTOS = Rows("image_file", "x,path,label", lambda i: f"{i % 7}.5,{i}.png,{'ab'[i % 2]}", ImageFile, before=many_photos)
TONES = Rows("audio_file", "x,path,label", lambda i: f"{i % 7}.5,{i}.wav,{'ab'[i % 2]}", AudioFile, before=many_tones)
MIDDLE = 20  # the row that is damaged, in line 22


def lines(change: Callable[[list[str]], list[str]]) -> Damage:
    """Other lines; the first is the header."""
    return lambda path: path.write_text("\n".join(change(path.read_text().splitlines())) + "\n", encoding="utf-8")


def in_row(change: Callable[[list[str]], list[str]]) -> Damage:
    """Other values in one row."""

    def changed_line(found: list[str]) -> list[str]:
        row = ",".join(change(found[MIDDLE + 1].split(",")))
        return [*found[: MIDDLE + 1], row, *found[MIDDLE + 2 :]]

    return lines(changed_line)


def in_bytes(change: Callable[[bytes], bytes]) -> Damage:
    return changed(change)


def stray_quotes(found: list[str]) -> list[str]:
    """A quote that opens in one row and one that closes five rows later."""
    opened, closed = found[10].split(","), found[15].split(",")
    opened[2], closed[2] = f'"{opened[2]}', f'{closed[2]}"'
    return [*found[:10], ",".join(opened), *found[11:15], ",".join(closed), *found[16:]]


def cp1252(data: bytes) -> bytes:
    return data.decode().replace("a\n", "\u00e9\n").replace("b\n", "caf\u00e9\u2026\n").encode("cp1252")


def cp1252_in_some(data: bytes) -> bytes:
    return data.decode().replace("b\n", "caf\u00e9\u2026\n").encode("cp1252")


def cp1252_once(data: bytes) -> bytes:
    found = data.split(b"\n")
    found[MIDDLE + 1] = found[MIDDLE + 1].replace(b",", b",\xe9\x85", 1)
    return b"\n".join(found)


ROWS: dict[str, dict[str, Any]] = {
    **{name: {"damage": damage, "says": says} for name, (damage, says) in EVERY_FILE.items()},
    "empty": {"damage": content(b""), "says": "no row of values|is empty"},
    "blank lines": {"damage": content(b"\n\n  \n\n"), "says": "no row of values|is empty|no such column"},
    "a byte order mark alone": {"damage": content(b"\xef\xbb\xbf"), "says": "no row of values|is empty"},
    "a header alone": {
        "damage": lines(lambda found: found[:1]),
        "says": "no row of values|no rows|is empty|to train on",
    },
    "no header": {"damage": lines(lambda found: found[1:]), "says": "no such column|and no columns"},
    "one row": {"damage": lines(lambda found: found[:2]), "says": "at least 2|too few"},
    "one class": {"damage": lines(lambda found: found[:1] + found[1::2]), "says": "every label is 'a'"},
    "an open quote": {
        "damage": in_row(lambda row: [row[0], row[1], f'"{row[2]}']),
        "says": "row 22.*a quote opens here and nothing closes it",
    },
    "stray quotes": {"damage": lines(stray_quotes), "says": "row 11: a quote opens here", "bad": 1},
    "text behind a quote": {"damage": in_row(lambda row: [row[0], f'"{row[1]}"x', row[2]]), "says": "row 22"},
    "a short row": {"damage": in_row(lambda row: row[:2]), "says": "row 22: .*2 values where there are 3", "bad": 1},
    "a long row": {"damage": in_row(lambda row: [*row, "1"]), "says": "row 22: .*4 values where there are 3", "bad": 1},
    "long rows": {"damage": lines(lambda found: [found[0], *(f"{one},1,2" for one in found[1:])]), "says": "5"},
    "another separator": {"damage": lines(lambda found: [x.replace(",", ";") for x in found]), "says": "delimiter=';'"},
    "two separators": {
        "damage": lines(lambda found: [x.replace(",", ";") if i % 4 == 1 else x for i, x in enumerate(found)]),
        "says": "1 values where there are 3",
        "bad": 10,
    },
    "a NUL byte": {
        "damage": in_row(lambda row: [row[0], row[1] + "\0", row[2]]),
        "says": "row 22: .*NUL byte",
        "bad": 1,
    },
    "a tail of zeros": {"damage": changed(zeroed_end), "says": "NUL byte|UTF-16|utf-16|zeros"},
    "UTF-16": {"damage": changed(lambda data: data.decode().encode("utf-16")), "says": "encoding=utf-16"},
    "UTF-16 without a mark": {
        "damage": changed(lambda data: data.decode().encode("utf-16-le")),
        "says": "encoding=utf-16-le",
    },
    "cp1252": {"damage": changed(cp1252), "says": "encoding=cp1252"},
    "cp1252 in every other row": {"damage": changed(cp1252_in_some), "says": "encoding=cp1252"},
    "cp1252 in one row": {"damage": changed(cp1252_once), "says": "row 22: .*encoding=", "bad": 1},
    "a column twice": {"damage": lines(lambda found: ["label,label," + "label", *found[1:]]), "says": "'label'"},
    "no column of that name": {"damage": lines(lambda found: ["a,b,c", *found[1:]]), "says": "no such column.*a, b, c"},
    "a label missing": {"damage": in_row(lambda row: [*row[:2], ""]), "says": "row 22.*its label is missing", "bad": 1},
    "a label of blanks": {"damage": in_row(lambda row: [*row[:2], "  "]), "says": "row 22.*label is missing", "bad": 1},
    "labels in two spellings": {
        "damage": lines(lambda found: [x + " " if i % 4 == 1 else x for i, x in enumerate(found)]),
        "says": "40 rows found, 40 used",
        "refused": False,
    },
    "labels in two cases": {
        "damage": lines(lambda found: [x[:-1] + x[-1].upper() if i % 4 < 2 and i else x for i, x in enumerate(found)]),
        "says": "differ in case alone",
        "refused": False,
    },
    "labels of both signs of zero": {
        "damage": lines(
            lambda found: [found[0], *(x[:-1] + ("0", "1", "0.0", "1.0")[i % 4] for i, x in enumerate(found[1:]))]
        ),
        "says": "count as one class",
        "refused": False,
    },
    "a header of 50,000 columns": {
        "damage": lines(lambda found: [",".join(f"c{i}" for i in range(50_000)) + ",x,text,path,label", *found[1:]]),
        "says": "3",
    },
    "an Excel workbook": {"damage": content(b"PK\x03\x04" + bytes(100)), "says": "Excel workbook|zip"},
    "an old Excel workbook": {"damage": content(b"\xd0\xcf\x11\xe0" + bytes(100)), "says": "Excel workbook"},
    "an SQLite database": {"damage": content(b"SQLite format 3\0" + bytes(100)), "says": "SQLite"},
    "an HDF5 file": {"damage": content(b"\x89HDF\r\n\x1a\n" + bytes(100)), "says": "HDF5"},
    "a Feather file": {"damage": content(b"ARROW1\0\0" + bytes(100)), "says": "Feather"},
    "a PDF": {"damage": content(b"%PDF-1.7\n" + bytes(100)), "says": "PDF"},
    "a web page": {"damage": content(HTML), "says": "no such column|cannot be read"},
    "a pointer of Git LFS": {"damage": content(LFS), "says": "no such column|Git LFS"},
    "a pickle": {"damage": content(pickle.dumps({"a": [1] * 50})), "says": "not readable|encoding|NUL|no such column"},
    "an image": {"damage": content(encoded(random_image(1, side=60), "PNG")), "says": "."},
    "random bytes": {"damage": content(np.random.default_rng(0).bytes(5000)), "says": "."},
    "compressed, by another name": {
        "damage": changed(gzip.compress),
        "says": "40 rows found, 40 used",
        "refused": False,
    },
    "not compressed, by its name": {
        "damage": lambda path: None,
        "says": "40 rows found, 40 used",
        "refused": False,
        "file": "rows.csv.gz",
    },
    "half a gzip": {
        "damage": changed(lambda data: half(gzip.compress(data))),
        "says": "cannot be read",
        "file": "rows.csv.gz",
    },
    "half a bz2": {
        "damage": changed(lambda data: half(bz2.compress(data))),
        "says": "cannot be read",
        "file": "rows.csv.bz2",
    },
    "half an xz": {
        "damage": changed(lambda data: half(lzma.compress(data))),
        "says": "cannot be read",
        "file": "rows.csv.xz",
    },
    "an archive in a gzip": {
        "damage": content(gzip.compress(b"rows.csv" + bytes(504) + b"x,label\n1,a\n")),
        "says": "NUL|no such column|utf-16",
        "file": "rows.csv.gz",
    },
    "two delimiters": {"damage": lambda path: None, "says": "delimiter=", "settings": {"delimiter": "||"}},
    "no such encoding": {"damage": lambda path: None, "says": "no such encoding", "settings": {"encoding": "utf-88"}},
    "another encoding than the file's": {
        "damage": lambda path: None,
        "says": "encoding=utf-8",
        "settings": {"encoding": "utf-16"},
    },
    "fewer rows than fractions": {"damage": lines(lambda found: found[:4]), "says": "too few|at least 2|no training"},
    "a class once": {
        "damage": lines(lambda found: [*found, found[1][:-1] + "zebra"]),
        "says": "zebra",
        "refused": False,
    },
}
OTHER = {  # what a reader does differently, and why
    ("text_file", "a class once"): {"says": "zebra"},
}


def row_cases() -> Iterator[Case]:
    for kind in (TABLE, TEXT, PHOTOS, TONES):
        for name, one in ROWS.items():
            make = kind.of(one["damage"], one.get("file"), **one.get("settings", {}))
            names = one.get("file", "rows.csv") if one.get("refused", True) and "settings" not in one else ""
            yield Case(
                f"{kind.name}, rows: {name}", make, one["says"], one.get("bad", 0), one.get("refused", True), names
            )


# Tables alone, texts alone, and files that a list names


def numbers(change: Callable[[list[str]], list[str]] | None = None, **settings: Any) -> Make:
    """A table with a number to predict."""

    def relabel(found: list[str]) -> list[str]:
        rows = [f"{row.rpartition(',')[0]},{i / 3:.2f}" for i, row in enumerate(found[1:])]
        return [found[0], *rows]

    def damage(path: Path) -> None:
        lines(relabel)(path)
        if change:
            in_row(change)(path)

    return TABLE.of(damage, label_kind="numbers", **settings)


def parquet(columns: Mapping[str, Any]) -> bytes:
    """A Parquet file's bytes."""
    return pandas.DataFrame(columns).to_parquet()


def with_test(kind: Rows, text: str, **settings: Any) -> Make:
    """A file with official test rows beside it."""

    def make(folder: Path, rule: str) -> Domain:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "test.csv").write_text(text)
        return kind.of(lambda path: None, test_file=str(folder / "test.csv"), **settings)(folder, rule)

    return make


def with_column(values: Callable[[int], str], name: str = "extra") -> Damage:
    """One more column."""
    return lines(lambda found: [f"{name},{found[0]}", *(f"{values(i)},{row}" for i, row in enumerate(found[1:]))])


def table_cases() -> Iterator[Case]:
    frame = {"x": np.arange(40) / 7, "label": ["a", "b"] * 20}
    for name, says in {"nan": "missing|no number", "inf": "no number", "": "missing", "about 3": "no number"}.items():
        make = numbers(lambda row, name=name: [*row[:2], name])
        yield Case(f"table_file: a number to predict is {name!r}", make, f"row 22.*({says})", bad=1, names="rows.csv")
    for value in ("1e400", "1e39", "-inf"):
        make = numbers(lambda row, value=value: [*row[:2], value])
        yield Case(f"table_file: a number to predict is {value}", make, "row 22.*label", bad=1, names="rows.csv")
    for value in ("abc", "1e400", "1.2.3", "inf", "0x1F", "12:30"):
        make = TABLE.of(in_row(lambda row, value=value: [value, *row[1:]]))
        yield Case(f"table_file: {value} among numbers", make, f"row 22: '{value}' in 'x'", bad=1, names="rows.csv")
    for file in ("rows.parquet", "rows.PARQUET"):
        yield Case(
            f"table_file: text in {file}", TABLE.of(lambda path: None, file), "cannot be read as Parquet", names=file
        )
    damaged: dict[str, tuple[Damage, str]] = {
        "half a Parquet": (content(half(parquet(frame))), "cannot be read as Parquet"),
        "Parquet with a wrong end": (content(parquet(frame)[:-4] + b"PAR2"), "cannot be read as Parquet"),
        "Parquet's first bytes": (content(b"PAR1"), "cannot be read as Parquet"),
        "Parquet of no rows": (content(parquet({"x": [], "label": []})), "no row of values"),
        "Parquet with zeros": (content(zeroed_end(parquet(frame))), "cannot be read as Parquet"),
    }
    for name, (damage, says) in damaged.items():
        yield Case(f"table_file: {name}", TABLE.of(damage, "rows.parquet"), says, names="rows.parquet")
    missing = content(parquet(frame | {"label": ["a", "b", None, "a"] * 10}))
    yield Case("table_file: Parquet without labels", TABLE.of(missing, "rows.parquet"), "label is missing", bad=10)
    lists = content(parquet(frame | {"x": [[i, 2] for i in range(40)]}))
    yield Case("table_file: Parquet of lists", TABLE.of(lists, "rows.parquet"), "list|row's name", refused=False)
    infinite = content(parquet(frame | {"x": np.where(np.arange(40) == 7, np.inf, np.arange(40) / 7)}))
    yield Case("table_file: infinite in Parquet", TABLE.of(infinite, "rows.parquet"), "row 8: 'inf' in 'x'", bad=1)
    noted: dict[str, tuple[Damage, str]] = {
        "a constant column": (with_column(lambda i: "7"), "constant in training: extra"),
        "an empty column": (with_column(lambda i: ""), "constant in training: extra"),
        "a column without a name": (with_column(str, ""), "only numbers the rows: 'Unnamed: 0'"),
        "a column of row numbers": (with_column(str, "id"), "name the rows: 'id'"),
        "a column that counts": (with_column(lambda i: str(2 * i), "when"), "'when' counts the rows"),
        "a category for every row": (with_column(lambda i: f"n{i}"), "extra has .* categories in"),
        "currencies": (with_column(lambda i: f"${i % 9}.5"), r"'extra' \('\$"),
    }
    for name, (damage, says) in noted.items():
        yield Case(f"table_file: {name}", TABLE.of(damage), says, refused=False)
    no_features = lines(lambda found: [row.rpartition(",")[2] for row in found])
    yield Case("table_file: a label alone", TABLE.of(no_features), "no column beside the label")
    constant = lines(lambda found: [found[0], *(f"1,w,{row[-1]}" for row in found[1:])])
    yield Case("table_file: constant columns", TABLE.of(constant), "every column of .* is constant")
    names = lines(lambda found: ["a.b,a_b,label", *found[1:]])
    yield Case("table_file: names that fall together", TABLE.of(names), "'a_b' beside 'a.b'", names="rows.csv")
    huge = in_row(lambda row: [row[0], "z" * 1_000_000, row[2]])
    yield Case("table_file: a field of a million characters", TABLE.of(huge), "40 rows found, 40 used", refused=False)
    yield Case(
        "table_file: no such label", TABLE.of(lambda path: None, label="outcome"), "label=outcome: .*no such column"
    )
    yield Case(
        "table_file: a label by a place too far", TABLE.of(lambda path: None, label=7), "label=7: .*no such column"
    )
    yield Case(
        "table_file: test lacks a column", with_test(TABLE, "x,label\n1.5,a\n2.5,b\n"), "test.csv has no column 'word'"
    )
    yield Case(
        "table_file: test has another class",
        with_test(TABLE, "x,word,label\n1.5,w1,a\n1.5,w1,c\n"),
        "test.csv, row 3: its label 'c'",
        bad=1,
    )
    yield Case("table_file: test is empty", with_test(TABLE, ""), "test_file=.*no row of values")
    yield Case(
        "table_file: test has one class",
        with_test(TABLE, "x,word,label\n1.5,w1,a\n"),
        "test has no sample of b",
        refused=False,
    )
    yield Case(
        "table_file: a number alone in test",
        with_test(TABLE, "x,word,label\nbig,w1,a\n1.5,w1,b\n"),
        "test.csv, row 2: 'big' in 'x'",
        bad=1,
    )
    yield Case("sklearn_table: no such table", lambda folder, rule: SklearnTable("titanic"), "name=titanic: .*iris")
    yield Case(
        "sklearn_table: numbers as classes",
        lambda folder, rule: SklearnTable("diabetes"),
        "numbers|label_kind|regression",
    )
    yield Case(
        "sklearn_table: no such column",
        lambda folder, rule: SklearnTable("wine", numeric=["age"]),
        "numeric.*no column 'age'",
    )
    yield Case(
        "sklearn_table: names for fewer classes",
        lambda folder, rule: SklearnTable("wine", class_names=["a"]),
        "class_names=",
    )


def json_lines(change: Callable[[list[str]], list[str]]) -> Make:
    """Texts in JSON lines."""

    def damage(path: Path) -> None:
        found = [f'{{"text": "{WORD[i % 2]} film {i}", "label": "{"ab"[i % 2]}"}}' for i in range(40)]
        path.write_text("\n".join(change(found)) + "\n", errors="surrogateescape")

    return TEXT.of(damage, "rows.jsonl")


def at_row(line: str) -> Callable[[list[str]], list[str]]:
    """Another line in the middle."""
    return lambda found: [*found[:MIDDLE], line, *found[MIDDLE + 1 :]]


def text_cases() -> Iterator[Case]:
    bad = {
        "no JSON": "{text: good}",
        "half a line": '{"text": "good fil',
        "a list": '["good", "a"]',
        "a number": "7",
        "nested deeply": "[" * 100_000,
        "no text": '{"label": "a"}',
        "no label": '{"text": "good"}',
        "an empty text": '{"text": "  ", "label": "a"}',
        "a text that is a number": '{"text": 7, "label": "a"}',
        "a text that is null": '{"text": null, "label": "a"}',
        "a label that is null": '{"text": "good", "label": null}',
        "a label that is a list": '{"text": "good", "label": ["a"]}',
        "a label that is an object": '{"text": "good", "label": {"a": 1}}',
        "a NaN label": '{"text": "good", "label": NaN}',
        "half a character": '{"text": "good \\ud800", "label": "a"}',
        "a blank line": "",
    }
    for name, line in bad.items():
        yield Case(f"text_file: {name} in JSON lines", json_lines(at_row(line)), "rows.jsonl, row 21: ", bad=1)
    array = json_lines(lambda found: ["[" + ", ".join(found) + "]"])
    yield Case("text_file: one JSON list", array, "no JSON object", names="rows.jsonl")
    yield Case(
        "text_file: bytes that are no text", json_lines(at_row('{"text": "\udcff", "label": "a"}')), "row 21", bad=1
    )
    yield Case(
        "text_file: an ending that says nothing",
        TEXT.of(lambda path: None, "rows.doc"),
        "Known endings",
        names="rows.doc",
    )
    tabs = lines(lambda found: [row.replace(",", "\t") for row in found])
    yield Case("text_file: commas in a .tsv", TEXT.of(lambda path: None, "rows.tsv"), "delimiter=','", names="rows.tsv")
    yield Case("text_file: tabs in a .csv", TEXT.of(tabs), "delimiter=", names="rows.csv")
    yield Case(
        "text_file: an empty text",
        TEXT.of(in_row(lambda row: [row[0], " ", row[2]])),
        "row 22: its text is empty",
        bad=1,
    )
    yield Case(
        "text_file: test has another class",
        with_test(TEXT, "id,text,label\n1,good,a\n1,bad,c\n"),
        "test.csv, row 3: its label 'c'",
        bad=1,
    )
    yield Case(
        "text_file: test is in train",
        with_test(TEXT, "id,text,label\n1,good film 0,a\n1,bad,b\n"),
        "1 texts of test are in train",
        refused=False,
    )
    yield Case("text_file: no such package", lambda folder, rule: TextFile("pip:no_such/reviews.tsv"), "no_such")
    same = lines(lambda found: [found[0], *(f"1,good,{row[-1]}" for row in found[1:])])
    yield Case(
        "text_file: one text", TEXT.of(same), "occur more than once, 1 of them with different|too few", refused=True
    )


def path_cases() -> Iterator[Case]:
    paths = {
        "none": ("", "its path is missing"),
        "nowhere": ("nowhere.png", "no such file"),
        "absolute and nowhere": ("/nowhere/1.png", "no such file"),
        "a folder": (".", "folder"),
        "an address": ("https://example.org/1.png", "no such file"),
        "of Windows": ("C:\\photos\\1.png", "no such file"),
        "too long": ("a" * 5000 + ".png", "no path|no such file"),
        "of blanks": ("   ", "its path is missing"),
        "a user without a home": ("~nobody_here/1.png", "no such file|home"),
        "a device": ("/dev/zero", "no ordinary file"),
    }
    for kind in (PHOTOS, TONES):
        for name, (path, says) in paths.items():
            make = kind.of(in_row(lambda row, path=path: [row[0], path, row[2]]))
            yield Case(f"{kind.name}: a path that is {name}", make, f"row 22.*{says}", bad=1, names="rows.csv")
        yield Case(f"{kind.name}: no such folder", kind.of(lambda path: None, folder="/nowhere"), "folder=/nowhere")
        yield Case(
            f"{kind.name}: test is not there", kind.of(lambda path: None, test_file="/nowhere.csv"), "test_file="
        )


# Arrays


def arrays(kind: str, change: Callable[[dict[str, Any]], dict[str, Any]], **settings: Any) -> Make:
    """An npz of images or sequences with other arrays in it."""

    def make(folder: Path, rule: str) -> Domain:
        folder.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(0)
        samples = {
            "images": random.integers(0, 256, (40, 8, 8), dtype=np.uint8),
            "sequences": random.normal(size=(40, 5, 3)),
        }
        found = {kind: samples[kind], "labels": np.arange(40) % 2}
        np.savez(folder / "arrays.npz", **change(found))
        read = ImageArrays if kind == "images" else SequenceArrays
        return read(file=str(folder / "arrays.npz"), on_bad_sample=rule, **settings)

    return make


def array_file(kind: str, damage: Damage, file: str = "arrays.npz") -> Make:
    """An npz that is damaged as a file."""

    def make(folder: Path, rule: str) -> Domain:
        domain = arrays(kind, lambda found: found)(folder, rule)
        if file != "arrays.npz":
            (folder / "arrays.npz").rename(folder / file)
            domain.file = folder / file
        damage(folder / file)
        return domain

    return make


def array_cases() -> Iterator[Case]:
    def one(array: np.ndarray, value: float) -> np.ndarray:
        array = array.astype(np.float64) / max(1, array.max())
        array.reshape(len(array), -1)[5, 2] = value
        return array

    files: dict[str, tuple[Damage, str]] = EVERY_FILE | {
        "half": (changed(half), "cannot be read"),
        "a wrong bit": (
            changed(lambda data: flipped(data[: len(data) // 2]) + data[len(data) // 2 :]),
            "cannot be read",
        ),
        "zeros": (content(bytes(2000)), "cannot be read"),
        "a web page": (content(HTML), "cannot be read"),
        "a single array": (content(saved(np.save, np.zeros((40, 8, 8)))), "holds a single array"),
        "a pickle": (content(pickle.dumps({"images": 1})), "cannot be read"),
        "an archive of other files": (content(zipped("a.txt", b"hello")), "there is no array"),
        "an archive in an archive": (content(zipped("images.npz", zipped("a.npy", b"x"))), "there is no array"),
        "an empty archive": (content(saved(np.savez)), "there is no array"),
        "a MATLAB file": (content(b"MATLAB 5.0 MAT-file" + bytes(200)), "cannot be read"),
        "a model": (content(safetensors_bytes({"a": torch.zeros(3)})), "cannot be read"),
    }
    for kind in ("images", "sequences"):
        reader = f"{kind.removesuffix('s')}_arrays"
        for name, (damage, says) in files.items():
            yield Case(f"{reader}: {name}", array_file(kind, damage), says, names="arrays.npz")
        changes: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
            "no labels": (lambda a, k=kind: {k: a[k]}, "there is no array labels"),
            "no samples": (lambda a: {"labels": a["labels"]}, "there is no array train_"),
            "no rows": (lambda a, k=kind: {k: a[k][:0], "labels": a["labels"][:0]}, "empty"),
            "fewer labels": (lambda a: a | {"labels": a["labels"][:39]}, "has 39 labels"),
            "one class": (lambda a: a | {"labels": a["labels"] * 0}, "every label is '0'"),
            "fractions as labels": (lambda a: a | {"labels": a["labels"] + 0.5}, "is 0.5"),
            "NaN as a label": (
                lambda a: a | {"labels": np.where(np.arange(40) == 3, np.nan, a["labels"])},
                r"labels\[3\] is nan",
            ),
            "an infinite label": (
                lambda a: a | {"labels": np.where(np.arange(40) == 3, np.inf, a["labels"])},
                r"labels\[3\] is inf",
            ),
            "words as labels": (lambda a: a | {"labels": np.array(["a", "b"] * 20)}, "labels are whole numbers"),
            "objects as labels": (lambda a: a | {"labels": np.array([None, 1] * 20, dtype=object)}, "Python objects"),
            "objects as samples": (lambda a, k=kind: a | {k: np.array([None] * 40, dtype=object)}, "Python objects"),
            "labels of one hot": (lambda a: a | {"labels": np.eye(2)[a["labels"]]}, "label_kind=multilabel"),
            "words as samples": (lambda a, k=kind: a | {k: np.array(["a"] * 40)}, "shape"),
            "samples without a side": (lambda a, k=kind: a | {k: a[k][:, :, :0]}, "shape"),
            "flat samples": (lambda a, k=kind: a | {k: a[k].reshape(40, -1)}, "shape"),
            "complex numbers": (lambda a, k=kind: a | {k: a[k].astype(np.complex64)}, "shape .* type complex64"),
            "a single sample": (lambda a, k=kind: {k: a[k][:1], "labels": a["labels"][:1]}, "at least 2"),
            "a class that is not there": (
                lambda a: a | {"labels": a["labels"] * 2},
                "no training sample has the label '1'",
            ),
        }
        for name, (change, says) in changes.items():
            yield Case(f"{reader}: {name}", arrays(kind, change), says, names="arrays.npz")
        negative = arrays(kind, lambda a: a | {"labels": np.where(np.arange(40) == 3, -1, a["labels"])})
        yield Case(f"{reader}: a negative label", negative, r"\[3\]: its label '-1' is not", bad=1, names="arrays.npz")
        far = arrays(kind, lambda a: a | {"labels": np.where(np.arange(40) == 3, 10**9, a["labels"])})
        yield Case(f"{reader}: a label out of range", far, "no training sample|not one of", names="arrays.npz")
        for value in (np.nan, np.inf):
            make = arrays(kind, lambda a, k=kind, v=value: a | {k: one(a[k], v)})
            yield Case(
                f"{reader}: {value} in a sample", make, r"\[5\]: a value is NaN or infinite", bad=1, names="arrays.npz"
            )
        for value in (np.nan, np.inf):

            def labels(a, v=value):
                return a | {"labels": np.where(np.arange(40) == 3, v, np.arange(40) / 3)}

            make = arrays(kind, labels, label_kind="numbers")
            yield Case(f"{reader}: {value} to predict", make, r"\[3\]: its label .* is no number", bad=1)
        copies = arrays(kind, lambda a, k=kind: a | {k: np.concatenate([a[k][:37], a[k][2:3], a[k][:2]])})
        yield Case(f"{reader}: copies", copies, "3 .* occur more than once, 1 of them with", refused=False)

        def official(a, k=kind):
            return {f"train_{k}": a[k], "train_labels": a["labels"], f"test_{k}": a[k][:4]}

        yield Case(f"{reader}: test without labels", arrays(kind, official), "no array test_labels", names="arrays.npz")

        def both(a, k=kind, f=official):
            return f(a) | {"test_labels": a["labels"][:4]}

        yield Case(f"{reader}: test in train", arrays(kind, both), "4 .* of test are in train", refused=False)

        def names(found):
            return found

        yield Case(
            f"{reader}: fewer names than classes",
            arrays(kind, names, class_names=["a"]),
            "'1' is not one of|every label",
            bad=0,
        )
    wide = arrays("images", lambda a: a | {"images": a["images"].astype(np.uint16) * 16})
    yield Case("image_arrays: 12 bits in 16", wide, "pixel_range=", names="arrays.npz")
    first = arrays("images", lambda a: a | {"images": np.zeros((40, 3, 8, 8), dtype=np.uint8)})
    yield Case("image_arrays: channels first", first, "the channels come last", names="arrays.npz")
    signed = arrays(
        "images", lambda a: a | {"images": a["images"].astype(np.int16) - (np.arange(40) == 5)[:, None, None] * 999}
    )
    yield Case("image_arrays: a negative value", signed, r"\[5\]: values from -", bad=1, names="arrays.npz")
    for value in (0, 9, -1):
        make = arrays("sequences", lambda a, v=value: a | {"lengths": np.where(np.arange(40) == 4, v, 3)})
        yield Case(f"sequence_arrays: a length of {value}", make, rf"\[4\]: its length is {value}", bad=1)
    short = arrays("sequences", lambda a: a | {"lengths": np.full(39, 3)})
    yield Case("sequence_arrays: fewer lengths", short, "lengths has the shape", names="arrays.npz")
    floats = arrays("sequences", lambda a: a | {"lengths": np.full(40, 2.5)})
    yield Case("sequence_arrays: lengths that are no whole numbers", floats, "lengths are whole numbers")


# MNIST's files, data sets of Hugging Face, and weights


def mnist(change: Damage, file: str = "train-images-idx3-ubyte") -> Make:
    """MNIST in miniature; one of its files is damaged."""

    def make(folder: Path, rule: str) -> Domain:
        raw = folder / "MNIST" / "raw"
        raw.mkdir(parents=True)
        random = np.random.default_rng(0)
        for split, number in (("train", 40), ("t10k", 10)):
            images = random.integers(0, 256, (number, 28, 28), dtype=np.uint8)
            labels = (np.arange(number) % 10).astype(np.uint8)
            (raw / f"{split}-images-idx3-ubyte").write_bytes(
                struct.pack(">IIII", 2051, number, 28, 28) + images.tobytes()
            )
            (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, number) + labels.tobytes())
        change(raw / file)
        return TorchvisionDataset("MNIST", str(folder), on_bad_sample=rule)

    return make


def mnist_cases() -> Iterator[Case]:
    files: dict[str, tuple[Damage, str]] = EVERY_FILE | {
        "half": (changed(half), "MNIST"),
        "a wrong beginning": (changed(lambda data: b"\x00\x00\x99\x01" + data[4:]), "MNIST"),
        "a web page": (content(HTML), "MNIST"),
        "zeros": (content(bytes(3000)), "MNIST"),
        "gone": (lambda path: path.unlink(), "MNIST"),
        "half a gzip": (
            in_place_of(lambda path: path.with_name(path.name + ".gz").write_bytes(half(gzip.compress(bytes(3000))))),
            r"\.gz cannot be unpacked",
        ),
    }
    for file in ("train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        for name, (damage, _) in files.items():
            says = "MNIST" if name != "half a gzip" else r"\.gz cannot be unpacked"
            yield Case(f"torchvision: {file} is {name}", mnist(damage, file), says)

    def fewer(path):
        return path.write_bytes(struct.pack(">II", 2049, 39) + bytes(range(10)) * 3 + bytes(range(9)))

    yield Case("torchvision: fewer labels than images", mnist(fewer, "train-labels-idx1-ubyte"), "MNIST")
    far = changed(lambda data: data[:12] + b"\x63" + data[13:])
    yield Case("torchvision: a label of 99", mnist(far, "train-labels-idx1-ubyte"), "MNIST")
    yield Case(
        "torchvision: no such class", lambda folder, rule: TorchvisionDataset("MNST", str(folder)), "'MNST'.*MNIST"
    )
    yield Case("torchvision: nothing there", lambda folder, rule: TorchvisionDataset("CIFAR10", str(folder)), "CIFAR10")
    yield Case("torchvision: boxes", lambda folder, rule: TorchvisionDataset("VOCDetection", str(folder)), "boxes")


def hub(change: Damage, file: str = "train.csv") -> Make:
    """A folder of one file in the place of a data set of the hub."""

    def make(folder: Path, rule: str) -> Domain:
        pytest.importorskip("datasets")
        (folder / "reviews").mkdir(parents=True)
        path = folder / "reviews" / file
        path.write_text("\n".join(["text,label", *(f"{WORD[i % 2]} film {i},{'ab'[i % 2]}" for i in range(40))]) + "\n")
        change(path)
        return HuggingFaceDataset(str(folder / "reviews"), on_bad_sample=rule)

    return make


def saved_hub(columns: Mapping[str, Any], damage: Damage | None = None, name: str = "reviews") -> Make:
    """What `save_to_disk` writes; one of its files is damaged."""

    def make(folder: Path, rule: str) -> Domain:
        datasets = pytest.importorskip("datasets")
        datasets.disable_progress_bars()
        datasets.DatasetDict({"train": datasets.Dataset.from_dict(dict(columns))}).save_to_disk(folder / name)
        if damage:
            damage(folder / name)
        return HuggingFaceDataset(str(folder / name), on_bad_sample=rule)

    return make


def hub_cases() -> Iterator[Case]:
    columns = {"text": [f"film {i}" for i in range(40)], "label": ["a", "b"] * 20}
    files: dict[str, tuple[Damage, str]] = {
        "empty": (content(b""), "cannot be read"),
        "a header alone": (lines(lambda found: found[:1]), "no rows|to train on|cannot be read"),
        "no such column": (lines(lambda found: ["a,b", *found[1:]]), "text=text: .*no such column"),
        "UTF-16": (changed(lambda data: data.decode().encode("utf-16")), "cannot be read"),
        "long rows": (in_row(lambda row: [*row, "1"]), "cannot be read"),
        "one class": (lines(lambda found: found[:1] + found[1::2]), "every label is 'a'"),
    }
    for name, (damage, says) in files.items():
        yield Case(f"huggingface_dataset: {name}", hub(damage), says)
    yield Case(
        "huggingface_dataset: half a Parquet", hub(content(half(parquet(columns))), "train.parquet"), "cannot be read"
    )
    yield Case("huggingface_dataset: no JSON", hub(content(b"{text\n"), "train.jsonl"), "cannot be read")
    yield Case(
        "huggingface_dataset: nothing it knows", hub(lambda path: None, "train.doc"), "cannot be read|text|split"
    )
    yield Case(
        "huggingface_dataset: an empty text",
        saved_hub(columns | {"text": ["", *columns["text"][1:]]}),
        "row 1: its text is empty",
        bad=1,
    )
    yield Case(
        "huggingface_dataset: no label",
        saved_hub(columns | {"label": [None, *columns["label"][1:]]}),
        "row 1: its label is missing",
        bad=1,
    )
    yield Case(
        "huggingface_dataset: numbers as texts", saved_hub(columns | {"text": [*range(40)]}), "its text is no text"
    )

    def torn(name: str, data: bytes) -> Damage:
        return lambda folder: next(folder.rglob(name)).write_bytes(data)

    for file in ("state.json", "dataset_info.json", "data-*.arrow", "dataset_dict.json"):
        for name, data in {"empty": b"", "torn": b'{"'}.items():
            yield Case(f"huggingface_dataset: {file} is {name}", saved_hub(columns, torn(file, data)), "cannot be read")


def weights(damage: Damage, file: str = "weights.pt") -> Make:
    """Weights of a LeNet; the file is damaged."""

    def make(folder: Path, rule: str) -> list[str]:
        folder.mkdir(parents=True, exist_ok=True)
        backbone = lenet()
        torch.save(backbone.network.state_dict(), folder / file)
        damage(folder / file)
        report = load_weights(backbone, str(folder / file))
        return [f"{report.matched} of {report.total}, missing {report.missing}, unexpected {report.unexpected}"]

    return make


def stored(change: Callable[[dict[str, Any]], Any]) -> Damage:
    """The same weights with a change."""
    return lambda path: torch.save(change(torch.load(path)), path)


def weights_cases() -> Iterator[Case]:
    files: dict[str, tuple[Damage, str]] = EVERY_FILE | {
        "half": (changed(half), "not a readable file of weights"),
        "a tail of zeros": (changed(zeroed_end), "not a readable file of weights"),
        "a wrong bit": (changed(flipped), "not a readable file of weights"),
        "a web page": (content(HTML), "not a file of weights"),
        "a pointer of Git LFS": (content(LFS), "not a file of weights"),
        "zeros": (content(bytes(3000)), "not a (readable )?file of weights"),
        "an archive": (content(zipped("a.txt", b"x")), "not a readable file of weights"),
        "an array of numpy": (content(saved(np.save, np.zeros(3))), "not a file of weights"),
        "a pickle of numbers": (content(pickle.dumps({"a": 1})), "Python objects"),
        "a pickle of an object": (content(pickle.dumps(Path("a"))), "Python objects|file of weights"),
        "a pickle that imports": (content(b"cos\nsystem\n(S'true'\ntR."), "file of weights|Python objects"),
        "a list": (stored(lambda found: [*found.values()]), "holds a list"),
        "a tensor": (stored(lambda found: next(iter(found.values()))), "holds a Tensor"),
        "nothing": (stored(lambda found: {}), "no tensor fits"),
        "no tensors": (stored(lambda found: {"epoch": 3}), "no tensor fits"),
        "another network's": (stored(lambda found: {"conv.weight": torch.zeros(3, 3)}), "no tensor fits"),
        "NaN": (stored(lambda found: {n: v * torch.nan for n, v in found.items()}), "NaN or infinite"),
        "infinite": (stored(lambda found: {n: v / 0 for n, v in found.items()}), "NaN or infinite"),
        "half a safetensors": (
            content(half(safetensors_bytes({"a": torch.zeros(300)}))),
            "not a readable file of weights",
        ),
        "a safetensors without its header": (content(struct.pack("<Q", 10**12) + b"{"), "not a readable file"),
        "a safetensors of another network": (content(safetensors_bytes({"a": torch.zeros(3)})), "no tensor fits"),
        "text": (content("\u00e4\u00f6\u00fc weights".encode()), "not a file of weights"),
    }
    for name, (damage, says) in files.items():
        yield Case(f"weights: {name}", weights(damage), says, names="weights.pt")
    some = stored(lambda found: dict(list(found.items())[2:]))
    yield Case("weights: some are missing", weights(some), r"missing \['", refused=False)
    more = stored(lambda found: found | {"more": torch.zeros(3)})
    yield Case("weights: more than the network's", weights(more), r"unexpected \['more'\]", refused=False)
    halves = stored(lambda found: {n: v[:1] if i == 0 else v for i, (n, v) in enumerate(found.items())})
    yield Case("weights: another shape", weights(halves), r"missing \['.*file 1x", refused=False)


def everything() -> list[Case]:
    makers = (
        *(image_cases, folder_cases, sound_cases, row_cases, table_cases, text_cases, path_cases),
        *(array_cases, mnist_cases, hub_cases, weights_cases),
    )
    found = [case for cases in makers for case in cases()]
    assert len({case.name for case in found}) == len(found)
    return found


CASES = everything()


@pytest.mark.filterwarnings("ignore:.*<_io.FileIO:pytest.PytestUnraisableExceptionWarning")  # torchvision's, not closed
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=[] if number % FAST == 0 else [pytest.mark.slow])
        for number, case in enumerate(CASES)
    ],
)
def test_a_dirty_input_is_named(case: Case, tmp_path: Path) -> None:
    for rule in ("error", "skip"):
        skips = rule == "skip" and case.bad > 0
        with in_time():
            try:
                said, left_out = lines_of(case.make(tmp_path / rule, rule))
            except GraftError as error:
                said, left_out = [str(error)], -1
        for line in said:
            line.encode()  # it can be printed
        text = "\n".join(said)
        assert (left_out < 0) == (case.refused and not skips), text
        assert any(case.names in line and re.search(case.says, line) for line in said), text
        if left_out < 0:
            assert len(text) < LONGEST, len(text)
            assert "\n" not in text
        else:
            assert left_out == (case.bad if skips else 0), text
