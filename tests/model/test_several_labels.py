"""Several labels a sample, from every kind of file that can hold them: trained, and predicted by the model alone."""

import json
import re

import numpy as np
import pandas
import pytest
from PIL import Image

import graft
from graft.model import predictions

SEVERAL = ("data.target.label_kind=multilabel", "task=multilabel", "strategy=scratch", "backbone.weights=null")
CLASSES = ("loud", "red", "wet")
SAMPLES = 60


@pytest.fixture
def labels():
    """0 and 1 `(60, 3)`, one label at least: in a table, none would be a missing label."""
    found = (np.random.default_rng(0).random((SAMPLES, len(CLASSES))) > 0.5).astype(np.uint8)
    found[found.sum(1) == 0, 0] = 1
    return found


def words(row) -> str:
    """Labels of a sample as a table holds them."""
    return "|".join(name for name, there in zip(CLASSES, row, strict=True) if there)


def check(folder, classes, inputs):
    """The model predicts on `inputs(samples)` what the run's own test predicted; some samples get several labels."""
    kept = predictions.read(folder / "predictions.parquet")["target"]
    model = graft.load_run(folder)
    found = model.predict(inputs(kept["sample"]))
    assert model.classes == classes
    assert [tuple(one) for one in found.labels] == [tuple(one) for one in kept["prediction"]]
    np.testing.assert_allclose(found.probabilities, np.array(kept["probabilities"]), atol=1e-5, rtol=0)
    metrics = json.loads((folder / "results.json").read_text())["metrics"]
    assert {f"test/target/{name}" for name in ("loss", "acc", "f1", "auroc")} <= set(metrics)


def rows(samples) -> list[int]:
    """Rows from 0 of samples that are lines of a table with a header."""
    return [int(re.search(r"(?:row|line) (\d+)$", name)[1]) - 2 for name in samples]


def test_of_arrays(run, tmp_path, labels):
    images = np.random.default_rng(1).integers(0, 255, (SAMPLES, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "scans.npz", images=images, labels=labels)
    folder = run(
        *("data/domain@data.target=image_arrays", f"data.target.file={tmp_path / 'scans.npz'}", "data.source=null"),
        *("data.image_size=16", "backbone=lenet", "objective.alpha=0", "data.labels_per_class=null", *SEVERAL),
    )
    indices = lambda samples: [int(re.search(r"\[(\d+)\]$", name)[1]) for name in samples]  # noqa: E731
    check(folder, ("0", "1", "2"), lambda samples: list(images[indices(samples)]))


def test_of_a_table(run, tmp_path, labels):
    table = pandas.DataFrame({"age": np.random.default_rng(1).normal(40, 10, SAMPLES).round(1)})
    table = table.assign(**dict(zip(CLASSES, labels.T, strict=True)))
    table.to_csv(tmp_path / "people.csv", index=False)
    folder = run(
        *("data=table", "data/domain@data.target=table_file", f"data.target.file={tmp_path / 'people.csv'}"),
        *("backbone=mlp", "data.target.label=[loud,red,wet]", *SEVERAL),
    )
    check(folder, CLASSES, lambda samples: table.iloc[rows(samples)])


def test_of_texts(run, tmp_path, labels):
    table = pandas.DataFrame({"text": [f"film {n} is {words(row)}" for n, row in enumerate(labels)]})
    table.assign(label=[words(row) for row in labels]).to_csv(tmp_path / "reviews.tsv", sep="\t", index=False)
    folder = run(
        "data=text",
        "backbone=gru",
        "data/domain@data.target=text_file",
        f"data.target.file={tmp_path / 'reviews.tsv'}",
        *SEVERAL,
    )
    check(folder, CLASSES, lambda samples: list(table["text"].iloc[rows(samples)]))


def test_of_a_list_of_images(run, tmp_path, labels):
    (tmp_path / "photos").mkdir()
    random, lines = np.random.default_rng(1), ["path,label"]
    for number, row in enumerate(labels):
        Image.fromarray(random.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(tmp_path / f"photos/{number}.png")
        lines.append(f"photos/{number}.png,{words(row)}")
    (tmp_path / "photos.csv").write_text("\n".join(lines))
    folder = run(
        *("data=image_folder", "data/domain@data.target=image_file", f"data.target.file={tmp_path / 'photos.csv'}"),
        *("data.image_size=16", "backbone=lenet", *SEVERAL),
    )
    check(folder, CLASSES, lambda samples: [re.search(r"\((.+)\)$", name)[1] for name in samples])
