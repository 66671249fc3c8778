"""Runs on samples of several modalities, from a table with texts and paths to a model that predicts."""

import copy
import functools
import json
import re
import wave

import numpy as np
import pytest
import torch
from PIL import Image

import graft
from graft.cli.main import main
from graft.config.conflicts.fusion import fusion_contradictions
from graft.config.conflicts.names import Names
from graft.data.samples import rows_of
from graft.data.sources.multimodal_file import MultimodalFile
from graft.errors import GraftError, Interrupted
from tests.small_run import config_in, train_in
from tests.test_run import weights

TINY = [
    *("data=multimodal", "data/domain@data.target=multimodal_file", "data.batch_size=8", "data.target.label=liked"),
    *("backbone=fusion", "backbone.width=8", "backbone.parts.table.width=8", "backbone.parts.text.max_length=12"),
    *("strategy=frozen", "training.epochs=2", "training.threads=1", "optimizer.lr=0.01", "trainer=cpu", "logger=csv"),
    "data.target.text=review",
]
GATED = ["backbone.method=gated", "backbone.modality_dropout=0.2"]


@pytest.fixture
def run(tmp_path, tiny_bert):
    (tmp_path / "pictures").mkdir()
    lines = ["review,picture,voice,age,shop,product,liked"]
    for i in range(60):
        shade = 250 if i % 2 else 20
        Image.new("L", (16, 16), shade + i % 5).save(tmp_path / "pictures" / f"{i}.png")
        with wave.open(str(tmp_path / f"{i}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(np.full(800, i, dtype="<i2").tobytes())
        text = "" if i % 10 == 0 else f"a film that is {'good' if i % 2 else 'bad'} {i}"
        picture = "" if i % 10 == 3 else f"pictures/{i}.png"
        lines.append(f"{text},{picture},{i}.wav,{20 + i * 7 % 50},{'old' if i % 3 else 'new'},{i // 2},{i % 2}")
    (tmp_path / "samples.csv").write_text("\n".join(lines))

    def run(*overrides, folder="run", tiny=TINY):
        settings = [*tiny, f"data.target.file={tmp_path / 'samples.csv'}"]
        if not any("target.ignore=" in one for one in overrides):
            settings.append("data.target.ignore=[picture,voice,product]")
        if not any("parts.text=" in one for one in overrides):
            settings += [f"backbone.parts.text.name={tiny_bert}", "backbone.parts.text.weights=pretrained"]
        return train_in(tmp_path, *settings, "allow=[tests]", *overrides, folder=folder), tmp_path / folder

    return run


def groups_of(found):
    return {one["name"]: one for one in found["parameters"]["groups"]}


def test_a_frozen_text_and_a_table_become_a_model_that_predicts(run, tmp_path, capsys):
    found, folder = run(*GATED, "baselines=auto", "data.target.split.group=product")
    assert found["status"] == "done"
    kept = {(one["cut"], one["split"]) for one in found["feature_cache"]["entries"]}
    assert kept == {("text of the parts", split) for split in ("train", "val", "test")}
    trained = {name for name, one in groups_of(found).items() if one["trainable"]}
    assert {name for name in trained if ".layer" in name or "embedding" in name} == set()
    assert {"backbone/fusion", "backbone/table.block1", "head/target"} <= trained
    gates = found["fusion"]["gates"]
    assert sum(gates.values()) == pytest.approx(1)
    assert {"test/target_without_text/acc", "test/target_without_table/acc"} <= set(found["metrics"])
    assert [*found["baselines"]][1:4] == ["linear_words", "linear_columns", "linear_words + columns"]
    printed = capsys.readouterr().out
    assert f"gates: text {gates['text']:.2f}, table {gates['table']:.2f}" in printed
    assert "training samples have no text" in printed

    model = graft.load_run(folder, allow=["tests"])
    said = graft.model.predictions.read(folder / "predictions.parquet")["target"]
    rows = [int(name.rpartition(" ")[2]) - 2 for name in said["sample"]]
    lines = (tmp_path / "samples.csv").read_text().splitlines()
    (tmp_path / "new.csv").write_text("\n".join([lines[0], *(lines[1 + row] for row in rows)]))
    again = model.predict(tmp_path / "new.csv")
    np.testing.assert_allclose(again.probabilities, said["probabilities"], atol=1e-5)
    one = model.predict({"review": "a good film", "age": 30, "shop": "old"})
    other = model.predict({"review": None, "age": 30, "shop": "old"})
    assert one.probabilities.shape == (1, 2)
    assert not np.allclose(one.probabilities, other.probabilities)
    with pytest.raises(GraftError, match=r"it has no column review.*has an empty value there"):
        model.predict({"age": 30, "shop": "old"})
    (explained,) = model.predict({"review": "a", "age": 30, "shop": "old"}, explain=True).explanations
    assert [*explained.parts] == ["text", "table"]

    arguments = [f"run={folder}", "allow=tests"]
    assert main(["predict", *arguments, f"input={tmp_path / 'new.csv'}", f"output={tmp_path / 'said.csv'}"]) == 0
    assert len((tmp_path / "said.csv").read_text().splitlines()) == 1 + len(rows)
    capsys.readouterr()
    assert main(["export", *arguments, "format=safetensors", f"to={tmp_path / 'x.safetensors'}"]) == 0
    assert "they differ by 0.0e+00 at most" in capsys.readouterr().out


MISTAKES = {  # dotted keys that are changed, and what the message says
    "none of its parts has weights.*strategy=scratch": {"backbone.parts.text.weights": None},
    "each part has its own": {"backbone.weights": "source"},
    "`backbone.parts.text.weights=source`: nothing pretrains a part": {"backbone.parts.text.weights": "source"},
    "table is random, and frozen it teaches nothing": {"backbone.freeze": ["table"]},
    "there is no part image; parts are text, table": {"backbone.freeze": ["image"]},
    "all of them are null; choose one": {"backbone.parts": {"text": None}},
    "with one part: it is never left out": {"backbone.parts.table": None, "backbone.modality_dropout": 0.1},
    "with table data: it takes samples of several": {"data.target._target_": "graft.data.sources.table_file.TableFile"},
    "the fusion trains by gradient steps": {"strategy._target_": "graft.strategies.probe.Probe"},
    "networks of several parts are not compressed": {"compress": {"_target_": "graft.compress.prune.Prune"}},
}


def test_what_cannot_be_meant_together_is_one_message(tmp_path):
    given = ["backbone.parts.text.weights=pretrained", f"data.target.file={tmp_path / 'a.csv'}"]
    config = config_in(tmp_path, *TINY, *given)
    choices = {"backbone": "fusion", "strategy": "frozen", "compress": "prune"}
    assert not [*fusion_contradictions(config, Names(config, choices))]
    for message, keys in MISTAKES.items():
        changed = copy.deepcopy(config)
        for key, value in keys.items():
            holder, _, name = key.rpartition(".")
            functools.reduce(lambda one, part: one[part], holder.split(".") if holder else [], changed)[name] = value
        found = [*fusion_contradictions(changed, Names(changed, choices))]
        assert re.search(message, "\n".join(found)), (message, found)
    plain = {**config, "backbone": {"weights": None}}
    assert "use backbone=fusion" in next(fusion_contradictions(plain, Names(plain, {"backbone": "mlp"})))


def test_data_and_parts_that_do_not_suit_are_refused(run, tmp_path):
    with pytest.raises(GraftError, match=r"backbone.parts.image: the target has no image, only text, table.*=null"):
        run("backbone@backbone.parts.image=cnn")
    with pytest.raises(GraftError, match=r"neither text, image nor audio names a column"):
        run("data.target.text=null")
    with pytest.raises(GraftError, match=r"data.target.text=reviews: .* has no such column"):
        run("data.target.text=reviews")
    (tmp_path / "pictures" / "4.png").write_bytes(b"no picture")
    with pytest.raises(
        GraftError, match=r"1 of 60 rows cannot be used .*row 6: image pictures/4.png: it cannot be read"
    ):
        run("data.target.image=picture", "data.target.ignore=[voice,product]")
    (tmp_path / "samples.csv").write_text(
        "review,liked\n" + "".join(f"a good {i},{i % 2}\n" for i in range(40)) + ",1\n"
    )
    with pytest.raises(GraftError, match=r"1 of 41 rows cannot be used .*row 42: it has no modality at all"):
        run("data.target.ignore=[]")


def test_samples_without_a_text_are_not_alike(tmp_path):
    for name in ("train", "val", "test"):
        rows = [f"{'' if i == 1 else f'a film of {name} {i}'},{i},{i % 2}" for i in range(6)]
        (tmp_path / f"{name}.csv").write_text("review,age,liked\n" + "\n".join(rows))
    files = {"val_file": str(tmp_path / "val.csv"), "test_file": str(tmp_path / "test.csv")}
    data = MultimodalFile(str(tmp_path / "train.csv"), "liked", text="review", **files).load(0)
    assert not [note for note in data.notes if "look like" in note]
    assert "1 training samples have no text" in data.notes
    rows = rows_of(data.val.subset(torch.tensor([1, 2])))
    assert rows.present["text"].tolist() == [False, True]
    assert rows.fields["table"].dataset[torch.tensor([1])].numbers.shape == (1, 1)


ALL = [
    *("data.target.image=picture", "data.target.audio=voice", "data.target.ignore=[product]", "data.image_size=16"),
    *("data.target.channels=1", "backbone@backbone.parts.image=cnn", "backbone@backbone.parts.audio=mel_cnn"),
    *("backbone.parts.audio.clip_seconds=0.2", "backbone.parts.audio.library=timm"),
    *(
        "backbone.parts.audio.name=test_resnet",
        "backbone.parts.audio.n_mels=32",
        "backbone.parts.audio.sample_rate=8000",
    ),
]


@pytest.mark.slow
def test_four_modalities_train_together_and_predict_from_their_files(run, tmp_path):
    found, folder = run(*ALL, *GATED, "strategy=full", "data.augment=light")
    assert len(found["fusion"]["gates"]) == 4
    predicted = graft.load_run(folder, allow=["tests"]).predict(tmp_path / "samples.csv")
    assert len(predicted.probabilities) == 60


@pytest.mark.slow
@pytest.mark.parametrize(
    "strategy", ["full", "gradual", "freeze_until", "discriminative", "layer_decay", "lp_ft", "lora"]
)
def test_strategies_on_a_fusion(run, strategy):
    if strategy == "lora":
        pytest.importorskip("peft")
    found, folder = run(f"strategy={strategy}")
    assert found["status"] == "done"
    assert json.loads((folder / "model" / "model.json").read_text())["modality"] == "multimodal"
    graft.load_run(folder, allow=["tests"]).predict({"review": "a good film", "age": 30, "shop": "old"})


@pytest.mark.slow
def test_words_from_scratch_beside_a_part_that_is_frozen_by_itself(run):
    lstm = ["backbone@backbone.parts.text=lstm", "backbone.parts.text.hidden_size=8"]
    found, folder = run(*lstm, "strategy=scratch", "backbone.weights=null")
    assert found["weights"] is None
    graft.load_run(folder, allow=["tests"]).predict({"review": "a good film", "age": 30, "shop": "old"})
    found, _ = run("strategy=full", "backbone.freeze=[text]", folder="fixed")
    groups = groups_of(found)
    assert not any(one["trainable"] for name, one in groups.items() if name.startswith("backbone/text."))
    assert {one["cut"] for one in found["feature_cache"]["entries"]} == {"text of the parts"}
    assert groups["backbone/fusion"]["lr"] == groups["head/target"]["lr"]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["frozen", "full"])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(run, strategy):
    options = [*GATED, f"strategy={strategy}", "training.epochs=3"]
    _, whole = run(*options, folder="whole")
    stop = "+callbacks.stop={_target_: tests.test_run.StopAt, epoch: 1, batch: 3}"
    with pytest.raises(Interrupted):
        run(*options, stop, folder="stopped")
    _, resumed = run(*options, "resume=true", folder="stopped")
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())


@pytest.mark.slow
def test_kept_features_are_those_of_their_samples(run):
    kept, _ = run(folder="kept")
    plain, _ = run("cache.features=false", folder="plain")
    assert kept["feature_cache"]["entries"]
    assert not plain["feature_cache"]["entries"]
    for name, value in plain["metrics"].items():
        assert kept["metrics"][name] == pytest.approx(value, abs=1e-5)
