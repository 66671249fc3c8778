"""A tiny BERT made on the spot: no package of weights and no network is needed."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
import transformers
from torch import nn

from graft.backbones import huggingface
from graft.backbones.huggingface import HuggingFaceBackbone, check_tokens, longest_text
from graft.backbones.stages import network_outputs
from graft.errors import GraftError
from graft.strategies.adapter import Adapter
from graft.strategies.lora import LoRA
from graft.weights.loading import load_weights

TEXTS = ["good film", "it was a very bad film", "not good"]


def encode(backbone, texts):
    transform = backbone.input_spec.transform()
    return transform.collate([torch.tensor(ids) for ids, _ in backbone.tokenizer(texts, backbone.max_length)])


def test_features_have_the_promised_shape_and_every_parameter_learns(tiny_bert):
    backbone = HuggingFaceBackbone(str(tiny_bert), max_length=16)
    features = backbone(encode(backbone, TEXTS))
    assert features.shape == (3, backbone.feature_size) == (3, 16)
    (features * torch.randn_like(features)).sum().backward()
    assert [name for name, parameter in backbone.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_features_do_not_depend_on_what_else_is_in_the_batch(tiny_bert, pooling):
    backbone = HuggingFaceBackbone(str(tiny_bert), pooling=pooling, max_length=16).eval()
    together = backbone(encode(backbone, TEXTS))
    alone = torch.cat([backbone(encode(backbone, [text])) for text in TEXTS])
    torch.testing.assert_close(together, alone)


def test_stages_are_the_embeddings_and_each_layer(tiny_bert):
    backbone = HuggingFaceBackbone(str(tiny_bert), max_length=16)
    assert [stage.name for stage in backbone.stages] == ["embeddings", "encoder.layer.0", "encoder.layer.1"]
    owned = [name for stage in backbone.stages for name in backbone.stage_parameters(stage.name)]
    assert sorted(owned) == sorted(name for name, _ in backbone.named_parameters())


def test_own_weights_are_all_taken_and_random_ones_are_others(tiny_bert):
    torch.manual_seed(1)  # the folder's own weights come from seed 0
    backbone = HuggingFaceBackbone(str(tiny_bert), max_length=16).eval()
    before = backbone(backbone.example_inputs())
    report = load_weights(backbone, "pretrained")
    assert report.matched == report.total
    assert report.missing == []
    again = HuggingFaceBackbone(str(tiny_bert), max_length=16).eval()
    load_weights(again, str(tiny_bert / "model.safetensors"))
    assert torch.equal(again(again.example_inputs()), backbone(backbone.example_inputs()))
    assert not torch.allclose(before, backbone(backbone.example_inputs()))


def test_what_is_no_module_is_in_the_repr_that_tells_features_apart(tiny_bert):
    mean, cls = (HuggingFaceBackbone(str(tiny_bert), pooling=pooling, max_length=16) for pooling in ("mean", "cls"))
    assert repr(mean) != repr(cls)
    assert repr(mean.input_spec) == repr(cls.input_spec)
    assert repr(mean.input_spec) != repr(HuggingFaceBackbone(str(tiny_bert), max_length=8).input_spec)


def test_outputs_are_traced_through_the_backbones_own_inputs(tiny_bert):
    backbone = HuggingFaceBackbone(str(tiny_bert), max_length=16)
    shapes = dict(network_outputs(backbone))
    assert shapes["encoder.layer.1.output"] == (1, 8, 16)
    assert not any(module._forward_hooks for module in backbone.modules())


@pytest.mark.parametrize("strategy", [Adapter(), LoRA()], ids=["adapter", "lora"])
def test_what_is_added_trains_from_the_pretrained_function(tiny_bert, strategy):
    backbone = HuggingFaceBackbone(str(tiny_bert), max_length=16).eval()
    inputs = backbone.example_inputs()
    before = backbone(inputs)
    strategy.prepare(backbone)
    torch.testing.assert_close(backbone.eval()(inputs), before)
    assert any(isinstance(module, nn.Linear) for module in backbone.modules())
    [phase] = strategy.phases(1, backbone)
    assert phase.parameters


@pytest.mark.parametrize("max_length", [1, 33])
def test_more_tokens_than_positions_are_refused(tiny_bert, max_length):
    with pytest.raises(GraftError, match=rf"backbone\.max_length={max_length}: .* takes 3 to 32 tokens"):
        HuggingFaceBackbone(str(tiny_bert), max_length=max_length)


def test_an_unknown_pooling_is_refused(tiny_bert):
    with pytest.raises(GraftError, match=r"backbone\.pooling=max is not known\. Allowed: mean, cls"):
        HuggingFaceBackbone(str(tiny_bert), pooling="max")


def test_a_hub_name_without_network_says_what_to_do(monkeypatch):
    monkeypatch.setattr(huggingface, "hub_answers", lambda: False)
    with pytest.raises(GraftError, match=r"backbone\.name=nobody/nothing: it is not on this machine.*pip install"):
        HuggingFaceBackbone("nobody/nothing")


def test_a_folder_without_a_model_and_a_missing_package_are_named(tmp_path):
    with pytest.raises(GraftError, match=r"that folder has no config\.json"):
        HuggingFaceBackbone(str(tmp_path))
    with pytest.raises(GraftError, match="pip:graft-nothing: the package is not installed"):
        HuggingFaceBackbone("pip:graft-nothing")


def test_code_that_comes_with_a_model_is_not_run(tmp_path, tiny_bert):
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    settings = json.loads((folder / "config.json").read_text())
    settings |= {"model_type": "foreign", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(GraftError, match=r"backbone\.name=.*AutoConfig cannot read it"):
        HuggingFaceBackbone(str(folder))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("kind", "longest"), [("Roberta", 32), ("MPNet", 32), ("Bert", 34), ("DistilBert", 34)])
def test_positions_that_a_network_keeps_for_its_padding_are_not_for_texts(kind, longest):
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    if kind == "DistilBert":
        sizes = {"dim": 8, "n_layers": 1, "n_heads": 1, "hidden_dim": 8}
    config = getattr(transformers, f"{kind}Config")(vocab_size=20, max_position_embeddings=34, **sizes)
    network = getattr(transformers, f"{kind}Model")(config).eval()
    tokenizer = SimpleNamespace(model_max_length=10**30)
    assert longest_text(tokenizer, config, network) == longest
    ids = torch.full((1, longest), 7)
    assert network(input_ids=ids).last_hidden_state.shape == (1, longest, 8)
    with pytest.raises((IndexError, RuntimeError)):
        network(input_ids=torch.full((1, longest + 1), 7))


def test_a_tokenizer_with_tokens_that_the_network_lacks_is_refused(tiny_bert):
    network = SimpleNamespace(get_input_embeddings=lambda: torch.nn.Embedding(5, 2))
    tokenizer = SimpleNamespace(get_vocab=lambda: {"a": 4, "b": 5})
    with pytest.raises(GraftError, match=r"backbone\.name=mixed: its tokenizer has tokens up to number 5"):
        check_tokens("mixed", tokenizer, network)
