"""VICReg and BYOL: their losses against independent computations in NumPy, gradients, and BYOL's moving average."""

import numpy as np
import pytest
import torch
import toy
from torch import nn

from graft.errors import GraftError
from graft.inputs.base import DomainBatch
from graft.terms.base import TrainStep
from graft.terms.pretext.byol import BYOL, decay_at, regression
from graft.terms.pretext.vicreg import EPSILON, VICReg, covariance, invariance, variance


@pytest.fixture
def prepared(tiny_backbone):
    """A term that has seen the backbone, and a step of two views of `samples` images."""

    def prepare(term, samples=6, progress=0.0):
        backbone = tiny_backbone()
        term.prepare(toy.term_context(backbone))
        torch.manual_seed(1)
        inputs, view = torch.randn(samples, 1, 8, 8), torch.randn(samples, 1, 8, 8)
        batch = {"source": DomainBatch(inputs, views={"weak": view})}
        return backbone, TrainStep(batch, {"source": backbone(inputs)}, {}, progress)

    return prepare


def test_vicreg_is_the_sum_of_the_paper():
    torch.manual_seed(0)
    first, second = (torch.randn(7, 4, dtype=torch.float64) * torch.tensor([0.2, 1, 2, 0.5]) for _ in range(2))
    a, b = first.numpy(), second.numpy()
    assert float(invariance(first, second)) == pytest.approx(np.mean((a - b) ** 2), rel=1e-12)
    hinge = [max(0, 1 - np.sqrt(np.var(a[:, j], ddof=1) + EPSILON)) for j in range(4)]
    assert float(variance(first)) == pytest.approx(np.mean(hinge), rel=1e-12)
    matrix = np.cov(a, rowvar=False)
    unlike = sum(matrix[i, j] ** 2 for i in range(4) for j in range(4) if i != j) / 4
    assert float(covariance(first)) == pytest.approx(unlike, rel=1e-12)
    term = VICReg(invariance_weight=3, variance_weight=5, covariance_weight=7)
    term.projector = nn.Identity()
    parts = 3 * invariance(first, second), 2.5 * (variance(first) + variance(second))
    expected = sum(parts) + 7 * (covariance(first) + covariance(second))
    torch.testing.assert_close(term.loss(first, second), expected, rtol=1e-12, atol=0)


def test_byol_regresses_vectors_of_length_one_and_its_decay_rises_to_one():
    torch.manual_seed(0)
    first, second = torch.randn(2, 5, 3, dtype=torch.float64)
    a, b = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (first.numpy(), second.numpy()))
    assert float(regression(first, second)) == pytest.approx(np.mean(np.sum((a - b) ** 2, axis=1)), rel=1e-12)
    assert [decay_at(p, 0.9) for p in (0.0, 0.5, 1.0)] == pytest.approx([0.9, 0.95, 1.0])


@pytest.mark.parametrize("make", [VICReg, BYOL])
def test_gradients_reach_backbone_and_what_is_behind_it(prepared, make):
    term = make(projection_size=5)
    backbone, step = prepared(term)
    term(step).backward()
    for module in (backbone, term.projector, *([term.predictor] if make is BYOL else [])):
        assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
        assert any(p.grad.abs().sum() > 0 for p in module.parameters())
    with pytest.raises(GraftError, match="batch has one"):
        term(prepared(term, samples=1)[1])


def test_the_average_moves_by_its_decay_and_never_by_a_gradient(prepared):
    term = BYOL(decay=0.75, projection_size=5)
    backbone, step = prepared(term, progress=0.5)
    before = [p.clone() for p in term.average.parameters()]
    term(step).backward()
    assert all(p.grad is None for p in term.average.parameters())
    with torch.no_grad():
        for parameter in (*backbone.parameters(), *term.projector.parameters()):
            parameter.add_(1.0)
    term.after_step(1)
    for old, new in zip(before, term.average.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.125)  # 1 less the decay 0.875 at half of training


def test_each_direction_of_byol_compares_the_two_views(prepared):
    """With one network on both sides and no predictor, the loss is that of the two views in both directions."""
    term = BYOL(projection_size=5)
    backbone, step = prepared(term)
    term.predictor = nn.Identity()
    first, second = step.inputs["source"], step.batch["source"].views["weak"]
    one, other = (term.projector(backbone(inputs)) for inputs in (first, second))
    torch.testing.assert_close(term(step), 2 * regression(one, other), rtol=1e-5, atol=1e-6)
