"""Runs that meet NaN or infinity, by their settings, their data or in one step: real data, real Trainer."""

import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from lanes import slow

from graft.callbacks import checkpoints
from graft.callbacks.nonfinite import READ_EVERY
from graft.cli.hydra_versions import VERSION_BASE
from graft.cli.job import execute
from graft.config import plain
from graft.errors import Diverged

PROJECT = Path(__file__).parents[2]
TINY = [
    *("backbone=cnn", "backbone.weights=null", "strategy=scratch", "data.augment=none", "trainer=cpu", "logger=csv"),
    *("data.source.samples=100", "data.labels_per_class=4", "data.batch_size=10", "data.image_size=8"),
    *("training.epochs=3", "training.threads=1", "optimizer.lr=0.003", "callbacks.progress=null"),
    *("trainer.limit_val_batches=1", "trainer.limit_test_batches=1", "data.eval_batch_size=64"),
]


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "SHORTEST_S", 0.0)  # such short epochs would not be saved each
    monkeypatch.setattr(checkpoints, "LARGEST_SHARE", 1e9)

    def run(*overrides, folder="run", defaults=TINY):
        with initialize_config_dir(str(PROJECT / "conf"), **VERSION_BASE):
            paths = [f"++paths.run_dir={tmp_path / folder}", f"++paths.cache_dir={tmp_path / 'cache'}"]
            paths += [f"paths.root={tmp_path}", "allow=[test_nonfinite]"]
            cfg = compose("train", overrides=[*defaults, *paths, *overrides])
        return execute(plain(cfg))

    return run


class Poison(pl.Callback):
    """Puts NaN into the inputs, or into a gradient, of the steps that are named as [epoch, batch]."""

    def __init__(self, steps, what="inputs"):
        self.steps, self.what = [tuple(step) for step in steps], what
        Poison.seen = self
        self.before = self.after = None

    def here(self, trainer, batch_idx):
        return (trainer.current_epoch, batch_idx) in self.steps

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.poisons = self.here(trainer, batch_idx)
        if self.poisons:
            self.before = state_of(trainer, pl_module)
            if self.what == "inputs":
                batch["target"].inputs.fill_(math.nan)

    def on_after_backward(self, trainer, pl_module):
        if self.poisons and self.what == "gradients":
            next(iter(pl_module.parameters())).grad.fill_(math.inf)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if self.poisons:
            self.after = state_of(trainer, pl_module)


def state_of(trainer, module):
    """Weights, BatchNorm statistics and the optimizer's state, copied."""
    state = {name: value.clone() for name, value in module.state_dict().items()}
    moments = trainer.optimizers[0].state_dict()["state"].items()
    return state | {f"{n}/{k}": torch.as_tensor(v).clone() for n, one in moments for k, v in one.items()}


def poison(steps, what="inputs"):
    where = str(steps).replace(" ", "")
    return f"+callbacks.poison={{_target_: test_nonfinite.Poison, steps: {where}, what: {what}}}"


def read(folder):
    return json.loads((folder / "results.json").read_text())


def stored(folder, name):
    return torch.load(folder / "checkpoints" / name, weights_only=True)


def finite(tensors):
    return all(bool(value.isfinite().all()) for value in tensors.values())


@pytest.mark.parametrize("what", ["inputs", *slow("gradients")])
def test_a_run_stops_before_anything_that_is_not_finite_is_saved(run, tmp_path, what):
    folder = tmp_path / "run"
    with pytest.raises(Diverged) as raised:
        run(poison([[1, 3]], what))
    results = read(folder)
    first = results["nonfinite"]["first"]
    assert results["status"] == "diverged"
    assert (first["step"], first["epoch"], first["batch"]) == (8, 1, 3)
    assert first["value"] == ("loss" if what == "inputs" else "weights")
    for name in ("best.ckpt", "last.ckpt"):
        assert stored(folder, name)["epoch"] == 0
        assert finite(stored(folder, name)["state_dict"])
        assert str(folder / "checkpoints" / name) in str(raised.value)
    for part in ("step 8 (epoch 2 of 3, batch 4)", "learning rate", "optimizer.lr=0.0003", "gradient_clip_norm"):
        assert part in str(raised.value)
    saved = torch.load(folder / "nonfinite_batch.pt", weights_only=True)
    assert [batch["step"] for batch in saved["batches"]] == ([7, 8] if what == "inputs" else [8])
    assert saved["batches"][-1]["domains"]["target"]["inputs"].shape[0] == 10


