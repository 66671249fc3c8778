import pytest
import torch
from torch import nn

from graft.errors import GraftError
from graft.heads.linear import LinearHead
from graft.heads.mlp import ACTIVATIONS, MLPHead


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
