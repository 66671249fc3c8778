"""Rules that choose a checkpoint, in whole runs: their own metrics, and rules of users that are none."""

import math
import re
import types
from pathlib import Path

import pytest
import torch
from test_run import cache, every_epoch_saved, run, sweep  # noqa: F401  fixtures

from graft.errors import GraftError, Interrupted
from graft.selection.base import SelectionRule, check_rule
from graft.selection.candidate import Rows
from graft.selection.entropy import Entropy, MeanEntropy
from graft.selection.source_val import SourceValidation
from graft.selection.target_val import TargetValidation
from graft.tasks.binary import Binary
from graft.tasks.metrics import Mean
from graft.tasks.multiclass import Multiclass
from graft.tasks.regression import Regression

UNLABELLED = ["data.target_setting=unsupervised", "data.labels_per_class=null", "objective.alpha=1", "strategy=scratch"]
UNLABELLED += ["backbone.weights=null", "selection=entropy", "data.image_size=16"]


def test_entropy_is_that_of_the_predicted_classes():
    metric = MeanEntropy()
    metric.update("target", torch.zeros(2, 3), torch.tensor([[0.0, 0.0, 0.0], [50.0, 0.0, 0.0]]))
    assert metric.compute() == pytest.approx(math.log(3) / 2)
    metric.reset()
    metric.update("target", torch.zeros(1, 3), torch.tensor([[0.0]]))
    assert metric.compute() == pytest.approx(math.log(2))


def test_directions_are_the_metrics():
    tasks = {"target": Multiclass(), "source": Regression()}
    assert not Entropy().higher_is_better(tasks)
    assert TargetValidation().higher_is_better(tasks)
    assert not TargetValidation("loss").higher_is_better(tasks)
    assert not SourceValidation().higher_is_better(tasks)
    assert SourceValidation("r2").higher_is_better(tasks)
    assert Entropy().monitor({"target": Binary()}) == "selection/entropy"
    with pytest.raises(GraftError, match="selection=entropy with task=regression"):
        check_rule(Entropy(), {"target": Regression()})


def best(folder):
    return torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)


@pytest.mark.slow
def test_a_rules_own_metric_selects_without_labels(run):  # noqa: F811
    results, folder = run(*UNLABELLED, "training.epochs=3", "scheduler=plateau")
    chosen = results["selection"]
    header, *rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    column = header.index("selection/entropy")
    values = [float(row[column]) for row in rows if row[column]]
    assert (chosen["rule"], chosen["monitor"], chosen["mode"]) == ("entropy", "selection/entropy", "min")
    assert chosen["value"] == min(values) == pytest.approx(results["metrics"]["selection/entropy"])
    assert chosen["epoch"] == best(folder)["epoch"] == values.index(min(values))
    assert chosen["oracle"] is False
    assert not [name for name in results["metrics"] if name.startswith("test/") and "entropy" in name]


@pytest.mark.slow
@pytest.mark.usefixtures("every_epoch_saved")
def test_a_resumed_run_selects_by_a_rules_own_metric_as_the_uninterrupted_one(run):  # noqa: F811
    options = [*UNLABELLED, "training.epochs=3", "optimizer.lr=0.01"]
    whole, _ = run(*options, folder="whole")
    with pytest.raises(Interrupted):
        run(*options, "+callbacks.stop={_target_: test_run.StopAt, epoch: 2}", folder="stopped")
    resumed, _ = run(*options, "resume=true", folder="stopped")
    assert resumed["selection"] == whole["selection"]


@pytest.mark.slow
def test_wise_ft_and_soups_choose_by_a_rules_own_metric(run, tmp_path):  # noqa: F811
    jobs = {"a": ["seed=0"], "b": ["seed=1", "training.wise_ft_alphas=[0.5,1]"]}
    folder = sweep(run, tmp_path, {name: [*options, "selection=entropy"] for name, options in jobs.items()})
    results, _ = run(f"soup={folder}", folder="soup", defaults=["logger=csv", "trainer=cpu", "training.threads=1"])
    soup = results["soup"]
    assert soup["monitor"] == "selection/entropy"
    assert results["selection"]["value"] == min(soup["uniform"], soup["greedy"]) <= min(soup["ingredients"].values())


class Old:
    name, domain = "old", "target"

    def monitor(self, tasks):
        return "val/target/acc"


class Mute(SelectionRule):
    name, domains = "mute", ("target",)


class Aimless(SelectionRule):
    name, domains = "aimless", ("target",)

    def metric(self):
        return Mean()


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Old(), r"test_selection\.Old is no rule\. Make it a subclass of .* domains = \("),
        (Mute(), r"selection=mute: test_selection\.Mute follows nothing\. Give it monitor"),
        (Aimless(), r"selection=aimless: Mean\.higher_is_better must be"),
        (SourceValidation(), "selection=source_val needs source data, but the run has target only"),
    ],
)
def test_what_cannot_choose_is_refused(rule, message):
    with pytest.raises(GraftError, match=message):
        check_rule(rule, {"target": Multiclass()})


def test_the_metric_and_the_score_of_the_documentation():
    page = (Path(__file__).parents[1] / "docs" / "extend" / "rule.md").read_text()
    parts = {}
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)[-2:]:
        exec(block, parts)
    rule = parts["Unsure"]()
    check_rule(rule, {"target": Multiclass()})
    metric = rule.metric()
    metric.update("target", torch.zeros(2, 3), torch.tensor([[9.0, 0.0], [0.0, 0.1]]))
    assert metric.compute() == 0.5
    candidate = types.SimpleNamespace(
        rows=lambda domain: Rows(torch.zeros(2, 3), torch.tensor([[9.0, 0.0], [0.0, 0.1]]))
    )
    score = parts["LowMargin"]()
    check_rule(score, {"target": Multiclass()})
    assert (score.score(candidate), score.higher_is_better({"target": Multiclass()})) == (0.5, False)
