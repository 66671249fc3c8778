"""What must not move: which sample lands in which split, for every source, and the keys of results.json.

A seed keeps its meaning for whoever has published with it. `python -m tests.test_pinned` writes pinned.json anew, which
is right for a new source only.
"""

import csv
import hashlib
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from lanes import slow
from PIL import Image
from torchvision.datasets import mnist

from graft.build import build
from graft.cli.hydra_versions import VERSION_BASE
from graft.cli.job import execute
from graft.config import leaves, plain
from graft.data.samples import rows_of

PROJECT = Path(__file__).parents[1]
PINNED = Path(__file__).with_name("pinned.json")
NUMBER, CLASSES = 60, 3
SOURCES = {
    "audio_file": ["data=speech", "data.target.file={in}/recordings.csv"],
    "audio_folder": ["data=speech", "data.target.root={in}/recordings", r"data.target.pattern='(?P<label>c\d)_\d+'"],
    "spoken_digits": ["data=speech", "data.target.root={in}/spoken"],
    "breast_cancer": ["data=table"],
    "wine": ["data=table"],
    "diabetes": ["data=table"],
    "table_file": ["data=table", "data.target.file={in}/table.csv", "data.target.label=label"],
    "german_credit": ["data=table", "data.target.file={in}/german.data", "data.target.numeric=[]"],
    "digit_rows": ["data=sequences"],
    "sequence_arrays": ["data=sequences", "data.target.file={in}/sequences.npz"],
    "digits": ["data=glyphs_digits"],
    "glyphs": ["data=glyphs_digits", "data.target.samples=80"],
    "synthetic_voices": ["data=speech", "data.target.samples=40"],
    "image_arrays": ["data=mnist", "data.target.file={in}/images.npz"],
    "pneumonia": ["data=mnist", "data.target.file={in}/parts.npz", "data.target.class_names=null"],
    "image_folder": ["data=image_folder", "data.target.root={in}/photos"],
    "image_file": ["data=image_folder", "data.target.file={in}/photos.csv"],
    "mnist": ["data=mnist", "data.target.root={in}/torchvision"],
    "text_file": ["data=text", "data.target.file={in}/texts.csv"],
    "multimodal_file": [
        *("data=multimodal", "data.target.file={in}/texts.csv", "data.target.label=label", "data.target.text=text"),
    ],
    "huggingface_dataset": ["data=text", "data.target.name={in}/hub"],
}


def write_inputs(root: Path) -> None:
    """The same sixty samples of three classes in every form, the sample's number in its content; two are copies."""
    labels = [f"c{i % CLASSES}" for i in range(NUMBER)]
    numbers = [i if i != NUMBER - 1 else 2 for i in range(NUMBER)]  # the last is a copy of the third, of one class
    write_csv(
        root / "texts.csv", [("text", "label"), *((f"word {n:03}", y) for n, y in zip(numbers, labels, strict=True))]
    )
    (root / "hub").mkdir()
    write_csv(
        root / "hub" / "train.csv",
        [("text", "label"), *((f"word {n:03}", y) for n, y in zip(numbers, labels, strict=True))],
    )
    rows = [("number", "label"), *((f"{n}.5", y) for n, y in zip(numbers, labels, strict=True))]
    write_csv(root / "table.csv", rows)
    german = [" ".join([*(f"{n}.{k}" for k in range(20)), str(1 + i % 2)]) for i, n in enumerate(numbers)]
    (root / "german.data").write_text("\n".join(german) + "\n")
    codes = np.arange(NUMBER) % CLASSES
    sequences = np.repeat(np.array(numbers, dtype=np.float32)[:, None, None], 4, axis=1)
    np.savez(root / "sequences.npz", sequences=sequences, labels=codes)
    images = np.repeat(np.array(numbers, dtype=np.uint8)[:, None], 64, axis=1).reshape(-1, 8, 8)
    np.savez(root / "images.npz", images=images, labels=codes)
    splits = {"train": slice(0, 30), "test": slice(30, NUMBER)}
    arrays = {f"{split}_images": images[cut] for split, cut in splits.items()}
    np.savez(root / "parts.npz", **arrays, **{f"{split}_labels": codes[cut] for split, cut in splits.items()})
    for number, (value, label) in enumerate(zip(numbers, labels, strict=True)):
        folder = root / "photos" / label
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), value, dtype=np.uint8)).save(folder / f"{number:03}.png")
    photos = [(f"photos/{label}/{number:03}.png", label) for number, label in enumerate(labels)]
    write_csv(root / "photos.csv", [("path", "label"), *photos])
    write_recordings(root, numbers, labels)
    write_mnist(root / "torchvision" / "MNIST" / "raw", images, codes)


def write_recordings(root: Path, numbers: list[int], labels: list[str]) -> None:
    """Recordings of a constant pressure, in a folder, in a list, and named as the spoken digits are."""
    import soundfile

    for folder in ("recordings", "spoken"):
        (root / folder).mkdir()
    for number, (value, label) in enumerate(zip(numbers, labels, strict=True)):
        sound = np.full(80, value / 100, dtype=np.float32)
        soundfile.write(root / "recordings" / f"{label}_{number:03}.wav", sound, 8000)
        soundfile.write(root / "spoken" / f"{label[1:]}_ann_{number:03}.wav", sound, 8000)
    for number in range(5):  # the official test split
        soundfile.write(root / "spoken" / f"{number % CLASSES}_bob_{number}.wav", np.full(80, 0.7 + number / 50), 8000)
    rows = [(f"recordings/{label}_{number:03}.wav", label) for number, label in enumerate(labels)]
    write_csv(root / "recordings.csv", [("path", "label"), *rows])


