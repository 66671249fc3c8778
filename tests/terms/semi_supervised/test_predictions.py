"""Terms that learn from the target's own predictions, against the papers' formulas in double precision."""

import math

import pytest
import torch
from torch import nn

from graft.errors import GraftError
from graft.inputs.base import DomainBatch
from graft.terms.base import TrainStep
from graft.terms.entropy import entropies
from graft.terms.semi_supervised.fixmatch import FixMatch
from graft.terms.semi_supervised.information_maximisation import InformationMaximisation
from graft.terms.semi_supervised.self_training import SelfTraining
from graft.terms.semi_supervised.shot import SHOT, nearest_centres
from graft.terms.semi_supervised.tent import Tent
from tests.terms.alignment.steps import CLASSES, context_of


def logits_of(size=7, scale=2.0):
    generator = torch.Generator().manual_seed(0)
    return (scale * torch.randn(size, CLASSES, generator=generator, dtype=torch.float64)).requires_grad_()


def step_of(logits, indices=None, features=None):
    batch = DomainBatch(logits, indices=indices)
    return TrainStep({"target": batch}, {"target": logits if features is None else features}, {"target": logits}, 0.0)


def probabilities(logits):
    return logits.exp() / logits.exp().sum(1, keepdim=True)


def entropy(p):
    return sum(-v * v.log() for v in p)