@pytest.mark.slow
def test_the_batch_is_drawn_again_as_it_was(run, tmp_path):
    class Keep(Poison):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if self.here(trainer, batch_idx):
                Keep.inputs, Keep.labels = batch["target"].inputs.clone(), batch["target"].labels.clone()
            super().on_train_batch_start(trainer, pl_module, batch, batch_idx)

    globals()["Keep"] = Keep
    with pytest.raises(Diverged):
        run(poison([[2, 1]]).replace("Poison", "Keep"), "data.augment=light")
    drawn = torch.load(tmp_path / "run" / "nonfinite_batch.pt", weights_only=True)["batches"][-1]["domains"]["target"]
    assert torch.equal(drawn["inputs"], Keep.inputs)
    assert torch.equal(drawn["labels"], Keep.labels)


@pytest.mark.parametrize("what", ["inputs", *slow("gradients")])
def test_skip_leaves_a_step_out_and_keeps_weights_momentum_and_statistics(run, what):
    results = run("training.on_nonfinite=skip", poison([[1, 2]], what))
    assert results["status"] == "done"
    assert results["nonfinite"]["skipped_steps"] == 1
    assert results["nonfinite"]["first"]["value"] == ("loss" if what == "inputs" else "gradients")
    before, after = Poison.seen.before, Poison.seen.after
    assert before.keys() == after.keys()
    assert [name for name, value in before.items() if not torch.equal(value, after[name])] == []
    assert math.isfinite(results["metrics"]["test/target/loss"])


@pytest.mark.slow
def test_skip_changes_no_bit_of_a_run_without_a_bad_step(run, tmp_path):
    for policy in ("stop", "skip", "continue"):
        assert run(f"training.on_nonfinite={policy}", folder=policy)["nonfinite"] is None
    plain, skip, on = (stored(tmp_path / folder, "last.ckpt")["state_dict"] for folder in ("stop", "skip", "continue"))
    assert all(torch.equal(value, skip[name]) and torch.equal(value, on[name]) for name, value in plain.items())


@pytest.mark.slow
def test_an_epoch_without_a_good_step_is_diverged_under_skip_too(run, tmp_path):
    with pytest.raises(Diverged, match="every step of epoch 2 was left out"):
        run("training.on_nonfinite=skip", poison([[1, batch] for batch in range(4)]))
    assert read(tmp_path / "run")["nonfinite"]["skipped_steps"] == 4


@pytest.mark.slow
def test_continue_goes_on_and_says_so(run, capsys):
    results = run("training.on_nonfinite=continue", poison([[1, 2]]), "selection=last")
    assert results["status"] == "done"
    assert results["nonfinite"]["first"]["step"] == 7
    out = capsys.readouterr().out
    assert "NOT FINITE: training went on; at first the training loss is nan at step 7" in out
    assert "NOT FINITE: test/target/loss" in out


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", ["optimizer.lr=1e30", "optimizer.weight_decay=1e38", "optimizer.lr=1e30 averaging=ema"]
)
def test_settings_that_diverge_end_as_diverged(run, tmp_path, options):
    with pytest.raises(Diverged):
        run(*options.split())
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.slow
def test_training_goes_on_from_a_checkpoint_of_before_with_another_rate(run, tmp_path):
    with pytest.raises(Diverged):
        run(poison([[1, 3]]), folder="diverged")
    last = tmp_path / "diverged" / "checkpoints" / "last.ckpt"
    results = run(f"resume={last}", "optimizer.lr=0.001", folder="on")
    assert results["status"] == "done"
    assert math.isfinite(results["metrics"]["test/target/loss"])


