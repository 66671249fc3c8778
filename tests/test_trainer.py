from pathlib import Path

from omegaconf import OmegaConf

from graft.trainer import build_trainer

TRAINING = OmegaConf.to_container(OmegaConf.load(Path(__file__).parents[1] / "conf" / "training" / "default.yaml"))


def test_the_training_keys_reach_lightning(tmp_path):
    training = TRAINING | {"gradient_clip_norm": 0.5, "accumulate_batches": 3, "validate_every_epochs": 5}
    trainer = build_trainer({"accelerator": "cpu"}, training, 2, tmp_path, [], [])
    assert trainer.gradient_clip_val == 0.5
    assert trainer.gradient_clip_algorithm in (None, "norm")  # None is Lightning's word for its default, the norm
    assert trainer.accumulate_grad_batches == 3
    assert trainer.max_epochs == 2
    assert trainer.check_val_every_n_epoch == 2  # the last epoch of a shorter training is validated
