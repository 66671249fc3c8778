import numpy as np
import pytest
import torch

from graft.errors import GraftError
from graft.terms.base import TrainStep
from graft.terms.regularization.bss import BSS, smallest_singular_values

from .cases import setup_of, step_of, target_samples


def step_with(*features):
    named = dict(zip(("source", "target"), features, strict=False))
    return TrainStep({}, named, {}, 0.0)


@pytest.mark.parametrize("shape", [(8, 5), (5, 8)])
@pytest.mark.parametrize("k", [1, 3])
def test_value_and_gradient_are_those_of_the_formula(shape, k):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)
    value = BSS(k=k)(step_with(features))
    value.backward()

    f = features.detach().numpy()
    gram = f @ f.T if shape[0] < shape[1] else f.T @ f  # its eigenvalues are the squared singular values
    eigenvalues, vectors = np.linalg.eigh(gram)  # ascending
    assert value.item() == pytest.approx(eigenvalues[:k].sum(), rel=1e-9)
    weak = vectors[:, :k] @ vectors[:, :k].T  # d lambda = 2 v^T f^T df v, so the gradient is 2 f projected on them
    expected = 2 * weak @ f if shape[0] < shape[1] else 2 * f @ weak
    np.testing.assert_allclose(features.grad.numpy(), expected, rtol=1e-7, atol=1e-9)


def test_the_domains_make_one_batch():
    source, target = torch.randn(4, 6), torch.randn(3, 6)
    torch.testing.assert_close(BSS(k=2)(step_with(source, target)), BSS(k=2)(step_with(torch.cat([source, target]))))


@pytest.mark.parametrize("matrix", [torch.eye(4), torch.zeros(4, 3), torch.ones(5, 3)])
def test_the_gradient_is_finite_where_singular_values_repeat_or_vanish(matrix):
    features = matrix.clone().requires_grad_()
    BSS(k=2)(step_with(features)).backward()
    assert features.grad.isfinite().all()


def test_half_precision_is_computed_in_single():
    features = torch.randn(6, 4).bfloat16()
    values = smallest_singular_values(features, 2)
    torch.testing.assert_close(values, torch.linalg.svdvals(features.float())[-2:])


def test_a_smaller_last_batch_uses_what_there_is_and_a_k_that_never_fits_is_refused(tiny_backbone):
    term = BSS(k=5)
    term.prepare(setup_of(tiny_backbone()))  # 6 features
    with pytest.raises(GraftError, match=r"term.bss.k=5 is more than a batch's samples.*at most 4"):
        term(step_with(torch.randn(4, 6)))
    term(step_with(torch.randn(8, 6)))
    last = torch.randn(3, 6)
    torch.testing.assert_close(term(step_with(last)), last.square().sum())  # all singular values: the squared norm
    with pytest.raises(GraftError, match=r"term.bss.k=7 is more than the tiny's features.*at most 6"):
        BSS(k=7).prepare(setup_of(tiny_backbone()))
    with pytest.raises(GraftError, match=r"bss.k=0"):
        BSS(k=0)


def test_it_shrinks_the_weakest_direction_of_a_real_network_and_needs_no_pretrained_weights(tiny_backbone):
    context = setup_of(tiny_backbone(), pretrained=False)
    term = BSS()
    term.prepare(context)
    optimizer = torch.optim.SGD(context.backbone.parameters(), lr=0.05)
    batch = {"target": target_samples(context.backbone)}
    before = torch.linalg.svdvals(step_of(context, batch).all_features.detach())
    for _ in range(20):
        optimizer.zero_grad()
        term(step_of(context, batch)).backward()
        optimizer.step()
    after = torch.linalg.svdvals(step_of(context, batch).all_features.detach())
    assert after[-1] < 0.5 * before[-1]
    assert after[0] > 0.8 * before[0]
