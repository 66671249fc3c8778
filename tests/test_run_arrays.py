"""Runs on arrays in an npz, images and sequences, from the file to results."""

import json

import numpy as np
import pytest

from graft.errors import GraftError
from tests.small_run import train_in

TINY = ["training.epochs=2", "training.threads=1", "trainer=cpu", "logger=csv"]


@pytest.fixture
def run(tmp_path):
    def run(*overrides, folder="run"):
        return train_in(tmp_path, *TINY, *overrides, folder=folder)

    return run


@pytest.fixture
def xrays(tmp_path):
    """Overrides for grey images, three in four of the first class, which is darker; one cannot be used."""
    random, labels = np.random.default_rng(0), (np.arange(80) % 4 == 0).astype(np.uint8)
    images = (random.random((80, 8, 8)) + labels[:, None, None]) / 2
    images[5, 0, 0] = np.nan
    np.savez(tmp_path / "xrays.npz", images=images, labels=labels)
    file = f"data.target.file={tmp_path / 'xrays.npz'}"
    keys = ["data.num_workers=0", "backbone=lenet", "strategy=scratch"]
    return ["data=image_folder", "data/domain@data.target=image_arrays", file, *keys]


def test_two_classes_by_auroc_with_class_weights(run, xrays, tmp_path):
    keys = ["task=binary", "task.main_metric=auroc", "data.balance=weights", "data.target.on_bad_sample=skip"]
    more = ["data.image_size=16", "training.epochs=10", "optimizer.lr=1e-2", "baselines=auto"]
    found = run(*xrays, *keys, *more)
    assert found["baselines"]["linear_pixels"]["metrics"]["test/target/auroc"] > 0.9
    assert found["baselines"]["majority"]["metrics"]["test/target/auroc"] == 0.5
    metrics = found["metrics"]
    assert found["selection"]["monitor"] == "val/target/auroc"
    assert found["score"]["metric"] == "test/target/auroc"
    assert metrics["test/target/auroc"] > 0.9
    rates = [metrics["test/target/sensitivity"], metrics["test/target/specificity"]]
    (true_no, false_yes), (false_no, true_yes) = found["confusion"]["test/target"]["matrix"]
    assert rates == pytest.approx([true_yes / (true_yes + false_no), true_no / (true_no + false_yes)])
    notes = json.loads((tmp_path / "run" / "results.json").read_text())["data"]["target"]["notes"]
    assert notes[0].startswith("skipped: 1 images (")
    assert "images[5]: a value is NaN or infinite)" in notes[0]


def test_a_bad_image_is_an_error_unless_it_is_to_be_skipped(run, xrays):
    with pytest.raises(GraftError, match=r"images\[5\]: a value is NaN.*data\.target\.on_bad_sample=skip"):
        run(*xrays)


@pytest.fixture
def readings(tmp_path):
    """Overrides for sequences of 2 values a step and 3 to 9 steps, which go up in one class and down in the other."""

    def readings(side="target", values=2):
        random, labels = np.random.default_rng(0), np.arange(60) % 2
        steps = (2 * labels - 1)[:, None] * np.arange(9)
        sequences = steps[:, :, None] + random.standard_normal((60, 9, values))
        lengths = random.integers(3, 10, 60)
        np.savez(tmp_path / f"{side}.npz", sequences=sequences, lengths=lengths, labels=labels)
        return [f"data/domain@data.{side}=sequence_arrays", f"data.{side}.file={tmp_path / f'{side}.npz'}"]

    return readings


SEQUENCES = ["data=sequences", "backbone=gru_sequence", "backbone.hidden_size=8"]


def test_sequences_of_different_lengths(run, readings):
    keys = ["strategy=scratch", "task=binary", "optimizer.lr=1e-2", "training.epochs=8", "data.bucket_by_length=true"]
    found = run(*SEQUENCES, *readings(), *keys, "baselines=auto")
    assert found["metrics"]["test/target/acc"] > 0.9
    assert found["baselines"]["linear_summaries"]["metrics"]["test/target/acc"] > 0.9


@pytest.mark.slow
def test_a_frozen_network_from_other_sequences_keeps_its_features(run, readings):
    keys = [*SEQUENCES, *readings("source"), *readings(), "backbone.weights=source", "pretrain.epochs=1"]
    first = run(*keys, "strategy=frozen", folder="first")
    assert first["weights"]["missing"] == []
    assert {entry["cut"] for entry in first["feature_cache"]["entries"]} == {"features"}
    plain = run(*keys, "strategy=frozen", "cache.features=false", folder="plain")
    assert plain["metrics"]["test/target/loss"] == pytest.approx(first["metrics"]["test/target/loss"], rel=1e-4)


@pytest.mark.slow
def test_layers_are_unfrozen_one_by_one(run, readings):
    keys = [*readings("source"), *readings(), "backbone.weights=source", "pretrain.epochs=1", "strategy=gradual"]
    assert len(run(*SEQUENCES, *keys, "training.epochs=3")["phases"]) > 1


def test_steps_of_another_size_are_refused(run, readings):
    keys = [*readings("source", values=3), *readings(), "backbone.weights=source", "strategy=full"]
    with pytest.raises(GraftError, match="Sequences of 3 values a step cannot feed a backbone that takes 2"):
        run(*SEQUENCES, *keys)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["data.augment=light"], r"data\.augment=light: sequences are taken as they are"),
        (["backbone=lenet"], r"backbone\.channels=auto: the target holds sequence data"),
        (["backbone=lstm"], r"backbone\.texts=auto: the target holds sequence data"),
        (["data=glyphs_digits"], r"backbone\.input_size=auto: the target holds image data"),
        (["training.mixup_alpha=0.2"], "changes images, and gru takes sequence inputs"),
    ],
)
def test_what_is_not_for_sequences_is_refused(run, keys, said):
    with pytest.raises(GraftError, match=said):
        run(*SEQUENCES[:2], "strategy=scratch", *keys)
