import sys

import pytest
from huggingface_hub import constants

from graft.data.sources import huggingface_dataset
from graft.data.sources.huggingface_dataset import HuggingFaceDataset
from graft.errors import GraftError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """Nothing is kept outside of the test, and the hub does not answer."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)  # put back after the test
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_dataset, "hub_answers", lambda: False)
    datasets.disable_progress_bars()


def rows(labels, names=("bad", "good"), text="text"):
    kind = datasets.ClassLabel(names=[*names]) if names else datasets.Value("int64")
    features = datasets.Features({text: datasets.Value("string"), "label": kind})
    texts = [f"film {number} of {len(labels)}" for number in range(len(labels))]
    return datasets.Dataset.from_dict({text: texts, "label": labels}, features=features)


def saved(tmp_path, **splits):
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "reviews")
    return str(tmp_path / "reviews")


def sizes(data):
    return [len(split) for split in (data.train, data.val, data.test)]


def test_official_parts_and_class_names_are_kept_and_what_has_no_labels_is_left_out(tmp_path):
    name = saved(tmp_path, train=rows([0, 1] * 10), validation=rows([1, 0, 1]), test=rows([-1, -1]))
    data = HuggingFaceDataset(name).load(0)
    assert (data.name, data.modality, data.classes) == ("reviews", "text", ("bad", "good"))
    assert sizes(data) == [17, 3, 3]
    assert data.val.labels.tolist() == [1, 0, 1]
    assert HuggingFaceDataset("glue", "sst2").title == "glue/sst2"


def test_a_single_part_is_split(tmp_path):
    rows([0, 1] * 10).save_to_disk(tmp_path / "single")
    assert sizes(HuggingFaceDataset(str(tmp_path / "single")).load(0)) == [14, 3, 3]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_folder_of_files_is_read_too(tmp_path, ending):
    (tmp_path / "reviews").mkdir()
    for name, labels in {"train": [0, 1] * 10, "test": [1, 0, 1]}.items():
        table, file = rows(labels, names=None), tmp_path / "reviews" / f"{name}.{ending}"
        {"csv": table.to_csv, "jsonl": table.to_json, "parquet": table.to_parquet}[ending](file)
    data = HuggingFaceDataset(str(tmp_path / "reviews")).load(0)
    assert sizes(data) == [17, 3, 3]
    assert (data.classes, data.test.labels.tolist()) == (("0", "1"), [1, 0, 1])


@pytest.mark.parametrize(("names", "missing"), [(None, None), (("bad", "good"), None), (("bad", "good"), -1)])
def test_a_missing_label_is_named_or_skipped(tmp_path, names, missing):
    name = saved(tmp_path, train=rows([0, 1, missing, *[0, 1] * 9], names))
    with pytest.raises(GraftError, match=r"reviews/train, row 3: its label is missing"):
        HuggingFaceDataset(name).load(0)
    data = HuggingFaceDataset(name, on_bad_sample="skip").load(0)
    assert sum(sizes(data)) == 20
    assert data.notes == (f"skipped: 1 rows ({name}/train, row 3: its label is missing (None))",)


@pytest.mark.parametrize(
    ("labels", "kind", "classes"),
    [
        (["bad", "good"] * 10, "classes", ("bad", "good")),
        ([0.0, 1.0] * 10, "classes", ("0", "1")),
        ([0.25, -1.0] * 10, "numbers", None),
        ([["a", "b"], ["b"]] * 10, "multilabel", ("a", "b")),
    ],
)
def test_labels_of_every_type(tmp_path, labels, kind, classes):
    texts = [f"film {number}" for number in range(20)]
    datasets.Dataset.from_dict({"text": texts, "label": labels}).save_to_disk(tmp_path / "single")
    data = HuggingFaceDataset(str(tmp_path / "single"), label_kind=kind).load(0)
    assert data.classes == classes
    assert sizes(data) == [14, 3, 3]


def test_columns_and_parts_that_are_not_there_are_named(tmp_path):
    name = saved(tmp_path, train=rows([0, 1], text="sentence"))
    with pytest.raises(GraftError, match=r"data\.target\.text=text: .* has no such column; it has sentence, label"):
        HuggingFaceDataset(name).load(0)
    name = saved(tmp_path / "other", all=rows([0, 1]))
    with pytest.raises(GraftError, match=r"it has no split `train`, but all"):
        HuggingFaceDataset(name).load(0)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train.csv", b"", "reviews: its files cannot be read"),
        ("train.csv", b"text,label\ngood,1\ncaf\xe9,0\n", "cannot be read .*utf-8"),
        ("train.jsonl", b'{"text": "good", "label": 1}\n{"text": \n', r"cannot be read .*JSON"),
        ("train.parquet", b"nothing", "cannot be read .*Parquet"),
        ("nothing.here", b"", "cannot be read .*data files"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, file, content, message):
    (tmp_path / "reviews").mkdir()
    (tmp_path / "reviews" / file).write_bytes(content)
    with pytest.raises(GraftError, match=message):
        HuggingFaceDataset(str(tmp_path / "reviews")).load(0)


def test_without_network_and_without_the_library_it_says_what_to_do(monkeypatch):
    with pytest.raises(GraftError, match=r"data\.target\.name=nobody/reviews: it is not on .*\. Give a folder"):
        HuggingFaceDataset("nobody/reviews").load(0)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(GraftError, match=r"needs the datasets library .*pip install"):
        HuggingFaceDataset("reviews").load(0)
