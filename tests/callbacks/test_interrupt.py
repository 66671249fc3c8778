import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import toy
from torch.utils.data import DataLoader

from graft.callbacks.interrupt import Interrupt, keyboard_interrupts
from graft.errors import Interrupted

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")
BATCHES, EPOCHS = 5, 3


class Batches:
    """Loader that can go on inside an epoch, as Graft's own do; order and content are functions of the epoch."""

    def __init__(self):
        self.epoch = self.done = self.start = 0

    def __len__(self):
        return BATCHES

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        content = torch.randn(BATCHES, 4, 3, generator=torch.Generator().manual_seed(self.epoch))
        first, self.start = self.start, 0
        for i in range(first, BATCHES):
            self.done = i + 1
            yield content[i]

    def state_dict(self):
        return {"done": self.done}

    def load_state_dict(self, state):
        self.start = state["done"] % BATCHES


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(3, 1)
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(("train", self.current_epoch, batch_idx))
        return self.layer(batch).square().mean()

    def validation_step(self, batch, batch_idx):
        self.seen.append(("val", self.current_epoch, batch_idx))
        self.log("val/target/loss", self.layer(batch).square().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class PressCtrlC(pl.Callback):
    """Sends SIGINT, or another signal, while a given batch is under way, `times` times."""

    def __init__(self, stage, epoch, batch, times=1, signum=signal.SIGINT):
        self.at = (stage, epoch, batch)
        self.times = times
        self.signum = signum

    def press(self, stage, trainer, batch_idx):
        if (stage, trainer.current_epoch, batch_idx) == self.at:
            for _ in range(self.times):
                signal.raise_signal(self.signum)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.press("train", trainer, batch_idx)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self.press("val", trainer, batch_idx)


def fit_or_raise(folder, *callbacks, module=None, ckpt_path=None, **options):
    module = module or Net()
    trainer = toy.trainer_on_cpu(callbacks, max_epochs=EPOCHS, default_root_dir=folder, **options)
    validation = DataLoader(torch.ones(6, 3), batch_size=3)
    trainer.fit(module, Batches(), validation, ckpt_path=ckpt_path, weights_only=True)
    return module


def fit(folder, *callbacks, ckpt_path=None, **options):
    module = Net()
    try:
        fit_or_raise(folder, *callbacks, module=module, ckpt_path=ckpt_path, **options)
    except Interrupted as error:
        return module, str(error)
    return module, None


@pytest.mark.parametrize(
    ("press", "steps_done"),
    [
        (("train", 0, 0), 1),
        (("train", 1, 2), 8),
        (("train", 1, 4), 10),  # an epoch's last batch
        (("val", 0, 0), 5),
        (("val", 2, 1), 15),  # the last epoch's validation
    ],
)
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, press, steps_done):
    reference, message = fit(tmp_path)
    assert message is None

    first, message = fit(tmp_path, PressCtrlC(*press), Interrupt())
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert f"after step {steps_done}" in message
    assert str(last) in message
    assert len([s for s in first.seen if s[0] == "train"]) == steps_done, "it stops after the batch under way"

    second, message = fit(tmp_path, Interrupt(), ckpt_path=last)
    assert message is None
    assert first.seen + second.seen == reference.seen
    assert torch.equal(second.layer.weight, reference.layer.weight)


@pytest.mark.parametrize(("batch", "batches_done"), [(0, 2), (1, 2), (2, 4), (4, 5)])
def test_gradients_that_are_accumulated_are_not_lost(tmp_path, batch, batches_done):
    reference, _ = fit(tmp_path, accumulate_grad_batches=2)
    first, message = fit(tmp_path, PressCtrlC("train", 1, batch), Interrupt(), accumulate_grad_batches=2)
    assert "Interrupted" in message
    assert len([s for s in first.seen if s[0] == "train"]) == 5 + batches_done
    last = tmp_path / "checkpoints" / "last.ckpt"
    second, _ = fit(tmp_path, Interrupt(), ckpt_path=last, accumulate_grad_batches=2)
    assert first.seen + second.seen == reference.seen
    assert torch.equal(second.layer.weight, reference.layer.weight)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_schedulers_signals_save_as_ctrl_c_does_however_often_they_come(tmp_path, name):
    signum = getattr(signal, name)
    before = signal.getsignal(signum)
    reference, _ = fit(tmp_path)
    module = Net()
    with pytest.raises(Interrupted, match=f"Stopped by {name} after step 8, 1 of 3 epochs done") as caught:
        fit_or_raise(tmp_path, PressCtrlC("train", 1, 2, times=3, signum=signum), Interrupt(), module=module)
    assert caught.value.signum == signum
    assert signal.getsignal(signum) is before
    second, _ = fit(tmp_path, Interrupt(), ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    assert module.seen + second.seen == reference.seen
    assert torch.equal(second.layer.weight, reference.layer.weight)


def test_second_ctrl_c_stops_at_once(tmp_path):
    with pytest.raises(KeyboardInterrupt), keyboard_interrupts():
        fit(tmp_path, PressCtrlC("train", 0, 1, times=2), Interrupt())
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("press", [None, ("train", 1, 1, 1), ("train", 1, 1, 2)])
def test_previous_handler_comes_back(tmp_path, press):
    def previous(signum, frame):
        raise AssertionError("not during the fit")

    before = signal.signal(signal.SIGINT, previous)
    try:
        try:
            fit(tmp_path, *([PressCtrlC(*press)] if press else []), Interrupt())
        except SystemExit:  # what Lightning makes of a KeyboardInterrupt
            assert press[3] == 2
        assert signal.getsignal(signal.SIGINT) is previous
    finally:
        signal.signal(signal.SIGINT, before)


def test_previous_handler_comes_back_after_an_error(tmp_path):
    class Break(pl.Callback):
        def on_train_batch_start(self, *args):
            raise RuntimeError("broken")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(RuntimeError, match="broken"):
        fit(tmp_path, Break(), Interrupt())
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_before_training_stays_a_keyboard_interrupt(tmp_path):
    class Early(pl.Callback):
        def setup(self, trainer, pl_module, stage):
            raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), keyboard_interrupts():
        fit(tmp_path, Early(), Interrupt())
    assert signal.getsignal(signal.SIGINT) is before, "Lightning leaves SIGINT ignored here"


def test_sigterm_during_training_is_an_interruption(tmp_path):
    class Terminate(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="SIGTERM"), keyboard_interrupts():
        fit_or_raise(tmp_path, Terminate())
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_exits_pass_unchanged():
    with pytest.raises(SystemExit) as caught, keyboard_interrupts():
        raise SystemExit(3)
    assert caught.value.code == 3


def test_fit_in_another_thread_installs_nothing(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    results = []
    thread = threading.Thread(target=lambda: results.append(fit(tmp_path, Interrupt())))
    thread.start()
    thread.join()
    assert results[0][1] is None
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
def test_ctrl_c_from_the_terminal(tmp_path):
    """The signal arrives from another process, at any moment, in the middle of a print."""
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]; import test_interrupt as t\n"
        "class Talk(t.pl.Callback):\n"
        "    def on_train_batch_end(self, *args): print('step', flush=True); t.torch.ones(1)\n"
        "t.EPOCHS = 10**6\n"
        "print(t.fit(sys.argv[1], Talk(), t.Interrupt())[1])"
    )
    folder = Path(__file__).parent
    command = [sys.executable, "-c", code, str(tmp_path), str(folder), str(folder.parent)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.readline()
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "Saved" in out.splitlines()[-1]
    assert "Press it again to stop at once" in err
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()
