import numpy as np
import pytest
import torch
from small_run import config_in
from test_run import cache, run  # noqa: F401  fixtures
from torch import nn

import graft
from graft import load_run
from graft.backbones.lenet import lenet
from graft.backbones.outputs import Tokens, features_of
from graft.backbones.recurrent import RecurrentBackbone
from graft.backbones.text import mean_pooled
from graft.cli.job import execute
from graft.cli.notebook import check_composed
from graft.errors import GraftError
from graft.heads.base import HeadContext, context_for, new_head, seen_by, taken_by
from graft.heads.linear import LinearHead
from graft.heads.mlp import ACTIVATIONS, MLPHead
from graft.model.predictions import read
from graft.registry import trust


def test_linear_head_is_one_layer() -> None:
    head = LinearHead(8, 3)
    features = torch.randn(5, 8)
    torch.testing.assert_close(head(features), features @ head.linear.weight.T + head.linear.bias)


def test_mlp_head_is_dense_relu_dense() -> None:
    head = MLPHead(8, 3, hidden=[16]).eval()
    first, last = (layer for layer in head.layers if isinstance(layer, nn.Linear))
    features = torch.randn(5, 8)
    expected = (features @ first.weight.T + first.bias).clamp(min=0) @ last.weight.T + last.bias
    torch.testing.assert_close(head(features), expected)
    assert first.out_features == 16


def test_mlp_head_with_several_layers_and_dropout() -> None:
    head = MLPHead(8, 3, hidden=[16, 4], activation="gelu", dropout=0.5)
    assert [layer.out_features for layer in head.layers if isinstance(layer, nn.Linear)] == [16, 4, 3]
    assert [layer.p for layer in head.layers if isinstance(layer, nn.Dropout)] == [0.5, 0.5]
    features = torch.randn(5, 8)
    assert not torch.equal(head(features), head(features))
    head.eval()
    assert torch.equal(head(features), head(features))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(activation: str) -> None:
    assert MLPHead(8, 3, activation=activation)(torch.randn(2, 8)).shape == (2, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "rellu"}, "head.activation=rellu.*relu, gelu"),
        ({"hidden": []}, r"head.hidden=\[\].*head=linear"),
        ({"hidden": [0]}, r"head.hidden=\[0\]"),
        ({"dropout": 1.0}, r"head.dropout=1.0 .*\[0, 1\)"),
    ],
)
def test_wrong_options(options: dict, message: str) -> None:
    with pytest.raises(GraftError, match=message):
        MLPHead(8, 3, **options)


class PromptedHead(LinearHead):
    """A head that wants to know its classes by name."""

    def __init__(self, context: HeadContext, num_outputs: int) -> None:
        super().__init__(context.feature_size, num_outputs)
        self.prompts = [f"a photo of a {name}" for name in context.class_names or ()]


def test_a_head_gets_what_its_constructor_names() -> None:
    context = HeadContext(8, 2, ("cat", "dog"))
    trust(["test_heads"])
    head = new_head({"_target_": "test_heads.PromptedHead"}, context)
    assert (head.linear.weight.shape, head.prompts) == ((2, 8), ["a photo of a cat", "a photo of a dog"])
    plain = new_head({"_target_": "graft.heads.linear.LinearHead"}, context)
    assert plain.linear.weight.shape == (2, 8)
    with pytest.raises(GraftError, match="unexpected keyword argument 'depth'"):
        new_head({"_target_": "graft.heads.linear.LinearHead", "depth": 1}, context)


ATTENTION = {"_target_": "graft.heads.attention.AttentionHead", "hidden": 4}
TEXTS = ["one two three", "two", "three one four five"]


def test_attention_begins_as_the_mean_and_sees_nothing_behind_a_texts_end() -> None:
    backbone = RecurrentBackbone("lstm", TEXTS, embedding_size=4, hidden_size=3).eval()
    inputs = backbone.example_inputs(3)
    inputs.tensors["attention_mask"][1, 2:] = 0
    tokens = backbone.tokens(inputs)
    assert tokens.values.shape == (3, 8, 6)
    assert list(backbone.local(inputs)) == ["embedding", "layers.0"]
    head = new_head(ATTENTION, context_for(ATTENTION, backbone, 2, ("cat", "dog")))
    torch.testing.assert_close(head(tokens), head.linear(mean_pooled(tokens.values, tokens.mask)))
    assert torch.equal(features_of(seen_by(head, backbone, inputs)), backbone(inputs))
    nn.init.normal_(head.query.weight)
    before = head(tokens)
    tokens.values[1, 2:] = 100.0
    assert torch.equal(head(tokens), before)
    assert not torch.allclose(before, head.linear(mean_pooled(tokens.values, tokens.mask)))
    assert head.attention(tokens).sum(1).tolist() == pytest.approx([1, 1, 1])


