"""The whole way of a run, called as a notebook would call it: real data, real Trainer, results on disk."""

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from lanes import slow
from PIL import Image

from graft.callbacks import checkpoints
from graft.callbacks.interrupt import Interrupt
from graft.cli.hydra_versions import VERSION_BASE
from graft.data.domain import Domain
from graft.data.shared import MAX_SHARED, Shared
from graft.errors import GraftError, Interrupted
from graft.experiment import added_parameters
from graft.model import predictions
from graft.runs.context import DEFAULT_THREADS, RunContext, threads_of_job
from graft.strategies.full import Full
from tests.small_run import CONF, train_in

TINY = [
    "backbone=lenet",
    "backbone.weights=source",
    "data.source.samples=300",
    "data.labels_per_class=4",
    "data.eval_batch_size=512",
    "pretrain.epochs=1",
    "training.epochs=2",
    "training.threads=1",
    "optimizer.lr=0.003",
    "trainer=cpu",
    "logger=csv",
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(tmp_path, cache):
    def run(*overrides, folder="run", defaults=TINY):
        found = train_in(tmp_path, *defaults, "allow=[test_run]", *overrides, folder=folder, cache=cache)
        return found, tmp_path / folder

    return run


def weights(folder, name="last"):
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def test_a_run_leaves_a_folder_that_explains_itself(run):
    results, folder = run("strategy=full")
    assert json.loads((folder / "results.json").read_text()) == json.loads(json.dumps(results))
    assert results["status"] == "done"
    assert {p.name for p in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    for name in ("acc", "f1", "auroc", "loss"):
        assert f"test/target/{name}" in results["metrics"]
        assert f"test/source/{name}" in results["metrics"]
    assert results["score"] == {
        "metric": "test/target/acc",
        "value": results["metrics"]["test/target/acc"],
        "higher_is_better": True,
    }
    assert results["selection"]["rule"] == "target_val"
    assert results["selection"]["value"] == results["metrics"]["val/target/acc"]
    assert results["selection"]["oracle"] is False
    assert results["parameters"]["total"] == results["parameters"]["trainable"] > 0
    assert results["seeds"] == {"train": 0, "split": 0, "subset": 0, "pretrain": 0}
    assert results["data"]["target"]["train"] == 40
    assert results["peak_memory_mb"] > 0
    assert results["precision"] != "auto"
    assert (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["config"]["trainer"]["precision"]
        == (results["precision"])
    )
    assert sum(map(sum, results["confusion"]["test/target"]["matrix"])) == results["data"]["target"]["test"]
    assert (folder / "confusion_test_target.png").stat().st_size > 1000
    assert (folder / "curves.png").stat().st_size > 1000
    assert "val/target/acc" in (folder / "metrics.csv").read_text().splitlines()[0]


@pytest.mark.slow
def test_without_a_logger_losses_are_comparable_and_the_smoothed_ones_stand_beside(run):
    smoothed, folder = run("logger=[]", "task.label_smoothing=0.2", "backbone.weights=null", "strategy=scratch")
    metrics = smoothed["metrics"]
    assert (folder / "metrics.csv").exists()
    kept = predictions.read(folder / "predictions.parquet")["target"]
    places = [kept["classes"].index(label) for label in kept["label"]]
    right = [row[place] for row, place in zip(kept["probabilities"], places, strict=True)]
    assert metrics["test/target/loss"] == pytest.approx(-sum(map(math.log, right)) / len(right), rel=1e-4)
    assert metrics["test/target/loss_smoothed"] != pytest.approx(metrics["test/target/loss"], rel=1e-3)
    assert {"val/target/loss", "val/target/loss_smoothed"} <= set(metrics)


@pytest.mark.slow
def test_weights_are_laid_out_for_convolutions_and_values_stay(run):
    _, folder = run("strategy=scratch", "seed=7", "training.channels_last=true")
    _, plain = run("strategy=scratch", "seed=7", "training.channels_last=false", folder="plain")
    ours, theirs = weights(folder), weights(plain)
    kernel = "backbone.network.conv2.0.weight"
    assert ours[kernel].is_contiguous(memory_format=torch.channels_last)
    assert theirs[kernel].is_contiguous()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-4)


def test_jobs_of_a_sweep_share_what_they_have_in_common():
    class Counted(Domain):
        loads = 0

        def load(self, split_seed, fold=None):
            self.loads += 1
            return object()

    domain = Counted()
    first = Shared(domain, {"name": "x", "seed": 0}).load(1)
    assert Shared(domain, {"name": "x", "seed": 0}).load(1) is first
    assert domain.loads == 1
    assert Shared(domain, {"name": "x", "seed": 0}).load(2) is not first
    assert Shared(domain, {"name": "x", "seed": 1}).load(1) is not first
    for seed in range(10):
        Shared(domain, {"name": "y"}).load(seed)
    assert len(Shared.loaded) == MAX_SHARED
    Shared.loaded.clear()


@pytest.mark.parametrize(("n_jobs", "expected"), [(3, 2), *slow((1, 8), (2, 4), (16, 1), (-1, 1), (-5, 2))])
def test_jobs_side_by_side_share_the_cores(monkeypatch, n_jobs, expected):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    overrides = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={n_jobs}", "hydra.mode=MULTIRUN"]
    with initialize_config_dir(CONF, **VERSION_BASE):
        cfg = compose("train", overrides=overrides, return_hydra_config=True)
    monkeypatch.setattr("joblib.cpu_count", lambda: 8)
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(HydraConfig, "get", lambda: cfg.hydra)
    assert threads_of_job() == expected


def test_a_job_alone_has_torchs_own_threads():
    assert threads_of_job() == DEFAULT_THREADS


@pytest.mark.slow
def test_shifts_change_the_test_images_of_the_target_and_nothing_else(run):
    plain, _ = run()
    shifted, _ = run("data.test_shifts=[colour,blur]", folder="shifted")
    added = {name for name in shifted["metrics"] if name not in plain["metrics"]}
    names = ("acc", "f1", "auroc", "loss")
    assert added == {f"test/target_{shift}/{name}" for shift in ("colour", "blur") for name in names}
    assert {name: value for name, value in shifted["metrics"].items() if name not in added} == plain["metrics"]
    assert shifted["confusion"] == plain["confusion"]
    losses = {name: value for name, value in shifted["metrics"].items() if name.endswith("/loss") and "target" in name}
    assert len(set(losses.values())) == len(losses)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["term=[stochnorm]"], "lenet has none"),
        (["term=[delta]", "term.delta.layers=[layer9]"], "no stage layer9"),
        (["term=[mcd]", "head.sharing=separate"], "Use head.sharing=shared"),
    ],
)
def test_a_term_that_cannot_work_with_the_network_is_refused_before_pretraining(run, tmp_path, overrides, said):
    own = f"++paths.cache_dir={tmp_path / 'own'}"
    with pytest.raises(GraftError, match=said):
        run("strategy=full", own, *overrides)
    assert not list((tmp_path / "own").rglob("weights.pt"))


