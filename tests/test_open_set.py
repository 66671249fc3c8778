"""An open set: OS*, UNK and HOS against loops over samples, a threshold of the source's, and whole runs."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import load_file
from small_run import config_in, train_in

from graft import load_run
from graft.cli.main import main
from graft.data import label_sets
from graft.model import predictions
from graft.report import run_page
from graft.report.samples import losses_of
from graft.report.tables import print_results
from graft.tasks.metrics import ClassesF1
from graft.tasks.multiclass import Multiclass
from graft.tasks.open_set import OpenSet

KNOWN = 3


def drawn(size=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(size, KNOWN, generator=generator)
    return logits, torch.randint(KNOWN + 1, (size,), generator=generator)


def measured(task, logits, labels):
    found = {}
    for metrics in (task.metrics(KNOWN), task.test_metrics(KNOWN)):
        for half in (slice(0, 25), slice(25, None)):
            p = task.predictions(logits[half])
            metrics.update(p, labels[half], scores=task.scores(logits[half]))
        found |= metrics.compute()
    return found


@pytest.mark.parametrize("rejection", ["probability", "entropy"])
def test_scores_are_those_of_a_loop_over_samples(rejection):
    task, (logits, labels) = OpenSet(rejection=rejection), drawn()
    task.choose_threshold(task.predictions(drawn(seed=1)[0]))
    task.threshold += 0.2 if rejection == "probability" else 0.4  # so that many are rejected
    found, p = measured(task, logits, labels), logits.double().softmax(1)
    right, count = np.zeros(KNOWN + 1), np.zeros(KNOWN + 1)
    certainty = p.max(1).values if rejection == "probability" else (p * p.log()).sum(1)
    for row, label, sure in zip(p.tolist(), labels.tolist(), certainty.tolist(), strict=True):
        decided = KNOWN if sure < task.threshold else int(np.argmax(row))
        count[label] += 1
        right[label] += decided == label
    known, unknown = (right / count)[:-1].mean(), right[-1] / count[-1]
    assert 0 < unknown < 1
    assert found["os_star"].item() == pytest.approx(known)
    assert found["unk"].item() == pytest.approx(unknown)
    assert found["hos"].item() == pytest.approx(2 * known * unknown / (known + unknown))
    assert found["acc"].item() == pytest.approx(right.sum() / count.sum())
    assert found["confusion"].sum(1).tolist() == count.tolist()
    pairs = [(a < b) + (a == b) / 2 for a in certainty[labels == KNOWN] for b in certainty[labels != KNOWN]]
    assert found["auroc"].item() == pytest.approx(np.mean(pairs), abs=1e-6)


def test_a_class_that_the_target_lacks_counts_for_nothing_and_nothing_right_is_zero():
    task = OpenSet()
    logits, labels = 9 * F.one_hot(torch.tensor([0, 1, 2, 2]), KNOWN).float(), torch.tensor([0, 0, 3, 3])
    found = measured(task, torch.cat([logits] * 7)[:26], torch.cat([labels] * 7)[:26])
    assert found["os_star"].item() == pytest.approx(0.5, abs=0.05)  # of class 0 alone
    assert found["hos"].item() == 0


@pytest.mark.parametrize("rejection", ["probability", "entropy"])
@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.3])
def test_the_threshold_rejects_its_fraction_of_the_sources_samples(rejection, fraction):
    task = OpenSet(rejection=rejection, rejected_fraction=fraction)
    p = task.predictions(drawn(1000)[0])
    assert not (task.decide(p) == KNOWN).any()
    task.choose_threshold(p)
    assert (task.decide(p) == KNOWN).float().mean().item() == pytest.approx(fraction, abs=0.0011)
    again = OpenSet(rejection=rejection)
    again.load_state_dict(task.state_dict())
    assert torch.equal(again.decide(p), task.decide(p))


def test_the_loss_is_of_the_samples_that_have_a_class():
    logits, labels = drawn()
    total, count = OpenSet().summed_loss(logits, labels)
    known = labels < KNOWN
    assert total.item() == pytest.approx(F.cross_entropy(logits[known], labels[known]).item() * count.item(), rel=1e-5)
    assert count == known.sum()


def test_the_macro_f1_of_a_partial_target_is_over_its_own_classes():
    task = Multiclass()
    task.scored = [0, 2]
    p, labels = torch.eye(3)[torch.tensor([0, 1, 2, 2])], torch.tensor([0, 0, 2, 2])
    metrics = task.metrics(3)
    assert isinstance(metrics["f1"], ClassesF1)
    metrics.update(p, labels)
    assert metrics.compute()["f1"].item() == pytest.approx((2 / 3 + 1) / 2)


TINY = [
    *("backbone=lenet", "strategy=scratch", "data.image_size=16", "data.source.samples=300", "data.epoch=10"),
    *("data.target_setting=unsupervised", "data.labels_per_class=null", "objective.alpha=1", "term=[mcc]"),
    *("selection=last", "training.epochs=2", "training.threads=1", "trainer=cpu", "logger=csv"),
    "callbacks.progress=null",
]
OPEN = ["data.label_sets=open", "task=open_set", "data.source_classes=[0,1,2,3,4,5,6]", "task.rejected_fraction=.2"]


@pytest.mark.slow
def test_a_partial_run_has_the_sources_head_and_the_targets_scores(tmp_path):
    results = train_in(tmp_path, *TINY, "data.label_sets=partial", "data.target_classes=[4,1,9]")
    assert results["data"]["target"]["classes"] == results["data"]["source"]["classes"] == [*"0123456789"]
    matrix = np.array(results["confusion"]["test/target"]["matrix"])
    assert np.flatnonzero(matrix.sum(1)).tolist() == [1, 4, 9]
    f1 = [2 * matrix[k, k] / (matrix[k].sum() + matrix[:, k].sum()) for k in (1, 4, 9)]
    assert results["metrics"]["test/target/f1"] == pytest.approx(np.mean(f1), abs=1e-6)


def test_an_open_run_says_hos_and_its_model_says_unknown(tmp_path, capsys):
    results, folder = train_in(tmp_path, *TINY, *OPEN), tmp_path / "run"
    assert results["score"]["metric"] == "test/target/hos"
    found = results["metrics"]
    assert {"test/target/os_star", "test/target/unk", "val/target/hos", "test/target/auroc"} <= set(found)
    assert "test/source/hos" not in found
    assert results["confusion"]["test/target"]["classes"] == [*"0123456", "unknown"]
    matrix = np.array(results["confusion"]["test/target"]["matrix"])
    recalls = matrix.diagonal() / matrix.sum(1)
    assert matrix.sum() == 500
    assert found["test/target/unk"] == pytest.approx(recalls[-1], abs=1e-6)
    assert found["test/target/os_star"] == pytest.approx(recalls[:-1].mean(), abs=1e-6)

    capsys.readouterr()
    print_results(json.loads((folder / "results.json").read_text()), folder)
    shown = capsys.readouterr().out
    assert "os_star" in shown
    assert "as 20 % of the source's validation samples are" in shown

    kept = predictions.read(folder / "predictions.parquet")["target"]
    rejected = sum(one == "unknown" for one in kept["prediction"])
    assert rejected == matrix[:, -1].sum() > 0
    assert kept["label"].count("unknown") == matrix[-1].sum()
    assert load_run(folder).task.threshold == pytest.approx(results["rejection"]["threshold"])

    losses = losses_of(kept)
    assert np.isnan(losses).sum() == matrix[-1].sum()  # of what no output stands for
    (shown,) = (section.samples for section in run_page.page(folder).sections if section.title == "Largest losses")
    assert max(losses[~np.isnan(losses)]) == pytest.approx(float(shown[0].note.removeprefix("loss ")), abs=0.01)
    assert {one.label for one in shown} <= {*"0123456"}


@pytest.mark.slow
def test_the_page_of_an_open_run_looks_into_its_network(tmp_path, capsys):
    train_in(tmp_path, *TINY, *OPEN)
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config_in(tmp_path, *TINY, *OPEN)))
    assert main(["report", str(tmp_path / "run")]) == 0, capsys.readouterr().err
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Nothing is shown of the network" not in page
    assert "Nearest training samples" in page


@pytest.mark.slow
def test_other_labels_of_the_target_leave_weights_and_threshold_as_they_are(tmp_path, monkeypatch):
    first, renumbered = train_in(tmp_path, *TINY, *OPEN), label_sets.renumbered

    def poisoned(split, numbers):  # after the split, which is stratified by label
        found = renumbered(split, numbers)
        return found if found.labels is None else replace(found, labels=found.labels.roll(1))

    monkeypatch.setattr(label_sets, "renumbered", poisoned)
    second = train_in(tmp_path, *TINY, *OPEN, folder="poisoned")
    assert second["rejection"] == first["rejection"]
    tested = [load_file(tmp_path / folder / "model" / "weights.safetensors") for folder in ("run", "poisoned")]
    assert all(torch.equal(value, tested[1][name]) for name, value in tested[0].items())
    assert second["metrics"]["val/target/unk"] != first["metrics"]["val/target/unk"]
