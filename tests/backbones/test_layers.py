"""Features behind a layer in the middle, of every backbone that is a stack of layers."""

import functools

import pytest
import torch

from graft.backbones.huggingface import HuggingFaceBackbone
from graft.backbones.huggingface_audio import HuggingFaceAudioBackbone
from graft.backbones.timm import TimmBackbone
from graft.backbones.whisper import WhisperBackbone
from graft.errors import GraftError
from graft.weights.loading import load_weights
from tests.backbones.test_huggingface_audio import saved
from tests.backbones.test_whisper import whisper

pytest.importorskip("transformers")


@pytest.fixture(params=["bert", "wav2vec2", "whisper"])
def make(request, tmp_path):
    """How a backbone with its own weights is made for a layer."""
    if request.param == "bert":
        kind = functools.partial(HuggingFaceBackbone, max_length=16)
        name = str(request.getfixturevalue("tiny_bert"))
    elif request.param == "wav2vec2":
        kind, name = HuggingFaceAudioBackbone, saved(tmp_path, "Wav2Vec2", True)
    else:
        whisper(tmp_path)
        kind, name = WhisperBackbone, str(tmp_path)

    def made(layer):
        backbone = kind(name, layer=layer).eval()
        return backbone, load_weights(backbone, "pretrained")

    return made


def test_the_rest_of_the_network_is_gone_and_what_is_there_is_the_same(make):
    whole, _ = make(None)
    inputs, last = whole.example_inputs(), len(whole.network.get_submodule(whole.layers))
    same, report = make(last)
    assert report.missing == []
    torch.testing.assert_close(same(inputs), whole(inputs), atol=0, rtol=0)
    seen = []
    for layer in range(last):
        cut, report = make(layer)
        assert report.missing == []
        assert not [name for name in report.unexpected if "layer" in name]
        assert report.matched == report.total < len(whole.network.state_dict())
        owned = [name for stage in cut.stages for name in cut.stage_parameters(stage.name)]
        assert sorted(owned) == sorted(name for name, _ in cut.named_parameters())
        assert cut(inputs).shape == (2, whole.feature_size)
        assert not torch.allclose(cut(inputs), whole(inputs), atol=1e-4)
        seen.append(sum(parameter.numel() for parameter in cut.parameters()))
    assert seen == sorted(set(seen))


def test_bert_behind_a_layer_has_the_hidden_states_of_transformers(tiny_bert):
    backbone = HuggingFaceBackbone(str(tiny_bert), max_length=16, layer=1).eval()
    load_weights(backbone, "pretrained")
    whole = HuggingFaceBackbone(str(tiny_bert), max_length=16).eval()
    load_weights(whole, "pretrained")
    inputs = backbone.example_inputs()
    states = whole.network(**inputs.tensors, output_hidden_states=True).hidden_states
    torch.testing.assert_close(backbone(inputs), states[1].mean(1))


def test_a_vision_transformer_normalises_the_block():
    torch.manual_seed(0)
    whole = TimmBackbone("test_vit", size=32).eval()
    cut = TimmBackbone("test_vit", size=32, layer=2).eval()
    cut.load_state_dict({name: value for name, value in whole.state_dict().items() if name in cut.state_dict()})
    images = whole.example_inputs()
    blocks = whole.network.forward_intermediates(
        images, indices=[1], norm=True, intermediates_only=True, output_fmt="NLC", return_prefix_tokens=True
    )
    ((_, prefix),) = blocks
    torch.testing.assert_close(cut(images), prefix[:, 0], atol=1e-5, rtol=1e-5)
    assert len(cut.stages) == len(whole.stages) - len(whole.network.blocks) + 2


def test_networks_that_are_no_stack_of_layers_refuse():
    with pytest.raises(GraftError, match=r"backbone\.layer=1: test_resnet is no stack of layers.*backbone\.layer=null"):
        TimmBackbone("test_resnet", layer=1)