@pytest.mark.slow
def test_statistics_of_each_domain_start_at_those_of_pretraining(run):
    resnet = ["backbone=timm", "backbone.name=test_resnet", "data.source.samples=80", "trainer.limit_test_batches=1"]
    results, folder = run("strategy=full", "bn=domain_specific", "objective.alpha=0.5", "training.epochs=1", *resnet)
    assert results["status"] == "done"
    assert any("source_running_mean" in name for name in weights(folder))


@pytest.mark.slow
def test_forgetting_is_what_the_source_lost_and_absent_for_scratch(run):
    results, _ = run("strategy=full")
    metrics = results["metrics"]
    assert metrics["forgetting"] == pytest.approx(metrics["pretrain/test/source/acc"] - metrics["test/source/acc"])
    scratch, _ = run("strategy=scratch", folder="scratch")
    assert "forgetting" not in scratch["metrics"]
    assert scratch["weights"] is None


@pytest.mark.slow
def test_what_lora_learned_is_tested_and_saved_as_plain_weights(run):
    results, folder = run("strategy=lora", "selection=last", "optimizer.lr=0.01")
    assert results["note"] == "lora adapts conv*.0 (2), fc.1 (1)"
    added = {name: value for name, value in weights(folder).items() if ".lora_" in name}
    assert results["parameters"]["trainable"] == sum(map(torch.numel, added.values())) + 500 * 10 + 10

    merged = torch.load(folder / "checkpoints" / "merged.pt", weights_only=True)
    unmerged = {name.replace(".base_layer", ""): value for name, value in weights(folder).items()}
    for name, value in merged["backbone"].items():
        same = torch.equal(value, unmerged[f"backbone.{name}"])
        assert same is not name.endswith(("conv1.0.weight", "conv2.0.weight", "fc.1.weight")), name
    second, _ = run(f"backbone.weights={folder / 'checkpoints' / 'merged.pt'}", "strategy=frozen", folder="second")
    assert (second["weights"]["matched"], second["weights"]["missing"]) == (second["weights"]["total"], [])


@pytest.mark.slow
def test_frozen_forgets_nothing_with_a_head_of_its_own(run):
    results, _ = run("strategy=frozen", "head.sharing=separate")
    assert results["metrics"]["forgetting"] == 0.0
    trainable = {group["name"] for group in results["parameters"]["groups"] if group["trainable"]}
    assert trainable == {"head/target"}


@pytest.mark.slow
def test_the_pretrained_backbone_is_computed_once(run):
    first, _ = run("data.source.seed=5")
    second, _ = run("data.source.seed=5", "strategy=frozen", "seed=1", folder="second")
    other, _ = run("data.source.seed=6", folder="other")
    assert first["time"]["pretrain_s"] > 0
    assert second["time"]["pretrain_s"] == 0
    assert second["weights"]["folder"] == first["weights"]["folder"] != other["weights"]["folder"]


@pytest.mark.slow
def test_pretraining_depends_on_its_own_seed_and_not_on_the_runs(run, tmp_path):
    found = []
    for number, override in enumerate(("seed=0", "seed=1", "head.sharing=separate", "pretrain.seed=1")):
        results, _ = run(override, f"++paths.cache_dir={tmp_path / str(number)}", folder=f"run{number}")
        found.append(torch.load(Path(results["weights"]["folder"]) / "weights.pt", weights_only=True)["backbone"])
    first, *others = found
    same = [all(torch.equal(value, other[name]) for name, value in first.items()) for other in others]
    assert same == [True, True, False]


@pytest.mark.slow
@pytest.mark.parametrize(
    "override", ["trainer.limit_train_batches=1", "pretrain.epochs=2", "pretrain.optimizer.lr=0.1"]
)
def test_what_changes_pretraining_makes_a_new_cache_entry(run, override):
    plain, _ = run("strategy=frozen")
    other, _ = run("strategy=frozen", override, folder="other")
    assert plain["weights"]["folder"] != other["weights"]["folder"]


@pytest.mark.slow
def test_a_damaged_pretrained_backbone_is_trained_again_bit_for_bit_and_said(run, tmp_path, capsys):
    own = f"++paths.cache_dir={tmp_path / 'own'}"
    first, _ = run(own)
    file = Path(first["weights"]["folder"]) / "weights.pt"
    whole = torch.load(file, weights_only=True)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x40
    file.write_bytes(content)
    capsys.readouterr()
    second, _ = run(own, folder="second")
    assert f"{file.parent} is damaged (weights.pt holds something else than was written)" in capsys.readouterr().out
    assert second["metrics"] == first["metrics"]
    assert second["time"]["pretrain_s"] > 0
    again = torch.load(file, weights_only=True)
    assert all(torch.equal(value, again[part][name]) for part in whole for name, value in whole[part].items())


@pytest.mark.slow
def test_without_room_for_it_pretraining_is_done_in_every_run_and_said(run, tmp_path, capsys):
    kept, _ = run()
    small = [f"++paths.cache_dir={tmp_path / 'own'}", "cache.limit_gb=1e-5"]
    results, _ = run(*small, folder="small")
    assert "cannot be kept: 0.0 GiB are more than cache.limit_gb=1e-05" in capsys.readouterr().out
    assert results["metrics"] == kept["metrics"]
    assert not Path(results["weights"]["folder"]).exists()


