"""Whole runs with a compression: they resume bit for bit, say what they did, and leave a folder that predicts."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from lanes import slow

from graft.callbacks import checkpoints
from graft.errors import Interrupted
from graft.runs.checkpoints import load
from tests.small_run import train_in

TINY = [
    *("backbone=cnn", "backbone.weights=source", "data.source.samples=120", "data.labels_per_class=4"),
    *("data.eval_batch_size=512", "pretrain.epochs=1", "training.epochs=3", "data.batch_size=20", "training.threads=1"),
    *("optimizer.lr=0.003", "trainer=cpu", "logger=csv", "strategy=full", "save.model=always"),
    *("allow=[test_compressed_runs]", "data.augment=light"),
]
COMPRESSIONS = {
    "before": ["compress=prune"],
    "prune": ["compress=prune", "compress.start_epoch=1", "compress.steps=2", "compress.importance=taylor"],
    "magnitude": ["compress=magnitude", "compress.every_steps=2", "compress.end=0.6"],
    "quantize": ["compress=quantize", "compress.start_epoch=1"],
}


class StopIn(pl.Callback):
    """Ends a run after a batch of an epoch, once its state is saved."""

    def __init__(self, epoch, batch):
        self.epoch, self.batch = epoch, batch

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (self.epoch, self.batch):
            trainer.save_checkpoint(Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt")
            raise Interrupted("stopped")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(tmp_path, cache):
    def run(*overrides, folder="run"):
        return train_in(tmp_path, *TINY, *overrides, folder=folder, cache=cache), tmp_path / folder

    return run


@pytest.fixture
def every_epoch_saved(monkeypatch):
    monkeypatch.setattr(checkpoints, "SHORTEST_S", 0.0)
    monkeypatch.setattr(checkpoints, "LARGEST_SHARE", 1e9)


def weights(folder, name="last"):
    return load(folder / "checkpoints" / f"{name}.ckpt")["state_dict"]


@pytest.mark.usefixtures("every_epoch_saved")
@pytest.mark.parametrize("name", ["prune", *slow("before", "magnitude", "quantize")])
@pytest.mark.parametrize("epoch", [1, *slow(0, 2)])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(run, name, epoch):
    whole, folder = run(*COMPRESSIONS[name], folder="whole")
    stop = f"+callbacks.stop={{_target_: test_compressed_runs.StopIn, epoch: {epoch}, batch: 0}}"
    with pytest.raises(Interrupted):
        run(*COMPRESSIONS[name], stop, folder="stopped")
    resumed, other = run(*COMPRESSIONS[name], "resume=true", folder="stopped")
    assert resumed["metrics"] == whole["metrics"]
    assert resumed["compression"] == whole["compression"]
    for kind in ("last", "best"):
        expected, found = weights(folder, kind), weights(other, kind)
        assert expected.keys() == found.keys()
        assert all(torch.equal(value, found[name]) for name, value in expected.items())
