"""The page of a real run: its network opened again, what is kept of that, and what is said where it cannot be."""

import importlib.util
import json
import re
import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

from graft.cli.main import main
from graft.inspection.attribution import has_captum
from graft.inspection.content import cell
from graft.loggers.wandb_run import sample_row
from graft.report.samples import Sample, thumbnail_of
from tests.small_run import config_in, train_in

TINY = ["training.epochs=2", "training.threads=1", "trainer=cpu", "logger=csv", "pretrain.epochs=1"]


def trained(root, *overrides):
    """The folder of a run with the config beside it, as a command leaves it."""
    train_in(root, *TINY, *overrides)
    (root / "run" / "config.yaml").write_text(yaml.safe_dump(config_in(root, *TINY, *overrides)))
    return root / "run"


def report(folder, *words):
    assert main(["report", str(folder), *words]) == 0
    found = json.loads((folder / "report" / "inspection.json").read_text())
    return (folder / "report.html").read_text(), found


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A run on photos of two classes that differ in brightness, of which some are labelled wrongly."""
    root = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number in range(60):
        label = number % 2 if number % 10 else (number + 1) % 2
        file = root / "photos" / ("cat", "dog")[label] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        bright = 60 + 120 * (number % 2)
        Image.fromarray((bright + random.integers(-40, 40, (20, 20, 3))).astype(np.uint8)).save(file)
    data = ["data=image_folder", f"data.target.root={root / 'photos'}", "data.image_size=16", "backbone=lenet"]
    data += ["data.num_workers=0", "optimizer.lr=1e-2", "data.target.test_fraction=0.3"]
    return trained(root, *data, "strategy=scratch", "task.label_smoothing=0")


def test_a_zero_of_a_table_is_shown_as_one():
    """What standardising in single precision leaves of it is not: 1e-07 among numbers around 8."""
    assert [cell(value, 8.0) for value in (1.092e-07, -3e-07, 0.25, None)] == ["0", "0", "0.25", "missing"]
    assert cell(1.092e-07, 1e-6) == "1.092e-07"


@pytest.mark.slow
def test_the_page_of_a_run_on_numbers_shows_them_as_they_are(tmp_path):
    data = ["data=table", "data/domain@data.target=diabetes", "task=regression", "backbone=mlp", "strategy=scratch"]
    _, found = report(trained(tmp_path, *data, "data.num_workers=0"))
    assert all(25 <= float(label) <= 346 for label in found["labels"]["target"])  # as the data have them
    assert len(found["labels"]["target"]) == found["samples"]


def test_the_page_opens_the_network_again(photos, capsys):
    text, found = report(photos)
    assert "Looking into the network" in capsys.readouterr().out
    assert [one["stage"] for one in found["change"]][-1] == "features"
    assert found["begin"] == "random numbers"
    assert all(one["moved"][0] > 0 for one in found["change"][:-1])
    assert all(0 <= one["cka"] <= 1 for one in found["change"])
    pictures = [(one["method"], one["when"], len(one["points"])) for one in found["projections"]]
    assert ("PCA", "before", found["samples"]) in pictures
    assert ("PCA", "after", found["samples"]) in pictures
    assert ("t-SNE", "after", found["samples"]) in pictures or importlib.util.find_spec("openTSNE") is None
    assert found["neighbours"]
    for one in found["neighbours"]:
        assert one["label"] != one["prediction"]
        assert len(one["near"]) == 3
        assert one["image"].startswith("data:image/jpeg;base64,")
    assert "Nearest training samples" in text
    assert "What training changed" in text
    if has_captum():
        assert {one["method"] for one in found["attributions"]} == {"integrated gradients", "Grad-CAM"}
        for one in found["attributions"]:
            assert bool(one["withheld"]) == ("image" not in one)
            assert "all weights" in one["similarity"]
    else:
        assert "Attribution needs captum: pip install captum" in text
    assert len(text) < 3_000_000
    assert not re.search(r'(src|href)="(?!data:|#)', text)


@pytest.mark.slow
def test_the_second_report_takes_what_the_first_one_kept(photos, capsys):
    before = report(photos)
    capsys.readouterr()
    assert report(photos) == before
    assert "Looking into the network" not in capsys.readouterr().out


def test_scores_and_calibration_are_there_without_the_network(photos):
    text, _ = report(photos)
    results = json.loads((photos / "results.json").read_text())
    assert results["temperature"]["labels"] == results["data"]["target"]["val"]
    assert results["temperature"]["val_loss_after"] <= results["temperature"]["val_loss"]
    assert "Scores by class and slice" in text
    rows = (photos / "report" / "calibration.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["probabilities", "as it is", "scaled"]


def test_a_page_says_what_is_no_longer_there(photos, tmp_path, capsys):
    folder = shutil.copytree(photos, tmp_path / "run", ignore=shutil.ignore_patterns("report*", "model"))
    assert main(["report", str(folder)]) == 0
    text = (folder / "report.html").read_text()
    assert "Nothing is shown of the network and its data" in text
    assert "no model is kept there" in text
    assert not (folder / "report" / "inspection.json").exists()
    older = shutil.copytree(photos, tmp_path / "older", ignore=shutil.ignore_patterns("report*"))
    config = yaml.safe_load((older / "config.yaml").read_text())
    del config["cache"]
    (older / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["report", str(older)]) == 0
    assert "lacks &#39;cache&#39;: it is of an older Graft" in (older / "report.html").read_text()
    assert main(["report", str(photos), "slices=[nobody]", f"to={tmp_path / 'elsewhere'}"]) == 2
    assert "report.slices=[nobody]" in capsys.readouterr().err


@pytest.mark.slow
def test_hidden_names_stay_hidden(photos, tmp_path):
    root = photos.parent / "photos"
    data = [f"data.target.root={root}", "data=image_folder", "data.image_size=16", "backbone=lenet"]
    folder = trained(tmp_path, *data, "data.num_workers=0", "strategy=scratch", "save.redact=[names,paths]")
    text, found = report(folder)
    assert (found["neighbours"], found["attributions"], found["contents"]) == ([], [], {})
    assert not any(word in text for word in ("<img", "dog", "cat/"))


@pytest.mark.slow
def test_texts(tmp_path):
    words = np.random.default_rng(0)
    lines = ["text\tlabel\tauthor"]
    for number in range(80):
        filler = " ".join(words.choice(["film", "plot", "a", "it", "is"], size=words.integers(1, 9)))
        author = "ann" if number % 3 else "bob"
        lines.append(f"{filler} {'good' if number % 2 else 'bad'} {number}\t{number % 2}\t{author}")
    (tmp_path / "t.tsv").write_text("\n".join(lines))
    data = ["data=text", "data/domain@data.target=text_file", f"data.target.file={tmp_path / 't.tsv'}"]
    network = ["backbone=lstm", "backbone.embedding_size=8", "backbone.hidden_size=8", "strategy=scratch"]
    folder = trained(tmp_path, *data, *network, "report.slices=[author,length]", "data.target.test_fraction=0.3")
    _, found = report(folder)
    by = {row.split(",")[0] for row in (folder / "report" / "slices.csv").read_text().splitlines()[1:]}
    assert by == {"class", "author", "length"}
    assert [one["stage"] for one in found["change"]] == ["embedding", "layers.0", "features"]
    assert all("text" in one and "text" in one["near"][0] for one in found["neighbours"])
    for one in found["attributions"]:
        assert one["method"] == "integrated gradients"
        assert one["withheld"] or one["marks"]


@pytest.mark.slow
def test_tables_with_a_source(tmp_path):
    for name, offset in (("target", 0), ("source", 3)):
        lines = [f"{i + offset},{'cook' if i % 3 else 'smith'},{'yes' if i % 2 else 'no'}" for i in range(90)]
        (tmp_path / f"{name}.csv").write_text("age,job,outcome\n" + "\n".join(lines))
    data = ["data=table", "backbone=mlp", "backbone.weights=source", "strategy=full"]
    for side in ("target", "source"):
        data += [f"data/domain@data.{side}=table_file", f"data.{side}.file={tmp_path / f'{side}.csv'}"]
        data += [f"data.{side}.label=outcome", f"data.{side}.on_bad_sample=skip"]
    folder = trained(tmp_path, *data, "report.slices=[job]")
    _, found = report(folder)
    assert found["begin"] == "pretraining on the source"
    assert set(found["domains"]) == {"source", "target"}
    assert "job,cook," in (folder / "report" / "slices.csv").read_text()
    assert all("age: " in one["text"] for one in found["neighbours"])
    _, again = report(folder, "slices=[age]")
    assert len(again["slices"]["age"]) == len(found["labels"]["target"])


@pytest.mark.slow
def test_sounds(tones, tmp_path):
    pattern = r"data.target.pattern='(?P<label>[a-z]+)_(?P<speaker>[a-z]+)_(?P<index>\d+)'"
    data = ["data=speech", f"data.target.root={tones}", pattern, "data.batch_size=8"]
    data += ["data.target.val_fraction=0.3", "data.target.test_fraction=0.3"]
    mel = ["backbone=mel_cnn", "backbone.name=test_resnet", "backbone.sample_rate=8000", "backbone.clip_seconds=0.3"]
    mel += ["backbone.n_mels=32", "backbone.hop_length_ms=10"]
    folder = trained(tmp_path, *data, *mel, "strategy=scratch", "report.slices=[speaker,seconds]")
    _, found = report(folder)
    by = {row.split(",")[0] for row in (folder / "report" / "slices.csv").read_text().splitlines()[1:]}
    assert by == {"class", "speaker", "seconds"}
    assert all(one["sound"].startswith("data:audio/wav") for one in found["neighbours"])
    assert all(one["withheld"] or one["image"] for one in found["attributions"])


@pytest.mark.slow
def test_wandb_has_the_pages_pictures_tables_and_samples(photos, tmp_path):
    """What the real client wrote offline."""
    config = yaml.safe_load((photos / "config.yaml").read_text())
    data = [f"data.target.root={config['data']['target']['root']}", "data=image_folder", "data.image_size=16"]
    words = [*data, "backbone=lenet", "data.num_workers=0", "strategy=scratch", "training.epochs=1"]
    train_in(tmp_path, *[*TINY[1:3], *words], "logger=wandb", "logger.wandb.mode=offline")
    media = next((tmp_path / "run" / "wandb").glob("offline-run-*")) / "files" / "media"
    pictures = {file.name.partition("_")[0] for file in (media / "images" / "report").glob("*.png")}
    assert {"confusion", "reliability", "curve"} <= pictures
    tables = {file.name.rsplit("_", 2)[0]: json.loads(file.read_text()) for file in media.rglob("report/*.table.json")}
    assert {"slices", "calibration", "confused", "metrics", "largest_losses"} <= tables.keys()
    assert tables["slices"]["columns"] == ["by", "value", "samples", "acc", "95 % interval"]
    assert tables["largest_losses"]["columns"] == ["name", "label", "prediction", "note", "text", "image"]
    sample = sample_row(Sample("a.png", "cat", image=thumbnail_of(Image.new("RGB", (12, 9)))))
    assert sample["image"].image.size == (12, 9)