def check_same(value, expected, logits):
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-13)
    ours, theirs = (torch.autograd.grad(one, logits, retain_graph=True)[0] for one in (value, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-13)
    assert ours.any()


def test_information_maximisation_is_the_papers():
    logits = logits_of()
    p = probabilities(logits)
    mean = sum(p) / len(p)
    expected = sum(entropy(row) for row in p) / len(p) - entropy(mean)
    check_same(InformationMaximisation()(step_of(logits)), expected, logits)
    assert torch.autograd.gradcheck(lambda x: InformationMaximisation()(step_of(x)), logits)


def test_information_is_greatest_for_sure_predictions_of_all_classes():
    sure = 50 * torch.eye(CLASSES, dtype=torch.float64)
    assert InformationMaximisation()(step_of(sure)).item() == pytest.approx(-math.log(CLASSES))
    assert InformationMaximisation()(step_of(sure[[0, 0, 0]])).item() == pytest.approx(0, abs=1e-12)


def test_tent_is_the_mean_entropy():
    logits = logits_of()
    check_same(Tent()(step_of(logits)), torch.stack([entropy(row) for row in probabilities(logits)]).mean(), logits)
    flat = torch.zeros(2, CLASSES)
    torch.testing.assert_close(entropies(flat), torch.full((2,), math.log(CLASSES)))
    assert entropies(torch.tensor([[1e4, 0.0, 0.0]])).item() == 0


def test_self_training_is_the_mean_over_classes_of_sure_samples():
    logits = logits_of(40)
    p, by_class = probabilities(logits), {}
    for row in p:
        if row.max() >= 0.9:
            by_class.setdefault(int(row.argmax()), []).append(-row.max().log())
    counts = [len(losses) for losses in by_class.values()]
    assert len(counts) > 1
    assert len(set(counts)) > 1
    expected = sum(sum(losses) / len(losses) for losses in by_class.values()) / len(by_class)
    check_same(SelfTraining()(step_of(logits)), expected, logits)


def test_self_training_is_0_where_nothing_is_sure():
    logits = logits_of(scale=0.1)
    value = SelfTraining()(step_of(logits))
    assert value == 0
    assert not torch.autograd.grad(value, logits)[0].any()


def test_fixmatch_is_the_papers(tiny_backbone):
    backbone, head = tiny_backbone().double().eval(), nn.Linear(6, CLASSES).double()
    with torch.no_grad():
        head.weight.mul_(20)
    term = FixMatch(threshold=0.6)
    term.prepare(context_of(backbone, head))
    generator = torch.Generator().manual_seed(1)
    weak, strong = (torch.randn(10, 1, 8, 8, generator=generator, dtype=torch.float64) * 3 for _ in range(2))
    batch = {"target": DomainBatch(weak, views={"weak": weak, "strong": strong})}
    value = term(TrainStep(batch, {}, {}, 0.0))
    q, p = (probabilities(head(backbone(view))) for view in (weak, strong))
    losses = [-row[int(label.argmax())].log() for row, label in zip(p, q.detach(), strict=True) if label.max() >= 0.6]
    assert 0 < len(losses) < 10
    moved = [*backbone.parameters(), *head.parameters()]
    expected = sum(losses) / 10
    assert value.item() == pytest.approx(expected.item(), rel=1e-10)
    for one, other in zip(torch.autograd.grad(value, moved), torch.autograd.grad(expected, moved), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-13)
    assert [name for name, _ in term.named_parameters()] == []


def cosine_labels(features, p):
    """SHOT's two rounds, by single samples and classes."""
    classes = [k for k in range(p.shape[1]) if (p.argmax(1) == k).any()]
    weights = p
    for _ in range(2):
        unit = [f / (f**2).sum() ** 0.5 for f in features]
        centres = {k: sum(w[k] * f for w, f in zip(weights, unit, strict=True)) / weights[:, k].sum() for k in classes}
        near = [max(classes, key=lambda k: float(f @ centres[k]) / float((centres[k] ** 2).sum()) ** 0.5) for f in unit]
        weights = torch.eye(p.shape[1], dtype=p.dtype)[near]
        classes = [k for k in classes if k in near]
    return torch.tensor(near)


def test_pseudo_labels_are_those_of_the_nearest_centre():
    generator = torch.Generator().manual_seed(2)
    centres = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    truth = torch.arange(24) % 3
    features = centres[truth] + 0.5 * torch.randn(24, 5, generator=generator, dtype=torch.float64)
    p = (2 * torch.randn(24, 4, generator=generator, dtype=torch.float64)).softmax(1)
    p[:, 3] = 0  # a class that nothing is predicted as
    labels = nearest_centres(features, p)
    assert labels.tolist() == cosine_labels(features, p).tolist()
    assert 3 not in labels
    scaled = features * torch.linspace(0.1, 9, 24, dtype=torch.float64)[:, None]
    assert torch.equal(nearest_centres(scaled, p), labels)  # lengths do not count


def test_shot_is_the_papers_and_renews_its_labels_after_every_sample(tiny_backbone):
    backbone, head = tiny_backbone().double().train(), nn.Linear(6, CLASSES).double()
    inputs = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    samples = [DomainBatch(inputs[rows], indices=rows) for rows in order.split(3)]
    term = SHOT(pseudo_weight=0.4)
    statistics = backbone.network.stem[1].running_mean.clone()
    term.prepare(context_of(backbone, head, samples=lambda: samples))
    assert torch.equal(backbone.network.stem[1].running_mean, statistics)
    assert backbone.training
    assert head.training
    with torch.no_grad():
        backbone.eval()
        first = cosine_labels(backbone(inputs), probabilities(head(backbone(inputs))))
    assert term.labels.tolist() == first.tolist()
    assert {name for name, _ in term.named_buffers()} == {"features", "probabilities", "labels", "seen"}

    logits = logits_of(8)
    p = probabilities(logits)
    mean = sum(p) / 8
    information = sum(entropy(row) for row in p) / 8 - entropy(mean)
    expected = information + 0.4 * -torch.stack([p[i, first[i]].log() for i in range(8)]).mean()
    features = torch.randn(8, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    check_same(term(step_of(logits, torch.arange(8), features)), expected, logits)
    assert term.labels.tolist() == cosine_labels(features, p.detach()).tolist()
    before = term.labels.clone()
    term(step_of(logits_of(5).flip(1), torch.arange(5), torch.randn(5, 6, dtype=torch.float64)))
    assert torch.equal(term.labels, before)  # 3 samples have not been seen since
    assert term.seen == 5


@pytest.mark.parametrize("kind", [InformationMaximisation, Tent, SelfTraining, FixMatch, SHOT])
def test_data_without_classes_are_refused(kind, tiny_backbone):
    with pytest.raises(GraftError, match=r"term\.\w+ compares class probabilities.*task=multiclass"):
        kind().check(context_of(tiny_backbone(), nn.Linear(6, 3), num_classes=None))
