"""Causal language models with random weights, made on the spot: what reads from left to right, pooled at its end."""

import pytest
import torch
import transformers

from graft.backbones.causal_lm import CausalLMBackbone
from graft.backbones.text import last_pooled
from graft.errors import GraftError
from graft.inputs.base import Fields
from graft.strategies.lora import LoRA
from graft.weights.embedding import load_embedding
from graft.weights.loading import load_weights
from tests.networks_on_disk import write_language_model

SIZES = {"vocab_size": 14, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**SIZES, intermediate_size=24, max_position_embeddings=32),
    "gpt2": lambda: transformers.GPT2Config(vocab_size=14, n_embd=16, n_layer=2, n_head=2, n_positions=32),
}


@pytest.fixture(params=CONFIGS)
def folder(request, tiny_bert, tmp_path):
    """The folder of a random model and of a tokenizer."""
    return str(write_language_model(tmp_path / "model", tiny_bert, "CausalLM", CONFIGS[request.param]()))


def padded(rows, left):
    longest = max(map(len, rows))
    ids = [[0] * (longest - len(row)) + row if left else row + [0] * (longest - len(row)) for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) if left else [1] * len(row) + [0] * (longest - len(row))
            for row in rows]  # fmt: skip
    return Fields({"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)})


def test_the_last_token_is_found_on_either_side():
    tokens = torch.arange(12.0).view(2, 3, 2)
    assert last_pooled(tokens, torch.tensor([[1, 1, 0], [0, 1, 1]])).tolist() == [[2, 3], [10, 11]]


def test_features_are_the_last_tokens_wherever_padding_is(folder):
    backbone = CausalLMBackbone(folder, max_length=16).double().eval()
    report = load_weights(backbone, "pretrained")
    assert report.matched == report.total
    rows = [[4, 5, 6, 7, 8], [9, 10]]
    right, left = backbone(padded(rows, left=False)), backbone(padded(rows, left=True))
    torch.testing.assert_close(right, left, rtol=1e-6, atol=1e-6)
    for number, row in enumerate(rows):
        ids = torch.tensor([row])
        alone = backbone.network(input_ids=ids).last_hidden_state[0, -1]
        torch.testing.assert_close(right[number], alone, rtol=1e-6, atol=1e-6)
    assert backbone.tokens(padded(rows, left=False)).values.shape == (2, 5, 16)
    owned = [name for stage in backbone.stages for name in backbone.stage_parameters(stage.name)]
    assert sorted(owned) == sorted(name for name, _ in backbone.named_parameters())


def test_lora_adapts_and_folds_into_plain_weights(folder):
    pytest.importorskip("peft")
    backbone = CausalLMBackbone(folder, max_length=16).eval()
    x, names = padded([[4, 5, 6], [9, 10]], left=False), [*backbone.state_dict()]
    before = backbone(x)
    lora = LoRA()
    lora.prepare(backbone)
    torch.testing.assert_close(backbone(x), before)
    trained = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    assert trained
    with torch.no_grad():
        for parameter in trained:
            parameter.add_(0.3 * torch.randn_like(parameter))
    tuned = backbone(x)
    assert not torch.allclose(tuned, before)
    lora.merge(backbone)
    torch.testing.assert_close(backbone(x), tuned, rtol=1e-4, atol=1e-5)
    assert [*backbone.state_dict()] == names


def test_its_tokens_vectors_move_alone_and_other_models_are_named(folder, tiny_bert):
    backbone = CausalLMBackbone(folder, max_length=16)
    before = {name: value.clone() for name, value in backbone.network.state_dict().items()}
    assert load_embedding(backbone, "pretrained").matched == 1
    changed = [name for name, value in backbone.network.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == [f"{backbone.embedding}.weight"]
    with pytest.raises(GraftError, match=r"t5 is no causal language model. Choose one, or backbone=seq2seq"):
        backbone.check_config("t5", transformers.T5Config())
