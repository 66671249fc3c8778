import pytest
import torch
from test_run import cache, run  # noqa: F401  fixtures
from torch import nn

from graft import load_run
from graft.errors import GraftError
from graft.heads.base import HeadContext, new_head
from graft.heads.linear import LinearHead
from graft.heads.mlp import ACTIVATIONS, MLPHead
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


@pytest.mark.slow
def test_a_head_that_asks_for_its_classes_trains_and_predicts_from_its_folder(run) -> None:  # noqa: F811
    options = ["head._target_=test_heads.PromptedHead", "backbone.weights=null", "strategy=scratch"]
    _, folder = run(*options, "training.epochs=1", "allow=[test_heads]")
    model = load_run(folder, allow=["test_heads"])
    assert model.head.prompts == [f"a photo of a {digit}" for digit in range(10)]
