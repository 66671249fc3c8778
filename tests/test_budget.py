"""`selection=budget` and `selection=ensemble`: what chooses, what is not looked at, and the order of a sweep."""

import json
from dataclasses import replace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hydra import initialize_config_dir
from test_config import problems
from test_run import cache, every_epoch_saved, run  # noqa: F401  fixtures

from graft.cli.hydra_versions import VERSION_BASE
from graft.data.samples import generator
from graft.data.sources.digits import Digits
from graft.data.splits import others, stratified_folds
from graft.errors import Interrupted
from graft.model import predictions
from graft.model.save import is_better, validated
from graft.report import study, summary
from graft.runs import sweeps
from graft.runs.recipe import keys_as_recipe
from graft.selection.budget import FOLDS, Budget, clear_gain
from graft.tasks.binary import Binary
from graft.tasks.multiclass import Multiclass
from tests.report.test_study import Sweep
from tests.small_run import CONF

CLASSES = 10


def of_classes(labels_per_class, classes=CLASSES):
    return torch.arange(classes).repeat_interleave(labels_per_class)


# Holding out


@pytest.mark.parametrize("labels", [of_classes(5), torch.tensor([0] * 20 + [1] * 7 + [2] * 3)])
def test_folds_are_stratified_and_hold_every_label_once(labels):
    folds = stratified_folds(labels, FOLDS, seed=3)
    assert sorted(torch.cat(folds).tolist()) == list(range(len(labels)))
    for label in labels.unique():
        counts = [int((labels[fold] == label).sum()) for fold in folds]
        assert max(counts) - min(counts) <= 1
    for fold in folds:
        assert sorted(torch.cat([fold, others(len(labels), fold)]).tolist()) == list(range(len(labels)))
    again, other = stratified_folds(labels, FOLDS, seed=3), stratified_folds(labels, FOLDS, seed=4)
    assert all(map(torch.equal, folds, again))
    assert not all(map(torch.equal, folds, other))


@pytest.mark.parametrize(
    ("labels", "frozen", "number", "note"),
    [
        (of_classes(1), True, 0, "1 label a class: too few"),
        (of_classes(2), False, 0, "2 labels a class and a backbone that trains: too few"),
        (of_classes(2), True, 20, "each of 20 labels is left out once"),
        (of_classes(4), True, 40, "each of 40 labels is left out once"),
        (of_classes(5), True, FOLDS, "5 labels a class: 5 stratified folds"),
        (of_classes(5), False, FOLDS, "5 labels a class: 5 stratified folds"),
        (torch.rand(25), False, FOLDS, "25 labels"),  # numbers
        (torch.rand(24), False, 0, "24 labels"),
        (torch.ones(30, 4), False, FOLDS, "30 labels"),  # several labels a sample
    ],
)
def test_the_number_of_labels_decides_how_they_are_held_out(labels, frozen, number, note):
    rule = Budget()
    rule.plan(labels, frozen, seed=0)
    assert len(rule.held_out) == number
    assert note in rule.note
    tasks = {"target": Multiclass()}
    assert rule.monitor(tasks) == ("selection/budget" if number else None)


def test_samples_of_one_group_are_in_one_fold():
    rule, groups = Budget(), torch.arange(30) // 3
    rule.plan(of_classes(3), True, 0, groups)
    assert len(rule.held_out) == FOLDS
    assert "5 stratified folds of 10 groups" in rule.note
    assert sorted(torch.cat(rule.held_out).tolist()) == list(range(30))
    assert all((groups[held] == group).sum() in (0, 3) for held in rule.held_out for group in range(10))
    few = Budget()
    few.plan(of_classes(5), True, 0, torch.arange(50) % 4)
    assert not few.held_out
    assert "in 4 groups: too few" in few.note


def test_single_labels_are_judged_by_what_a_single_label_has():
    rule, task = Budget(), Binary(main_metric="auroc")
    rule.plan(of_classes(3, classes=2), frozen=True, seed=0)
    assert rule.metric_of(task) == "loss"
    assert not rule.higher_is_better({"target": task})
    rule.plan(of_classes(5, classes=2), frozen=True, seed=0)
    assert rule.metric_of(task) == "auroc"


