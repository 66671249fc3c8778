"""Statistics of BatchNorm before a validation: computed again while the running ones do not fit, else left alone."""

import copy

import pytest
import torch
from test_module import build_module
from torch import nn

from graft.callbacks.batchnorm import RecalibrateBatchNorm, batch_statistics
from graft.training.normalization import batchnorms
from tests.small_run import train_in

SMALL = ["data.labels_per_class=2", "training.epochs=2", "data.batch_size=10", "trainer=cpu", "logger=csv"]


@pytest.fixture
def run(tmp_path):
    def start(*overrides):
        return train_in(tmp_path, *SMALL, *overrides, folder=str(len(list(tmp_path.iterdir()))))

    return start


def test_a_short_run_is_validated_with_statistics_of_its_own(run):
    found, running = (run("strategy=scratch", f"training.recalibrate_bn={key}") for key in ("auto", "null"))
    assert (found["recalibrated_bn"], running["recalibrated_bn"]) == (2, 0)
    assert found["metrics"]["val/target/loss"] < running["metrics"]["val/target/loss"]


@pytest.mark.slow
def test_nothing_is_computed_where_no_layer_trains(run):
    found, running = (
        run("strategy=frozen", "backbone.weights=null", "cache.features=false", f"training.recalibrate_bn={key}")
        for key in ("auto", "null")
    )
    assert found["recalibrated_bn"] == 0
    assert found["metrics"] == running["metrics"]


@pytest.mark.parametrize(("batches", "momentum", "early"), [(43, 0.1, True), (44, 0.1, False), (5, 0.9, False)])
def test_statistics_are_early_while_a_hundredth_of_the_first_is_left(tiny_backbone, batches, momentum, early):
    module = build_module(tiny_backbone())
    trained, *others = batchnorms(module.backbone)
    trained.momentum = momentum
    for other in others:
        other.training = False
    callback = RecalibrateBatchNorm()
    callback.on_train_start(None, module)
    assert not callback._early()  # nothing has trained
    for _ in range(batches):
        callback.on_train_batch_end(None, module, None, {}, 0)
    assert callback._early() is early


def test_the_batchs_statistics_leave_the_running_ones_alone():
    norm = nn.BatchNorm2d(3).eval()
    before, inputs = copy.deepcopy(norm.state_dict()), torch.randn(8, 3, 4, 4) * 5 + 2
    with batch_statistics([norm]):
        assert abs(float(norm(inputs).detach().mean())) < 1e-5
    assert not norm.training
    assert all(torch.equal(before[name], value) for name, value in norm.state_dict().items())
    assert float(norm(inputs).detach().mean()) > 1
