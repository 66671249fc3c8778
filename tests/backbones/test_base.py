import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from graft.backbones.base import HALF, ImageBackbone, Stage
from graft.backbones.lenet import lenet
from graft.backbones.sequence import SequenceBackbone
from graft.errors import GraftError
from graft.inputs.image.transform import ImageSpec


def test_prefix_covers_whole_names_only() -> None:
    stage = Stage("layer1", ("network.layer1",))
    assert stage.covers("network.layer1")
    assert stage.covers("network.layer1.0.weight")
    assert not stage.covers("network.layer10.0.weight")


def test_images_may_lie_in_memory_as_the_weights_do() -> None:
    """As training.channels_last says; how they lie is no part of what a backbone wants to see."""
    planes = lenet(size=28, channels=3)
    pixels = copy.deepcopy(planes).to(memory_format=torch.channels_last)
    assert (planes.input_spec.channels_last, pixels.input_spec.channels_last) == (False, True)
    assert repr(planes.input_spec) == repr(pixels.input_spec)
    assert planes.input_spec == pixels.input_spec


def test_layers_without_parameters_go_with_those_before_them() -> None:
    network = nn.Sequential(nn.Dropout(0.1), nn.Conv2d(1, 2, 1), nn.Dropout(0.2), nn.Conv2d(2, 3, 1), nn.Dropout(0.3))
    stages = [Stage("first", ("network.1",)), Stage("second", ("network.3",))]
    backbone = ImageBackbone("net", network, size=4, channels=1, feature_size=3, stages=stages)
    assert backbone.stage_modules("first") == [network[0], network[1], network[2]]
    assert backbone.stage_modules("second") == [network[3], network[4]]


def test_unknown_stage() -> None:
    with pytest.raises(GraftError, match="Stages: conv1, conv2, fc"):
        lenet().stage_parameters("conv3")


def test_input_spec_without_weights() -> None:
    spec = lenet(size=28, channels=2).input_spec
    assert spec == ImageSpec(2, (28, 28), (0.5, 0.5), (0.5, 0.5))


def test_normalisation_travels_with_the_state_dict() -> None:
    trained, fresh = lenet(channels=3), lenet(channels=3)
    trained.set_normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    fresh.load_state_dict(trained.state_dict())
    assert fresh.input_spec.mean == (0.485, 0.456, 0.406)
    assert fresh.input_spec.std == (0.229, 0.224, 0.225)
    assert lenet(channels=3).input_spec.mean == HALF


def test_classifier_is_beside_the_backbone() -> None:
    backbone = lenet()
    names = [name for name, _ in backbone.named_parameters()]
    backbone.set_pretrained_head(nn.Linear(500, 10))
    assert [name for name, _ in backbone.named_parameters()] == names
    assert not any("classifier" in name for name in backbone.state_dict())
    assert not backbone.pretrained_head.weight.requires_grad
    assert not backbone.pretrained_head.training


def test_classifier_moves_with_the_backbone() -> None:
    backbone = lenet().eval()
    backbone.set_pretrained_head(nn.Linear(500, 10))
    moved = copy.deepcopy(backbone).double()
    assert moved.pretrained_head(moved(torch.randn(2, 1, 28, 28, dtype=torch.float64))).dtype == torch.float64
    assert backbone.pretrained_head.weight.dtype == torch.float32


@pytest.mark.slow
def test_timm_is_imported_for_timm_models_only() -> None:
    code = (
        "import sys; from graft.backbones.torchvision import TorchvisionBackbone; import graft.backbones.lenet, "
        "graft.backbones.cnn, graft.weights.loading; TorchvisionBackbone('resnet18'); sys.exit('timm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_local_gives_the_maps_of_every_stage():
    backbone = lenet(size=16, channels=1).eval()
    inputs = backbone.example_inputs(3)
    maps = backbone.local(inputs)
    assert list(maps) == [stage.name for stage in backbone.stages]
    assert all(len(one) == 3 and one.requires_grad for one in maps.values())
    first = backbone.output_module(backbone.stages[0].name)
    torch.testing.assert_close(maps[backbone.stages[0].name], backbone.get_submodule(first)(inputs))
    assert not any(module._forward_hooks for module in backbone.modules())


def test_a_backbone_without_maps_says_so():
    backbone = SequenceBackbone("lstm", input_size=2, hidden_size=4, layers=1)
    with pytest.raises(GraftError, match="sequence backbone lstm gives features alone"):
        backbone.local(backbone.example_inputs())
