from pathlib import Path

import pytest
import torch
import toy
from lightning_fabric.utilities import registry
from omegaconf import OmegaConf

from graft.notes import say_once
from graft.training.trainer import build_trainer, resolve_precision

TRAINING = OmegaConf.to_container(OmegaConf.load(Path(__file__).parents[1] / "conf" / "training" / "default.yaml"))


def test_the_training_keys_reach_lightning(tmp_path):
    training = TRAINING | {"gradient_clip_norm": 0.5, "accumulate_batches": 3, "validate_every_epochs": 5}
    trainer = build_trainer({"accelerator": "cpu"}, training, 2, tmp_path, [], [])
    assert trainer.gradient_clip_val == 0.5
    assert trainer.gradient_clip_algorithm in (None, "norm")  # None is Lightning's word for its default, the norm
    assert trainer.accumulate_grad_batches == 3
    assert trainer.max_epochs == 2
    assert trainer.check_val_every_n_epoch == 2  # the last epoch of a shorter training is validated


def test_only_the_first_trainer_looks_for_callbacks_of_installed_packages(tmp_path):
    build_trainer({"accelerator": "cpu"}, TRAINING, 1, tmp_path, [], [])
    before = registry.entry_points.cache_info()
    build_trainer({"accelerator": "cpu"}, TRAINING, 1, tmp_path, [], [])
    after = registry.entry_points.cache_info()
    assert after.hits == before.hits + 1
    assert after.misses == before.misses


@pytest.fixture
def machine(monkeypatch):
    """A machine with CUDA or not, a GPU that computes with bfloat16 or not."""

    def build(cuda=False, bf16=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16 or including_emulation)

    yield build
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(
    ("hardware", "accelerator", "expected"),
    [
        ({"cuda": True, "bf16": True}, "auto", ("bf16-mixed", "high")),
        ({"cuda": True, "bf16": True}, "gpu", ("bf16-mixed", "high")),
        ({"cuda": True}, "gpu", ("16-mixed", "high")),
        ({"cuda": True, "bf16": True}, "cpu", ("32-true", "highest")),
        ({}, "auto", ("32-true", "highest")),
    ],
)
def test_auto_is_what_the_device_computes_fast(machine, hardware, accelerator, expected):
    machine(**hardware)
    precision = resolve_precision({"precision": "auto", "accelerator": accelerator})
    assert (precision, torch.get_float32_matmul_precision()) == expected


def test_a_precision_that_was_asked_for_stays(machine):
    machine(cuda=True, bf16=True)
    assert resolve_precision({"precision": "32-true", "accelerator": "gpu"}) == "32-true"


@pytest.mark.filterwarnings("ignore:.precision=16. is supported for historical reasons")
@pytest.mark.parametrize("given", ["16-mixed", 16])
def test_mixed_float16_on_a_cpu_is_recorded_as_the_bfloat16_that_it_becomes(given, capsys):
    say_once.cache_clear()
    recorded = resolve_precision({"accelerator": "cpu", "precision": given})
    with pytest.warns(UserWarning, match="bf16-mixed"):
        trainer = toy.trainer_on_cpu(precision=given)
    assert recorded == trainer.precision == "bf16-mixed"
    assert "bfloat16 on a CPU" in capsys.readouterr().out
    assert torch.get_float32_matmul_precision() == "highest"