def test_the_last_epoch_is_left_for_more_than_a_standard_error_only():
    steady = torch.tensor([[0.9, 0.5], [0.8, 0.5], [1.0, 0.5]])
    noisy = torch.tensor([[0.9, 0.5], [0.2, 0.5], [0.6, 0.5]])
    assert clear_gain(steady) == 0
    assert clear_gain(noisy) == 1
    assert clear_gain(-steady) == 1  # lower is better
    assert clear_gain(torch.full((5, 3), 0.5)) == 2
    assert clear_gain(torch.tensor([[torch.nan, 0.5], [0.9, 0.5]])) == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.target_setting=unsupervised"], "there are no labels to hold out"),
        (["trainer.devices=2"], "its folds train on one"),
        (["training.wise_ft_alphas=[0.5,1]", "backbone.weights=source"], "there is no metric to choose by"),
        (["scheduler=plateau"], "it follows the selection rule's metric"),
    ],
)
def test_what_folds_cannot_do_is_refused(overrides, message):
    assert any("selection=budget" in line and message in line for line in problems("selection=budget", *overrides))


# Runs


class Poisoned(Digits):
    """The same digits, whose validation and test labels are wrong."""

    def load(self, split_seed, fold=None):
        data = super().load(split_seed, fold)

        def wrong(split):
            moved = torch.randint(1, CLASSES, (len(split),), generator=generator("poison"))
            return replace(split, labels=(split.labels + moved) % CLASSES)

        return replace(data, val=wrong(data.val), test=wrong(data.test))


