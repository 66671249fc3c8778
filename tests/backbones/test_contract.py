"""What a backbone has to keep is checked where it is built, and a plain network becomes one."""

import pytest
import torch
from test_run import cache, run  # noqa: F401  fixtures
from torch import nn

from graft import load_run
from graft.backbones.base import ImageBackbone, Stage
from graft.backbones.contract import check_backbone, wrap
from graft.backbones.lenet import lenet
from graft.backbones.recurrent import RecurrentBackbone
from graft.errors import GraftError
from graft.model import predictions


class Plain(nn.Module):
    """A network as a user has it: no stages, and a parameter of its own beside its layers."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.first = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2))
        self.second = nn.Sequential(nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))

    def forward(self, x):
        return self.second(self.first(x * self.scale)).flatten(1)


class NoTensor(nn.Linear):
    def forward(self, x):
        return [x]


def image_backbone(network, feature_size=4, prefixes=("network",), more=()):
    stages = [Stage("all", tuple(prefixes)), *more]
    return ImageBackbone("mine", network, size=8, channels=1, feature_size=feature_size, stages=stages)


def pooled():
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.Conv2d(6, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (
            image_backbone(pooled(), prefixes=["network.0"]),
            r"backbone mine: 28 of 88 parameters are in no stage, network\.1\.weight first.* Its stages are all",
        ),
        (
            image_backbone(pooled(), more=[Stage("again", ("network.1",))]),
            r"network\.1\.weight is in several stages, all and again",
        ),
        (
            image_backbone(pooled(), feature_size=5),
            r"it says feature_size=5, but one sample gives features of the shape \(1, 4\), not \(1, 5\)",
        ),
        (image_backbone(pooled()[:2]), r"shape \(1, 4, 6, 6\), not \(1, 4\)"),
        (image_backbone(nn.Linear(3, 4)), r"backbone mine cannot take inputs \(1, 1, 8, 8\): "),
        (image_backbone(NoTensor(8, 4)), "its forward gives no tensor"),
    ],
)
def test_what_a_backbone_does_not_keep_is_refused_with_how_to_mend_it(backbone, message):
    with pytest.raises(GraftError, match=message):
        check_backbone(backbone)


def test_the_checks_change_nothing():
    backbone = lenet(size=16)
    before, state = {k: v.clone() for k, v in backbone.state_dict().items()}, torch.get_rng_state()
    check_backbone(backbone)
    assert torch.equal(torch.get_rng_state(), state)
    assert backbone.training
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    check_backbone(RecurrentBackbone("gru", texts=["a b", "b c"]))


def test_a_plain_network_becomes_a_backbone():
    backbone = wrap(Plain(), "Plain", 16, 1)
    check_backbone(backbone)
    assert backbone.feature_size == 16
    assert [stage.name for stage in backbone.stages] == ["first", "second"]
    assert {name for name in backbone.stage_parameters("first")} == {
        *("network.scale", "network.first.0.weight", "network.first.0.bias"),
        *("network.first.1.weight", "network.first.1.bias"),
    }
    with pytest.raises(GraftError, match=r"backbone net: one image gives the shape \(1, 4, 6, 6\).*nn\.Flatten"):
        wrap(pooled()[:2], "net", 8, 1)
    with pytest.raises(GraftError, match="backbone net: it has no parameters"):
        wrap(nn.Flatten(), "net", 8, 1)


@pytest.mark.slow
def test_a_plain_network_trains_stage_by_stage_and_predicts_alone(run):  # noqa: F811
    mine = ["backbone=lenet", *(f"~backbone.{key}" for key in ("name", "size", "channels", "dropout", "features"))]
    mine += ["backbone._target_=backbones.test_contract.Plain", "+backbone.width=4", "allow=[backbones]"]
    results, folder = run(
        *("strategy=gradual", "strategy.every_epochs=1", *mine, "backbone.weights=source"),
        *("data.image_size=16", "training.epochs=3"),
    )
    assert [len(phase["stages"]) for phase in results["phases"]] == [0, 1, 2]
    kept = predictions.read(folder / "predictions.parquet")["target"]
    model = load_run(folder, allow=["backbones"])
    assert model.backbone.wrapped == {"name": "Plain", "size": 16, "channels": 1}
    assert len(kept["prediction"]) == results["data"]["target"]["test"]
