"""What a message says to type is typed as it is printed, and works: composed, checked and loaded."""

import re
import shlex
import wave
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from lanes import every_second, one_in
from PIL import Image
from train_app import PROJECT

from graft import config, registry
from graft.build import build
from graft.cli.hydra_versions import VERSION_BASE
from graft.config import plain
from graft.errors import GraftError
from tests.test_config import problems

RANDOM = np.random.default_rng(0)
PHOTOS = ("data=image_folder", "backbone=cnn", "strategy=scratch", "trainer=cpu")
LISTED = (*PHOTOS, "data/domain@data.target=image_file")
ARRAYS = ("data=mnist", "data/domain@data.target=image_arrays", "backbone=cnn", "strategy=scratch", "trainer=cpu")
SPEECH = ("data=speech", "data/domain@data.target=audio_folder", "backbone=mel_cnn", "strategy=scratch", "trainer=cpu")
TEXTS = ("data=text", "data/domain@data.target=text_file", "backbone=lstm", "strategy=scratch", "trainer=cpu")
TABLE = ("data=table", "data/domain@data.target=table_file", "backbone=mlp", "strategy=scratch", "trainer=cpu")
LISTED_SPEECH = ("data=speech", "data/domain@data.target=audio_file", *SPEECH[2:])
SEQUENCES = ("data=sequences", "data/domain@data.target=sequence_arrays", *TEXTS[2:])
HUB = ("data=text", "data/domain@data.target=huggingface_dataset", *TEXTS[2:])
VISION = ("data=mnist", "data/domain@data.target=torchvision", "backbone=cnn", "strategy=scratch", "trainer=cpu")