class StopRefit(pl.Callback):
    """Ends the fit on all labels after its second epoch, and no fold."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 2 and len(trainer.datamodule.domains["target"].train) == 50:
            raise Interrupted("stopped")


POISON = ["allow=[test_budget]", "data.target._target_=test_budget.Poisoned"]


def best(folder):
    return torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)


def column(folder, name):
    header, *rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    return [float(row[header.index(name)]) for row in rows if row[header.index(name)]]


@pytest.mark.slow
@pytest.mark.parametrize(("labels", "strategy", "folds"), [(2, "frozen", 20), (5, "full", FOLDS), (5, "frozen", FOLDS)])
def test_no_label_of_validation_or_test_moves_the_choice(run, labels, strategy, folds):  # noqa: F811
    options = ["selection=budget", f"strategy={strategy}", f"data.labels_per_class={labels}", "training.epochs=3"]
    results, folder = run(*options, "optimizer.lr=0.02", folder="right")
    poisoned, other = run(*options, "optimizer.lr=0.02", *POISON, folder="wrong")
    found = results["selection"]
    assert (found["rule"], found["monitor"], found["oracle"]) == ("budget", "selection/budget", False)
    assert len(found["folds"]) == folds
    assert found["value"] == pytest.approx(np.mean(found["folds"]))
    curve = column(folder, "selection/budget")
    assert len(curve) == 3
    assert found["value"] == pytest.approx(curve[found["epoch"]])
    assert found["epoch"] == best(folder)["epoch"]
    assert results["labels"] == {"training": 10 * labels, "choosing": 0}
    assert poisoned["selection"] == found
    assert poisoned["metrics"]["val/target/acc"] < results["metrics"]["val/target/acc"]  # it is reported
    weights, others_ = best(folder)["state_dict"], best(other)["state_dict"]
    assert all(torch.equal(value, others_[name]) for name, value in weights.items())
    if strategy == "frozen":  # the folds have computed what the run then reads
        computed = {one["split"]: one["computed"] for one in results["feature_cache"]["entries"]}
        assert computed["train"] is False


@pytest.mark.slow
def test_stored_features_give_what_the_backbone_gives(run):  # noqa: F811
    options = ["selection=budget", "strategy=frozen", "data.labels_per_class=5", "optimizer.lr=0.02"]
    stored, _ = run(*options, folder="stored")
    computed, _ = run(*options, "cache.features=false", folder="computed")
    assert stored["selection"] == computed["selection"]


@pytest.mark.slow
def test_one_label_a_class_leaves_the_last_epoch(run, capsys):  # noqa: F811
    results, _ = run("selection=budget", "strategy=frozen", "data.labels_per_class=1")
    found = results["selection"]
    assert (found["rule"], found["monitor"], found["value"], found["epoch"]) == ("budget", None, None, 1)
    assert results["labels"] == {"training": 10, "choosing": 0}
    out = capsys.readouterr().out
    assert "budget: 1 label a class: too few to hold some out, the last epoch is tested" in out
    assert "labels used: 10 + 0" in out


@pytest.mark.slow
@pytest.mark.usefixtures("every_epoch_saved")
def test_a_run_stopped_in_a_fold_or_after_the_folds_chooses_the_same(run):  # noqa: F811
    options = ["selection=budget", "strategy=full", "data.labels_per_class=5", "training.epochs=3"]
    whole, folder = run(*options, folder="whole")
    with pytest.raises(Interrupted, match="in fold 1/5: the folds begin again with the same command"):
        run(*options, "+callbacks.stop={_target_: test_run.StopAt, epoch: 1}", folder="stopped")
    assert not (folder.with_name("stopped") / "checkpoints").exists()
    again, _ = run(*options, folder="stopped")
    assert (again["selection"], again["metrics"]) == (whole["selection"], whole["metrics"])
    with pytest.raises(Interrupted):
        run(*options, "allow=[test_budget]", "+callbacks.stop={_target_: test_budget.StopRefit}", folder="later")
    resumed, _ = run(*options, "resume=true", folder="later")
    assert (resumed["selection"], resumed["metrics"]) == (whole["selection"], whole["metrics"])


# Sweeps


def budget(folds, *as_recipe, value=None):
    value = None if folds is None else float(np.mean(folds)) if value is None else value
    monitor = None if folds is None else "selection/budget"
    return {
        "labels": {"training": 50, "choosing": 0},
        "selection": {
            **{"rule": "budget", "monitor": monitor, "mode": "max", "value": value},
            **{"folds": folds or [], "as_recipe": list(as_recipe), "note": ""},
        },
    }


def order(folder):
    return [" ".join(row.overrides.values()) for row in sweeps.fold(sweeps.read_jobs(folder))]


RIGHT = np.ones(200, dtype=bool)
HALF = np.arange(200) % 2 == 0


def test_a_sweep_is_ordered_by_folds_and_leaves_the_recipe_for_a_clear_gain_only(tmp_path):
    recipe = budget([0.5, 0.5, 0.5, 0.5, 0.5], "strategy", "optimizer.lr")
    noisy = budget([0.9, 0.2, 0.9, 0.2, 0.4], "optimizer.lr")
    clear = budget([0.7, 0.6, 0.7, 0.6, 0.7], "strategy")
    sweep = Sweep(tmp_path)
    sweep.add("strategy=full optimizer.lr=0.1 seed=0", HALF, **recipe)
    sweep.add("strategy=frozen optimizer.lr=0.1 seed=0", RIGHT, **noisy)
    assert order(tmp_path) == ["full 0.1", "frozen 0.1"]
    sweep.add("strategy=full optimizer.lr=1 seed=0", HALF, **clear)
    assert order(tmp_path) == ["full 1", "frozen 0.1", "full 0.1"]


def test_without_folds_the_recipe_comes_first_and_no_test_score_orders(tmp_path):
    sweep = Sweep(tmp_path)
    sweep.add("strategy=frozen optimizer.lr=0.1 seed=0", RIGHT, **budget(None))
    sweep.add("strategy=full optimizer.lr=0.1 seed=0", HALF, **budget(None, "strategy", "optimizer.lr"))
    assert order(tmp_path) == ["full 0.1", "frozen 0.1"]
    sweep.add("strategy=lora optimizer.lr=0.1 seed=0", HALF, **budget([0.2, 0.3]))
    assert order(tmp_path) == ["full 0.1", "lora 0.1", "frozen 0.1"]


def test_no_validation_loss_decides_whose_model_is_kept():
    selection = {"rule": "budget", "monitor": None, "value": None, "mode": None}
    high, low = ({"selection": selection, "metrics": {"val/target/loss": loss}} for loss in (2.0, 1.0))
    assert validated(high) == validated(low)
    _, value, mode = validated(low)
    assert not is_better(value, value, mode)  # the first one stays


def test_the_keys_of_a_job_that_are_as_the_recipe_has_them():
    with initialize_config_dir(CONF, **VERSION_BASE):
        lines = ["experiment=compare_strategies", "data.labels_per_class=5", "strategy=full", "optimizer.lr=1e-3"]
        assert keys_as_recipe([*lines, "seed=3"]) == ["strategy", "optimizer.lr"]
        assert keys_as_recipe(["strategy=lp_ft", "optimizer.lr=0.001", "term=[]"]) == ["optimizer.lr", "term"]
    assert keys_as_recipe([]) == []


def test_a_table_says_labels_used(tmp_path, capsys):
    more = {"labels": {"training": 20, "choosing": 297}}
    Sweep(tmp_path).add("strategy=full seed=0", HALF, **more)
    summary.summarise(tmp_path)
    assert "| 20 + 297 " in capsys.readouterr().out
    header, row = (tmp_path / "summary.csv").read_text().splitlines()
    cells = dict(zip(header.split(","), row.split(","), strict=True))
    assert (float(cells["labels_training"]), float(cells["labels_choosing"])) == (20, 297)


def test_an_ensemble_is_the_mean_of_its_jobs_predictions(tmp_path, capsys):
    rule = {"selection": {"rule": "ensemble", "monitor": None, "value": None}}
    random = np.random.default_rng(0)
    sweep = Sweep(tmp_path)
    for seed in (0, 1):
        for strategy in ("frozen", "full", "lora"):
            sweep.add(f"strategy={strategy} seed={seed}", random.random(200) < 0.7, **rule)
    by_hand = []
    for seed in (0, 1):
        folders = [job.path for job in sweeps.read_jobs(tmp_path) if job.overrides["seed"] == str(seed)]
        read = [predictions.read(folder / "predictions.parquet")["target"] for folder in folders]
        mean = np.mean([one["probabilities"] for one in read], axis=0)
        right = np.array([["a", "b"].index(label) for label in read[0]["label"]])
        by_hand.append((mean.argmax(1) == right).mean())
    summary.summarise(tmp_path)
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if "ensemble of 3" in line]
    assert f"{np.mean(by_hand):.4f}" in line
    header, row, *rest = (tmp_path / "summary.csv").read_text().splitlines()
    cells = dict(zip(header.split(","), row.split(","), strict=True))
    assert [float(score) for score in cells["scores"].split()] == pytest.approx(by_hand)
    assert len(rest) == 3
    assert np.mean(by_hand) > 0.75  # above its members
    assert json.loads(json.dumps(cells["seeds"])) == "0 1"
    assert len(study.read([tmp_path]).rows) == 3  # no strategy of its own in the comparisons


def test_under_budget_the_mean_is_of_those_that_folds_do_not_find_clearly_worse(tmp_path):
    random = np.random.default_rng(0)
    folds = {"frozen": [0.8, 0.7, 0.9, 0.6, 0.8], "lora": [0.7, 0.8, 0.6, 0.9, 0.7], "full": [0.3, 0.4, 0.3, 0.4, 0.3]}
    sweep, right = Sweep(tmp_path), {}
    for seed in (0, 1):
        for strategy, values in folds.items():
            right[strategy, seed] = random.random(200) < 0.7
            sweep.add(f"strategy={strategy} seed={seed}", right[strategy, seed], **budget(values))
        sweep.add(f"strategy=bitfit seed={seed}", RIGHT, **budget(None))
    jobs = sweeps.read_jobs(tmp_path)
    shown = summary.with_ensembles(jobs, sweeps.fold(jobs))
    assert [row.overrides["strategy"] for row in shown][:1] == ["ensemble of 2"]
    sure = [(right["frozen", seed] * 0.6 + right["lora", seed] * 0.6 - 0.6) for seed in (0, 1)]
    decided = [np.where(one == 0, HALF, one > 0).mean() for one in sure]  # of a tie the first class
    assert shown[0].scores == pytest.approx(decided)
    assert len(shown) == 5


def test_under_budget_nothing_is_averaged_without_folds(tmp_path):
    sweep = Sweep(tmp_path)
    sweep.add("strategy=frozen seed=0", RIGHT, **budget(None))
    sweep.add("strategy=full seed=0", HALF, **budget(None, "strategy"))
    jobs = sweeps.read_jobs(tmp_path)
    assert len(summary.with_ensembles(jobs, sweeps.fold(jobs))) == 2


def test_an_ensemble_needs_the_jobs_predictions(tmp_path):
    rule = {"selection": {"rule": "ensemble", "monitor": None, "value": None}}
    sweep = Sweep(tmp_path)
    sweep.add("strategy=frozen seed=0", HALF, **rule)
    sweep.add("strategy=full seed=0", HALF, kept=False, **rule)
    assert len(summary.table_of(sweeps.read_jobs(tmp_path)).splitlines()) == 4
