"""Every dirty input ends in one error that names it, or in a line that says what became of it; none passes in silence.

Each case is an input and what the message or the note says of it. Samples that `on_bad_sample=skip` leaves out are
counted, and what is then loaded can be read to its end.
"""

import bz2
import contextlib
import gzip
import lzma
import pickle
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
    random_image,
    recorded,
    saved,
    sound,
    zeroed_end,
    zipped,
)

SECONDS = 20  # after which a case counts as one that hangs
LONGEST = 1500  # characters of a message
FAST = 9  # one case of so many is no slow test

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
        yield Case(f"{name}: five bands", make(content(_five_bands())), "more bands", bad=1, names="3.png")
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
    "a header alone": {"damage": lines(lambda found: found[:1]), "says": "no row of values|no rows|is empty|to train on"},
    "no header": {"damage": lines(lambda found: found[1:]), "says": "no such column"},
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
    "a NUL byte": {"damage": in_row(lambda row: [row[0], row[1] + "\0", row[2]]), "says": "row 22: .*NUL byte", "bad": 1},
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
    "half a gzip": {"damage": changed(lambda data: half(gzip.compress(data))), "says": "cannot be read", "file": "rows.csv.gz"},
    "half a bz2": {"damage": changed(lambda data: half(bz2.compress(data))), "says": "cannot be read", "file": "rows.csv.bz2"},
    "half an xz": {"damage": changed(lambda data: half(lzma.compress(data))), "says": "cannot be read", "file": "rows.csv.xz"},
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
            yield Case(f"{kind.name}, rows: {name}", make, one["says"], one.get("bad", 0), one.get("refused", True), names)


def everything() -> list[Case]:
    found = [*image_cases(), *folder_cases(), *sound_cases(), *row_cases()]
    assert len({case.name for case in found}) == len(found)
    return found


CASES = everything()


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
        assert any(all(part in line for part in (case.names,)) and _found(case.says, line) for line in said), text
        if left_out < 0:
            assert len(text) < LONGEST, len(text)
            assert "\n" not in text
        else:
            assert left_out == (case.bad if skips else 0), text


def _found(pattern: str, line: str) -> bool:
    import re

    return re.search(pattern, line) is not None