@pytest.mark.slow
def test_a_callback_that_may_change_training_makes_a_new_cache_entry(run):
    plain, _ = run("strategy=frozen")
    quiet, _ = run("strategy=frozen", "callbacks.progress=null", folder="quiet")
    other, _ = run("strategy=frozen", "+callbacks.tested={_target_: test_run.Tested}", folder="other")
    assert plain["weights"]["folder"] == quiet["weights"]["folder"] != other["weights"]["folder"]


@pytest.mark.slow
def test_a_head_that_nothing_trains_is_not_scored(run):
    with pytest.raises(GraftError, match="Nothing trains the target's head"):
        run("objective.alpha=1", "head.sharing=separate")
    with pytest.raises(GraftError, match="Nothing trains the source's head"):
        run("selection=source_val", "backbone.weights=null", "head.sharing=separate")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("head=mlp head.activation=foo", "foo"),
        ("backbone=torchvision backbone.name=resnet19", "resnet18"),
        ("scheduler=step scheduler.milestones=[30,60]", "fractions of training"),
    ],
)
def test_a_mistake_that_a_constructor_finds_is_a_plain_message(run, override, message):
    with pytest.raises(GraftError, match=message):
        run(*override.split())


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(run):
    runs = {"a": 1, "b": 1, "c": 2}
    folders = [run("data.augment=light", f"seed={seed}", folder=name)[1] for name, seed in runs.items()]
    a, b, c = (weights(folder)["heads.shared.linear.weight"] for folder in folders)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@pytest.mark.slow
def test_alpha_zero_is_a_run_without_source_bit_for_bit(run):
    joint, with_source = run("objective.alpha=0", "backbone.weights=null", "head.sharing=separate")
    _, alone = run("data.source=null", "backbone.weights=null", "head.sharing=separate", folder="alone")
    of_target = {k: v for k, v in weights(with_source).items() if k.startswith(("backbone", "heads.target"))}
    assert all(torch.equal(v, weights(alone)[k]) for k, v in of_target.items())
    assert "test/source/acc" not in joint["metrics"]  # a head that never learned says nothing about the source


@pytest.mark.slow
@pytest.mark.parametrize("bn", ["joint", "separate", "domain_specific"])
def test_joint_training_uses_both_sides(run, bn):
    results, _ = run("backbone=resnet18", "strategy=scratch", "objective.alpha=0.5", f"bn={bn}", "training.epochs=1")
    assert {"test/target/acc", "test/source/acc"} <= set(results["metrics"])


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["additive", "additive_retraining"])
def test_additive_objectives(run, objective):
    sharing = "head.sharing=separate" if objective == "additive" else "head.sharing=auto"
    results, _ = run(f"objective={objective}", sharing)
    trainable = {group["name"]: group["trainable"] for group in results["parameters"]["groups"]}
    assert bool(trainable["head/source"]) is (objective == "additive")


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["source_val", "last"])
def test_selection_rules_use_no_target_label(run, rule):
    results, folder = run(f"selection={rule}", "objective.alpha=0.5")
    assert results["selection"]["rule"] == rule
    assert (folder / "checkpoints" / "best.ckpt").exists() is (rule == "source_val")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("head.sharing=shared", r"head\.sharing=shared: this objective keeps the source head fixed"),
        ("backbone.weights=null", r"backbone\.weights=None, strategy=full"),
    ],
)
def test_retraining_with_a_source_head_that_cannot_be_kept_is_refused(run, override, message):
    with pytest.raises(GraftError, match=message):
        run("objective=additive_retraining", override)


@pytest.mark.slow
def test_an_unlabelled_target_is_trained_on_the_source_alone_and_target_selection_is_an_oracle(run):
    results, _ = run("data.target_setting=unsupervised", "data.labels_per_class=null", "objective.alpha=1.0")
    assert results["selection"]["oracle"] is True
    assert "train/target/loss" not in results["metrics"]


class StopAt(pl.Callback):
    """Ends a run as Ctrl-C would, after a batch of an epoch or between two epochs."""

    def __init__(self, epoch, batch=None):
        self.epoch, self.batch = epoch, batch

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch and self.batch is None:
            raise Interrupted("stopped")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (self.epoch, self.batch):
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt")
            raise Interrupted("stopped")


@pytest.fixture
def every_epoch_saved(monkeypatch):
    """Epochs of these tests are too short to be saved each, as long ones are."""
    monkeypatch.setattr(checkpoints, "SHORTEST_S", 0.0)
    monkeypatch.setattr(checkpoints, "LARGEST_SHARE", 1e9)


@pytest.mark.usefixtures("every_epoch_saved")
@pytest.mark.parametrize("where", ["epoch: 1, batch: 0", *slow("epoch: 1", "epoch: 2", "epoch: 3, batch: 1")])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(run, tmp_path, where):
    options = ["strategy=lp_ft", "training.epochs=4", "data.augment=light", "data.batch_size=16"]
    _, whole = run(*options, folder="whole")
    with pytest.raises(Interrupted):
        run(*options, f"+callbacks.stop={{_target_: test_run.StopAt, {where}}}", folder="stopped")
    assert json.loads((tmp_path / "stopped" / "results.json").read_text())["status"] == "interrupted"
    results, resumed = run(*options, "resume=true", folder="stopped")
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())
    assert results["metrics"] == json.loads((whole / "results.json").read_text())["metrics"]


def rows_of(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if "_per_s" not in name} for row in csv.DictReader(file)]


