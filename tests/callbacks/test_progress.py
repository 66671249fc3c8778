import io
import math
import threading
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from torch.utils.data import DataLoader

from graft.build import build
from graft.callbacks.progress import Progress, main_metric, total_batches
from graft.errors import Interrupted

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/target/loss", 1.0)
        self.log("val/source/acc", 0.25)
        self.log("val/target/acc", 0.5)
        self.log("val/target/f1", 0.125)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(*callbacks, folder=None, **options):
    data = DataLoader(torch.ones(8, 2), batch_size=2)
    settings = {
        "accelerator": "cpu",
        "max_epochs": 3,
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "callbacks": list(callbacks),
        "default_root_dir": folder,
    } | options
    trainer = pl.Trainer(**settings)
    trainer.fit(Net(), data, data)
    return trainer


def test_lines_away_from_a_terminal(capsys):
    fit(Progress(line_every_s=0.0))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("epoch 1/3  batch 1/12  loss ")
    assert "val/target/acc" not in lines[0], "nothing is shown before it is known"
    assert lines[-1].startswith("epoch 3/3  batch 12/12  loss ")
    assert "val/target/acc 0.5  lr 0.01" in lines[-1]
    assert any("epoch 2/3 validating" in line for line in lines), "a long validation shows that it is alive"


def test_refresh_is_by_time_not_by_step(capsys):
    fit(Progress(line_every_s=math.inf))
    assert len(capsys.readouterr().err.splitlines()) == 1, "only the closing line"


def test_a_step_reads_no_value_from_the_device(monkeypatch):
    reads = []
    monkeypatch.setattr(Progress, "_values", lambda self, trainer: reads.append(1) or {})
    fit(Progress(line_every_s=math.inf))
    assert len(reads) == 1


def test_metric_can_be_named(capsys):
    fit(Progress(line_every_s=math.inf, metric="val/target/f1"))
    assert "val/target/f1 0.125" in capsys.readouterr().err


def test_label_comes_before_the_epoch(capsys):
    progress = Progress(line_every_s=math.inf)
    progress.label = "pretraining"
    fit(progress)
    assert capsys.readouterr().err.startswith("pretraining epoch 3/3")


def test_shown_loss_is_not_divided_by_accumulation(capsys):
    losses = []

    class Keep(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            losses.append(float(outputs["loss"]) * 4)

    fit(Keep(), Progress(line_every_s=0.0), accumulate_grad_batches=4)
    first = capsys.readouterr().err.splitlines()[0]
    assert f"loss {losses[0]:.3g}" in first


def test_bar_in_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    before = set(threading.enumerate())
    fit(Progress(refresh_s=0.0))
    shown = terminal.getvalue()
    assert shown.count("\n") == 1, "one bar, drawn over itself"
    last = shown.rstrip().split("\r")[-1]
    assert last.startswith("epoch 3/3 |########|")
    assert "val/target/acc 0.5" in last
    started = set(threading.enumerate()) - before
    assert not any(thread.name.startswith("TMonitor") or "tqdm" in repr(thread) for thread in started)


def test_silent_in_other_processes(capsys):
    progress = Progress(line_every_s=0.0)
    progress.disable()
    fit(progress)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("error", [Interrupted, RuntimeError])
def test_what_was_reached_stays_on_screen_after_ctrl_c(capsys, error):
    class Break(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 6:
                raise error("broken")

    with pytest.raises(error, match="broken"):
        fit(Progress(line_every_s=math.inf), Break())
    shown = capsys.readouterr().err
    assert ("batch 6/12" in shown) == (error is Interrupted), "after an error values may not be readable"


def test_fit_without_an_end_in_epochs(capsys):
    fit(Progress(line_every_s=math.inf), max_epochs=-1, max_steps=3)
    assert capsys.readouterr().err.startswith("training  batch 3/3  loss")


def test_resumed_fit_starts_where_it_stopped(tmp_path, capsys):
    trainer = fit(max_epochs=1, enable_progress_bar=False, folder=tmp_path)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    data = DataLoader(torch.ones(8, 2), batch_size=2)
    again = pl.Trainer(
        accelerator="cpu",
        max_epochs=3,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[Progress(line_every_s=0.0)],
    )
    again.fit(Net(), data, ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("epoch 2/3  batch 5/12")
    assert lines[-1].startswith("epoch 3/3  batch 12/12")


def test_main_metric_prefers_the_target():
    assert main_metric({"val/source/acc": 1, "val/target/loss": 1, "val/target/mae": 1}) == "val/target/mae"
    assert main_metric({"val/source/acc": 1, "val/target/loss": 1}) == "val/source/acc"
    assert main_metric({"train/target/acc": 1, "val/target/loss": 1}) is None


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"max_epochs": 3}, 12),
        ({"max_epochs": 3, "max_steps": 5}, 5),
        ({"max_epochs": 3, "max_steps": 2, "accumulate_grad_batches": 2}, 4),
        ({"max_epochs": 3, "limit_train_batches": 2}, 6),
        ({"max_epochs": -1, "max_steps": 7}, 7),
    ],
)
def test_total_batches(limits, expected):
    trainer = fit(enable_progress_bar=False, **limits)
    assert total_batches(trainer) == expected


def test_config_builds():
    path = Path(__file__).parents[2] / "conf" / "callbacks" / "default.yaml"
    for settings in OmegaConf.load(path).values():
        assert isinstance(build(settings), pl.Callback)
