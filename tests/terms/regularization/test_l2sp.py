import copy

import pytest
import torch
from torch import nn

from graft.errors import GraftError
from graft.terms.regularization.l2sp import L2SP, l2_sp_penalty

from .cases import disturb, setup_of, step_of, target_samples, train


@pytest.fixture
def moved(tiny_backbone):
    """A term, its setup after training away from the start, and the pretrained weights by name."""
    context = setup_of(tiny_backbone().double())
    before = {name: value.clone() for name, value in context.backbone.named_parameters()}
    term = L2SP(weight=0.01, head_ratio=0.3)
    term.prepare(context)
    disturb(context.backbone)
    return term, context, before


def step(context):
    return step_of(context, {"target": target_samples(context.backbone)})


def test_value_and_gradient_are_those_of_the_formula(moved):
    term, context, before = moved
    value = term(step(context))
    value.backward()

    expected = 0.0
    for name, w in context.backbone.named_parameters():
        for now, then in zip(w.flatten().tolist(), before[name].flatten().tolist(), strict=True):
            expected += 0.5 * (now - then) ** 2
    for w in context.target_head.parameters():
        for now in w.flatten().tolist():
            expected += 0.3 * 0.5 * now**2
    assert value.item() == pytest.approx(expected, rel=1e-12)
    for name, w in context.backbone.named_parameters():
        torch.testing.assert_close(w.grad, w.detach() - before[name], rtol=1e-12, atol=1e-14)
    for w in context.target_head.parameters():
        torch.testing.assert_close(w.grad, 0.3 * w.detach(), rtol=1e-12, atol=1e-14)


def test_the_gradient_is_right_by_finite_differences():
    w, w0, head = torch.randn(3, 5, 4, dtype=torch.float64).unbind()
    w.requires_grad_(), head.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: l2_sp_penalty([(a, w0)], [b], 2.0), (w, head))


def test_at_the_start_only_the_head_counts(tiny_backbone):
    context = setup_of(tiny_backbone())
    term = L2SP(head_ratio=2.0)
    term.prepare(context)
    expected = sum(w.square().sum() for w in context.target_head.parameters())
    torch.testing.assert_close(term(step(context)), expected)


def test_frozen_parameters_and_added_ones_do_not_count(moved, tiny_backbone):
    term, context, before = moved
    for name, w in context.backbone.named_parameters():
        w.requires_grad_(name.startswith("network.layer1"))
    context.target_head.requires_grad_(False)
    trained = {n: w for n, w in context.backbone.named_parameters() if n.startswith("network.layer1")}
    expected = sum((w - before[n]).square().sum() / 2 for n, w in trained.items())
    torch.testing.assert_close(term(step(context)), expected)

    backbone = tiny_backbone()
    backbone.network.layer1.register_parameter("added", nn.Parameter(torch.ones(3)))
    context = setup_of(backbone, added_parameters=frozenset({"network.layer1.added"}))
    term = L2SP(head_ratio=0.0)
    term.prepare(context)
    with torch.no_grad():
        backbone.network.layer1.added += 1
    assert term(step(context)) == 0


def test_where_nothing_trains_the_value_is_0(moved):
    term, context, _ = moved
    context.backbone.requires_grad_(False)
    context.target_head.requires_grad_(False)
    assert term(step(context)) == torch.zeros(())


def test_it_pulls_the_weights_back(moved):
    term, context, before = moved
    train(term, context, steps=60, lr=0.5)
    for name, w in context.backbone.named_parameters():
        torch.testing.assert_close(w.detach(), before[name], rtol=0, atol=1e-12)
    assert max(w.abs().max() for w in context.target_head.parameters()) < 1e-3


def test_checkpoints_hold_nothing_of_it_and_it_moves_with_its_module(tiny_backbone):
    context = setup_of(tiny_backbone())
    term = L2SP()
    term.prepare(context)
    assert term.state_dict() == {}
    assert not list(term.parameters())
    both = nn.ModuleList([context.backbone, context.target_head, term]).double()
    assert {buffer.dtype for buffer in term.buffers()} == {torch.float64}
    assert term(step(context)).dtype == torch.float64
    twin = copy.deepcopy(both)
    disturb(twin[0])
    assert twin[2](step(context)) > term(step(context))  # the copy looks at the copied backbone


def test_it_needs_pretrained_weights_and_sensible_numbers(tiny_backbone):
    with pytest.raises(GraftError, match="l2sp needs pretrained weights"):
        L2SP().prepare(setup_of(tiny_backbone(), pretrained=False))
    with pytest.raises(GraftError, match=r"l2sp.weight=-1"):
        L2SP(weight=-1)
    with pytest.raises(GraftError, match=r"l2sp.head_ratio=-1"):
        L2SP(head_ratio=-1)