@pytest.mark.slow
@pytest.mark.usefixtures("every_epoch_saved")
def test_a_torn_last_checkpoint_falls_back_to_the_one_before_bit_for_bit(run, capsys):
    options = ["strategy=lp_ft", "training.epochs=4", "data.augment=light", "data.batch_size=16"]
    _, whole = run(*options, folder="whole")
    assert {path.name for path in (whole / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    with pytest.raises(Interrupted):
        run(*options, "+callbacks.stop={_target_: test_run.StopAt, epoch: 3}", folder="stopped")
    last = whole.with_name("stopped") / "checkpoints" / "last.ckpt"
    previous = last.with_name("previous.ckpt")
    epochs = [torch.load(file, weights_only=True)["epoch"] for file in (previous, last)]
    assert epochs == [1, 2]
    os.truncate(last, last.stat().st_size // 2)
    capsys.readouterr()
    _, resumed = run(*options, "resume=true", folder="stopped")
    said = [line for line in capsys.readouterr().out.splitlines() if "previous.ckpt" in line]
    assert len(said) == 1
    assert said[0].startswith(f"{last} cannot be read (")
    assert said[0].endswith(f"going on from the checkpoint before it, {previous}")
    for name in ("last", "best"):
        assert same(weights(whole, name), weights(resumed, name))
    assert rows_of(whole) == rows_of(resumed)
    assert not previous.exists()


def test_an_interrupted_pretraining_goes_on_bit_for_bit(run, tmp_path, monkeypatch):
    steps, press_at = [], None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        steps.append(trainer.global_step)
        if trainer.global_step == press_at:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Interrupt, "on_train_batch_start", on_train_batch_start)
    options = ["pretrain.epochs=2", "training.epochs=1"]
    whole, _ = run(*options, f"++paths.cache_dir={tmp_path / 'one'}", folder="whole")
    steps.clear()
    press_at, options = 3, [*options, f"++paths.cache_dir={tmp_path / 'two'}"]
    with pytest.raises(Interrupted, match=r"pretraining on the source\. The same command, typed again, goes on"):
        run(*options, folder="stopped")
    assert steps == [0, 1, 2, 3]
    (reached,) = (tmp_path / "two" / "interrupted").glob("*.ckpt")
    steps.clear()
    press_at = None
    results, _ = run(*options, folder="stopped")
    assert steps[:2] == [4, 5], "it goes on after the batch that was under way"
    assert results["metrics"] == whole["metrics"]
    assert not reached.exists()


@pytest.mark.slow
@pytest.mark.parametrize("averaging", ["ema", "swa"])
@pytest.mark.parametrize("where", ["epoch: 1, batch: 1", "epoch: 3, batch: 1"])
def test_a_resumed_run_has_the_average_of_the_uninterrupted_one_bit_for_bit(run, tmp_path, averaging, where):
    options = ["strategy=full", f"averaging={averaging}", "training.epochs=5", "data.augment=light"]
    options += ["data.batch_size=16", *["averaging.start_fraction=0.4"] * (averaging == "swa")]
    _, whole = run(*options, folder="whole")
    with pytest.raises(Interrupted):
        run(*options, f"+callbacks.stop={{_target_: test_run.StopAt, {where}}}", folder="stopped")
    results, resumed = run(*options, "resume=true", folder="stopped")
    for name in ("last", "best"):
        assert all(torch.equal(value, weights(resumed, name)[key]) for key, value in weights(whole, name).items())
    beside = [torch.load(f / "checkpoints" / "last.ckpt", weights_only=True)["averaging"] for f in (whole, resumed)]
    assert all(torch.equal(value, beside[1]["training"][key]) for key, value in beside[0]["training"].items())
    assert beside[0]["averaged"] == beside[1]["averaged"] == {"ema": 16, "swa": 3}[averaging]
    assert results["metrics"] == json.loads((whole / "results.json").read_text())["metrics"]


class Tested(pl.Callback):
    """Keeps the weights that a run tested."""

    weights = None

    def on_test_start(self, trainer, pl_module):
        Tested.weights = {name: value.clone() for name, value in pl_module.state_dict().items()}


def same(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.slow
@pytest.mark.parametrize("averaging", ["ema", "swa"])
@pytest.mark.parametrize("selection", ["target_val", "last"])
def test_the_average_is_validated_selected_and_tested(run, averaging, selection):
    options = [f"averaging={averaging}", f"selection={selection}", "training.epochs=3", "data.batch_size=16"]
    options += ["averaging.start_fraction=0"] * (averaging == "swa")
    results, folder = run(*options, "+callbacks.tested={_target_: test_run.Tested}")
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    file = "last" if selection == "last" else "best"
    assert same(weights(folder, file), Tested.weights)
    assert not same(last["averaging"]["training"], last["state_dict"])
    if selection == "target_val":
        assert results["selection"]["value"] == results["metrics"]["val/target/acc"]

    (folder / "results.json").unlink()  # stopped after its last epoch: only the test is missing
    again, _ = run(*options, "resume=true")
    assert {k: v for k, v in results["metrics"].items() if k.startswith("test/")}.items() <= again["metrics"].items()


@pytest.mark.slow
def test_swa_tests_an_average_even_where_an_epoch_before_it_was_better(run):
    options = ["averaging=swa", "averaging.start_fraction=0.7", "averaging.lr_fraction=1000", "training.epochs=3"]
    results, _ = run(*options)
    assert results["selection"]["epoch"] == 2


@pytest.mark.slow
def test_a_checkpoint_with_an_average_does_not_go_on_without_it(run):
    run("averaging=ema")
    with pytest.raises(
        GraftError, match="trained with averaging=ema and goes on with that only, not with averaging=none"
    ):
        run("resume=true", "training.epochs=3")


@pytest.mark.slow
def test_wise_ft_tests_the_best_on_validation_between_pretrained_and_tuned(run, tmp_path):
    alphas = "training.wise_ft_alphas=[0,0.5,1]"
    results, folder = run(alphas, "optimizer.lr=0.03", "+callbacks.tested={_target_: test_run.Tested}")
    values = {one["alpha"]: one["value"] for one in results["wise_ft"]["tried"]}
    alpha = results["wise_ft"]["alpha"]
    assert list(values) == [0, 0.5, 1]
    assert (
        values[alpha] == max(values.values()) == results["selection"]["value"] == results["metrics"]["val/target/acc"]
    )

    pretrained = torch.load(Path(results["weights"]["folder"]) / "weights.pt", weights_only=True)
    pretrained = {f"backbone.{name}": value for name, value in pretrained["backbone"].items()} | {
        f"heads.shared.{name}": value for name, value in pretrained["head"].items()
    }
    for name, tuned in weights(folder, "best").items():
        torch.testing.assert_close(Tested.weights[name], (1 - alpha) * pretrained[name] + alpha * tuned)
    written = torch.load(folder / "checkpoints" / "wise_ft.pt", weights_only=True)
    assert same({f"backbone.{name}": value for name, value in written["backbone"].items()}, Tested.weights)
    plain, _ = run("optimizer.lr=0.03", folder="plain")
    assert plain["metrics"]["val/target/acc"] == values[1]
    untouched, _ = run("training.wise_ft_alphas=[0]", "strategy=lora", "averaging=ema", folder="untouched")
    assert untouched["metrics"]["forgetting"] == 0  # at 0 it is the pretrained network, head and all


def sweep(run, tmp_path, jobs, folder="sweep"):
    """Runs of a sweep with what graft.cli.job writes beside them."""
    for name, overrides in jobs.items():
        _, path = run(*overrides, folder=f"{folder}/{name}")
        config = torch.load(path / "checkpoints" / "last.ckpt", weights_only=True)["config"]
        (path / "config.yaml").write_text(yaml.safe_dump(config))
        (path / "overrides.yaml").write_text(yaml.safe_dump(overrides))
        (path / "DONE").touch()
    return tmp_path / folder


@pytest.mark.slow
def test_a_soup_is_made_of_a_sweeps_jobs_and_tested(run, tmp_path):
    jobs = {
        "a": ["seed=0"],
        "b": ["data.augment=light", "strategy=lora", "seed=1", "averaging=ema"],  # its config is the first
        "c": ["optimizer.lr=0.03", "training.wise_ft_alphas=[0.5]"],
    }
    folder = sweep(run, tmp_path, jobs)
    own = ["logger=csv", "trainer=cpu", "training.threads=1"]
    results, made = run(f"soup={folder}", "+callbacks.tested={_target_: test_run.Tested}", folder="soup", defaults=own)
    soup = results["soup"]
    assert sorted(soup["ingredients"]) == [f"{name} {' '.join(overrides)}" for name, overrides in jobs.items()]
    for name, value in soup["ingredients"].items():
        alone = json.loads((folder / name[0] / "results.json").read_text())
        assert value == alone["selection"]["value"]  # the weights that the job tested: of c, those of WiSE-FT
    assert soup["greedy"] >= max(soup["ingredients"].values())
    assert results["selection"] | {"value": 0} == alone["selection"] | {"value": 0, "epoch": None}
    assert results["selection"]["value"] == results["metrics"]["val/target/acc"] == max(soup["greedy"], soup["uniform"])
    assert soup["label_subsets"] == 2
    assert results["data"]["target"]["train"] == 40
    assert "forgetting" in results["metrics"]

    file = made / "checkpoints" / "soup.pt"
    written = torch.load(file, weights_only=True)["backbone"]
    assert same({f"backbone.{name}": value for name, value in written.items()}, Tested.weights)
    used, _ = run(f"backbone.weights={file}", "strategy=frozen", folder="used")
    assert used["weights"]["matched"] == used["weights"]["total"]


@pytest.mark.slow
def test_a_job_with_another_network_is_named(run, tmp_path):
    folder = sweep(run, tmp_path, {"a": ["seed=0"], "b": ["objective.alpha=0.5", "head.sharing=auto"]})
    content = torch.load(folder / "b" / "checkpoints" / "best.ckpt", weights_only=True)
    content["state_dict"]["backbone.more"] = torch.zeros(1)
    torch.save(content, folder / "b" / "checkpoints" / "best.ckpt")
    with pytest.raises(
        GraftError, match=r"b .*has another network than the first job; 1 tensors differ, backbone\.more"
    ):
        run(f"soup={folder}", folder="soup")
    (folder / "b" / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(GraftError, match=r"b .* has no .*best\.ckpt"):
        run(f"soup={folder}", folder="soup")


EVERYTHING = [
    *("training.mixup_alpha=0.4", "training.cutmix_alpha=1.0", "training.stochastic_depth=0.5"),
    *("training.progressive_resizing.initial_scale=0.5", "training.progressive_resizing.growth_begins=0.25"),
    *("task.label_smoothing=0.1", "training.gradient_clip_norm=1.0", "training.accumulate_batches=2"),
]
RESNET = [
    "backbone=timm",
    "backbone.name=test_resnet",
    "backbone.size=32",
    "data.batch_size=8",
    "pretrain.batch_size=32",
]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["epoch: 1, batch: 1", "epoch: 2, batch: 3"])
def test_a_resumed_run_draws_the_same_mixtures_and_branches_bit_for_bit(run, where):
    options = [*EVERYTHING, *RESNET, "training.epochs=4", "objective.alpha=0.3", "bn=separate"]
    options += ["training.gradient_checkpointing=true", "backbone.weights=null"]
    _, whole = run(*options, folder="whole")
    with pytest.raises(Interrupted):
        run(*options, f"+callbacks.stop={{_target_: test_run.StopAt, {where}}}", folder="stopped")
    results, resumed = run(*options, "resume=true", folder="stopped")
    assert [name for name, value in weights(whole).items() if not torch.equal(value, weights(resumed)[name])] == []
    assert results["metrics"] == json.loads((whole / "results.json").read_text())["metrics"]


@pytest.mark.slow
def test_training_options_change_what_is_learned_and_not_what_was_pretrained(run):
    plain, folder = run(*RESNET, "backbone.weights=source")
    for number, option in enumerate(EVERYTHING[:4]):
        other, changed = run(*RESNET, "backbone.weights=source", option, folder=f"run{number}")
        head = "heads.shared.linear.weight"
        assert not torch.equal(weights(folder)[head], weights(changed)[head]), option
        assert other["weights"]["folder"] == plain["weights"]["folder"], option


@pytest.mark.slow
@pytest.mark.parametrize("options", ["term=[delta,stochnorm]", "strategy=adapter averaging=ema"])
def test_gradient_checkpointing_changes_no_bit_of_a_run_nor_of_its_pretraining(run, tmp_path, options):
    _, plain = run(*RESNET, *EVERYTHING, *options.split())
    on = ["training.gradient_checkpointing=true", f"++paths.cache_dir={tmp_path / 'other_cache'}"]
    _, checkpointed = run(*RESNET, *EVERYTHING, *options.split(), *on, folder="checkpointed")
    assert weights(plain).keys() == weights(checkpointed).keys()
    assert same(weights(plain), weights(checkpointed))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["gradual", "norm_only", "fine_tune"])
def test_the_training_options_go_with_a_strategy(run, strategy):
    on = ["training.gradient_checkpointing=true", "training.epochs=3", "trainer.precision=bf16-mixed"]
    # Not half the side: torch's bfloat16 convolutions on a CPU give NaN now and then where maps have a single pixel.
    on += ["objective.alpha=0.5", "bn=domain_specific", "training.progressive_resizing.initial_scale=0.75"]
    results, _ = run(f"strategy={strategy}", *RESNET, *EVERYTHING, *on)
    assert results["status"] == "done"


@pytest.mark.slow
def test_an_unlabelled_target_is_not_mixed(run):
    unlabelled = ["data.target_setting=unsupervised", "data.labels_per_class=null", "objective.alpha=1.0"]
    results, _ = run(*unlabelled, "training.mixup_alpha=0.4", "training.epochs=1")
    assert results["status"] == "done"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.stochastic_depth=0.1", "lenet has no residual blocks"),
        ("training.progressive_resizing.initial_scale=0.5", r"lenet cannot take images of \d+ x \d+ pixels"),
    ],
)
def test_training_options_that_do_not_suit_are_refused_before_pretraining(run, tmp_path, override, message):
    with pytest.raises(GraftError, match=message):
        run(override, f"++paths.cache_dir={tmp_path / 'new_cache'}")
    assert not (tmp_path / "new_cache").exists()


