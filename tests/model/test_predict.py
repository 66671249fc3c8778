"""`graft predict`: files in, a row for each out."""

import csv
import io
import json

import numpy as np
import pandas
import pytest
from PIL import Image

import graft
from graft.cli.main import main
from graft.config.conflicts.selection import save_contradictions
from graft.inspection.faithfulness import Verdict
from graft.model import predictions
from graft.report.temperature import tempered


def kept_by(folder):
    return predictions.read(folder / "predictions.parquet")["target"]


def read_csv(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_a_folder_of_photos_with_a_broken_one_and_other_files(run, photos, tmp_path, capsys):
    folder = run(*photos, "strategy=scratch", "save.neighbours=true")
    (tmp_path / "photos" / "broken.png").write_bytes(b"no picture")
    (tmp_path / "photos" / "notes.txt").write_text("cats")
    output = tmp_path / "found" / "photos.csv"
    where = [f"run={folder}", f"input={tmp_path / 'photos'}", f"output={output}"]
    capsys.readouterr()
    assert main(["predict", *where, "batch_size=7", "--nearest", "2"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    rows = {row["input"]: row for row in read_csv(output.read_text())}
    assert len(rows) == 60
    kept = kept_by(folder)
    for name, label, probabilities in zip(kept["sample"], kept["prediction"], kept["probabilities"], strict=True):
        assert rows[name]["prediction"] == label
        found = [float(rows[name][f"p({one})"]) for one in kept["classes"]]
        np.testing.assert_allclose(found, probabilities, atol=1e-5)
    scaled = json.loads((folder / "model" / "model.json").read_text())["temperature"] or 1.0
    confidence = tempered(np.array(kept["probabilities"]), scaled).max(axis=1)
    np.testing.assert_allclose([float(rows[name]["confidence"]) for name in kept["sample"]], confidence, atol=1e-5)
    assert "60 predicted, 1 left out (.txt files), 1 could not be read" in err
    assert "Not read: " in err
    assert [row["input"] for row in read_csv((tmp_path / "found" / "photos_unread.csv").read_text())] == [
        str(tmp_path / "photos" / "broken.png")
    ]
    own = [row for row in rows.values() if row["nearest 1"] == row["input"]]
    assert len(own) == 60 - len(kept["sample"]) - 9, "a training sample is the nearest to itself"
    assert all(float(row["nearest 1 similarity"]) > 0.999 for row in own)
    assert all(row["nearest 1 label"] == row["input"].split("/")[-2] for row in own)
    assert all(float(row["nearest 1 similarity"]) >= float(row["nearest 2 similarity"]) for row in rows.values())
    assert {row["unusual"] for row in own} == {"False"}


def test_explanations_stand_beside_the_output(run, photos, tmp_path, monkeypatch):
    pytest.importorskip("captum")
    monkeypatch.setattr(Verdict, "withheld", "")  # two epochs teach nothing that an attribution could point at
    folder = run(*photos, "strategy=scratch")
    output = tmp_path / "few.jsonl"
    (tmp_path / "list.csv").write_text("path\n" + "\n".join(kept_by(folder)["sample"][:2]))
    arguments = ["predict", f"run={folder}", f"input={tmp_path / 'list.csv'}", "--explain"]
    assert main(arguments) == 2  # pictures have no place in standard output
    assert main([*arguments, f"output={output}"]) == 0
    for row in map(json.loads, output.read_text().splitlines()):
        assert row["explanation"]["method"] in ("integrated gradients", "Grad-CAM")
        with Image.open(tmp_path / row["explanation"]["picture"]) as picture:
            assert picture.format == "PNG"


def test_images_of_an_npz_as_a_run_of_it_tested_them(run, tmp_path, capsys):
    random, labels = np.random.default_rng(0), np.arange(40) % 2
    images = (random.integers(0, 120, (40, 12, 12)) + 100 * labels[:, None, None]).astype(np.uint8)
    arrays = {f"{name}_images": images[start::3] for start, name in enumerate(("train", "val", "test"))}
    arrays |= {f"{name}_labels": labels[start::3] for start, name in enumerate(("train", "val", "test"))}
    np.savez(tmp_path / "scans.npz", **arrays)
    np.savez(tmp_path / "new.npz", images=np.stack([arrays["test_images"]] * 3, axis=-1))
    domain = ["data/domain@data.target=image_arrays", f"data.target.file={tmp_path / 'scans.npz'}", "data.source=null"]
    folder = run(*domain, "backbone=lenet", "data.image_size=16", "strategy=scratch", "data.labels_per_class=null")
    capsys.readouterr()
    expected = kept_by(folder)["probabilities"]
    for file, column in (("scans.npz", "test_images"), ("new.npz", "images")):
        own = [] if column == "images" else [f"column={column}"]
        assert main(["predict", f"run={folder}", f"input={tmp_path / file}", *own]) == 0
        rows = read_csv(capsys.readouterr().out)
        assert [row["input"] for row in rows] == [f"{column}[{index}]" for index in range(13)]
        np.testing.assert_allclose([[float(row["p(0)"]), float(row["p(1)"])] for row in rows], expected, atol=1e-5)
    assert main(["predict", f"run={folder}", f"input={tmp_path / 'scans.npz'}"]) == 2
    assert "no array images. Name the one with the images: column=<one of train_images, val" in capsys.readouterr().err
    assert main(["predict", f"run={folder}", f"input={tmp_path / 'scans.npz'}", "column=test_labels"]) == 2
    assert "test_labels has the shape (13,); images are (N, H, W)" in capsys.readouterr().err
    (tmp_path / "broken.npz").write_bytes(b"no zip")
    assert main(["predict", f"run={folder}", f"input={tmp_path / 'broken.npz'}"]) == 2
    assert "broken.npz cannot be read" in capsys.readouterr().err


def test_one_photo_and_a_list_of_them(run, photos, tmp_path, capsys):
    folder = run(*photos, "strategy=scratch")
    names = kept_by(folder)["sample"][:3]
    (tmp_path / "list.csv").write_text("picture\n" + "\n".join(names))
    assert main(["predict", f"run={folder}", f"input={names[0]}", f"output={tmp_path / 'one.jsonl'}"]) == 0
    one = json.loads((tmp_path / "one.jsonl").read_text())
    assert one["input"] == names[0]
    assert set(one["probabilities"]) == {"cat", "dog"}
    arguments = [
        f"run={folder}",
        f"input={tmp_path / 'list.csv'}",
        "column=picture",
        f"output={tmp_path / 'few.parquet'}",
    ]
    assert main(["predict", *arguments]) == 0
    assert pandas.read_parquet(tmp_path / "few.parquet")["input"].tolist() == names


def test_texts_from_lines_standard_input_and_columns(run, reviews, tmp_path, capsys, monkeypatch):
    overrides, table = reviews
    folder = run(*overrides, "backbone=lstm", "strategy=scratch")
    texts = table["text"].tolist()[:9]
    (tmp_path / "lines.txt").write_text("\n".join([*texts[:4], "", *texts[4:]]))
    capsys.readouterr()
    found = []
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(texts)))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"review": text}) + "\n" for text in texts))
    assert main(["predict", f"run={folder}", f"input={tmp_path / 'lines.txt'}", "--nearest", "3"]) == 2
    assert "save.neighbours=true" in capsys.readouterr().err
    for what in (
        [f"input={tmp_path / 'lines.txt'}"],
        ["input=-"],
        [f"input={tmp_path / 'rows.jsonl'}", "column=review"],
    ):
        assert main(["predict", f"run={folder}", *what]) == 0
        found.append([(row["prediction"], row["p(1)"]) for row in read_csv(capsys.readouterr().out)])
    assert len(found[0]) == 9
    assert found[0] == found[1] == found[2]


