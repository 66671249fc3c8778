"""A run's model folder predicts by itself what the run's own test predicted."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from lanes import slow
from PIL import Image

import graft
from graft.errors import GraftError
from graft.model import folder as folders
from graft.model import predictions
from graft.model.model import load_weights
from tests.model.conftest import TINY

CLOSE = 1e-5  # largest difference of two probabilities


def kept_by(folder: Path) -> dict:
    """What the run predicted for the target's test split."""
    return predictions.read(folder / "predictions.parquet")["target"]


def rows_of(kept: dict, table: pandas.DataFrame) -> pandas.DataFrame:
    """The test split's rows of a table whose first row is line 2 of its file."""
    lines = [int(re.search(r"row (\d+)$", name)[1]) for name in kept["sample"]]
    return table.iloc[[line - 2 for line in lines]]


def assert_card(folder: Path) -> str:
    """The model card, in which nothing is left blank."""
    text = (folder / "model" / "README.md").read_text()
    assert not re.search(r"\bNone\b|\bnan\b|\binf\b|\{\{|\|[ \t]*\||: *$|^- *$", text, re.MULTILINE), text
    assert "Spec(" not in text
    for section in text.split("\n## ")[1:]:
        assert len(section.strip().splitlines()) > 1, section
    return text


def assert_same(found, kept, atol=CLOSE):
    """The same labels, and probabilities up to rounding."""
    assert [tuple(one) if isinstance(one, tuple | list) else one for one in found.labels] == [
        tuple(one) if isinstance(one, list) else one for one in kept["prediction"]
    ]
    np.testing.assert_allclose(found.probabilities, np.array(kept["probabilities"]), atol=atol, rtol=0)


# Images


@pytest.mark.parametrize("overrides", [("strategy=scratch",), ("strategy=scratch", "task=binary")], ids=" ".join)
def test_paths_pictures_and_arrays_are_predicted_as_in_the_test(run, photos, overrides):
    folder = run(*photos, *overrides)
    model, kept = graft.load_run(folder), kept_by(folder)
    assert model.classes == ("cat", "dog")
    assert_same(model.predict(kept["sample"]), kept)
    pictures = [Image.open(file) for file in kept["sample"]]
    assert_same(model.predict(pictures), kept)
    arrays = [np.array(picture) for picture in pictures]
    assert_same(model.predict(arrays), kept)
    assert_same(model.predict([torch.from_numpy(one).permute(2, 0, 1) for one in arrays], batch_size=3), kept)
    one = model.predict(kept["sample"][0])
    assert len(one) == 1
    assert next(iter(one))["prediction"] == kept["prediction"][0]
    text = assert_card(folder)
    assert f"| target | acc | {model.metrics['test/target/acc']:.4g} | " in text
    assert f"| {len(kept['label'])} |" in text
    assert "no features of training samples" in text


NETWORKS = [
    "strategy=scratch averaging=ema averaging.decay=0.5",
    *slow(
        "strategy=adapter backbone=efficientnet_lite0 backbone.weights=null data.image_size=32",
        "strategy=scratch trainer.precision=64-true",
        "strategy=scratch trainer.precision=bf16-mixed",
        "strategy=scratch training.channels_last=true backbone=mobilenet_v2 data.image_size=32",
        "strategy=lora backbone=efficientnet_lite0 backbone.weights=null data.image_size=32",
        "strategy=scratch training.stochastic_depth=0.2 backbone=resnet18 data.image_size=32",
        "strategy=scratch head=mlp",
        "strategy=scratch data.augment=light bn=domain_specific",
    ),
]


@pytest.mark.parametrize("overrides", NETWORKS)
def test_whatever_was_tested_is_what_predicts(run, photos, overrides):
    folder = run(*photos, *overrides.split())
    kept = kept_by(folder)
    found = graft.load_run(folder).predict(kept["sample"])
    assert_same(found, kept, atol=5e-3 if "bf16" in overrides else CLOSE)


