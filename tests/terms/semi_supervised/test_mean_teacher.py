"""Mean Teacher against its formulas, written out in double precision."""

import copy
import math

import pytest
import torch
from torch import nn

from graft.errors import GraftError
from graft.inputs.base import DomainBatch
from graft.terms.base import TermContext, TrainStep
from graft.terms.semi_supervised.mean_teacher import MeanTeacher, ramp

CLASSES = 3


def context_of(backbone, num_classes=CLASSES):
    torch.manual_seed(0)
    backbone = backbone.double().train()
    head = nn.Linear(backbone.feature_size, CLASSES).double()
    return TermContext(
        backbone=backbone,
        heads={"shared": head},
        target_head=head,
        pretrained_head=None,
        pretrained=False,
        num_classes=num_classes,
        samples=lambda: [],
        source_samples=None,
    )


def step_of(context, seed, progress=0.0):
    generator = torch.Generator().manual_seed(seed)
    inputs, view = torch.randn(2, 6, 1, 8, 8, generator=generator, dtype=torch.float64)
    features = context.backbone(inputs)
    batch = DomainBatch(inputs, views={"weak": view})
    return TrainStep({"target": batch}, {"target": features}, {"target": context.target_head(features)}, progress)


def probabilities(logits):
    return logits.exp() / logits.exp().sum(1, keepdim=True)


def test_value_gradient_and_teacher_are_the_papers_over_several_steps(tiny_backbone):
    context, term = context_of(tiny_backbone()), MeanTeacher(decay=0.7, ramp_up_fraction=0.5)
    term.prepare(context)
    student = nn.Sequential(context.backbone, context.target_head)
    mine = copy.deepcopy(student)  # the student of the independent computation
    teacher = copy.deepcopy(student)
    optimizers = [torch.optim.SGD(one.parameters(), lr=0.1) for one in (student, mine)]
    for number, weight in enumerate([math.exp(-5), math.exp(-5 * 0.25), 1.0, 1.0]):
        progress = number / 4
        step = step_of(context, number, progress)
        value = term(step)

        x, view = step.inputs["target"], step.batch["target"].views["weak"]
        with torch.no_grad():
            taught = probabilities(teacher(view))
        difference = probabilities(mine(x)) - taught
        expected = weight * (difference**2).sum() / (len(x) * CLASSES)
        assert value.item() == pytest.approx(expected.item(), rel=1e-9)
        for optimizer, loss in zip(optimizers, (value, expected), strict=True):
            optimizer.zero_grad()
            loss.backward()
        for ours, theirs in zip(student.parameters(), mine.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-12)
        for optimizer in optimizers:
            optimizer.step()
        term.after_step(number + 1)
        decay = min(1 - 1 / (number + 2), 0.7)  # 1/2, 2/3, 0.7, ...
        with torch.no_grad():
            for average, p in zip(teacher.parameters(), mine.parameters(), strict=True):
                average.copy_(decay * average + (1 - decay) * p)
        for ours, theirs in zip(term.teacher.parameters(), teacher.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)
    assert value > 0


def test_the_ramp_rises_from_exp_minus_five_to_one():
    assert ramp(0.0, 0.25) == pytest.approx(math.exp(-5))
    assert ramp(0.125, 0.25) == pytest.approx(math.exp(-1.25))
    assert ramp(0.25, 0.25) == ramp(1.0, 0.25) == ramp(0.0, 0.0) == 1.0


def test_the_teacher_does_not_train_follows_the_networks_modes_and_is_in_the_state(tiny_backbone):
    context, term = context_of(tiny_backbone()), MeanTeacher()
    term.prepare(context)
    assert [name for name, p in term.named_parameters() if p.requires_grad] == []
    assert {name.split(".")[0] for name in term.state_dict()} == {"teacher"}
    context.backbone.eval()
    term.train()
    before = copy.deepcopy(term.teacher.state_dict())
    term(step_of(context, 0))
    after = term.teacher.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)  # BatchNorm statistics too
    context.backbone.train()
    term(step_of(context, 0))
    assert any(not torch.equal(before[name], value) for name, value in term.teacher.state_dict().items())


def test_data_without_classes_and_values_out_of_range_are_refused(tiny_backbone):
    with pytest.raises(GraftError, match=r"term\.mean_teacher.*task=multiclass"):
        MeanTeacher().prepare(context_of(tiny_backbone(), num_classes=None))
    with pytest.raises(GraftError, match=r"term\.mean_teacher\.decay=1"):
        MeanTeacher(decay=1.0)