@pytest.mark.slow
def test_a_resumed_run_takes_the_rates_of_its_own_config_and_selects_among_both_folders(run):
    _, first = run("training.epochs=3", "optimizer.lr=0.01", folder="first")
    results, second = run(f"resume={first / 'checkpoints' / 'last.ckpt'}", "training.epochs=4", "optimizer.lr=1e-9")
    groups = torch.load(second / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0]["param_groups"]
    assert sorted({group["base_lr"] for group in groups}) == pytest.approx([1e-10, 1e-9])
    files = [folder / "checkpoints" / "best.ckpt" for folder in (first, second)]
    best = [torch.load(file, weights_only=True) for file in files if file.exists()]
    assert results["selection"]["value"] == max(checkpoint["metrics"]["val/target/acc"] for checkpoint in best)


@pytest.mark.slow
def test_the_best_checkpoint_of_another_run_is_refused_before_and_after_training(run, tmp_path):
    _, other = run(folder="other")
    _, first = run(folder="first")
    ids = [json.loads((folder / ".graft.json").read_text())["id"] for folder in (other, first)]
    for folder, own in zip((other, first), ids, strict=True):
        for name in ("best", "last"):
            assert torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["run_id"] == own
    shutil.copy(other / "checkpoints" / "best.ckpt", first / "checkpoints" / "best.ckpt")
    with pytest.raises(GraftError, match=rf"best\.ckpt is of another run \({ids[0]}\).*{ids[1]}"):
        run("resume=true", "training.epochs=3", folder="first")
    with pytest.raises(GraftError, match=rf"best\.ckpt is of another run \({ids[0]}\)"):
        run(f"resume={first / 'checkpoints' / 'last.ckpt'}", "training.epochs=3", folder="third")
    (first / "checkpoints" / "best.ckpt").unlink()
    shutil.copy(other / "checkpoints" / "last.ckpt", first / "checkpoints" / "last.ckpt")
    with pytest.raises(GraftError, match=rf"last\.ckpt is of another run \({ids[0]}\)"):
        run("resume=true", "training.epochs=3", folder="first")


