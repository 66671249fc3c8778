import pytest
import pytorch_lightning as pl
import torch
import toy
from torch.utils.data import DataLoader

from graft.callbacks import checkpoints as checkpoints_module
from graft.callbacks.checkpoints import Checkpoints
from graft.inputs.base import DomainBatch
from graft.strategies.frozen import Frozen
from graft.strategies.full import Full

EPOCHS = 4
MONITOR = "val/target/loss"


class Seen(pl.Callback):
    """After every epoch: its validation loss, the weights, and which files there are."""

    def __init__(self, folder, fail_in=None):
        self.folder, self.fail_in = folder, fail_in
        self.losses, self.weights, self.files = [], [], []

    def on_validation_end(self, trainer, pl_module):
        self.losses.append(float(trainer.callback_metrics[MONITOR]))
        self.weights.append({name: value.clone() for name, value in pl_module.state_dict().items()})

    def on_train_epoch_start(self, trainer, pl_module):
        self.files.append({path.name for path in self.folder.glob("*")})
        if trainer.current_epoch == self.fail_in:
            raise RuntimeError("out of memory")


def fit(backbone, callbacks, strategy=None, epochs=EPOCHS, resume=None):
    torch.manual_seed(0)
    sgd = toy.optimizer(lr=0.3, weight_decay=0.0)
    module = toy.module_of(backbone, ["target"], domains=["target"], strategy=strategy or Full(), optimizer=sgd)
    batch = {"target": DomainBatch(torch.randn(8, 1, 8, 8), torch.arange(8) % 3)}
    batches = DataLoader([batch], batch_size=None)
    trainer = toy.trainer_on_cpu(callbacks, max_epochs=epochs)
    trainer.fit(module, batches, batches, ckpt_path=resume, weights_only=True)
    return trainer


def content(file):
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("strategy", [Full(), Frozen()])
@pytest.mark.parametrize("higher_is_better", [True, False])
def test_the_best_weights_are_those_that_were_validated(tiny_backbone, tmp_path, strategy, higher_is_better):
    seen = Seen(tmp_path)
    fit(tiny_backbone(), [seen, Checkpoints(tmp_path, MONITOR, higher_is_better)], strategy)
    epoch = seen.losses.index((max if higher_is_better else min)(seen.losses))
    best = content(tmp_path / "best.ckpt")
    assert best["epoch"] == epoch
    assert best["metrics"][MONITOR] == pytest.approx(seen.losses[epoch])
    assert all(torch.equal(value, seen.weights[epoch][name]) for name, value in best["state_dict"].items())
    assert content(tmp_path / "last.ckpt")["epoch"] == EPOCHS - 1


def test_short_epochs_are_written_once_at_the_end(tiny_backbone, tmp_path):
    seen = Seen(tmp_path)
    fit(tiny_backbone(), [seen, Checkpoints(tmp_path, MONITOR)])
    assert seen.files == [set()] * EPOCHS
    assert {path.name for path in tmp_path.iterdir()} == {"best.ckpt", "last.ckpt"}


def test_long_epochs_are_all_written(tiny_backbone, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints_module, "SHORTEST_S", 0.0)
    monkeypatch.setattr(checkpoints_module, "LARGEST_SHARE", 1e9)
    seen = Seen(tmp_path)
    fit(tiny_backbone(), [seen, Checkpoints(tmp_path, MONITOR)])
    assert seen.files == [set()] + [{"best.ckpt", "last.ckpt"}] * (EPOCHS - 1)


def test_what_waits_is_written_when_the_fit_fails(tiny_backbone, tmp_path):
    seen = Seen(tmp_path, fail_in=2)
    with pytest.raises(RuntimeError, match="out of memory"):
        fit(tiny_backbone(), [seen, Checkpoints(tmp_path, MONITOR, higher_is_better=False)])
    assert content(tmp_path / "best.ckpt")["metrics"][MONITOR] == pytest.approx(min(seen.losses))


def test_a_state_to_resume_from_never_knows_more_than_the_disk(tiny_backbone, tmp_path):
    class SaveEarly(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.current_epoch == 2:
                trainer.save_checkpoint(tmp_path / "now.ckpt")
                raise KeyboardInterrupt

    seen = Seen(tmp_path)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(tiny_backbone(), [seen, Checkpoints(tmp_path, MONITOR, higher_is_better=False), SaveEarly()])
    best = content(tmp_path / "best.ckpt")["metrics"][MONITOR]
    (state,) = content(tmp_path / "now.ckpt")["callbacks"].values()
    assert state["best"] == pytest.approx(best)
    assert best == pytest.approx(min(seen.losses))


def test_a_resumed_run_keeps_the_best_of_before(tiny_backbone, tmp_path):
    fit(tiny_backbone(), [Checkpoints(tmp_path / "a", MONITOR, higher_is_better=True)], epochs=2)
    worst = content(tmp_path / "a" / "best.ckpt")["metrics"][MONITOR]
    seen, resumed = Seen(tmp_path), Checkpoints(tmp_path / "b", MONITOR, higher_is_better=True)
    fit(tiny_backbone(), [seen, resumed], resume=tmp_path / "a" / "last.ckpt")
    assert (tmp_path / "b" / "best.ckpt").exists() is (max(seen.losses) > worst)


def test_a_job_of_a_sweep_leaves_the_best_alone(tiny_backbone, tmp_path):
    fit(tiny_backbone(), [Checkpoints(tmp_path, MONITOR, keep_last=False)])
    assert {path.name for path in tmp_path.iterdir()} == {"best.ckpt"}


def test_where_nothing_is_selected_there_is_no_best(tiny_backbone, tmp_path):
    fit(tiny_backbone(), [Checkpoints(tmp_path, None)])
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt"}
