"""Terms over several sources against the papers' formulas in numpy, in double precision, and their gradients."""

import numpy as np
import pytest
import torch
from torch import nn

from graft.backbones.cnn import cnn
from graft.errors import GraftError
from graft.inputs.base import DomainBatch
from graft.objectives.alpha import AlphaWeighted
from graft.tasks.multiclass import Multiclass
from graft.terms.base import TermContext, TrainStep
from graft.terms.generalization.groupdro import GroupDRO
from graft.terms.generalization.source_coral import SourceCORAL
from graft.terms.generalization.vrex import VREx

SOURCES = torch.tensor([2, 0, 1, 0, 2, 0, 1, 1, 0, 2])  # of the training samples
CLASSES, FEATURES = 3, 4
BATCHES = ([0, 1, 2, 3, 4, 5, 6], [9, 8, 1, 3, 0], [1, 3, 5], [7, 6, 2, 4, 9])  # the second lacks source 1
SMOOTHING = 0.1


def prepared(term, sources=SOURCES):
    task = Multiclass(label_smoothing=SMOOTHING)
    context = TermContext(
        backbone=cnn(size=8),
        heads={},
        target_head=nn.Identity(),
        pretrained_head=None,
        pretrained=False,
        num_classes=CLASSES,
        samples=lambda: [],
        source_samples=None,
        sources=sources,
        source_loss=task.loss,
    )
    term.check(context)
    term.prepare(context)
    return term.double()


def step_of(indices, seed):
    """A step on samples `indices`, and its logits, features and labels."""
    random = torch.Generator().manual_seed(seed)
    n = len(indices)
    logits = torch.randn(n, CLASSES, dtype=torch.float64, generator=random, requires_grad=True)
    features = torch.randn(n, FEATURES, dtype=torch.float64, generator=random, requires_grad=True)
    labels = torch.randint(CLASSES, (n,), generator=random)
    batch = DomainBatch(torch.zeros(n, 1), labels, torch.tensor(indices))
    return TrainStep({"source": batch}, {"source": features}, {"source": logits}, 0.0), logits, features, labels


def losses_of(logits, labels):
    """Cross entropy of every sample with smoothed labels `(n,)`, and its gradient `(n, K)`."""
    z = logits.detach().numpy()
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    wanted = np.full_like(p, SMOOTHING / CLASSES)
    wanted[np.arange(len(z)), labels.numpy()] += 1 - SMOOTHING
    return -(wanted * np.log(p)).sum(1), p - wanted


def by_source(indices):
    """Places in the batch of each source that it has."""
    numbers = SOURCES[indices].numpy()
    return {int(g): np.flatnonzero(numbers == g) for g in np.unique(numbers)}


def test_objective_and_groupdro_are_the_papers_loss():
    term, eta = prepared(GroupDRO(eta=0.3)), 0.3
    q = np.full(3, 1 / 3)
    for seed, indices in enumerate(BATCHES):
        step, logits, _, labels = step_of(indices, seed)
        mean = Multiclass(SMOOTHING).loss(logits, labels)
        whole = AlphaWeighted(1.0)({"source": mean}, 0.0) + term.weight * term(step)
        losses, slopes = losses_of(logits, labels)
        risks = {g: losses[places].mean() for g, places in by_source(indices).items()}
        for g, risk in risks.items():  # one by one, as in the authors' loop
            q[g] = q[g] * np.exp(eta * risk)
        q = q / q.sum()
        assert whole.item() == pytest.approx(sum(q[g] * risk for g, risk in risks.items()), rel=1e-12)
        whole.backward()
        expected = np.zeros_like(slopes)
        for g, places in by_source(indices).items():
            expected[places] = q[g] * slopes[places] / len(places)
        np.testing.assert_allclose(logits.grad.numpy(), expected, rtol=1e-9, atol=1e-14)
        np.testing.assert_allclose(term.group_weights.numpy(), q, rtol=1e-12)


def test_groupdros_weights_leave_out_a_loss_that_is_not_finite():
    term = prepared(GroupDRO())
    step, logits, *_ = step_of(BATCHES[0], 0)
    logits.data[0] = float("inf")
    assert not term(step).isfinite()
    assert torch.equal(term.group_weights, torch.full((3,), 1 / 3).double())


def test_vrex_is_the_variance_of_the_sources_losses_after_its_warmup():
    term = prepared(VREx(warmup_steps=2, warmup_factor=0.25))
    for number, indices in enumerate(BATCHES):
        step, logits, _, labels = step_of(indices, number)
        value = term(step)
        value.backward()
        losses, slopes = losses_of(logits, labels)
        groups = by_source(indices)
        risks = np.array([losses[places].mean() for places in groups.values()])
        factor = 0.25 if number < 2 else 1.0
        # half the mean squared difference of all pairs is the variance
        assert value.item() == pytest.approx(factor * ((risks[:, None] - risks) ** 2).mean() / 2, rel=1e-9, abs=1e-15)
        expected = np.zeros_like(slopes)
        for risk, places in zip(risks, groups.values(), strict=True):
            pull = 2 / len(risks) * (risk - risks.mean())
            expected[places] = factor * pull * slopes[places] / len(places)
        np.testing.assert_allclose(logits.grad.numpy(), expected, rtol=1e-9, atol=1e-14)
        term.after_step(number + 1)


def test_source_coral_is_the_mean_over_pairs_of_sources():
    term = prepared(SourceCORAL())
    for seed, indices in enumerate(BATCHES):
        step, _, features, _ = step_of(indices, seed)
        x = features.detach().numpy()
        groups = [x[places] for places in by_source(indices).values() if len(places) > 1]
        distances = [
            ((a.mean(0) - b.mean(0)) ** 2).mean() + ((np.cov(a.T) - np.cov(b.T)) ** 2).mean()
            for i, a in enumerate(groups)
            for b in groups[:i]
        ]
        expected = np.mean(distances) if distances else 0.0
        assert term(step).item() == pytest.approx(expected, rel=1e-12)
    step, _, features, _ = step_of(BATCHES[0], 0)

    def value(values):
        return term(TrainStep(step.batch, {"source": values}, step.logits, 0.0))

    assert torch.autograd.gradcheck(value, (features,))


def test_sources_with_the_same_features_are_no_distance_apart():
    term = prepared(SourceCORAL(), torch.tensor([0, 0, 1, 1, 2, 2]))
    step, _, features, _ = step_of([0, 1, 2, 3, 4, 5], 0)
    features.data.copy_(features.data[:2].repeat(3, 1))
    assert term(step).item() == pytest.approx(0, abs=1e-30)


def test_a_batch_of_one_source_gives_none_of_them_a_gradient():
    for term in (VREx(), SourceCORAL()):
        step, logits, features, _ = step_of(BATCHES[2], 0)
        value = prepared(term)(step)
        value.backward()
        grad = features.grad if isinstance(term, SourceCORAL) else logits.grad
        assert value.item() == 0
        assert not grad.any()


@pytest.mark.parametrize("term", [GroupDRO, VREx, SourceCORAL])
@pytest.mark.parametrize("sources", [None, torch.zeros(5, dtype=torch.int64)])
def test_one_source_is_refused(term, sources):
    with pytest.raises(
        GraftError, match=rf"term\.{term.name} compares several sources.*data\.sources=\[photo,cartoon\]"
    ):
        prepared(term(), sources)