def photo(path, side=20, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (side, side) if mode == "F" else (side, side, 3)
    values = RANDOM.random(shape) * 900 if mode == "F" else RANDOM.integers(0, 256, shape)
    Image.fromarray(values.astype(np.float32 if mode == "F" else np.uint8)).save(path)


def photos(root, suffix="png", mode="RGB"):
    for index in range(20):
        photo(root / ("cat", "dog")[index % 2] / f"{index:02}.{suffix}", mode=mode)
    return root


def list_of(root, lines):
    root.mkdir(parents=True, exist_ok=True)
    (root / "list.csv").write_text("\n".join(lines) + "\n")
    return root / "list.csv"


def rows(form, number=40):
    return [form.format(i=i, odd=i % 2, name="ab"[i % 2], x=f"{i * 7 % 23}.5") for i in range(number)]


def recordings(root, form="{name}_{i}"):
    for index in range(20):
        path = root / f"{form.format(name='ab'[index % 2], i=index)}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(RANDOM.integers(-9000, 9000, 1600, dtype=np.int16).tobytes())
    return root


def arrays(path, **named):
    np.savez(path, **named)
    return path


def sequences(number=20):
    return RANDOM.random((number, 5, 3), dtype=np.float32)


def listed_recordings(root, header, form):
    recordings(root)
    return list_of(root, [*header, *rows(form, 20)])


def saved(folder, **columns):
    """A data set as Hugging Face writes it to disk."""
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(columns).save_to_disk(str(folder))
    return folder


def with_files(make, name, content):
    (make / name).parent.mkdir(parents=True, exist_ok=True)
    (make / name).write_bytes(content)
    return make


def images(number=20):
    return RANDOM.integers(0, 256, (number, 8, 8), dtype=np.uint8)


def look_alikes(root):
    for index in range(24):
        small = Image.fromarray(RANDOM.integers(0, 256, (18, 24, 3), dtype=np.uint8)).resize((80, 60))
        folder = root / ("in" if index % 2 else "out")
        folder.mkdir(parents=True, exist_ok=True)
        small.save(folder / f"{index:02}.png")
        small.resize((64, 48)).save(folder / f"again{index:02}.png")
    return root


def listed_photos(root, header, form):
    photos(root)
    files = sorted(root.rglob("*.png"))
    lines = [
        form.format(file=file.relative_to(root), name=file.parent.name, i=i, odd=i % 2) for i, file in enumerate(files)
    ]
    return list_of(root, [header, *lines])


def composed(arguments):
    with initialize_config_dir(str(PROJECT / "conf"), **VERSION_BASE):
        cfg = compose("train", overrides=[*arguments, "paths.run_dir=run"])
    config.check(cfg)
    return plain(cfg)


def loaded(arguments):
    """What the target of a command line says when it is loaded, notes or the error."""
    settings = composed(arguments)
    registry.trust(settings["allow"])
    target = build(settings["data"]["target"])
    try:
        return target.load(0), ""
    except GraftError as error:
        return None, str(error)


def typed(arguments, advice):
    """The command with the advice behind it; who chooses another value takes the first one out."""
    more = shlex.split(advice)
    keys = {word.partition("=")[0].lstrip("+") for word in more}
    return [word for word in arguments if word.partition("=")[0].lstrip("+") not in keys] + more


class Case(NamedTuple):
    typed: tuple[str, ...]
    key: str  # that takes the path which `make` gives
    make: Callable[[Path], Path]
    advice: str  # in the message
    placeholders: Mapping[str, str] = {}
    instead_of: tuple[str, ...] = ()  # keys in whose place the message gives others


def of_table(lines, advice, *typed):
    """A case of a CSV with these lines, whose label is y."""
    return Case((*TABLE, "data.target.label=y", *typed), "file", lambda path: list_of(path / "t", lines), advice)


CASES = {
    "a bad photo": Case(
        PHOTOS,
        "root",
        lambda path: with_files(photos(path / "p"), "cat/broken.png", b"none"),
        r"leave them out: (\S+)$",
    ),
    "a class as root": Case(
        PHOTOS,
        "root",
        lambda path: photos(path / "p") / "cat",
        r"give the folder above: (\S+)$",
    ),
    "an archive's folder as root": Case(
        PHOTOS,
        "root",
        lambda path: photos(path / "p" / "inner").parent,
        r"has such sub-folders: (\S+)$",
    ),
    "no split to train on": Case(
        PHOTOS,
        "root",
        lambda path: photos(path / "p" / "test").parent,
        r"one sub-folder per class: (\S+)$",
    ),
    "folds": Case(
        PHOTOS,
        "root",
        lambda path: (photos(path / "p" / "fold1"), photos(path / "p" / "fold2"))[0].parent,
        r"or give one of them: (\S+)$",
    ),
    "no such number of bands": Case(
        (*PHOTOS, "data.target.channels=5"),
        "root",
        lambda path: photos(path / "p"),
        r"every file has: (\S+)$",
    ),
    "floats of no known range": Case(
        PHOTOS,
        "root",
        lambda path: photos(path / "p", "tif", "F"),
        r"(?:Say it|State it): ('[^']+'|\S+)",
    ),
    "fractions": Case(
        (*PHOTOS, "data.target.val_fraction=0.6", "data.target.test_fraction=0.6"),
        "root",
        lambda path: photos(path / "p"),
        r"such as (\S+ \S+)$",
    ),
    "several labels in a folder": Case(
        (*PHOTOS, "data.target.label_kind=multilabel", "task=multilabel"),
        "root",
        lambda path: listed_photos(path / "p", "path,label", "{file},{name}").parent,
        r"in the place of data\.target\.root give (\S+ \S+)$",
        {"/path/to/images.csv": "{folder}/p/list.csv"},
        ("data.target.root",),
    ),
    "photos by numbers": Case(
        LISTED,
        "file",
        lambda path: listed_photos(path / "p", "path,label", "{file},{i}.5"),
        r"set (task=\S+ \S+)$",
    ),
    "photos of several labels": Case(
        (*LISTED, "data.target.label=[wet,loud]"),
        "file",
        lambda path: listed_photos(path / "p", "path,wet,loud", "{file},{odd},1"),
        r"labels a sample: (\S+ \S+)$",
    ),
    "a list without its label": Case(
        LISTED,
        "file",
        lambda path: listed_photos(path / "p", "path,class", "{file},{name}"),
        r"such as (\S+)$",
    ),
    "arrays of numbers": Case(
        ARRAYS,
        "file",
        lambda path: arrays(path / "a.npz", images=images(), labels=np.arange(20) / 2),
        r"read them as numbers: (\S+ \S+)$",
    ),
    "arrays of several labels": Case(
        ARRAYS,
        "file",
        lambda path: arrays(path / "a.npz", images=images(), labels=RANDOM.integers(0, 2, (20, 3))),
        r"samples have several: (.+)$",
    ),
    "arrays of another name": Case(
        ARRAYS,
        "file",
        lambda path: arrays(path / "a.npz", pictures=images(), labels=np.arange(20) % 2),
        r"Name the one with the images: (.+)$",
        {"<name without train_>": "pictures"},
    ),
    "labels of another name": Case(
        ARRAYS,
        "file",
        lambda path: arrays(path / "a.npz", images=images(), classes=np.arange(20) % 2),
        r"Name the one with the labels: (.+)$",
        {"<name>": "classes"},
    ),
    "arrays of no known range": Case(
        ARRAYS,
        "file",
        lambda path: arrays(path / "a.npz", images=images() * np.uint16(15), labels=np.arange(20) % 2),
        r"State it: (.+)$",
    ),
    "recordings that are broken": Case(
        SPEECH,
        "root",
        lambda path: with_files(recordings(path / "r", "{name}/{i}"), "a/broken.wav", b"none"),
        r"leave them out: (\S+)$",
    ),
    "recordings of a list that are gone": Case(
        LISTED_SPEECH,
        "file",
        lambda path: listed_recordings(path / "r", ["path,label", "gone.wav,a"], "{name}_{i}.wav,{name}"),
        r"leave them out: (\S+)$",
    ),
    "a list of recordings without its label": Case(
        LISTED_SPEECH,
        "file",
        lambda path: listed_recordings(path / "r", ["path,class"], "{name}_{i}.wav,{name}"),
        r"such as (\S+)$",
    ),
    "a list of recordings without its paths": Case(
        LISTED_SPEECH,
        "file",
        lambda path: listed_recordings(path / "r", ["file,label,who"], "{name}_{i}.wav,{name},p{i}"),
        r"such as (\S+)$",
    ),
    "a list of recordings without a header": Case(
        LISTED_SPEECH,
        "file",
        lambda path: listed_recordings(path / "r", [], "{i},{name}_{i}.wav,{name}"),
        r"no header: (\S+ \S+ \S+)$",
    ),
    "a list of recordings with another separator": Case(
        LISTED_SPEECH,
        "file",
        lambda path: listed_recordings(path / "r", ["path;label"], "{name}_{i}.wav;{name}"),
        r"what separates the columns, (.+)$",
    ),
    "a list of recordings in another encoding": Case(
        LISTED_SPEECH,
        "file",
        lambda path: (
            (
                recordings(path / "r"),
                with_files(
                    path / "r",
                    "t.csv",
                    "\n".join(["path,label", *rows("{name}_{i}.wav,caf\xe9 {name}", 20)]).encode("latin-1"),
                ),
            )[1]
            / "t.csv"
        ),
        r"try (\S+)$",
    ),
    "recordings by numbers": Case(
        LISTED_SPEECH,
        "file",
        lambda path: listed_recordings(path / "r", ["path,label"], "{name}_{i}.wav,{i}.5"),
        r"set (task=\S+ \S+)$",
    ),
    "sequences with holes": Case(
        SEQUENCES,
        "file",
        lambda path: arrays(
            path / "a.npz",
            sequences=np.where(np.arange(20)[:, None, None] == 3, np.nan, sequences()),
            labels=np.arange(20) % 2,
        ),
        r"leave them out: (\S+)$",
    ),
    "sequences of another name": Case(
        SEQUENCES,
        "file",
        lambda path: arrays(path / "a.npz", train_readings=sequences(), train_labels=np.arange(20) % 2),
        r"Name the one with the sequences: (.+)$",
        {"<name without train_>": "readings"},
    ),
    "labels of sequences of another name": Case(
        SEQUENCES,
        "file",
        lambda path: arrays(path / "a.npz", train_sequences=sequences(), train_classes=np.arange(20) % 2),
        r"Name the one with the labels: (.+)$",
        {"<name without train_>": "classes"},
    ),
    "sequences of another shape": Case(
        SEQUENCES,
        "file",
        lambda path: arrays(path / "a.npz", sequences=sequences()[..., 0], whole=sequences(), labels=np.arange(20) % 2),
        r"Name another array: (.+)$",
        {"<name without train_>": "whole"},
    ),
    "lengths of another shape": Case(
        SEQUENCES,
        "file",
        lambda path: arrays(
            path / "a.npz",
            sequences=sequences(),
            lengths=np.ones((20, 2)),
            steps=np.full(20, 4),
            labels=np.arange(20) % 2,
        ),
        r"Name another array: (.+)$",
        {"<name>": "steps"},
    ),
    "sequences by numbers": Case(
        SEQUENCES,
        "file",
        lambda path: arrays(path / "a.npz", sequences=sequences(), labels=np.arange(20) / 3),
        r"read them as numbers: (\S+ \S+)$",
    ),
    "sequences of several labels": Case(
        SEQUENCES,
        "file",
        lambda path: arrays(path / "a.npz", sequences=sequences(), labels=RANDOM.integers(0, 2, (20, 3))),
        r"samples have several: (.+)$",
    ),
    "a data set of texts that cannot be used": Case(
        HUB,
        "name",
        lambda path: saved(path / "t", text=[*rows("film {i}", 20), " "], label=[*rows("{name}", 20), "a"]),
        r"leave them out: (\S+)$",
    ),
    "a data set of texts in another column": Case(
        HUB,
        "name",
        lambda path: saved(path / "t", sentence=rows("film {i}", 20), label=rows("{name}", 20)),
        r"Name one of them: (.+)$",
        {"<column>": "sentence"},
    ),
    "a data set of labels in another column": Case(
        HUB,
        "name",
        lambda path: saved(path / "t", text=rows("film {i}", 20), labels=rows("{name}", 20)),
        r"Name one of them: (.+)$",
        {"<column>": "labels"},
    ),
    "a data set of texts by numbers": Case(
        HUB,
        "name",
        lambda path: saved(path / "t", text=rows("film {i}", 20), label=[i + 0.5 for i in range(20)]),
        r"set (task=\S+ \S+)$",
    ),
    "a data set of lists": Case(
        HUB,
        "name",
        lambda path: saved(path / "t", text=rows("film {i}", 20), label=[["a"], ["a", "b"]] * 10),
        r"(\S+label_kind=multilabel task=multilabel) takes such",
    ),
    "files in which Hugging Face finds no table": Case(
        (*HUB, "data.target.on_bad_sample=skip"),
        "name",
        lambda path: with_files(
            path / "t",
            "train.jsonl",
            "\n".join([*rows('{{"text": "film {i}", "label": "{name}"}}', 20), '{"text":']).encode(),
        ),
        r"in the place of data\.target\.name: (\S+ \S+)$",
        instead_of=("data.target.name",),
    ),
    "texts without a header": Case(
        TEXTS,
        "file",
        lambda path: list_of(path / "t", rows("a film {i},{name}")),
        r"no header: (\S+ \S+ \S+)$",
    ),
    "texts of another separator": Case(
        TEXTS,
        "file",
        lambda path: list_of(path / "t", ["text;label", *rows("a film {i};{name}")]),
        r"what separates columns: (.+)$",
    ),
    "texts in another encoding": Case(
        TEXTS,
        "file",
        lambda path: (
            with_files(path, "t.csv", "\n".join(["text,label", *rows("caf\xe9 {i},{name}")]).encode("latin-1"))
            / "t.csv"
        ),
        r"try (\S+)$",
    ),
    "texts that cannot be used": Case(
        TEXTS,
        "file",
        lambda path: list_of(path / "t", ["text,label", *rows("a film {i},{name}"), "a film,"]),
        r"leave them out: (\S+)$",
    ),
    "texts by numbers": Case(
        TEXTS,
        "file",
        lambda path: list_of(path / "t", ["text,label", *rows("a film {i},{i}.5")]),
        r"set (task=\S+ \S+)$",
    ),
    "texts of lists": Case(
        TEXTS,
        "file",
        lambda path: (
            with_files(path, "t.jsonl", "\n".join(rows('{{"text": "film {i}", "label": ["{name}", "c"]}}')).encode())
            / "t.jsonl"
        ),
        r"(\S+label_kind=multilabel task=multilabel) takes such",
    ),
    "a file of no known format": Case(
        TEXTS,
        "file",
        lambda path: with_files(path, "t.dat", "\n".join(["text,label", *rows("film {i},{name}")]).encode()) / "t.dat",
        r"or say it: (\S+?=)\S+, (csv) or",
    ),
    "a table without its label": Case(
        (*TABLE, "data.target.label=outcome"),
        "file",
        lambda path: list_of(path / "t", ["x,y", *rows("{x},{name}")]),
        r"such as (\S+)$",
    ),
    "a table of another separator": of_table(
        ["x;y", *rows("{x};{name}")], r"what separates the columns, ('[^']*(?:'[^']*)*'|\"[^\"]+\")"
    ),
    "a table of another separator without a header": Case(
        (*TABLE, "data.target.label=column1", "data.target.header=false"),
        "file",
        lambda path: list_of(path / "t", rows("{x}\t{name}")),
        r"what separates the columns, (\S+)$",
    ),
    "a table by numbers": of_table(["x,y", *rows("{x},{i}.5")], r"set (task=\S+ \S+)$"),
    "a table in another encoding": Case(
        (*TABLE, "data.target.label=y"),
        "file",
        lambda path: (
            with_files(path, "t.csv", "\n".join(["x,y", *rows("caf\xe9{odd},{name}")]).encode("latin-1")) / "t.csv"
        ),
        r"try (\S+)$",
    ),
    "a row of a table": of_table(["x,y", *rows("{x},{name}"), "1,2,3"], r"leave them out: (\S+)$"),
    "a folder by torchvision": Case(
        (*VISION, "data.target.name=ImageFolder"),
        "root",
        lambda path: photos(path / "p"),
        r"In the place of data\.target\.name give (\S+ \S+)$",
        instead_of=("data.target.name",),
    ),
}


@pytest.mark.parametrize("name", one_in(6, CASES))
def test_advice_of_a_reader_works_as_it_is_printed(name, tmp_path):
    case = CASES[name]
    arguments = [*case.typed, f"data.target.{case.key}={case.make(tmp_path)}"]
    data, message = loaded(arguments)
    assert data is None
    found = re.search(case.advice, message)
    assert found, message
    advice = "".join(found.groups())
    for placeholder, value in case.placeholders.items():
        advice = advice.replace(placeholder, value.format(folder=tmp_path))
    kept = [word for word in arguments if word.partition("=")[0] not in case.instead_of]
    data, message = loaded(typed(kept, advice))
    assert data is not None, f"{advice}: {message}"
    assert len(data.train)


NOTES = {
    "near duplicates": Case(PHOTOS, "root", lambda path: look_alikes(path / "p"), r"near duplicates\): (\S+) keeps"),
    "a row's number": of_table(["id,x,y", *rows("{i},{x},{name}")], r"name the rows: 'id'; (\S+) reads"),
    "a column that counts the rows": of_table(
        ["a place,x,y", *rows("{i},{x},{name}")], r"their number, (\".+\") leaves it out"
    ),
    "a column of names": of_table(
        ["who,x,y", *rows("somebody{i},{x},{name}")], r"the row's name\? (\S+) leaves it out"
    ),
    "another decimal sign": of_table(
        ["w;x;y", *(row.replace(".", ",") for row in rows("{x};{i},5;{name}"))],
        r"; (\S+) reads them with a decimal point",
        "data.target.delimiter=';'",
    ),
    "folders that may be the classes": Case(
        PHOTOS,
        "root",
        lambda path: (photos(path / "p" / "art"), photos(path / "p" / "photo"))[0].parent,
        r"such as (\S+)$",
    ),
}


@pytest.mark.parametrize("name", one_in(3, NOTES))
def test_advice_of_a_note_works_as_it_is_printed(name, tmp_path):
    case = NOTES[name]
    arguments = [*case.typed, f"data.target.{case.key}={case.make(tmp_path)}"]
    data, message = loaded(arguments)
    found = [match[1] for note in data.notes if (match := re.search(case.advice, note))]
    assert found, (message, data.notes)
    data, message = loaded(typed(arguments, found[0]))
    assert data is not None, f"{found[0]}: {message}"
    assert not any(re.search(case.advice, note) for note in data.notes)


CONTRADICTIONS = (
    "experiment=resnet_ft strategy=frozen backbone.weights=null",
    "data=mnist backbone=cnn strategy=full backbone.weights=source",
    "data=mnist backbone=cnn strategy=scratch selection=source_val",
    "data=mnist backbone=cnn strategy=scratch data.epoch=source",
    "data=mnist backbone=cnn strategy=scratch objective.alpha=0.5",
    "data=mnist backbone=cnn strategy=scratch objective=additive",
    "experiment=resnet_ft data.target_setting=unsupervised",
    "experiment=resnet_ft data.target_setting=unsupervised objective=additive",
    "experiment=resnet_ft term=[bi_tuning] head=mlp",
    "data=image_folder data.target.root=p data.target.label_kind=numbers backbone=cnn strategy=scratch",
    "data=image_folder data.target.root=p task=multilabel backbone=cnn strategy=scratch",
    "data=image_folder data.target.root=p task=regression data.target.label_kind=numbers data.labels_per_class=5",
    "data=image_folder data.target.root=p task=regression data.target.label_kind=numbers data.balance=sampler",
    "data=mnist backbone=mlp strategy=scratch",
    "data=table data/domain@data.target=breast_cancer backbone=cnn strategy=scratch",
    "data=table data/domain@data.target=breast_cancer backbone=mlp strategy=scratch data.augment=light",
    "experiment=resnet_ft trainer=cpu trainer.sync_batchnorm=true",
    "experiment=resnet_ft data.batch_size=auto trainer=ddp_cpu",
    "experiment=resnet_ft averaging=swa scheduler=plateau",
    "experiment=resnet_ft resume=nothing.ckpt",
)
WORD = r"[a-z][\w/@.]*=[^\s,;()`]+"
PASTED = re.compile(rf"(?<![\w`/.]){WORD}(?: {WORD})*")


@pytest.mark.slow
@pytest.mark.parametrize("typed_keys", every_second(CONTRADICTIONS))
def test_advice_on_contradictory_keys_works_as_it_is_printed(typed_keys):
    arguments = shlex.split(typed_keys)
    found = {message: PASTED.findall(re.sub(r"`[^`]*`", "", message)) for message in problems(*arguments)}
    pasted = {(message, one) for message, advice in found.items() for one in advice if not one.endswith("...")}
    assert pasted
    for message, advice in pasted:
        assert message not in problems(*typed(arguments, advice)), advice


def test_every_extra_that_a_message_names_is_there():
    extras = re.findall(r"^(\w+) = \[", (PROJECT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    named = {
        extra
        for file in (PROJECT / "src").rglob("*.py")
        for extra in re.findall(r"pip install ['\"]\.\[([\w,]+)\]", file.read_text())
    }
    assert named >= {"excel", "peft", "speech", "text", "tiff"}
    assert named <= set(extras)