@pytest.mark.slow
def test_pretraining_that_diverges_is_named_and_not_kept(run, tmp_path):
    source = ["backbone.weights=source", "strategy=full"]
    with pytest.raises(Diverged, match=r"^Pretraining on the source(.|\n)*pretrain.optimizer.lr"):
        run(*source, "pretrain.epochs=2", "pretrain.optimizer.lr=1e30")
    assert read(tmp_path / "run")["status"] == "diverged"
    assert list((tmp_path / "cache").glob("*/*/weights.pt")) == []


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_recording_that_makes_everything_infinite_is_named(run, tmp_path, split):
    soundfile = pytest.importorskip("soundfile")
    for name in ("train", "val", "test"):
        for label, hertz in (("high", 1500), ("low", 300)):
            folder = tmp_path / "tones" / name / label
            folder.mkdir(parents=True)
            for index in range(4):
                sound = 0.1 * np.sin(2 * np.pi * (hertz + 20 * index) * np.arange(3200) / 8000)
                sound[100] = 1e30 if (name, label, index) == (split, "low", 2) else sound[100]
                soundfile.write(folder / f"{index}.wav", sound.astype(np.float32), 8000, subtype="FLOAT")
    speech = ["data=speech", f"data.target.root={tmp_path / 'tones'}", "backbone=mel_cnn", "strategy=scratch"]
    speech += ["backbone.sample_rate=8000", "backbone.clip_seconds=0.4", "backbone.n_mels=32", "training.epochs=1"]
    with pytest.raises(Diverged) as raised:
        run(*speech, "trainer=cpu", "logger=csv", "training.threads=1", defaults=[])
    assert f"inputs that are NaN or infinite: target {tmp_path / 'tones' / split / 'low' / '2.wav'}" in str(
        raised.value
    )
    assert ("training loss" if split == "train" else "val/target/loss") in str(raised.value).splitlines()[0]


class Waits(pl.Callback):
    """Counts how often a value leaves the device, for every step from the start to the end of its batch."""

    counts, inside = [], False

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        Waits.counts.append(0)
        Waits.inside = True

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        Waits.inside = False


@pytest.mark.slow
def test_no_step_waits_for_the_device(run, monkeypatch):
    for name in ("item", "tolist", "__bool__", "__float__", "__int__"):
        original = getattr(torch.Tensor, name)

        def counted(self, *arguments, original=original):
            if Waits.inside:
                Waits.counts[-1] += 1
            return original(self, *arguments)

        monkeypatch.setattr(torch.Tensor, name, counted)

    def waiting(steps, *options):
        """The steps that wait, from 1."""
        Waits.counts = []
        watch = "+callbacks.waits={_target_: test_nonfinite.Waits}"
        run(watch, f"data.epoch={steps}", "training.epochs=1", *options, folder=str(steps))
        assert len(Waits.counts) == steps
        return [step for step, count in enumerate(Waits.counts, 1) if count]

    steps = READ_EVERY + 10
    assert waiting(steps) == [READ_EVERY, steps]
    assert waiting(10, "training.on_nonfinite=skip") == list(range(1, 11))


@pytest.mark.slow
def test_a_diverged_job_of_a_sweep_is_finished_and_counted(tmp_path):
    command = [sys.executable, str(PROJECT / "train.py"), "-m", *TINY, f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    environment = os.environ | {"GRAFT_ROOT": str(tmp_path), "GRAFT_CACHE": str(tmp_path / "cache")}

    def sweep(rates):
        done = subprocess.run([*command, f"optimizer.lr={rates}"], env=environment, capture_output=True, text=True)
        with (tmp_path / "sweep" / "summary.csv").open(newline="") as file:
            return done, {float(row["optimizer.lr"]): row for row in csv.DictReader(file)}

    done, rows = sweep("0.003,1e30")
    assert done.returncode == 0, done.stderr
    assert (rows[0.003]["count"], rows[0.003]["diverged"]) == ("1", "0")
    assert (rows[1e30]["count"], rows[1e30]["diverged"], rows[1e30]["failed"]) == ("0", "1", "0")
    assert "Traceback" not in done.stderr
    again, _ = sweep("0.003,1e30")
    assert again.returncode == 0
    assert "Diverged before, not run again" in again.stderr