def test_rows_of_a_table_with_a_bad_one(run, people, tmp_path, capsys):
    overrides, table = people
    folder = run(*overrides)
    table.head(6).astype({"age": object}).assign(age=[30, "old", None, 31, 32, 33]).to_csv(tmp_path / "new.csv")
    capsys.readouterr()
    assert main(["predict", f"run={folder}", f"input={tmp_path / 'new.csv'}"]) == 0
    out, err = capsys.readouterr()
    assert [row["input"] for row in read_csv(out)] == ["row 2", "row 4", "row 5", "row 6", "row 7"]
    assert "Columns that the model does not know: Unnamed: 0, outcome, score" in err
    assert "Not read: row 3: " in err
    assert "'old'" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "graft predict run=<folder>"),
        (["run=x"], "graft predict run=<folder>"),
        (["run=x", "input=y", "inptu=z"], "'inptu=z' is none of its keys"),
        (["run=nowhere", "input=y"], "nowhere: there is no such folder"),
        (["run=x", "input=y", "output=z.xls"], "output=z.xls: predictions are written as"),
        (["run=x", "input=y", "batch_size=0"], "batch_size=0"),
        (["run=x", "input=y", "--nearest", "no"], "--nearest=no"),
    ],
)
def test_mistakes_are_named(arguments, said, capsys):
    assert main(["predict", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_what_a_model_cannot_take_is_named(run, people, tmp_path, capsys):
    overrides, _ = people
    folder = run(*overrides)
    (tmp_path / "new.csv").write_text("age,job\n3,cook\n")
    assert main(["predict", f"run={folder}", f"input={tmp_path / 'new.csv'}"]) == 2
    assert "it has no column height. Columns: age, job." in capsys.readouterr().err
    assert main(["predict", f"run={folder}", f"input={tmp_path / 'none.csv'}"]) == 2
    assert "there is no such file or folder" in capsys.readouterr().err
    assert main(["predict", f"run={folder}", "input=-"]) == 2
    assert "only a model of texts reads standard input" in capsys.readouterr().err


def test_what_marks_texts_and_rows_are_tokens_and_columns(run, reviews, people, tmp_path, monkeypatch):
    pytest.importorskip("captum")
    monkeypatch.setattr(Verdict, "withheld", "")
    overrides, _ = reviews
    text = graft.load_run(run(*overrides, "backbone=lstm", "strategy=scratch"))
    (explanation,) = text.predict("a good film", explain=True).explanations
    assert len(explanation.weights) == 3
    assert max(abs(weight) for _, weight in explanation.weights) == pytest.approx(1)
    overrides, _ = people
    table = graft.load_run(run(*overrides, "save.neighbours=true", folder="people"))
    found = table.predict({"age": 33, "job": "smith", "height": 180}, explain=True, nearest=2)
    assert [name for name, _ in found.explanations[0].weights] == ["age", "height", "job"]
    assert [one.label in ("no", "yes") for one in found.nearest[0]] == [True, True]


def test_an_attribution_that_fails_its_checks_is_withheld(run, people, monkeypatch):
    pytest.importorskip("captum")
    monkeypatch.setattr(Verdict, "withheld", "random weights hardly change it")
    model = graft.load_run(run(*people[0]))
    (one,) = model.predict({"age": 33, "job": "smith", "height": 180}, explain=True).explanations
    assert (one.withheld, one.weights, one.picture) == ("random weights hardly change it", None, None)


def test_neighbours_of_a_model_that_is_not_kept_are_refused():
    assert "save.neighbours=true" in next(save_contradictions({"neighbours": True, "model": "none"}))
    assert not list(save_contradictions({"neighbours": True, "model": "best"}))
    only_best = {"neighbours": False, "checkpoints": "best"}
    assert "save.checkpoints=best" in next(save_contradictions({**only_best, "model": "always"}))
    assert not list(save_contradictions({**only_best, "model": "best"}))