@pytest.mark.slow
def test_a_model_needs_neither_data_nor_hydra_nor_lightning(run, photos, tmp_path):
    folder = run(*photos, "strategy=scratch")
    kept = kept_by(folder)
    shutil.copy(kept["sample"][0], tmp_path / "new.png")
    shutil.copytree(folder / "model", tmp_path / "elsewhere")
    shutil.rmtree(folder)
    shutil.rmtree(tmp_path / "photos")
    code = (
        "import sys, graft, json;"
        "found = graft.load_run('elsewhere').predict('new.png');"
        "heavy = [m for m in ('hydra', 'pytorch_lightning', 'wandb', 'pandas', 'sklearn') if m in sys.modules];"
        "print(json.dumps([found.labels, found.probabilities.tolist(), heavy]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    labels, probabilities, heavy = json.loads(done.stdout)
    assert labels == kept["prediction"][:1]
    np.testing.assert_allclose(probabilities, kept["probabilities"][:1], atol=CLOSE)
    assert heavy == []


# Texts


@pytest.mark.slow
def test_texts_with_words_of_their_own(run, reviews):
    overrides, table = reviews
    folder = run(*overrides, "backbone=lstm", "strategy=scratch", "data.eval_batch_size=4")
    kept = kept_by(folder)
    assert_same(graft.load_run(folder).predict(rows_of(kept, table)["text"]), kept)
    assert "`vocabulary.json` holds words of the training data" in assert_card(folder)


@pytest.mark.slow
def test_texts_in_tokens_of_a_tokenizer(run, reviews, tiny_bert):
    overrides, table = reviews
    folder = run(*overrides, "backbone=lstm", f"backbone.tokenizer={tiny_bert}", "strategy=scratch")
    kept = kept_by(folder)
    assert_same(graft.load_run(folder).predict(rows_of(kept, table)["text"]), kept)


@pytest.mark.slow
def test_texts_with_the_tokenizer_of_a_model_that_is_gone(run, reviews, tiny_bert, tmp_path):
    overrides, table = reviews
    copy = shutil.copytree(tiny_bert, tmp_path / "bert")
    folder = run(
        *overrides,
        "backbone=bert",
        f"backbone.name={copy}",
        "strategy=full",
        "backbone.weights=pretrained",
        "backbone.max_length=16",
    )
    shutil.rmtree(copy)
    kept = kept_by(folder)
    assert_same(graft.load_run(folder).predict([*rows_of(kept, table)["text"]]), kept)


# Sound


def test_recordings_by_path_and_as_waveforms(run, tones):
    import soundfile

    folder = run(
        *("data=speech", f"data.target.root={tones}", "backbone=mel_cnn", "backbone.name=test_resnet"),
        *("backbone.sample_rate=8000", "backbone.clip_seconds=0.3", "backbone.n_mels=32", "backbone.hop_length_ms=10"),
        *(
            r"data.target.pattern='(?P<label>[a-z]+)_(?P<speaker>[a-z]+)_(?P<index>\d+)'",
            "data.target.test_fraction=0.3",
        ),
        *("strategy=scratch", "optimizer.lr=1e-2", "data.target.val_fraction=0.3", "data.batch_size=4"),
    )
    model, kept = graft.load_run(folder), kept_by(folder)
    assert_same(model.predict(kept["sample"]), kept)
    waves = [soundfile.read(file, dtype="float32")[0] for file in kept["sample"]]
    assert_same(model.predict(waves, sample_rate=8000), kept)
    assert_same(model.predict([(wave, 8000) for wave in waves]), kept)
    assert_card(folder)
    with pytest.raises(GraftError, match="how many samples a second"):
        model.predict(waves)


# Tables


def test_tables_from_a_frame_a_file_columns_and_records(run, people, tmp_path):
    overrides, table = people
    folder = run(*overrides)
    model, kept = graft.load_run(folder), kept_by(folder)
    rows = rows_of(kept, table)
    assert_same(model.predict(rows), kept)
    assert_same(model.predict(rows.drop(columns=["outcome", "score"])), kept)
    assert_same(model.predict(rows.to_dict("list")), kept)
    assert_same(model.predict(rows.to_dict("records")), kept)
    rows.to_csv(tmp_path / "new.csv", index=False)
    rows.to_parquet(tmp_path / "new.parquet")
    assert_same(model.predict(tmp_path / "new.csv"), kept)
    assert_same(model.predict(str(tmp_path / "new.parquet")), kept)
    assert len(model.predict({"age": 33, "job": "smith", "height": 180})) == 1
    assert "`columns.json` holds categories" in assert_card(folder)
    with pytest.raises(GraftError, match="no column height"):
        model.predict({"age": 33, "job": "smith"})
    with pytest.raises(GraftError, match=r"row 1: .*'old'"):
        model.predict({"age": "old", "job": "smith", "height": 180})


@pytest.mark.slow
def test_numbers_come_back_in_their_unit(run, people):
    overrides, table = people
    keys = ["data.target.label=score", "data.target.label_kind=numbers", "task=regression", "data.target.ignore=[]"]
    folder = run(*overrides, *keys)
    model, kept = graft.load_run(folder), kept_by(folder)
    found = model.predict(rows_of(kept, table))
    assert found.probabilities is None
    assert model.classes is None
    np.testing.assert_allclose(found.labels, kept["prediction"], atol=1e-5)
    assert "Predicts a number for rows of a table" in assert_card(folder)
    assert abs(np.mean(found.labels) - 3) < 2, "standardised outputs would be near 0"


def test_decimal_commas_and_words_for_missing_are_read_as_in_training(run, people, tmp_path):
    overrides, table = people
    text = table.to_csv(index=False, sep=";", decimal=",", na_rep="?")
    (tmp_path / "people.csv").write_text(text)
    folder = run(*overrides, "data.target.delimiter=';'", "data.target.missing=['?']")
    kept, lines = kept_by(folder), text.splitlines()
    numbers = [int(re.search(r"row (\d+)$", name)[1]) for name in kept["sample"]]
    (tmp_path / "new.csv").write_text("\n".join([lines[0], *(lines[number - 1] for number in numbers)]))
    assert_same(graft.load_run(folder).predict(tmp_path / "new.csv"), kept)


def test_rows_are_divided_by_their_sum_as_in_training(run, tmp_path):
    numbers = np.random.default_rng(0)
    words = [numbers.multinomial(numbers.integers(3, 40), np.ones(40) / 40) for _ in range(60)]
    rows = [",".join(map(str, [*counts, n % 2])) for n, counts in enumerate(words)]
    lines = [",".join([*(f"w{n}" for n in range(40)), "outcome"]), *rows]
    (tmp_path / "words.csv").write_text("\n".join(lines))
    folder = run(
        *("data=table", "data/domain@data.target=table_file", f"data.target.file={tmp_path / 'words.csv'}"),
        *("data.target.label=outcome", "data.target.row_norm=l1", "strategy=scratch", "backbone=mlp"),
    )
    kept = kept_by(folder)
    rows = [lines[int(re.search(r"row (\d+)$", name)[1]) - 1] for name in kept["sample"]]
    (tmp_path / "new.csv").write_text("\n".join([lines[0], *rows]))
    assert_same(graft.load_run(folder).predict(tmp_path / "new.csv"), kept)


# Sequences and several labels


def test_sequences_and_several_labels(run, tmp_path):
    random = np.random.default_rng(0)
    values, lengths = random.normal(5, 3, (60, 9, 2)), random.integers(3, 10, 60)
    labels = (random.random((60, 3)) > 0.5).astype(np.uint8)
    np.savez(tmp_path / "walks.npz", sequences=values, lengths=lengths, labels=labels)
    folder = run(
        *("data=sequences", "data/domain@data.target=sequence_arrays", f"data.target.file={tmp_path / 'walks.npz'}"),
        *("data.target.label_kind=multilabel", "task=multilabel", "strategy=scratch", "backbone=gru_sequence"),
    )
    model, kept = graft.load_run(folder), kept_by(folder)
    indices = [int(re.search(r"\[(\d+)\]$", name)[1]) for name in kept["sample"]]
    assert_same(model.predict([values[index, : lengths[index]] for index in indices]), kept)
    assert model.classes == ("0", "1", "2")
    assert "Predicts any of 3 classes" in assert_card(folder)
    assert {len(one) for one in kept["prediction"]} - {1}, "none or several labels"


# The folder


def test_shared_and_expanded_weights_are_kept_once_and_come_back(tmp_path):
    def network():
        torch.manual_seed(0)
        made = torch.nn.ModuleDict({"one": torch.nn.Linear(3, 3), "two": torch.nn.Linear(3, 3)})
        made["two"].weight = made["one"].weight
        made.register_buffer("wide", torch.ones(1, 4).expand(5, 4))
        made["conv"] = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        return made

    saved = network()
    with torch.no_grad():
        saved["one"].weight.add_(1)
    folders.write_weights(saved, tmp_path / "weights.safetensors")
    loaded = network()
    loaded.wide = torch.zeros(5, 4)
    load_weights(loaded, tmp_path / "weights.safetensors")
    assert loaded["two"].weight is loaded["one"].weight
    for name, value in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_what_is_wrong_with_a_folder_is_said(run, photos, tmp_path):
    folder = run(*photos, "strategy=scratch")
    with pytest.raises(GraftError, match="no such folder"):
        graft.load_run(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(GraftError, match=r"no model is kept there.*save\.model=always"):
        graft.load_run(tmp_path / "empty")
    description = json.loads((folder / "model" / "model.json").read_text())
    for change, said in [
        ({"format": 2}, "newer Graft"),
        ({"allow": ["mypkg"]}, r"allow=\['mypkg'\]"),
        ({"backbone": {"_target_": "os.system", "command": "true"}}, "_target_: os.system"),
        ({"files": {"name": "../../secret"}}, "is no file of this model's"),
        ({"dtype": "load"}, "dtype=load"),
        ({"head": description["head"] | {"num_outputs": 5}}, "holds other weights"),
    ]:
        (folder / "model" / "model.json").write_text(json.dumps(description | change))
        with pytest.raises(GraftError, match=said):
            graft.load_run(folder)
    (folder / "model" / "model.json").write_text(json.dumps(description))
    weights = folder / "model" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(GraftError, match=r"weights\.safetensors cannot be read"):
        graft.load_run(folder)


def test_a_file_that_is_gone_is_named(run, photos):
    model = graft.load_run(run(*photos, "strategy=scratch"))
    with pytest.raises(GraftError, match=r"no file .*gone\.jpg"):
        model.predict(["gone.jpg"])


@pytest.mark.slow
def test_nothing_is_kept_where_that_is_asked_for(run, photos):
    folder = run(*photos, "strategy=scratch", "save.model=none", "save.predictions=false")
    assert not (folder / "model").exists()
    assert not (folder / "predictions.parquet").exists()


def test_names_and_paths_can_be_hidden(run, photos, tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "photos" / "cat" / "white.png")
    (tmp_path / "photos" / "cat" / "secret.png").write_bytes(b"no picture")
    folder = run(
        *photos,
        "strategy=scratch",
        "save.redact=[paths,names]",
        "data.target.on_bad_sample=skip",
        "save.neighbours=true",
    )
    kept = kept_by(folder)
    assert kept["classes"] == ["class 0", "class 1"]
    assert set(kept["label"]) == {"class 0", "class 1"}
    results = (folder / "results.json").read_text()
    assert not re.search("cat|dog", str(kept))
    assert "secret.png" not in results
    assert ".png" not in str(graft.load_run(folder).neighbours.samples)
    assert json.loads(results)["data"]["target"]["classes"] == ["class 0", "class 1"]
    assert graft.load_run(folder).classes == ("cat", "dog")


@pytest.mark.slow
def test_of_a_sweep_the_best_job_keeps_its_model(app_folder):
    folder = app_folder
    best = json.loads((folder / "best_model.json").read_text())["val/target/acc"]
    kept = [path.parent.parent.name for path in folder.glob("*/model/model.json")]
    assert kept == [best["job"]]
    values = {
        path.parent.name: json.loads(path.read_text())["selection"]["value"] for path in folder.glob("*/results.json")
    }
    assert len(values) == 3
    assert values[best["job"]] == max(values.values()) == best["value"]
    assert graft.load_run(folder).metrics["val/target/acc"] == pytest.approx(best["value"])
    assert [path.parent.parent.name for path in folder.glob("*/checkpoints/*")] == [best["job"]]  # save.checkpoints


@pytest.fixture
def app_folder(photos, tmp_path):
    """The folder of a sweep over three rates, the last of which learns nothing."""
    command = [sys.executable, "-m", "graft", "train", "-m", *TINY, *photos, "strategy=scratch"]
    rates = ["optimizer.lr=1e-3,1e-2,1e-9", f"hydra.sweep.dir={tmp_path / 'sweep'}", "save.checkpoints=best"]
    environment = {**os.environ, "GRAFT_ROOT": str(tmp_path), "GRAFT_CACHE": str(tmp_path / "cache")}
    done = subprocess.run([*command, *rates], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return tmp_path / "sweep"
