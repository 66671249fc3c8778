"""Labels of a target that counts as unlabelled reach nothing but metrics: other labels give bit-equal weights."""

import numpy as np
import pytest
import torch
from lanes import slow
from safetensors.torch import load_file
from small_run import train_in

SIZES = {"train": 40, "val": 20, "test": 20}
RUN = [
    "data/domain@data.source=image_arrays",
    "data/domain@data.target=image_arrays",
    "data.image_size=16",
    "data.labels_per_class=null",
    "data.batch_size=8",
    "data.epoch=3",
    "backbone=lenet",
    "strategy=scratch",
    "objective.alpha=0.5",  # which the config's check refuses: a label that got through would count
    "term=[mcd,mean_teacher]",
    "training.epochs=2",
    "training.threads=1",
    "trainer=cpu",
    "logger=csv",
    "callbacks.progress=null",
]


@pytest.fixture
def trained(tmp_path):
    """The weights that a run tests, and its results; `shuffled` splits of the target have other labels."""
    random = np.random.default_rng(0)
    content = {}
    for split, size in SIZES.items():
        labels = np.arange(size) % 2
        content[f"{split}_images"] = random.integers(0, 128, (size, 16, 16), dtype=np.uint8)
        content[f"{split}_images"][:, 4:12, 4:12] += (100 * labels[:, None, None]).astype(np.uint8)
        content[f"{split}_labels"] = labels

    def trained(*overrides, shuffled=(), kept=()):
        name = "_".join(["run", *shuffled])
        other = {f"{split}_labels": random.permutation(content[f"{split}_labels"]) for split in shuffled}
        if shuffled:
            other["train_labels"][list(kept)] = content["train_labels"][list(kept)]
        assert not any(np.array_equal(labels, content[key]) for key, labels in other.items())
        for side, arrays in (("source", content), ("target", content | other)):
            np.savez(tmp_path / f"{side}.npz", **arrays)
        files = [f"data.{side}.file={tmp_path / side}.npz" for side in ("source", "target")]
        results = train_in(tmp_path, *RUN, *files, *overrides, folder=name)
        return load_file(tmp_path / name / "model" / "weights.safetensors"), results

    return trained


@pytest.mark.parametrize("rule", ["source_val", *slow("entropy", "last")])
def test_an_unlabelled_targets_labels_change_metrics_alone(trained, rule):
    options = ["data.target_setting=unsupervised", f"selection={rule}"]
    weights, results = trained(*options)
    poisoned, others = trained(*options, shuffled=("train", "val"))
    assert all(torch.equal(value, weights[name]) for name, value in poisoned.items())
    assert others["selection"] == results["selection"]
    assert others["metrics"]["test/target/acc"] == results["metrics"]["test/target/acc"]
    before, after = (one["metrics"]["val/target/loss"] for one in (results, others))
    assert before != after


def test_labels_beyond_a_partly_labelled_targets_budget_change_nothing(trained, monkeypatch):
    options = ["data.target_setting=semi", "data.labels_per_class=2", "selection=entropy"]
    budget = torch.tensor([3, 10, 17, 30])  # two of each class; the budget's own draw depends on labels
    monkeypatch.setattr("graft.data.module.label_budget", lambda *_: budget)
    weights, results = trained(*options)
    poisoned, others = trained(*options, shuffled=("train", "val"), kept=budget.tolist())
    assert results["data"]["target"]["labels"]["train"] == 4
    assert results["data"]["target"]["train"] == SIZES["train"]
    assert all(torch.equal(value, weights[name]) for name, value in poisoned.items())
    assert others["selection"] == results["selection"]
    assert others["metrics"]["val/target/loss"] != results["metrics"]["val/target/loss"]
