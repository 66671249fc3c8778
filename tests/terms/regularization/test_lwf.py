import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from graft.errors import GraftError
from graft.model.heads import FirstOutputs
from graft.terms.regularization.lwf import LwF, distillation


def softened(logits, temperature):
    """y_i^(1/T) / sum_j y_j^(1/T) of a softmax y, as the paper writes it."""
    exps = [math.exp(v) for v in logits]
    roots = [(e / sum(exps)) ** (1 / temperature) for e in exps]
    return [r / sum(roots) for r in roots]


def cross_entropy_and_entropy(new, old, temperature):
    """The paper's loss, mean over samples of -sum y'_o log y^'_o, and the old outputs' own entropy."""
    losses, entropies = [], []
    for row, old_row in zip(new.tolist(), old.tolist(), strict=True):
        recorded, current = softened(old_row, temperature), softened(row, temperature)
        losses.append(-sum(r * math.log(c) for r, c in zip(recorded, current, strict=True)))
        entropies.append(-sum(r * math.log(r) for r in recorded))
    return sum(losses) / len(losses), sum(entropies) / len(entropies)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_value_is_the_papers_cross_entropy_less_the_entropy_of_the_old_outputs(temperature):
    new, old = torch.randn(2, 7, 4, dtype=torch.float64) * 3
    loss, entropy = cross_entropy_and_entropy(new, old, temperature)
    assert distillation(new, old, temperature).item() == pytest.approx(loss - entropy, rel=1e-10)


def test_the_gradient_is_that_of_the_papers_cross_entropy():
    new, old = torch.randn(2, 5, 4, dtype=torch.float64) * 3
    (gradient,) = torch.autograd.grad(distillation(new.requires_grad_(), old, 3.0), new)
    expected = torch.zeros(5, 4, dtype=torch.float64)  # d/dz of it: (softmax(z/T) - y'_o) / T, mean over samples
    for n in range(5):
        current, recorded = softened(new[n].tolist(), 3.0), softened(old[n].tolist(), 3.0)
        for k in range(4):
            expected[n, k] = (current[k] - recorded[k]) / 3.0 / 5
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


def test_the_outputs_of_the_untouched_net_cost_nothing_and_a_moved_one_does(make_setup, make_step):
    context = make_setup(dtype=torch.float64)
    term = LwF()
    term.prepare(context)
    assert term(make_step(context)).item() == pytest.approx(0, abs=1e-12)
    with torch.no_grad():
        for parameter in context.backbone.parameters():
            parameter.add_(torch.randn_like(parameter))
    step = make_step(context)
    old = context.teacher.logits(step.inputs["target"])
    new = term.classifier(context.backbone(step.inputs["target"]))
    loss, entropy = cross_entropy_and_entropy(new, old, 3.0)
    assert loss - entropy > 1e-4
    assert term(step).item() == pytest.approx(loss - entropy, rel=1e-9)


def test_it_sees_the_samples_of_every_domain(make_setup, make_step):
    context = make_setup(dtype=torch.float64)
    term = LwF()
    term.prepare(context)
    with torch.no_grad():
        term.classifier.weight.mul_(3)
    step, other = make_step(context), make_step(context, size=4, seed=1)
    alone = [term(one).item() for one in (step, other)]
    joint = replace(
        step,
        batch={"target": step.batch["target"], "source": other.batch["target"]},
        seen={"target": step.seen["target"], "source": other.seen["target"]},
    )
    assert term(joint).item() == pytest.approx((8 * alone[0] + 4 * alone[1]) / 12, rel=1e-9)


def test_a_step_moves_backbone_and_copied_head_and_neither_the_teacher_nor_the_old_head(make_setup, make_step):
    context = make_setup()
    term = LwF()
    term.prepare(context)
    context.backbone.train()
    old_head = context.pretrained_head.weight.clone()
    before = context.teacher.logits(make_step(context).inputs["target"])
    copied = term.classifier.weight.clone()
    optimizer = torch.optim.SGD([*context.backbone.parameters(), *term.parameters()], lr=0.1)
    term(make_step(context)).backward()  # BatchNorm in training mode: the outputs differ from the teacher's
    assert all(p.grad is not None and p.grad.any() for p in [*context.backbone.parameters(), *term.parameters()])
    optimizer.step()
    assert not torch.equal(term.classifier.weight, copied)
    assert torch.equal(context.pretrained_head.weight, old_head)
    context.teacher._last = None
    torch.testing.assert_close(context.teacher.logits(make_step(context).inputs["target"]), before, rtol=0, atol=0)
    assert set(term.state_dict()) == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pretrained": False}, "backbone.weights=imagenet, source"),
        ({"own_head": False}, "these weights have none.*backbone.weights=source"),
        ({"own_head": False, "single": True}, "single output"),
    ],
)
def test_refuses_what_has_no_old_outputs_to_keep(make_setup, changes, message):
    single = changes.pop("single", False)
    context = make_setup(**changes)
    if single:
        context.pretrained_head = nn.Linear(6, 1)
    with pytest.raises(GraftError, match=message):
        LwF().prepare(context)


def test_refuses_a_temperature_of_nothing():
    with pytest.raises(GraftError, match="temperature=0"):
        LwF(temperature=0)


def test_a_grown_heads_own_old_outputs_are_distilled(make_setup, make_step):
    context = make_setup(own_head=False, dtype=torch.float64)
    head, old = context.target_head, 2
    context.backbone.set_pretrained_head(FirstOutputs(copy.deepcopy(head), old))
    context = replace(context, pretrained_head=context.backbone.pretrained_head, old_outputs=old)
    term = LwF()
    term.prepare(context)
    assert [*term.parameters()] == []  # no classifier of its own
    assert term(make_step(context)).item() == pytest.approx(0, abs=1e-12)
    with torch.no_grad():
        head.weight[old:].add_(1.0)  # rows of new classes are free
    assert term(make_step(context)).item() == pytest.approx(0, abs=1e-12)
    with torch.no_grad():
        head.weight[:old].add_(torch.randn_like(head.weight[:old]))
    step = make_step(context)
    expected = distillation(step.logits["target"][:, :old], context.teacher.logits(step.inputs["target"]), 3.0)
    assert term(step).item() == pytest.approx(expected.item(), rel=1e-9)
    assert expected > 1e-4
