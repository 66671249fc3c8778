import csv
import shutil

import numpy as np
import pytest

from graft.data.sources.image_file import ImageFile
from graft.errors import GraftError


@pytest.fixture
def table(photos):
    """A list of the photos with a label, an age, two labels at once, a patient and a day."""

    def write(change=lambda rows: rows, name="photos.csv"):
        rows = [
            {
                "path": path.relative_to(photos).as_posix(),
                "label": path.parent.name,
                "age": number / 2,
                "tags": ["", "wet", "wet|loud"][number % 3],
                "wet": int(number % 3 > 0),
                "loud": int(number % 3 > 1),
                "patient": number // 2,
                "day": f"2024-01-{number * 7 % 30 + 1:02}",
            }
            for number, path in enumerate(sorted(photos.rglob("*.png")))
        ]
        rows = change(rows)
        with (photos / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        return str(photos / name)

    return write


def counts(data):
    return [len(split) for split in (data.train, data.val, data.test)]


def test_classes(table):
    data = ImageFile(table(), val_fraction=0.2, test_fraction=0.3).load(0)
    assert (data.classes, data.channels, data.name) == (("cat", "dog", "eel"), 3, "photos")
    assert counts(data) == [15, 6, 9]
    assert data.train.inputs[0].shape == (3, 12, 16)
    assert ImageFile(table(), classes=["eel", "dog", "cat"]).load(0).classes == ("eel", "dog", "cat")


def test_numbers(table):
    data = ImageFile(table(), label="age", label_kind="numbers").load(0)
    assert data.classes is None
    assert sorted(torch_list(data)) == [number / 2 for number in range(30)]


def torch_list(data):
    return [label for split in (data.train, data.val, data.test) for label in split.labels.tolist()]


def test_several_labels_of_one_column_or_of_many(table):
    words = ImageFile(table(lambda rows: [row for row in rows if row["tags"]]), label="tags", label_kind="multilabel")
    columns = ImageFile(table(name="all.csv"), label=["loud", "wet"], label_kind="multilabel")
    assert words.load(0).classes == columns.load(0).classes == ("loud", "wet")
    assert sorted(map(tuple, torch_list(words.load(0)))) == [(0, 1)] * 10 + [(1, 1)] * 10
    assert sorted(map(tuple, torch_list(columns.load(0)))) == [(0, 0)] * 10 + [(0, 1)] * 10 + [(1, 1)] * 10
    words = table(lambda rows: [{**row, "wet": ("no", "Yes")[row["wet"]]} for row in rows], "words.csv")
    in_words = ImageFile(words, label=["loud", "wet"], label_kind="multilabel").load(0)
    assert torch_list(in_words) == torch_list(columns.load(0))
    wrong = table(lambda rows: [{**rows[0], "wet": "perhaps"}, *rows[1:]], "wrong.csv")
    with pytest.raises(GraftError, match="its label 'wet' 'perhaps' is neither yes nor no"):
        ImageFile(wrong, label=["loud", "wet"], label_kind="multilabel").load(0)
    with pytest.raises(GraftError, match=r"label=\['loud', 'wet'\]: several columns .*label_kind=multilabel"):
        ImageFile(table(), label=["loud", "wet"]).load(0)


def test_official_files_and_a_folder(table, photos, tmp_path):
    train = table(lambda rows: rows[::2], "train.csv")
    test = table(lambda rows: rows[1::2], "test.csv")
    data = ImageFile(train, test_file=test, val_fraction=0.2).load(0)
    assert counts(data) == [12, 3, 15]
    elsewhere = tmp_path / "lists" / "train.csv"
    elsewhere.parent.mkdir()
    shutil.copy(train, elsewhere)
    assert sum(counts(ImageFile(str(elsewhere), folder=str(photos)).load(0))) == 15


def test_groups_and_times(table):
    data = ImageFile(table(), split={"group": "patient"}, val_fraction=0.2, test_fraction=0.2).load(0)
    numbers = [
        {split.inputs.dataset.files[i] for i in split.inputs.indices} for split in (data.train, data.val, data.test)
    ]
    patients = {path: number // 2 for number, path in enumerate(sorted(set.union(*numbers)))}
    sides = [{patients[path] for path in side} for side in numbers]
    assert sum(map(len, sides)) == 15
    data = ImageFile(table(), split={"time": "day"}, test_fraction=0.2).load(0)
    assert len(data.test) == 6
    assert data.report.split == "split by time, day"


def test_bad_rows_are_named_or_counted(table, photos):
    def change(rows):
        rows[3]["path"], rows[4]["path"], rows[5]["label"] = "gone.png", "", ""
        return rows

    (photos / "cat" / "6.png").write_bytes(b"no image")
    file = table(change)
    with pytest.raises(
        GraftError, match=r"4 of 30 rows cannot be used \(.*row 6: its path is missing; .*row 5 .*no such"
    ):
        ImageFile(file).load(0)
    data = ImageFile(file, on_bad_sample="skip").load(0)
    assert sum(counts(data)) == 26
    assert sorted(one["reason"].split(" (")[0] for one in data.report.skipped) == [
        "it cannot be read as an image",
        "its label is missing",
        "its path is missing",
        "there is no such file",
    ]


def test_a_stated_range(table, photos):
    from PIL import Image

    for path in photos.rglob("*.png"):
        pixels = np.random.default_rng(int(path.stem)).integers(0, 4096, (12, 16), dtype=np.uint16)
        Image.fromarray(pixels).save(path)
    with pytest.raises(GraftError, match=r"pixel_range: 30 images.* hold values from "):
        ImageFile(table()).load(0)
    data = ImageFile(table(), pixel_range=[0, 4095], channels=1).load(0)
    assert data.train.inputs[0].float().std() > 50


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"path": "file"}, r"data\.target\.path=file: .* has no such column"),
        ({"label": "kind"}, r"data\.target\.label=kind: .* has no such column"),
        ({"folder": "/nowhere/at/all"}, r"data\.target\.folder=/nowhere/at/all: no such folder"),
        ({"test_file": "/nowhere/test.csv"}, r"data\.target\.test_file=/nowhere/test\.csv: no such file"),
        ({"split": {"group": "ward"}}, r"split\.group=ward: there is no such column\. Columns: age"),
    ],
)
def test_mistakes_are_named(table, settings, said):
    with pytest.raises(GraftError, match=said):
        ImageFile(table(), **settings).load(0)
