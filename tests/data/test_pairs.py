"""Pairs from Python: lists and Datasets of images, texts and recordings, split and reported as every source is."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset
from torchvision.datasets import FakeData
from torchvision.transforms import RandomCrop, ToTensor

import graft
from graft.data.held import held
from graft.data.samples import rows_of
from graft.data.sources.pairs import ImagePairs, RecordingPairs, SequencePairs, TextPairs
from graft.errors import GraftError

RANDOM = np.random.default_rng(0)
IMAGES = [RANDOM.integers(0, 256, (12, 10, 3), dtype=np.uint8) for _ in range(20)]


class Pictures(Dataset):
    """Twenty images of two classes that have names."""

    classes = ("cat", "dog")

    def __init__(self, form=lambda image: image):
        self.form = form

    def __len__(self):
        return 20

    def __getitem__(self, index):
        return self.form(IMAGES[index]), torch.tensor(index % 2)


def sizes(data):
    return [len(split) for split in (data.train, data.val, data.test)]


@pytest.mark.parametrize("form", [lambda image: image, Image.fromarray, ToTensor()], ids=["array", "PIL", "tensor"])
def test_images_of_every_form_are_the_same_pixels(form):
    data = ImagePairs(Pictures(form)).load(0)
    assert (data.classes, data.channels, sizes(data)) == (("cat", "dog"), 3, [14, 3, 3])
    for split in (data.train, data.val, data.test):
        for index, (place, label) in enumerate(zip(split.places, split.labels.tolist(), strict=True)):
            number = int(place.removeprefix("samples[").removesuffix("]"))
            assert label == number % 2
            assert torch.equal(split.inputs[index], torch.from_numpy(IMAGES[number]).permute(2, 0, 1))


def test_paths_grey_images_and_official_splits(tmp_path):
    for number, image in enumerate(IMAGES):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    train = [(tmp_path / f"{number}.png", "ab"[number % 2]) for number in range(15)]
    test = [(IMAGES[number][..., 0], "ab"[number % 2]) for number in range(15, 20)]
    data = ImagePairs(train, test_samples=test, channels=1).load(0)
    assert (data.classes, data.channels, sizes(data)) == (("a", "b"), 1, [13, 2, 5])
    assert data.test.places[0] == "test_samples[0]"
    assert data.train.inputs[0].shape == (1, 12, 10)


def test_a_part_of_a_data_set_of_torchvision():
    made = FakeData(30, (3, 8, 8), num_classes=2, transform=ToTensor())
    data = ImagePairs(Subset(made, range(24)), class_names=["no", "yes"]).load(0)
    assert (data.classes, sum(sizes(data)), data.name) == (("no", "yes"), 24, "Subset")


@pytest.fixture
def datasets():
    return pytest.importorskip("datasets")


def hub_rows(datasets, features=None, **columns):
    return datasets.Dataset.from_dict(columns, features=features and datasets.Features(features))


def test_images_of_hugging_face(datasets):
    features = {
        "id": datasets.Value("int64"),
        "image": datasets.Image(),
        "digit": datasets.ClassLabel(names=["no", "yes"]),
    }
    images = [Image.fromarray(one) for one in IMAGES]
    rows = hub_rows(datasets, features, id=range(20), image=images, digit=[0, 1] * 10)
    data = ImagePairs(rows, test_samples=rows.select(range(4))).load(0)
    assert (data.classes, data.channels, sizes(data)) == (("no", "yes"), 3, [17, 3, 4])
    assert torch.equal(data.test.inputs[1], torch.from_numpy(IMAGES[1]).permute(2, 0, 1))
    assert data.test.labels.tolist() == [0, 1, 0, 1]
    undecoded = rows.cast_column("image", datasets.Image(decode=False)).with_format("torch")
    assert torch.equal(ImagePairs(undecoded).load(0).train.inputs[2], ImagePairs(rows).load(0).train.inputs[2])
    with pytest.raises(
        GraftError, match=r"samples\[0\]: it is no pair \(sample, label\) but dict with id, image, digit"
    ):
        ImagePairs([dict(row) for row in rows]).load(0)
    with pytest.raises(GraftError, match=r"no column of the type text, but id .* data/domain@data\.target=image_pairs"):
        TextPairs(rows).load(0)
    with pytest.raises(
        GraftError, match=r"the splits train, test\. Give each under its own key: data\.target\.samples"
    ):
        ImagePairs(datasets.DatasetDict({"train": rows, "test": rows})).load(0)


def test_texts_of_hugging_face(datasets):
    texts = [f"film {number}" for number in range(20)]
    for columns in ({"sentence": texts, "label": [1, 0] * 10}, {"text": texts, "stars": ["1", "5"] * 10}):
        data = TextPairs(hub_rows(datasets, **columns)).load(0)
        number = int(data.test.places[0].removeprefix("samples[").removesuffix("]"))
        assert data.test.inputs[0] == texts[number]
    tags = {"text": datasets.Value("string"), "tags": datasets.List(datasets.ClassLabel(names=["a", "b"]))}
    data = TextPairs(hub_rows(datasets, tags, text=texts, tags=[[0], [0, 1]] * 10), label_kind="multilabel").load(0)
    assert (data.classes, data.train.labels[:, 0].tolist()) == (("a", "b"), [1] * len(data.train))
    unclear = hub_rows(datasets, title=texts, body=texts, label=[1, 0] * 10)
    with pytest.raises(GraftError, match=r"It has title \(text\), .*select_columns\(\['title', 'label'\]\)"):
        TextPairs(unclear).load(0)
    assert TextPairs(unclear.select_columns(["title", "label"])).load(0).classes == ("0", "1")


@pytest.mark.parametrize("kept", ["path", "bytes"])
def test_recordings_of_hugging_face(datasets, kept, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    waves = RANDOM.uniform(-0.5, 0.5, (20, 800)).astype(np.float32)
    for number, wave in enumerate(waves):
        soundfile.write(tmp_path / f"{number}.wav", wave, 8000, subtype="FLOAT")
    files = [tmp_path / f"{number}.wav" for number in range(20)]
    sounds = [
        {"path": str(one), "bytes": None} if kept == "path" else {"path": None, "bytes": one.read_bytes()}
        for one in files
    ]

    def rows(sounds):  # cast to sound: only then it is not written by a library that need not be there
        words = datasets.ClassLabel(names=["no", "yes"])
        return (
            hub_rows(datasets, audio=sounds, word=[0, 1] * 10)
            .cast_column("audio", datasets.Audio())
            .cast_column("word", words)
        )

    data = RecordingPairs(rows(sounds)).load(0)
    assert data.classes == ("no", "yes")
    number = int(data.test.places[0].removeprefix("samples[").removesuffix("]"))
    assert np.array_equal(data.test.inputs.dataset.read(number, 8000), waves[number])
    sounds[3] = {"path": str(tmp_path / "gone.wav"), "bytes": b"none" if kept == "bytes" else None}
    with pytest.raises(GraftError, match=r"1 of 20 recordings cannot be used \(samples\[3\]: "):
        RecordingPairs(rows(sounds)).load(0)


WAVES = [RANDOM.standard_normal((5 + number % 3, 2)).astype(np.float32) for number in range(20)]


@pytest.mark.parametrize("form", ["array", "tensor", "rows"])
def test_sequences(form):
    forms = {"array": np.asarray, "tensor": torch.from_numpy, "rows": lambda wave: wave.tolist()}
    pairs: object = [(forms[form](wave), "ab"[number % 2]) for number, wave in enumerate(WAVES)]
    if form == "rows":
        datasets = pytest.importorskip("datasets")
        pairs = hub_rows(datasets, readings=[one for one, _ in pairs], label=[label for _, label in pairs])
    data = SequencePairs(pairs).load(0)
    assert (data.modality, data.classes, sizes(data)) == ("sequence", ("a", "b"), [14, 3, 3])
    assert data.backbone_arguments == {"input_size": 2}
    mean, scale = (torch.tensor(data.reading[name]) for name in ("mean", "scale"))
    for split in (data.train, data.val, data.test):
        rows = rows_of(split)
        for index, place in enumerate(split.places):
            wave = torch.from_numpy(WAVES[int(place.removeprefix("samples[").removesuffix("]"))])
            torch.testing.assert_close(rows.values[index, : len(wave)], (wave - mean) * scale)
            assert rows.lengths[index] == len(wave)
            assert not rows.values[index, len(wave) :].any()


def test_sequences_that_cannot_be_used_are_named_or_skipped():
    pairs = [(wave, number % 2) for number, wave in enumerate(WAVES)]
    pairs[3], pairs[5], pairs[7] = (WAVES[3][:, 0], 1), (WAVES[5][:, :1], 1), (WAVES[7] * np.nan, 1)
    with pytest.raises(GraftError, match=r"3 of 20 sequences .*samples\[3\]: a sequence is numbers \(L, D\)") as error:
        SequencePairs(pairs).load(0)
    assert "samples[5]: its steps have 1 numbers, those of most others 2" in str(error.value)
    assert "samples[7]: a value is NaN or infinite" in str(error.value)
    assert sum(sizes(SequencePairs(pairs, on_bad_sample="skip").load(0))) == 17


def test_what_cannot_be_used_is_named_or_skipped():
    pairs = [(image, index % 2) for index, image in enumerate(IMAGES)]
    pairs[3], pairs[5], pairs[7] = (pairs[3][0], None), (np.zeros(4), 1), pairs[7][0]
    with pytest.raises(GraftError, match=r"data\.target: 3 of 20 .*samples\[3\]: its label is missing") as error:
        ImagePairs(pairs).load(0)
    assert "samples[5]: it cannot be read as an image (numbers of the shape (H, W)" in str(error.value)
    assert "samples[7]: it is no pair (sample, label) but ndarray" in str(error.value)
    data = ImagePairs(pairs, on_bad_sample="skip").load(0)
    assert sum(sizes(data)) == 17
    assert "samples[3]" not in {*data.train.places, *data.val.places, *data.test.places}


def test_a_random_transform_is_refused():
    with pytest.raises(GraftError, match=r"samples\[\d\] is another one each time .*data\.augment"):
        ImagePairs(Pictures(lambda image: RandomCrop(4)(Image.fromarray(image)))).load(0)


def test_what_has_no_index_is_refused():
    with pytest.raises(GraftError, match=r"data\.target\.samples: this is <generator .*list\(\.\.\.\)"):
        ImagePairs(pair for pair in [(IMAGES[0], 1)]).load(0)


def test_texts_and_labels_of_every_kind():
    texts = [f"film {number}" for number in range(20)]
    data = TextPairs([(text, index % 2) for index, text in enumerate(texts)], class_names=["bad", "good"]).load(0)
    assert (data.modality, data.classes, sizes(data)) == ("text", ("bad", "good"), [14, 3, 3])
    numbers = TextPairs([(text, np.float32(index / 4)) for index, text in enumerate(texts)], label_kind="numbers")
    assert sorted(numbers.load(0).train.labels.tolist())[0] >= 0
    for labels in ([["a"], ["a", "b"]] * 10, [np.array([1, 0]), torch.tensor([1, 1])] * 10):
        named = {} if isinstance(labels[0], list) else {"class_names": ["a", "b"]}
        data = TextPairs(list(zip(texts, labels, strict=True)), label_kind="multilabel", **named).load(0)
        assert data.classes == ("a", "b")
        assert data.train.labels[:, 0].tolist() == [1] * len(data.train)
    with pytest.raises(GraftError, match=r"samples\[1\]: its text is empty"):
        TextPairs([("good", 1), (" ", 0)]).load(0)


def test_recordings():
    waves = [RANDOM.standard_normal(800).astype(np.float32) for _ in range(20)]
    data = RecordingPairs([(wave, index % 2) for index, wave in enumerate(waves)], sample_rate=8000).load(0)
    assert (data.modality, sizes(data)) == ("audio", [14, 3, 3])
    number = int(data.test.places[0].removeprefix("samples[").removesuffix("]"))
    assert np.array_equal(data.test.inputs.dataset.read(number, 8000), waves[number])
    assert data.test.inputs.dataset.read(number, 4000).shape == (400,)
    with pytest.raises(GraftError, match=r"samples\[0\]: how many samples a second are there"):
        RecordingPairs([(wave, index % 2) for index, wave in enumerate(waves)]).load(0)


@pytest.mark.slow
def test_a_run_on_a_data_set_of_hugging_face_and_one_on_sequences(datasets, tmp_path):
    images = [Image.fromarray(one) for one in IMAGES]
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["no", "yes"])}
    rows = hub_rows(datasets, features, image=images, label=[0, 1] * 10)
    sequences = [(wave, "ab"[number % 2]) for number, wave in enumerate(WAVES)]
    runs = {
        "image": (rows, ["data=image_folder", "backbone=lenet", "data.image_size=16"], images, ["no", "yes"]),
        "sequence": (sequences, ["data=sequences", "backbone=gru_sequence"], WAVES, ["a", "b"]),
    }
    small = ["training.epochs=1", "training.threads=1", "logger=csv", "data.num_workers=0", "strategy=scratch"]
    for modality, (samples, words, inputs, classes) in runs.items():
        words = [*words, f"data/domain@data.target={modality}_pairs", *small, "backbone.weights=null"]
        values = {"paths.run_dir": tmp_path / modality, "paths.cache_dir": tmp_path, "data.target.samples": samples}
        results = graft.train(*words, **values)
        assert results["data"]["target"]["classes"] == classes
        assert len(graft.load_run(tmp_path / modality).predict(inputs).labels) == 20
    values |= {"data.target.samples": datasets.DatasetDict({"train": rows}), "paths.run_dir": tmp_path / "splits"}
    with pytest.raises(GraftError, match=r"the splits train\. Give each under its own key"):
        graft.train(*words, **values)


@pytest.mark.slow
def test_a_run_from_a_notebook_and_its_words_outside_of_it(tmp_path):
    words = ["data=image_folder", "data/domain@data.target=image_pairs", "backbone=lenet", "strategy=scratch"]
    small = ["training.epochs=1", "training.threads=1", "logger=csv", "data.num_workers=0", "data.image_size=16"]
    small.append("baselines=none")
    values = {"paths.run_dir": tmp_path / "run", "paths.cache_dir": tmp_path, "data.target.samples": Pictures()}
    results = graft.train(*words, *small, "backbone.weights=null", **values)
    assert results["data"]["target"]["classes"] == ["cat", "dog"]
    model = graft.load_run(tmp_path / "run")
    assert len(model.predict(IMAGES[:3]).labels) == 3
    with pytest.raises(GraftError, match=r"data\.target\.samples=python:.*Give them again: graft\.train"):
        ImagePairs("python:data.target.samples")
    with held({"data.target.samples": [1], "data.source.samples": 300}) as plain:
        assert plain == {"data.target.samples": "python:data.target.samples", "data.source.samples": 300}
