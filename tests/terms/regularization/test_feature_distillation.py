import math

import pytest
import torch

from graft.backbones.timm import TimmBackbone
from graft.errors import GraftError
from graft.terms.regularization.feature_distillation import FeatureDistillation, feature_distance

from .cases import disturb, setup_of, step_of, target_samples, train


def by_hand(features, pretrained, normalize):
    total = 0.0
    for f, f0 in zip(features.tolist(), pretrained.tolist(), strict=True):
        if normalize:
            dot = sum(a * b for a, b in zip(f, f0, strict=True))
            total += 1 - dot / math.sqrt(sum(a * a for a in f)) / math.sqrt(sum(b * b for b in f0))
        else:
            total += 0.5 * sum((a - b) ** 2 for a, b in zip(f, f0, strict=True))
    return total / len(features)


@pytest.mark.parametrize("normalize", [True, False])
def test_value_and_gradient_are_those_of_the_formula(normalize):
    generator = torch.Generator().manual_seed(0)
    features, pretrained = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)
    features.requires_grad_()
    value = feature_distance(features, pretrained, normalize)
    assert value.item() == pytest.approx(by_hand(features, pretrained, normalize), rel=1e-12)
    value.backward()
    for row in range(4):
        for column in range(5):
            shift = torch.zeros_like(pretrained)
            shift[row, column] = 1e-6
            ahead, behind = (by_hand(features + sign * shift, pretrained, normalize) for sign in (1, -1))
            assert features.grad[row, column].item() == pytest.approx((ahead - behind) / 2e-6, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("normalize", [True, False])
def test_it_is_0_at_the_start_and_pulls_back_afterwards(tiny_backbone, normalize):
    context = setup_of(tiny_backbone().double().eval())
    term = FeatureDistillation(normalize=normalize)
    term.prepare(context)
    batch = {"target": target_samples(context.backbone)}
    assert term(step_of(context, batch)).item() == pytest.approx(0, abs=1e-15)
    disturb(context.backbone, scale=0.3)
    values = train(term, context)
    assert values[0] > 1e-4
    assert values[-1] < 0.3 * values[0]


def test_the_teacher_stays_in_eval_and_frozen_and_out_of_checkpoints(tiny_backbone):
    context = setup_of(tiny_backbone(dropout=0.5))
    term = FeatureDistillation()
    term.prepare(context)
    weights = {name: value.clone() for name, value in context.teacher.backbone.state_dict().items()}
    context.backbone.train()
    term.train()
    train(term, context, steps=2)
    assert all(torch.equal(value, weights[name]) for name, value in context.teacher.backbone.state_dict().items())
    assert term.state_dict() == {}
    assert not list(term.parameters())


def test_every_domain_is_compared_with_what_the_teacher_makes_of_it(tiny_backbone):
    context = setup_of(tiny_backbone().double().eval())
    term = FeatureDistillation(normalize=False)
    term.prepare(context)
    batch = {"source": target_samples(context.backbone, 4, seed=8), "target": target_samples(context.backbone, 6)}
    assert term(step_of(context, batch)).item() == pytest.approx(0, abs=1e-15)
    disturb(context.backbone)
    value = term(step_of(context, batch))
    inputs = torch.cat([x for x, _ in batch.values()])
    expected = by_hand(context.backbone(inputs), context.teacher.backbone(inputs), normalize=False)
    assert value.item() == pytest.approx(expected, rel=1e-12)


def test_a_transformer_is_pulled_back_too():
    context = setup_of(TimmBackbone("vit_tiny_patch16_224", size=32).eval())
    term = FeatureDistillation()
    term.prepare(context)
    disturb(context.backbone, scale=0.02)
    values = train(term, context, steps=3, lr=0.01)
    assert values[-1] < values[0]


def test_it_needs_pretrained_weights_and_a_sensible_weight(tiny_backbone):
    with pytest.raises(GraftError, match="feature_distillation needs pretrained weights"):
        FeatureDistillation().prepare(setup_of(tiny_backbone(), pretrained=False))
    with pytest.raises(GraftError, match=r"feature_distillation.weight=-1"):
        FeatureDistillation(weight=-1)