class Swap(pl.Callback):
    """Puts another run's best weights in the place of this run's when its fit is over."""

    def __init__(self, file):
        self.file = file

    def on_fit_end(self, trainer, pl_module):
        shutil.copy(self.file, Path(trainer.default_root_dir) / "checkpoints" / "best.ckpt")


@pytest.mark.slow
def test_a_run_does_not_report_the_network_of_another_one(run):
    _, other = run("strategy=scratch", folder="other")
    file = other / "checkpoints" / "best.ckpt"
    with pytest.raises(GraftError, match=r"best\.ckpt is of another run"):
        run("strategy=scratch", f"+callbacks.swap={{_target_: test_run.Swap, file: {file}}}")


@pytest.mark.slow
def test_a_folder_of_a_graft_without_ids_goes_on(run):
    _, first = run(folder="first")
    (first / ".graft.json").unlink()
    for name in ("best", "last"):
        file = first / "checkpoints" / f"{name}.ckpt"
        content = torch.load(file, weights_only=True)
        del content["run_id"]
        torch.save(content, file)
    (first / "config.yaml").write_text(yaml.safe_dump(content["config"]))
    (first / "overrides.yaml").write_text("[]\n")
    with pytest.raises(GraftError, match="older Graft's run"):
        run(folder="first")
    for epochs in (3, 4):  # the second time last.ckpt has an id, best.ckpt maybe not
        results, _ = run("resume=true", f"training.epochs={epochs}", folder="first")
        assert results["status"] == "done"
    results, _ = run(f"resume={first / 'checkpoints' / 'last.ckpt'}", "training.epochs=5", folder="second")
    assert results["status"] == "done"