def test_tokens_of_a_map_are_its_places() -> None:
    backbone = lenet("lenet", 16, 1).eval()
    images = backbone.example_inputs(2)
    tokens, maps = backbone.tokens(images), backbone.local(images)["conv2"]
    assert torch.equal(tokens.values[1, 0], maps[1, :, 0, 0])
    assert tokens.mask.shape == tokens.values.shape[:2] == (2, maps[0, 0].numel())
    first, second = tokens.split([1, 1])
    assert torch.equal(torch.cat([first.values, second.values]), tokens.values)


def test_what_has_no_tokens_is_refused(tmp_path) -> None:
    words = ["head=attention", "strategy=scratch", "backbone.weights=null"]
    with pytest.raises(GraftError, match="table backbone mlp gives features alone"):
        execute(config_in(tmp_path, "data=table", "backbone=mlp", *words))
    with pytest.raises(GraftError, match="`term=bi_tuning` with `head=attention`: it needs one vector a class"):
        check_composed(["experiment=resnet_ft", "term=[bi_tuning]", "head=attention"])


def test_tokens_come_with_the_features_of_the_same_pass() -> None:
    backbone = lenet("lenet", 28, 1).eval()
    images = backbone.example_inputs(3)
    head = new_head(ATTENTION, context_for(ATTENTION, backbone, 2, None))
    seen = seen_by(head, backbone, images)
    assert torch.equal(features_of(seen), backbone(images))
    assert torch.equal(taken_by(LinearHead(8, 2), seen), backbone(images))
    first, second = seen.split([2, 1])
    assert torch.equal(second.features, backbone(images)[2:])
    shorter = Tokens(second.values[:, :1], second.mask[:, :1])
    joined = Tokens.join([first, shorter])
    assert joined.mask.sum(1).tolist() == [*first.mask.sum(1).tolist(), 1]
    torch.testing.assert_close(head(joined), torch.cat([head(first), head(shorter)]))
    with pytest.raises(GraftError, match="does not run the backbone as a whole"):
        features_of(shorter)


class Middle(nn.Module):
    """A head that pools by itself, in a way of its own."""

    takes = "local"

    def __init__(self, context: HeadContext) -> None:
        super().__init__()
        self.linear = nn.Linear(context.local_size, context.num_outputs)

    def forward(self, tokens: Tokens) -> torch.Tensor:
        return self.linear(tokens.values[:, 0])


def test_a_term_on_what_a_head_pools_asks_for_it(tmp_path) -> None:
    words = ["term=[bss]", "head._target_=test_heads.Middle", "allow=[test_heads]", "backbone.weights=null"]
    with pytest.raises(GraftError, match=r"term\.bss looks at the vectors that the head classifies.*pooled\(tokens\)"):
        execute(
            config_in(
                tmp_path, "experiment=resnet_ft", "backbone=lenet", "strategy=scratch", "data.source=null", *words
            )
        )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["image", "text"])
def test_attention_trains_and_predicts_from_its_folder(kind, tmp_path) -> None:
    random = np.random.default_rng(0)
    if kind == "image":
        inputs = [random.integers(0, 128, (32, 32, 3), dtype=np.uint8) + np.uint8(99 * (i % 2)) for i in range(40)]
        words = ["data=image_folder", "backbone=mobilenet_v2", "data.image_size=32"]
    else:
        inputs = [" ".join(random.permutation([*"abcdefgh", ["good", "bad"][i % 2]])) for i in range(40)]
        words = ["data=text", "backbone=lstm"]
    words += [f"data/domain@data.target={kind}_pairs", "head=attention", "training.epochs=2", "training.threads=1"]
    samples = [(one, "ab"[index % 2]) for index, one in enumerate(inputs)]
    values = {"data.target.samples": samples, "paths.run_dir": tmp_path / "run", "paths.cache_dir": tmp_path}
    graft.train(*words, "backbone.weights=null", "strategy=scratch", "logger=csv", "baselines=none", **values)
    predicted = load_run(tmp_path / "run").predict(inputs)
    kept = read(tmp_path / "run" / "predictions.parquet")["target"]
    numbers = [int(name.removeprefix("samples[").removesuffix("]")) for name in kept["sample"]]
    np.testing.assert_allclose(predicted.probabilities[numbers], kept["probabilities"], atol=1e-5)
    assert [predicted.labels[number] for number in numbers] == kept["prediction"]


@pytest.mark.slow
def test_a_head_that_asks_for_its_classes_trains_and_predicts_from_its_folder(run) -> None:  # noqa: F811
    options = ["head._target_=test_heads.PromptedHead", "backbone.weights=null", "strategy=scratch"]
    _, folder = run(*options, "training.epochs=1", "allow=[test_heads]")
    model = load_run(folder, allow=["test_heads"])
    assert model.head.prompts == [f"a photo of a {digit}" for digit in range(10)]
