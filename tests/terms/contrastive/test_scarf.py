"""SCARF: what is corrupted and by what, the loss against its formula, and gradients."""

import numpy as np
import pytest
import torch
import toy

from graft.backbones.tabular import mlp
from graft.errors import GraftError
from graft.inputs.base import DomainBatch, Fields
from graft.inputs.columns import Column, Columns
from graft.terms.base import TrainStep
from graft.terms.contrastive.scarf import SCARF, contrast_of_rows, corrupted

COLUMNS = Columns(
    (
        *(Column(name, "numeric", mean=0.0, std=1.0, median=0.0) for name in "abc"),
        *(Column(name, "categorical", categories=("x", "y", "z")) for name in "de"),
    )
)


def rows(size):
    """Rows whose every value says which row and column it is of."""
    numbers = torch.arange(size)[:, None] + torch.arange(3) * 1000.0
    codes = torch.arange(size)[:, None] + torch.arange(2) * 1000
    return Fields({"numbers": numbers, "missing": numbers + 5e5, "codes": codes})


def test_a_fraction_of_every_rows_columns_comes_from_other_rows_of_the_same_column():
    torch.manual_seed(0)
    before = rows(500)
    after = corrupted(before, 0.6)
    assert torch.equal(after["missing"], after["numbers"] + 5e5), "a number and whether it is missing stay together"
    own = torch.cat([after["numbers"] == before["numbers"], after["codes"] == before["codes"]], dim=1)
    assert set((~own).sum(1).tolist()) <= {2, 3}, "3 of 5 columns, now and then by the own value"
    assert float((~own).float().mean()) == pytest.approx(0.6, abs=0.01)
    for name in ("numbers", "codes"):
        assert torch.equal(after[name] // 1000, before[name] // 1000), "the column is the same"
    both = (~own[:, 0]) & (~own[:, 1])
    assert float((after["numbers"][both, 0] == after["numbers"][both, 1] - 1000).float().mean()) < 0.05
    assert (~torch.eq(corrupted(before, 0.01)["numbers"], before["numbers"])).any(), "one column at least"


def test_the_loss_is_that_of_the_paper_up_to_a_constant():
    torch.manual_seed(0)
    first, second = torch.randn(2, 6, 3, dtype=torch.float64)
    a, b = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (first.numpy(), second.numpy()))
    s = np.exp(a @ b.T / 0.7)
    paper = np.mean([-np.log(s[i, i] / (s[i].sum() / 6)) for i in range(6)])
    assert float(contrast_of_rows(first, second, 0.7)) == pytest.approx(paper + np.log(6), rel=1e-12)


def test_gradients_reach_every_column_and_one_row_is_refused():
    torch.manual_seed(0)
    backbone, term = mlp(COLUMNS, width=8, blocks=1, dropout=0.0), SCARF(projection_size=4)
    term.prepare(toy.term_context(backbone))

    def step(size):
        inputs = backbone.example_inputs(size)
        return TrainStep({"source": DomainBatch(inputs)}, {"source": backbone(inputs)}, {}, 0.0)

    term(step(16)).backward()
    for parameter in (backbone.network.columns.numeric.weight, *term.projector.parameters()):
        assert parameter.grad.abs().sum() > 0
    with pytest.raises(GraftError, match="batch has one"):
        term(step(1))
