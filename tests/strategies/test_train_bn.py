"""`strategy.train_bn=auto` by the steps of a run."""

import pytest
from small_run import config_in, train_in

from graft.experiment import assemble
from graft.strategies import batchnorm
from graft.strategies.base import batchnorm_parameters
from graft.strategies.batchnorm import FEW_STEPS, trains_batchnorm
from graft.training.tuning import resolve_auto

SMALL = ("data=glyphs_digits", "data.image_size=32", "backbone=resnet18", "trainer=cpu", "training.epochs=2")


def test_few_steps_of_plain_training_keep_the_pretrained_batchnorm_and_all_else_trains_it():
    assert trains_batchnorm(FEW_STEPS, pretrained=True, plain=True) is False
    assert trains_batchnorm(FEW_STEPS + 1, pretrained=True, plain=True) is None
    assert trains_batchnorm(FEW_STEPS, pretrained=False, plain=True) is None
    assert trains_batchnorm(FEW_STEPS, pretrained=True, plain=False) is None


@pytest.mark.parametrize(
    ("overrides", "decided"),
    [
        (("data.epoch=3",), False),
        ((f"data.epoch={FEW_STEPS}",), None),
        (("data.epoch=3", "objective.alpha=0.5"), None),
        (("data.epoch=3", "term=[stochnorm]"), None),
        (("data.epoch=3", "backbone=lenet"), None),  # has no BatchNorm
    ],
)
def test_a_run_decides_by_its_steps_and_its_record_says_what(tmp_path, overrides, decided):
    experiment = assemble(config_in(tmp_path, *SMALL, "backbone.weights=source", "strategy=full", *overrides))
    resolve_auto(experiment)
    assert experiment.decided.get("strategy.train_bn") is decided
    assert experiment.config["strategy"]["train_bn"] is decided
    backbone = experiment.module.backbone
    (phase,) = experiment.module.phases(experiment.epochs)
    assert (batchnorm_parameters(backbone) <= phase.parameters) is (decided is None)


def test_a_resumed_run_goes_on_as_it_began_though_its_steps_are_no_longer_few(tmp_path, monkeypatch):
    monkeypatch.setattr(batchnorm, "FEW_STEPS", 3)
    small = (*SMALL, "backbone.weights=source", "pretrain.epochs=1", "data.labels_per_class=2", "data.epoch=3")
    keys = (*small, "test=false", "training.epochs=1")
    assert train_in(tmp_path, *keys)["settings"]["strategy.train_bn"] is False
    longer = train_in(tmp_path, *keys, "training.epochs=2", "resume=true")
    assert longer["settings"]["strategy.train_bn"] is False
    assert "strategy.train_bn" not in train_in(tmp_path, *keys, "training.epochs=2", folder="anew")["settings"]
