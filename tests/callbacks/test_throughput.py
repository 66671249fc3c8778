import mmap

import pytest
import pytorch_lightning as pl
import torch
import toy
from torch.utils.data import DataLoader

from graft.callbacks import throughput
from graft.callbacks.throughput import Throughput, peak_memory_mb, reset_peak_memory

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")
BATCH_S, VALIDATION_S, START_S = 1.0, 100.0, 1000.0


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 0.0

        def perf_counter(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(throughput, "time", clock)
    return clock


class Net(pl.LightningModule):
    """Each training batch takes a second, the first a thousand, each validation batch a hundred."""

    def __init__(self, clock):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.clock = clock

    def training_step(self, batch, batch_idx):
        first = self.global_step == 0
        self.clock.now += START_S if first else BATCH_S
        return sum(self.layer(one.inputs).square().mean() for one in batch.values())

    def validation_step(self, batch, batch_idx):
        self.clock.now += VALIDATION_S

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def loader(batches=4):
    pairs = {"target": (torch.ones(3, 2), None), "source": (torch.ones(5, 2), torch.ones(5))}
    return DataLoader([toy.batch_of_tensors(pairs)] * batches, batch_size=None)


def fit(clock, *callbacks, ckpt_path=None, **options):
    trainer = toy.trainer_on_cpu(callbacks, **{"max_epochs": 2, "num_sanity_val_steps": 1} | options)
    trainer.fit(Net(clock), loader(), loader(), ckpt_path=ckpt_path, weights_only=True)
    return trainer


@pytest.mark.parametrize("options", [{}, {"val_check_interval": 0.5}])
def test_samples_per_second_of_training_alone(clock, options):
    measure = Throughput()
    fit(clock, measure, **options)
    assert measure.samples_per_s == pytest.approx(8.0), "8 samples a batch, a batch a second"
    validations = 2 * 4 * (2 if options else 1)
    assert measure.fit_s == START_S + 7 * BATCH_S + (validations + 1) * VALIDATION_S  # one more in the sanity check
    assert measure.validation_s == (validations + 1) * VALIDATION_S
    assert measure.train_s == 7 * BATCH_S


def test_one_batch_has_no_speed(clock):
    measure = Throughput()
    fit(clock, measure, max_epochs=1, limit_train_batches=1)
    assert measure.samples_per_s is None
    assert measure.fit_s > START_S


def test_resumed_fit_adds_up_and_testing_changes_nothing(clock, tmp_path):
    first = Throughput()
    fit(clock, first, max_epochs=1).save_checkpoint(tmp_path / "a.ckpt")
    second = Throughput()
    trainer = fit(clock, second, ckpt_path=tmp_path / "a.ckpt")
    assert second.fit_s == first.fit_s + 4 * BATCH_S + 5 * VALIDATION_S
    assert second.samples_per_s == pytest.approx(8.0)
    assert second.peak_memory_mb > 0

    trainer.lightning_module.test_step = lambda batch, batch_idx: None
    before = (second.fit_s, second.samples_per_s)
    trainer.test(trainer.lightning_module, loader(), ckpt_path=tmp_path / "a.ckpt", verbose=False, weights_only=True)
    assert (second.fit_s, second.samples_per_s) == before
    assert second.validation_s == 10 * VALIDATION_S
    trainer.validate(trainer.lightning_module, loader(), verbose=False)
    assert second.validation_s == 10 * VALIDATION_S, "one outside of a fit is not of it"


def test_interrupted_fit_is_measured(clock):
    class Break(pl.Callback):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == 3:
                raise RuntimeError("broken")

    measure = Throughput()
    with pytest.raises(RuntimeError, match="broken"):
        fit(clock, measure, Break())
    assert measure.samples_per_s == pytest.approx(8.0)
    assert measure.fit_s == START_S + 2 * BATCH_S + VALIDATION_S


def test_nothing_measured_before_a_fit():
    measure = Throughput()
    assert (measure.samples_per_s, measure.peak_memory_mb, measure.fit_s) == (None, None, 0.0)


def test_peak_memory_is_of_the_job_not_of_the_process():
    cpu = torch.device("cpu")
    reset_peak_memory(cpu)
    before = peak_memory_mb(cpu)
    block = mmap.mmap(-1, 200 * 2**20)  # not from the heap, which may have as much to give back to us
    block.write(b"x" * len(block))
    high = peak_memory_mb(cpu)
    assert high > before + 150
    block.close()
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pytest.skip("this system does not let a process forget its peak")
    reset_peak_memory(cpu)
    assert peak_memory_mb(cpu) < high - 150


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_peak_memory_of_a_gpu():
    gpu = torch.device("cuda")
    block = torch.ones(64 * 2**20, dtype=torch.uint8, device=gpu)
    assert peak_memory_mb(gpu) >= 64
    del block
    reset_peak_memory(gpu)
    assert peak_memory_mb(gpu) < 64
