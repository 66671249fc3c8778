"""`strategy.train_bn=auto` by the steps of a run."""

import pytest
from small_run import config_in

from graft.experiment import assemble
from graft.strategies.base import batchnorm_parameters
from graft.strategies.batchnorm import FEW_STEPS, trains_batchnorm

SMALL = ("data=glyphs_digits", "data.image_size=32", "backbone=resnet18", "trainer=cpu", "training.epochs=2")


def test_few_steps_keep_the_pretrained_batchnorm_and_many_or_two_domains_or_a_new_network_train_it():
    assert trains_batchnorm(FEW_STEPS, pretrained=True, several_domains=False) is False
    assert trains_batchnorm(FEW_STEPS + 1, pretrained=True, several_domains=False) is None
    assert trains_batchnorm(FEW_STEPS, pretrained=False, several_domains=False) is None
    assert trains_batchnorm(FEW_STEPS, pretrained=True, several_domains=True) is None


@pytest.mark.parametrize(
    ("overrides", "decided"),
    [
        (("data.epoch=3",), False),
        ((f"data.epoch={FEW_STEPS}",), None),
        (("data.epoch=3", "objective.alpha=0.5"), None),
    ],
)
def test_a_run_decides_by_its_steps_and_its_record_says_what(tmp_path, overrides, decided):
    config = config_in(
        tmp_path, *SMALL, "backbone.weights=source", "strategy=full", "strategy.train_bn=auto", *overrides
    )
    experiment = assemble(config)
    assert experiment.decided == {"strategy.train_bn": decided}
    assert experiment.config["strategy"]["train_bn"] is decided
    backbone = experiment.module.backbone
    (phase,) = experiment.module.phases(experiment.epochs)
    assert (batchnorm_parameters(backbone) <= phase.parameters) is (decided is None)