@pytest.mark.slow
def test_a_killed_run_goes_on_at_once_and_is_the_uninterrupted_one_bit_for_bit(tmp_path):
    options = ["strategy=scratch", "training.epochs=40", "data.augment=light"]  # saved every two seconds
    whole = command_line(tmp_path, *options, f"hydra.run.dir={tmp_path / 'whole'}")
    assert whole.returncode == 0, whole.stderr
    folder = tmp_path / "killed"
    environment = os.environ | {"GRAFT_ROOT": str(tmp_path), "GRAFT_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, str(Path(CONF).parent / "train.py"), *TINY, *options, f"hydra.run.dir={folder}"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not (folder / "checkpoints" / "last.ckpt").exists() and process.poll() is None:
            time.sleep(0.05)
        process.kill()
    assert not (folder / "DONE").exists()
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] < 39
    resumed = command_line(tmp_path, *options, f"hydra.run.dir={folder}", "resume=true")
    assert resumed.returncode == 0, resumed.stderr
    assert f"going on where process {process.pid} on " in resumed.stdout
    assert same(weights(tmp_path / "whole"), weights(folder))
    assert same(weights(tmp_path / "whole", "best"), weights(folder, "best"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_the_same_command_after_a_schedulers_signal_is_the_uninterrupted_run_bit_for_bit(tmp_path, name):
    """As in a SLURM job with data workers, whose processes get the signal all at once."""
    slurm = {"NTASKS": "1", "NTASKS_PER_NODE": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0", "JOB_NAME": "train"}
    environment = os.environ | {f"SLURM_{key}": value for key, value in slurm.items()}
    environment |= {"SLURM_JOB_ID": "12", "GRAFT_ROOT": str(tmp_path), "GRAFT_CACHE": str(tmp_path / "cache")}
    environment["PATH"] = f"{tmp_path}{os.pathsep}{environment['PATH']}"
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path / "asked"}\n')
    (tmp_path / "scontrol").chmod(0o755)
    options = ["strategy=scratch", "training.epochs=20", "data.augment=randaugment", "data.num_workers=1"]
    script = [sys.executable, str(Path(CONF).parent / "train.py"), *TINY, *options, "resume=auto"]
    folder = tmp_path / "stopped"
    command = [*script, f"hydra.run.dir={folder}"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while not (folder / "metrics.csv").exists() and process.poll() is None:
            time.sleep(0.05)
        os.killpg(process.pid, getattr(signal, name))
        err = process.stderr.read()
    assert process.returncode == 143, err
    assert f"Stopped by {name} after step" in err
    assert (tmp_path / "asked").exists() == (name == "SIGUSR1")
    assert not list(folder.rglob("hpc_ckpt*"))
    for one in (folder, tmp_path / "whole"):
        subprocess.run([*script, f"hydra.run.dir={one}"], env=environment, check=True, capture_output=True)
    assert same(weights(tmp_path / "whole"), weights(folder))
    assert same(weights(tmp_path / "whole", "best"), weights(folder, "best"))


@pytest.mark.slow
def test_a_run_that_was_stopped_after_its_last_epoch_only_does_its_test(run):
    whole, folder = run()
    (folder / "results.json").unlink()
    resumed, _ = run("resume=true")
    assert resumed["status"] == "done"
    assert resumed["metrics"] == whole["metrics"]
    assert resumed["selection"] == whole["selection"]


SEARCH = ["optimizer.lr=auto", "data.batch_size=auto", "tuning.steps=30"]


def no_search(*arguments):
    raise AssertionError("a number that is known was looked for again")


@pytest.mark.slow
def test_auto_is_a_run_with_the_numbers_that_were_found_bit_for_bit(run):
    results, found = run(*SEARCH, folder="found")
    rate, size = results["tuning"]["lr"]["value"], results["tuning"]["batch_size"]["value"]
    assert rate == results["tuning"]["lr"]["suggestions"]["median"]
    assert (size, results["tuning"]["batch_size"]["limit"]) == (32, 40)
    assert results["parameters"]["groups"][-1]["lr"] == rate
    assert {"lr_find.csv", "lr_find.png"} <= {path.name for path in found.iterdir()}
    config = torch.load(found / "checkpoints" / "last.ckpt", weights_only=True)["config"]
    assert (config["optimizer"]["lr"], config["data"]["batch_size"]) == (rate, size)
    _, given = run(f"optimizer.lr={rate}", f"data.batch_size={size}", folder="given")
    assert all(torch.equal(value, weights(given)[name]) for name, value in weights(found).items())


@pytest.mark.slow
@pytest.mark.usefixtures("every_epoch_saved")
def test_a_resumed_run_takes_what_was_found_and_does_not_look_again(run, monkeypatch):
    options = [*SEARCH, "training.epochs=4", "data.augment=light"]
    whole_results, whole = run(*options, folder="whole")
    with pytest.raises(Interrupted):
        run(*options, "+callbacks.stop={_target_: test_run.StopAt, epoch: 2}", folder="stopped")
    monkeypatch.setattr("graft.training.tuning.lr_range_test", no_search)
    monkeypatch.setattr("graft.training.tuning.find_batch_size", no_search)
    results, resumed = run(*options, "resume=true", folder="stopped")
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())
    for name in ("lr", "batch_size"):
        assert results["tuning"][name] == {"value": whole_results["tuning"][name]["value"], "resumed": True}


@pytest.mark.slow
def test_tune_looks_for_a_rate_and_trains_nothing(run, capsys):
    results, folder = run("tune=lr", "strategy=lp_ft", "tuning.suggestion=steep", "tuning.steps=20")
    assert results["status"] == "done"
    assert results["tuning"]["lr"]["phase"] == 2
    assert {p.name for p in folder.iterdir()} == {".graft.json", "results.json", "lr_find.csv", "lr_find.png"}
    assert "score" not in json.loads((folder / "results.json").read_text())
    steep = f"{results['tuning']['lr']['suggestions']['steep']:g}"
    out = capsys.readouterr().out
    assert f"learning rate: {steep}, steep of the range test in phase 2" in out
    assert f"train with it: python train.py optimizer.lr={steep}" in out
    assert out.splitlines()[-1] == str(folder)


@pytest.mark.slow
def test_plateau_takes_the_rate_that_was_found(run):
    results, folder = run("optimizer.lr=auto", "scheduler=plateau", "tuning.steps=20")
    groups = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0]["param_groups"]
    assert groups[-1]["lr"] == results["tuning"]["lr"]["value"]


@pytest.mark.slow
def test_one_batch_of_everything_survives_a_search(run):
    results, _ = run("debug=fast", "optimizer.lr=auto", "data.batch_size=auto")
    assert results["tuning"]["lr"]["steps"] <= 10
    assert results["tuning"]["batch_size"]["value"] == 8


@pytest.mark.slow
def test_checkpoints_that_cannot_be_resumed_are_refused(run, tmp_path):
    _, first = run(folder="first")
    last = first / "checkpoints" / "last.ckpt"
    with pytest.raises(GraftError, match=r"trained 2 epochs already.*training\.epochs=3"):
        run(f"resume={last}", "training.epochs=1")
    with pytest.raises(GraftError, match="of another network"):
        run(f"resume={last}", "training.epochs=3", "head=mlp", folder="mlp")
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(GraftError, match=r"no checkpoint of a training run.*backbone\.weights="):
        run(f"resume={tmp_path / 'foreign.ckpt'}", folder="foreign")


def test_a_missing_checkpoint_to_resume_is_named(run):
    with pytest.raises(GraftError, match=r"resume=True: there is no checkpoint at .*last\.ckpt"):
        run("resume=true")


def test_a_shared_head_for_different_classes_is_refused(run, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for shade in range(20):
            Image.new("L", (8, 8), 5 * shade + len(name)).save(tmp_path / "photos" / name / f"{shade}.png")
    photos = ["data/domain@data.source=image_folder", f"data.source.root={tmp_path / 'photos'}"]
    overrides = [o for o in TINY if not o.startswith("data.source.")]
    with pytest.raises(GraftError, match=r"head\.sharing=shared needs the same classes.*'cat', 'dog'"):
        run("head.sharing=shared", *photos, defaults=overrides)


def test_optimizer_options_that_do_not_fit_are_refused(run):
    with pytest.raises(GraftError, match=r"optimizer\.options.*momentum"):
        run("optimizer=adamw", "++optimizer.options={momentum: 0.9}")


def command_line(tmp_path, *arguments, flags=()):
    """train.py as its own process, with everything it writes below tmp_path."""
    environment = os.environ | {"GRAFT_ROOT": str(tmp_path), "GRAFT_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, str(Path(CONF).parent / "train.py"), *flags, *TINY, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.slow
def test_a_strategy_sets_what_it_decides_from_the_data(run):
    results, folder = run("strategy=bit_hyperrule", "trainer.limit_train_batches=2", "data.batch_size=16")
    assert results["settings"] == {"data.epoch": 50, "training.epochs": 10}  # the config names an image size
    assert results["phases"][0]["epochs"] == [0, 9]
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert (checkpoint["config"]["data"]["epoch"], checkpoint["global_step"]) == (50, 20)


@pytest.mark.slow
@pytest.mark.parametrize(("sweep", "kept"), [("a sweep", {"best.ckpt"}), (None, {"best.ckpt", "last.ckpt"})])
def test_a_sweeps_finished_job_keeps_no_optimizer_state(run, monkeypatch, sweep, kept):
    monkeypatch.setattr("graft.run.run_context", lambda: RunContext(sweep=sweep))
    _, folder = run()
    assert {path.name for path in (folder / "checkpoints").iterdir()} == kept


@pytest.mark.slow
def test_two_processes_pretrain_and_train_together(tmp_path):
    options = ["trainer=ddp_cpu", "strategy=lp_ft", "head.sharing=separate", f"hydra.run.dir={tmp_path / 'run'}"]
    outcome = command_line(tmp_path, *options)
    assert outcome.returncode == 0, outcome.stderr
    assert (tmp_path / "run" / "DONE").exists()
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["metrics"]["forgetting"] is not None
    assert sum(map(sum, results["confusion"]["test/target"]["matrix"])) == 500  # each sample counted once
    kept = predictions.read(tmp_path / "run" / "predictions.parquet")["target"]
    assert kept["index"] == list(range(500))
    right = [label == found for label, found in zip(kept["label"], kept["prediction"], strict=True)]
    assert sum(right) / 500 == pytest.approx(results["metrics"]["test/target/acc"], abs=1e-6)


@pytest.mark.slow
def test_a_kill_in_the_middle_of_pretraining_leaves_nothing_that_the_next_run_does_not_clean(tmp_path):
    environment = os.environ | {"GRAFT_ROOT": str(tmp_path), "GRAFT_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, str(Path(CONF).parent / "train.py"), *TINY, "pretrain.epochs=1000"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    computed = tmp_path / "cache" / "computed"
    for _ in range(1200):
        if list(computed.glob("unfinished-*/metrics.csv")):
            break
        time.sleep(0.1)
    process.kill()
    process.wait()
    assert list(computed.glob("unfinished-*"))
    outcome = command_line(tmp_path, "training.epochs=1")
    assert outcome.returncode == 0, outcome.stderr
    entries = {path.name for path in computed.iterdir()} - {"locks"}
    assert not [name for name in entries if name.startswith("unfinished-")]
    assert {path.name for path in (computed / "locks").iterdir()} == {*entries, "room"}


@pytest.mark.slow
def test_jobs_side_by_side_may_have_data_workers(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    options = [
        "seed=0,1",
        "data.num_workers=1",
        "data.augment=randaugment",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
    ]
    outcome = command_line(tmp_path, *options, f"hydra.sweep.dir={tmp_path / 'sweep'}", flags=["-m"])
    assert outcome.returncode == 0, outcome.stderr
    assert len(list((tmp_path / "sweep").glob("*/DONE"))) == 2


def test_parameters_that_a_strategy_adds_are_told_from_the_pretrained_ones_by_more_than_their_name(tiny_backbone):
    class Wrapping(Full):
        def prepare(self, backbone):
            backbone.network.stem[0] = torch.nn.Sequential(backbone.network.stem[0], torch.nn.Conv2d(4, 4, 1))

    added = added_parameters(Wrapping(), tiny_backbone())
    assert added == {"network.stem.0.1.weight", "network.stem.0.1.bias"}


@pytest.mark.parametrize(("metric", "mode"), [("loss", "min"), *slow(("f1", "max"))])
def test_the_metric_that_selects_can_be_chosen(run, metric, mode):
    results, folder = run(f"selection.metric={metric}", "training.epochs=3", "optimizer.lr=3e-2")
    chosen = results["selection"]
    assert (chosen["monitor"], chosen["mode"]) == (f"val/target/{metric}", mode)
    rows = csv.DictReader((folder / "metrics.csv").read_text().splitlines())
    rows = [row for row in rows if row.get(f"val/target/{metric}")]
    best = (max if mode == "max" else min)(float(row[f"val/target/{metric}"]) for row in rows)
    assert chosen["value"] == pytest.approx(best)
    assert results["score"]["metric"] == "test/target/acc"
