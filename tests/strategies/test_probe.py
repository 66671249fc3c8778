"""The linear probe: its solver against scikit-learn, and a whole run with it."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from small_run import config_in, train_in

import graft
from graft.backbones.lenet import lenet
from graft.cache.disk import DiskCache
from graft.cache.extract import extract
from graft.cli.notebook import check_composed
from graft.errors import GraftError
from graft.experiment import assemble
from graft.probe import solver
from graft.probe.fit import solved
from graft.probe.solver import Rows, solve
from graft.stacked.reasons import why_alone
from graft.tasks.binary import Binary
from graft.tasks.multiclass import Multiclass
from graft.tasks.multilabel import Multilabel
from graft.tasks.regression import Regression

PENALTIES = (1.0, 1e-2, 1e-5)
TIGHT = {"tol": 1e-8, "max_iter": 10_000}


@pytest.fixture(scope="module")
def features():
    """Correlated features `(80, 12)` far from 0, and a score of each."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(80, 12, generator=random) @ torch.randn(12, 12, generator=random) + 5
    return x, x[:, :4] + 3 * torch.randn(80, 4, generator=random)


def strength(x, penalty):
    """scikit-learn's C for features as they are."""
    return Rows(x).scale ** 2 / (len(x) * penalty)


def reference(x, y, penalty, weights=None):
    """scikit-learn's probabilities, on features centred as both allow: their mean moves the free bias alone."""
    z = (x - x.mean(0)).double().numpy()
    return LogisticRegression(C=strength(x, penalty), **TIGHT).fit(z, y, weights).predict_proba(z)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("weighted", [False, True])
def test_class_probabilities_are_those_of_scikit_learn_at_every_penalty(features, classes, weighted):
    x, scores = features
    y = scores[:, :classes].argmax(1)
    weights = (1.0 + y).double() / (1.0 + y).double().mean() if weighted else None
    found = solve(x, torch.eye(classes)[y], PENALTIES, "softmax", weights)
    assert found.converged
    for place, penalty in enumerate(PENALTIES):
        expected = reference(x, y.numpy(), penalty, None if weights is None else weights.numpy())
        np.testing.assert_allclose(found.logits(x)[place].softmax(-1).numpy(), expected, atol=1e-4)


def test_labels_are_independent_of_each_other(features):
    x, scores = features
    targets = (scores > scores.median()).double()
    found = solve(x, targets, PENALTIES, "sigmoid")
    for place, penalty in enumerate(PENALTIES):
        for label in range(4):
            expected = reference(x, targets[:, label].numpy(), penalty)[:, 1]
            np.testing.assert_allclose(found.logits(x)[place].sigmoid()[:, label].numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("samples", [80, 8])
def test_numbers_are_those_of_ridge_regression_also_with_fewer_samples_than_features(features, samples):
    x, y = features[0][:samples].double(), features[1][:samples, :1].double()
    found = solve(x, y, PENALTIES, "squares")
    for place, penalty in enumerate(PENALTIES):
        expected = Ridge(alpha=1 / strength(x, penalty)).fit(x.numpy(), y.numpy()).predict(x.numpy())
        np.testing.assert_allclose(found.logits(x)[place].flatten().numpy(), expected.flatten(), rtol=1e-7)


def test_fewer_samples_than_features_and_constant_features_change_nothing_of_it(features):
    x = torch.cat([features[0][:10], torch.full((10, 3), 7.0)], dim=1)
    y = torch.arange(10) % 3
    found = solve(x, torch.eye(3)[y], PENALTIES, "softmax")
    for place, penalty in enumerate(PENALTIES):
        expected = reference(x, y.numpy(), penalty)
        np.testing.assert_allclose(found.logits(x)[place].softmax(-1).numpy(), expected, atol=1e-4)
    assert bool(
        solve(torch.ones(6, 2), torch.eye(3).repeat(2, 1), [1.0], "softmax").logits(torch.ones(1, 2)).isfinite().all()
    )


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0])])
@pytest.mark.parametrize("task", [Multiclass(), Binary(), Multilabel(), Regression()])
def test_the_bias_of_every_task_is_where_its_own_loss_is_lowest(features, task, weights):
    x, scores = features
    labels = {"multilabel": (scores[:, :2] > 3).float(), "regression": scores[:, 0]}.get(
        task.name, (scores[:, 0] > 3).long()
    )
    task.fit(labels)
    outputs = {"multilabel": 2, "multiclass": 2}.get(task.name, 1)
    weights = None if task.name == "regression" else weights
    module = SimpleNamespace(tasks={"target": task}, class_weights={"target": weights}, head=lambda domain: None)
    experiment = SimpleNamespace(module=module, data=SimpleNamespace(num_outputs=lambda domain, task: outputs))
    found = solved(experiment, "target", x, labels, [0.01])
    bias = found.biases[0].clone().requires_grad_()
    logits = x.double() @ found.weights[0].T + bias
    task.loss(
        logits, labels.to(logits) if labels.ndim == 2 else labels, None if weights is None else weights.double()
    ).backward()
    assert bias.grad.abs().max() < 1e-6
    assert found.weights.abs().max() > 1e-3


