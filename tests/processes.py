"""The same fit in one process and in two that share its batches; forked, so that nothing is imported again."""

import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist

from graft.experiment import assemble, prepare
from graft.run import pretrained
from graft.runs.context import run_context
from graft.training.evaluation import test
from graft.training.fitting import Fitting
from tests.small_run import config_in

COMMON = [
    *("data.epoch=3", "training.epochs=2", "training.threads=1", "optimizer=sgd", "optimizer.lr=0.05"),
    *("logger=csv", "callbacks.progress=null"),
]
LENET = ["backbone=lenet", "backbone.dropout=0", "data.image_size=16", "selection=last"]
ONE = ["trainer=cpu"]
TWO = ["trainer=ddp_cpu", "trainer.strategy=ddp_fork_find_unused_parameters_true"]
LOOSE = (
    "train_metrics",
    "term_values",
    "eval_",
    "test_",
    "smoothed",
    "rule_metric",
)  # what a process has seen itself


class Watch(pl.Callback):
    """Saves what every process begins and ends with; ends the fit after `last_epoch` with a checkpoint."""

    def __init__(self, file, last_epoch=None):
        self.file, self.last_epoch = file, last_epoch

    def on_train_start(self, trainer, pl_module):
        torch.save(trainer.strategy.lightning_module_state_dict(), f"{self.file}_begins_{trainer.global_rank}.pt")

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == self.last_epoch:
            trainer.save_checkpoint(f"{self.file}.ckpt")
            trainer.should_stop = True

    def on_fit_end(self, trainer, pl_module):  # where weights that were in shards are whole
        metrics = {name: value for name, value in trainer.callback_metrics.items() if not name.startswith("train")}
        torch.save((pl_module.state_dict(), metrics), f"{self.file}_ends_{trainer.global_rank}.pt")


def in_each_of_two(work, folder):
    """What `work()` returns in each of two forked processes that can talk to each other."""

    def run(rank):
        torch.set_num_threads(1)
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
        torch.save(work(), f"{folder}/{rank}.pt")
        dist.destroy_process_group()

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        torch.multiprocessing.start_processes(run, nprocs=2, start_method="fork")
    return [torch.load(f"{folder}/{rank}.pt") for rank in (0, 1)]


def fitted(root, *overrides, folder, checkpoint=None, last_epoch=None):
    """The state of every process's module after the fit, each with its validation metrics."""
    experiment = assemble(config_in(root, *overrides, folder=folder))
    if experiment.weights == "source":
        pretrained(experiment, run_context())
    else:
        prepare(experiment)
    trainer = Fitting(experiment, [], in_sweep=True).trainer
    trainer.callbacks.append(Watch(root / folder, last_epoch))
    trainer.fit(experiment.module, experiment.data, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    return [torch.load(file, weights_only=True) for file in sorted(root.glob(f"{folder}_ends_?.pt"))]


def tested(root, *overrides, folder):
    """The test metrics of what a run begins with, without a fit."""
    experiment = assemble(config_in(root, *overrides, folder=folder))
    prepare(experiment)
    trainer = Fitting(experiment, [], in_sweep=True).trainer
    return test(trainer, experiment.module, experiment.data)


def check_two_test_as_one(root, *overrides, batch_size=16):
    """Test both ways and compare; the metrics."""
    one = tested(root, *COMMON, *overrides, *ONE, f"data.eval_batch_size={batch_size}", folder="tests_one")
    two = tested(root, *COMMON, *overrides, *TWO, f"data.eval_batch_size={batch_size // 2}", folder="tests_two")
    assert one
    assert two == pytest.approx(one, rel=1e-5, abs=1e-5)
    return one


def check_same(processes, whole, number=2, rtol=1e-5):
    """That every process ends with the weights and the metrics of the one; returns its weights."""
    assert len(processes) == number
    state, metrics = whole
    for own_state, own_metrics in processes:
        assert metrics.keys() == own_metrics.keys()
        for part, own in ((state, own_state), (metrics, own_metrics)):
            for name, value in part.items():
                if not name.startswith(LOOSE):
                    torch.testing.assert_close(
                        own[name], value, rtol=rtol, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
                    )
    return state


def check_two_train_as_one(root, *overrides, batch_size=16, common=(*COMMON, *LENET), rtol=1e-4):
    """Train both ways and compare; the weights of the one process."""
    (whole,) = fitted(root, *common, *overrides, *ONE, f"data.batch_size={batch_size}", folder="one")
    processes = fitted(root, *common, *overrides, *TWO, f"data.batch_size={batch_size // 2}", folder="two")
    return check_same(processes, whole, rtol=rtol)
