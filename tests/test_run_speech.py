"""Runs on speech, from sound files to results: nothing but data and backbone knows that it is sound."""

import json

import pytest
import torch
from lanes import slow

from graft import load_run
from graft.errors import GraftError
from tests.backbones.test_huggingface_audio import saved
from tests.backbones.test_whisper import whisper
from tests.small_run import train_in

PATTERN = r"data.{}.pattern='(?P<label>[a-z]+)_(?P<speaker>[a-z]+)_(?P<index>\d+)'"
TINY = [
    "data=speech",
    "data.batch_size=8",
    "training.epochs=2",
    "training.threads=1",
    "pretrain.epochs=1",
    "trainer=cpu",
    "logger=csv",
]
MEL = [
    "backbone=mel_cnn",
    "backbone.name=test_resnet",
    "backbone.sample_rate=8000",
    "backbone.clip_seconds=0.3",
    "backbone.n_mels=32",
    "backbone.hop_length_ms=10",
]
LSTM = ["backbone=speaker_lstm", "backbone.clip_seconds=0.1"]
SOURCE = [
    "data/domain@data.source=audio_folder",
    PATTERN.format("source"),
    "data.source.where={speaker: [ann]}",
    "data.target.where={speaker: [bob]}",
    "data.source.val_fraction=0.3",
    "backbone.weights=source",
]


@pytest.fixture
def run(tones, tmp_path):
    def run(*overrides, folder="run"):
        data = [
            f"data.target.root={tones}",
            PATTERN.format("target"),
            "data.target.val_fraction=0.3",
            "data.target.test_fraction=0.3",
        ]
        if SOURCE[0] in overrides:
            data += [f"data.source.root={tones}", "data.source.test_fraction=0.3"]
        return train_in(tmp_path, *TINY, *data, *overrides, folder=folder)

    return run


@pytest.mark.slow
def test_tones_are_told_apart(run):
    found = run(
        "strategy=scratch", *MEL, "training.epochs=30", "training.validate_every_epochs=30", "optimizer.lr=1e-2"
    )
    assert found["status"] == "done"
    assert found["data"]["target"]["classes"] == ["high", "low"]
    assert found["metrics"]["test/target/acc"] > 0.8


@pytest.mark.slow
def test_shifts_are_tested_too(run):
    shifts = ["noise", "babble_0db", "telephone", "telephone_8bit"]
    found = run("strategy=scratch", *MEL, f"data.test_shifts=[{','.join(shifts)}]")
    losses = {found["metrics"][f"test/{name}/loss"] for name in ("target", *(f"target_{shift}" for shift in shifts))}
    assert len(losses) == 5


@pytest.mark.parametrize("strategy", ["frozen", *slow("full", "gradual", "layer_decay", "bitfit", "adapter")])
def test_strategies_from_one_speaker_to_another(run, strategy):
    found = run(f"strategy={strategy}", *LSTM, *SOURCE)
    assert found["status"] == "done"
    assert {"test/target/acc", "test/source/acc"} <= set(found["metrics"])
    assert found["data"]["target"]["name"] == "tones (bob)"


@pytest.mark.slow
def test_both_speakers_at_once(run):
    found = run("strategy=full", *MEL, *SOURCE, "objective.alpha=0.5", "bn=domain_specific")
    assert {"test/target/acc", "test/source/acc"} <= set(found["metrics"])


@pytest.mark.slow
def test_frozen_features_and_waveforms_come_from_the_cache(run):
    settings = ["strategy=frozen", *LSTM, *SOURCE, "data.test_shifts=[babble_0db,telephone]"]
    first, second = run(*settings, folder="first"), run(*settings, folder="second")
    assert [entry["computed"] for entry in first["feature_cache"]["entries"]] == [True] * 6
    assert [entry["computed"] for entry in second["feature_cache"]["entries"]] == [False] * 6
    assert first["metrics"] == second["metrics"]
    plain = run(*settings, "cache.features=false", "cache.decoded=false", folder="plain")
    for name in ("target", "target_babble_0db", "target_telephone"):
        loss = plain["metrics"][f"test/{name}/loss"]
        assert loss == pytest.approx(first["metrics"][f"test/{name}/loss"], rel=1e-4)