def write_mnist(raw: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """The four files that torchvision's MNIST reads."""
    raw.mkdir(parents=True)
    for split, cut in (("train", slice(0, 40)), ("t10k", slice(40, NUMBER))):
        for name, values in (("images-idx3", images[cut]), ("labels-idx1", labels[cut].astype(np.uint8))):
            header = (0x0800 + values.ndim).to_bytes(4, "big") + b"".join(n.to_bytes(4, "big") for n in values.shape)
            (raw / f"{split}-{name}-ubyte").write_bytes(header + values.tobytes())


def write_csv(path: Path, rows: list[tuple]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def splits(source: str, inputs: Path, seed: int) -> dict[str, dict]:
    """Of every split its length and a hash of which samples it holds, in their order, and of their labels."""
    overrides = [override.replace("{in}", str(inputs)) for override in SOURCES[source]]
    overrides.insert(1, f"data/domain@data.target={source}")
    with initialize_config_dir(str(PROJECT / "conf"), **VERSION_BASE):
        cfg = compose("train", overrides=[*overrides, f"data.split_seed={seed}"])
    cfg.data.source, cfg.data.labels_per_class, cfg.data.subset_seed, cfg.data.seed = None, None, 0, 0
    data = build(cfg.data)
    data.load()
    target = data.domains["target"]
    contents = {split: content(source, getattr(target, split)) for split in ("train", "val", "test")}
    known = sorted({one for split in contents.values() for one in split})
    place = {one: number for number, one in enumerate(known)}
    return {
        split: {
            "count": len(found),
            "samples": digest([place[one] for one in found]),
            "labels": digest([round(float(label), 3) for label in getattr(target, split).labels]),
        }
        for split, found in contents.items()
    }


def content(source: str, split) -> list:
    """What tells samples apart, in the order that their numbers have."""
    if source in ("glyphs", "synthetic_voices"):  # drawn by fonts and voices, which versions change
        return split.labels.tolist()
    if SOURCES[source][0] == "data=table":
        return [tuple(row) for row in rows_of(split).numbers.tolist()]
    if SOURCES[source][0] == "data=sequences":
        return [tuple(row.flatten().tolist()) for row in rows_of(split).values]
    if SOURCES[source][0] == "data=multimodal":
        texts = rows_of(split).fields["text"]
        return [texts[index] for index in range(len(texts))]
    found = [split.inputs[index] for index in range(len(split))]
    return found if isinstance(found[0], str) else [one.numpy().tobytes() for one in found]


def digest(values: list) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("inputs")
    write_inputs(root)
    return root


@pytest.fixture
def no_checksums(monkeypatch):
    """torchvision's MNIST of sixty pictures."""
    monkeypatch.setattr(mnist, "check_integrity", lambda path, md5=None: Path(path).is_file())


@pytest.mark.parametrize("seed", [0, *slow(1)])
@pytest.mark.parametrize("source", SOURCES)
def test_samples_stay_in_their_splits(source, seed, inputs, no_checksums):
    if source == "huggingface_dataset":
        pytest.importorskip("datasets")
    assert splits(source, inputs, seed) == json.loads(PINNED.read_text())["splits"][source][str(seed)]


def test_every_shipped_source_is_pinned():
    shipped = {path.stem for path in (PROJECT / "conf/data/domain").glob("[!_]*.yaml")}
    diffs = {"torchvision", "usps", "rotten_tomatoes", "synthetic_other_voices", "clothing_reviews", "synthetic_words"}
    diffs |= {"breast_cancer_mean_worst", "breast_cancer_mean_error"}  # of a source above, by other values
    diffs |= {"several"}  # each of them of another source
    diffs |= {"text_to_text"}  # text_file with other labels, see tests/test_seq2seq.py
    diffs |= {"voc", "coco", "rendered_cells"}  # of boxes, see tests/data/test_box_sources.py, test_rendered_cells.py
    diffs |= {"image_shards", "audio_shards", "text_shards"}  # read as streams, see tests/data/test_stream.py
    diffs |= {
        "image_pairs",
        "text_pairs",
        "recording_pairs",
        "sequence_pairs",
    }  # given from Python, split by the same rules
    assert shipped == SOURCES.keys() | diffs


def result_keys(folder: Path) -> list[str]:
    """Every dotted key of a small run's results.json; what stands under a free name is left out."""
    overrides = ["experiment=resnet_ft", "backbone=lenet", "data.source.samples=200", "data.labels_per_class=4"]
    overrides += ["pretrain.epochs=1", "training.epochs=2", "training.threads=1", "trainer=cpu", "logger=csv"]
    paths = [f"++paths.run_dir={folder / 'run'}", f"++paths.cache_dir={folder / 'cache'}"]
    with initialize_config_dir(str(PROJECT / "conf"), **VERSION_BASE):
        cfg = compose("train", overrides=[*overrides, *paths])
    execute(plain(cfg))
    results = json.loads((folder / "run" / "results.json").read_text())
    return sorted(key for key, _ in leaves({**results, "versions": {}}))


@pytest.mark.slow
def test_no_key_of_results_json_is_lost(tmp_path):
    assert set(json.loads(PINNED.read_text())["results"]) <= set(result_keys(tmp_path))


def main() -> None:
    """Write pinned.json anew."""
    from unittest import mock

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(mnist, "check_integrity", return_value=True):
        write_inputs(Path(folder))
        found = {source: {str(s): splits(source, Path(folder), s) for s in (0, 1)} for source in SOURCES}
        keys = result_keys(Path(folder))
    PINNED.write_text(json.dumps({"splits": found, "results": keys}, indent=1) + "\n")


if __name__ == "__main__":
    main()