def test_a_fit_that_was_cut_short_says_so(features, monkeypatch):
    monkeypatch.setattr(solver, "MOST_STEPS", 2)
    x, scores = features
    assert not solve(x, torch.eye(4)[scores.argmax(1)], PENALTIES, "softmax").converged


SMALL = (
    *("data=glyphs_digits", "data.source=null", "backbone=lenet", "strategy=probe", "data.labels_per_class=3"),
    *("trainer=cpu", "training.threads=1", "logger=csv", "data.augment=light"),
)


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(5)
    torch.save(lenet(size=32).state_dict(), tmp_path / "lenet.pt")
    return tmp_path / "lenet.pt"


def test_a_run_leaves_the_solution_of_the_penalty_that_validation_prefers(tmp_path, weights):
    words = (*SMALL, f"backbone.weights={weights}", "save.model=best")
    results = train_in(tmp_path, *words)
    folder = tmp_path / "run"
    tried = results["probe"]["tried"]
    assert [one["penalty"] for one in tried] == [1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6]
    best = max(tried, key=lambda one: one["value"])
    assert results["probe"]["penalty"] == best["penalty"]
    assert results["selection"]["value"] == results["metrics"]["val/target/acc"] == best["value"]
    assert results["settings"] == {"training.epochs": 1, "data.augment": "none"}
    assert (folder / "checkpoints/best.ckpt").is_file()
    rows = (folder / "metrics.csv").read_text()
    assert "train/target/loss" in rows
    assert "val/target/acc" in rows

    experiment = assemble(config_in(tmp_path, *words, folder="again"))
    cache = DiskCache(tmp_path / "own", 2**30)
    sets = {
        name: extract(experiment.module.backbone, experiment.data, "target", name, cache) for name in ("train", "test")
    }
    x, y = sets["train"].features, sets["train"].labels
    model = LogisticRegression(C=strength(x, best["penalty"]), **TIGHT)
    mean = x.mean(0)
    model.fit((x - mean).double().numpy(), y.numpy())
    expected = model.predict_proba((sets["test"].features - mean).double().numpy())
    network = graft.load_run(folder)
    images = [batch.inputs for batch in experiment.data.plain_batches("target", "test")]
    found = network.head(network.backbone(torch.cat(images))).softmax(-1)
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-4)
    assert json.loads((folder / "results.json").read_text())["metrics"]["test/target/acc"] == pytest.approx(
        float((expected.argmax(1) == sets["test"].labels.numpy()).mean()), abs=0.005
    )


def test_it_takes_no_steps_together_with_other_jobs(tmp_path, weights):
    assert why_alone(config_in(tmp_path, *SMALL, f"backbone.weights={weights}")) == "strategy=probe takes no steps"


def test_what_a_closed_fit_cannot_take_is_refused_before_anything_is_read():
    wrong = (
        "head=mlp",
        "task.label_smoothing=0.1",
        "selection=last",
        "data.balance=sampler",
        "training.mixup_alpha=0.2",
    )
    with pytest.raises(GraftError) as error:
        check_composed([*SMALL, "backbone.weights=null", *wrong])
    assert "keeps part of a random backbone" in str(error.value)
    expected = (
        "head=linear",
        "task.label_smoothing=0",
        "selection=target_val",
        "data.balance=weights",
        "unmixed samples",
    )
    for instead in expected:
        assert f"use {instead}, or strategy=frozen" in str(error.value)