@pytest.mark.slow
def test_part_of_a_network_is_frozen_and_kept(run):
    found = run("strategy=freeze_until", "strategy.stages=3", *MEL, *SOURCE)
    assert found["feature_cache"]["entries"][0]["cut"].startswith("network.layer")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "strategy"), [("Wav2Vec2", "lora"), ("AST", "layer_decay")])
def test_hugging_face_encoders(run, tmp_path, kind, strategy):
    if strategy == "lora":
        pytest.importorskip("peft")
    name = saved(tmp_path / "encoder", kind, True)
    encoder = ["backbone=wav2vec2", f"backbone.name={name}", "backbone.clip_seconds=0.2", "backbone.weights=pretrained"]
    found = run(f"strategy={strategy}", *encoder)
    assert found["weights"]["matched"] == found["weights"]["total"]


def whisper_of(folder):
    whisper(folder)
    return ["backbone=whisper", f"backbone.name={folder}", "backbone.clip_seconds=0.2", "backbone.weights=pretrained"]


def test_whispers_layer_is_chosen_on_validation_and_trains_as_if_it_had_been_given(run, tmp_path):
    encoder = [*whisper_of(tmp_path / "whisper"), "strategy=frozen"]
    found = run(*encoder, "backbone.layer=auto", folder="auto")
    layer = found["tuning"]["layer"]
    scores = [one["value"] for one in layer["tried"]]
    assert [one["layer"] for one in layer["tried"]] == [1, 2, 3]
    assert layer["value"] == scores.index(max(scores)) + 1
    assert (layer["domain"], layer["samples"]) == ("target", found["data"]["target"]["val"])
    given = run(*encoder, f"backbone.layer={layer['value']}", folder="given")
    assert given["metrics"] == found["metrics"]
    assert given["tuning"] == {}
    assert not any(entry["computed"] for entry in given["feature_cache"]["entries"])
    description = json.loads((tmp_path / "auto" / "model" / "model.json").read_text())
    assert description["backbone"]["layer"] == layer["value"]
    model = load_run(tmp_path / "auto")
    assert len(model.backbone.network.layers) == layer["value"]
    sound = next((tmp_path / "tones").glob("high_*.wav"))
    assert model.predict([str(sound)])


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["full", "lp_ft", "gradual", "layer_decay", "bitfit", "adapter", "lora", "probe"])
def test_strategies_train_whisper(run, tmp_path, strategy):
    if strategy == "lora":
        pytest.importorskip("peft")
    epochs = ["training.epochs=4"] if strategy == "gradual" else []
    found = run(f"strategy={strategy}", *whisper_of(tmp_path / "whisper"), "backbone.layer=2", *epochs)
    assert found["weights"]["matched"] == found["weights"]["total"]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights(run, tmp_path):
    for folder in ("first", "second"):
        run("strategy=scratch", *MEL, "data.augment=specaugment", folder=folder)
    first, second = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("first", "second")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["backbone=lenet"], r"backbone\.channels=auto: the target holds audio data"),
        (["backbone=mlp"], r"backbone\.columns=auto: the target holds audio data"),
        ([*LSTM, "data.augment=crop"], r"data\.augment='crop' is not for speech"),
        ([*LSTM, "data.test_shifts=[blur]"], r"data\.test_shifts=\[blur\]: it is not for speech"),
        (
            [*LSTM, "training.mixup_alpha=0.2"],
            r"training\.mixup_alpha=0\.2 changes images, and speaker_lstm takes audio inputs",
        ),
        ([*MEL, "data/domain@data.source=digits"], r"data\.source holds image data, but data\.target audio data"),
    ],
)
def test_what_is_not_for_speech_is_refused_before_anything_trains(run, overrides, message):
    with pytest.raises(GraftError, match=message):
        run("strategy=scratch", *overrides)
