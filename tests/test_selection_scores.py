"""Scores of rules without target labels, each against a computation in double precision from its paper's formula."""

import math

import numpy as np
import pytest
import torch

from graft.data.samples import generator
from graft.errors import GraftError
from graft.selection.accuracy import estimated_accuracy
from graft.selection.base import check_rule
from graft.selection.candidate import Rows, fixed_rows
from graft.selection.circular import Circular
from graft.selection.dev import DEV, with_control_variate
from graft.selection.information_maximisation import InformationMaximisation
from graft.selection.logistic import STRENGTH
from graft.selection.mixval import MixVal
from graft.selection.snd import SND
from graft.tasks.binary import Binary
from graft.tasks.multiclass import Multiclass
from graft.tasks.regression import Regression

K = 3


class Fixed:
    """A candidate whose network is a matrix on features that are its inputs."""

    def __init__(self, seed=0, shift=0.8, samples=40):
        random = np.random.default_rng(seed)
        self.weights = random.normal(size=(4, K))
        found = {}
        for key, offset in ((("source", "train"), 0.0), (("source", "val"), 0.0), (("target", "val"), shift)):
            x = random.normal(size=(samples, 4)) + offset
            found[key] = self.of(x, labels=(x @ self.weights + random.normal(size=(samples, K))).argmax(axis=1))
        self.found = found

    def of(self, x, labels=None):
        x = torch.from_numpy(x)
        return Rows(x, x @ torch.from_numpy(self.weights), None if labels is None else torch.from_numpy(labels))

    def rows(self, domain, split="val"):
        return self.found[domain, split]

    def mixed(self, partners, weight):
        x = self.rows("target").features
        return self.of((weight * x + (1 - weight) * x[partners]).numpy())


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def logistic(x, y, classes):
    """Weights of multinomial logistic regression with sklearn's penalty, by Newton's method, for scaled rows."""
    mean = x.mean(axis=0)
    scale = 1 / math.sqrt(((x - mean) ** 2).sum() / len(x))
    rows = np.hstack([(x - mean) * scale, np.ones((len(x), 1))])
    w, hot = np.zeros((rows.shape[1], classes)), np.eye(classes)[y]
    penalty = np.diag([1.0] * x.shape[1] + [0.0]) / STRENGTH
    penalty *= 2 if classes == 2 else 1  # sklearn has one vector for two classes, the difference of these two
    for _ in range(50):
        p = softmax(rows @ w)
        gradient = (rows.T @ (p - hot) + penalty @ w).T.ravel()
        hessian = np.zeros((classes * rows.shape[1],) * 2)
        for a in range(classes):
            for b in range(classes):
                d = p[:, a] * ((a == b) - p[:, b])
                block = rows.T @ (rows * d[:, None]) + (a == b) * penalty
                n = rows.shape[1]
                hessian[a * n : (a + 1) * n, b * n : (b + 1) * n] = block
        w -= (np.linalg.pinv(hessian) @ gradient).reshape(classes, -1).T
    return lambda of: softmax(np.hstack([(of - mean) * scale, np.ones((len(of), 1))]) @ w)


def test_information_maximisation_is_the_mean_divergence_from_the_mean_prediction():
    p = softmax(Fixed().rows("target").logits.numpy())
    divergences = [sum(a * math.log(a / b) for a, b in zip(one, p.mean(axis=0), strict=True)) for one in p]
    assert InformationMaximisation().score(Fixed()) == pytest.approx(sum(divergences) / len(p), rel=1e-12)
    sure = Rows(torch.zeros(4, 1), 1e4 * torch.eye(2, dtype=torch.float64).repeat(2, 1))
    one_sided = Rows(torch.zeros(4, 1), torch.tensor([[1e4, 0.0]], dtype=torch.float64).repeat(4, 1))
    scores = [of_target(InformationMaximisation(), rows) for rows in (sure, one_sided)]
    assert scores == [pytest.approx(math.log(2)), pytest.approx(0.0)]


def of_target(rule, rows):
    candidate = Fixed()
    candidate.found["target", "val"] = rows
    return rule.score(candidate)


def test_one_output_is_two_classes():
    odds = torch.linspace(-2, 3, 7, dtype=torch.float64)[:, None]
    one, two = (Rows(torch.zeros(7, 1), logits) for logits in (odds, torch.cat([torch.zeros_like(odds), odds], dim=1)))
    for rule in (InformationMaximisation(), SND()):
        assert of_target(rule, one) == pytest.approx(of_target(rule, two), rel=1e-12)


@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_snd_is_the_mean_entropy_over_neighbours(temperature):
    p = softmax(Fixed(samples=9).rows("target").logits.numpy())
    entropies = []
    for i, one in enumerate(p):
        others = [other for j, other in enumerate(p) if j != i]
        cosines = [one @ other / math.sqrt(one @ one) / math.sqrt(other @ other) for other in others]
        weights = np.exp(np.array(cosines) / temperature)
        weights /= weights.sum()
        entropies.append(-sum(w * math.log(w) for w in weights))
    assert SND(temperature).score(Fixed(samples=9)) == pytest.approx(np.mean(entropies), rel=1e-9)


def test_dev_is_the_weighted_loss_with_a_control_variate():
    candidate = Fixed()
    source, target, val = (candidate.rows(*key) for key in (("source", "train"), ("target",), ("source",)))
    x = np.vstack([source.features.numpy(), target.features.numpy()])
    p = logistic(x, np.repeat([0, 1], 40), 2)(val.features.numpy())
    w = p[:, 1] / p[:, 0]
    losses = -np.log(softmax(val.logits.numpy())[np.arange(40), val.labels.numpy()])
    centred = w - w.mean()
    eta = -(centred @ (w * losses)) / (centred @ centred)
    assert DEV().score(candidate) == pytest.approx((w * losses).mean() + eta * w.mean() - eta, rel=1e-3)
    assert not DEV().higher_is_better({"target": Multiclass(), "source": Multiclass()})


def test_the_control_variate_does_nothing_where_weights_do_not_differ():
    assert with_control_variate(np.array([1.0, 2.0, 6.0]), np.ones(3)) == 3.0


def test_circular_scores_a_head_that_learned_the_pseudo_labels():
    candidate = Fixed()
    target, source = candidate.rows("target"), candidate.rows("source")
    pseudo = target.logits.numpy().argmax(axis=1)
    assert len(set(pseudo)) == K
    back = logistic(target.features.numpy(), pseudo, K)(source.features.numpy()).argmax(axis=1)
    assert Circular().score(candidate) == (back == source.labels.numpy()).mean()
    candidate.weights[:, 1:] = -1e3
    candidate.found["target", "val"] = candidate.of(np.abs(target.features.numpy()))
    assert Circular().score(candidate) == (source.labels.numpy() == 0).mean()  # all pseudo-labels are the first class


@pytest.mark.parametrize("pairs", ["both", "intra", "inter"])
def test_mixval_is_the_agreement_with_the_heavier_pseudo_label(pairs):
    candidate = Fixed(seed=2)
    x = candidate.rows("target").features.numpy()
    pseudo = (x @ candidate.weights).argmax(axis=1)
    partners = torch.randperm(len(x), generator=generator("mixval", len(x))).tolist()
    agree = {"intra": [], "inter": []}
    for i, j in enumerate(partners):
        found = ((0.55 * x[i] + 0.45 * x[j]) @ candidate.weights).argmax()
        agree["intra" if pseudo[i] == pseudo[j] else "inter"].append(found == pseudo[i])
    means = {kind: np.mean(values) for kind, values in agree.items()}
    assert means["intra"] != means["inter"]
    expected = np.mean([*means.values()]) if pairs == "both" else means[pairs]
    assert MixVal(pairs=pairs).score(candidate) == pytest.approx(expected, rel=1e-12)
    assert candidate.rows("target").features.shape == (40, 4)


def test_accuracy_without_labels_counts_the_target_above_a_threshold_of_the_source():
    source, target = Fixed().rows("source"), Fixed().rows("target")
    p, q = softmax(source.logits.numpy()), softmax(target.logits.numpy())
    errors = (p.argmax(axis=1) != source.labels.numpy()).sum()
    assert 0 < errors < 40
    measures = {
        "max_confidence": (p.max(axis=1), q.max(axis=1)),
        "negative_entropy": ((p * np.log(p)).sum(axis=1), (q * np.log(q)).sum(axis=1)),
    }
    found = estimated_accuracy(source, target)
    for name, (of_source, of_target) in measures.items():
        (threshold,) = [t for t in of_source if (of_source < t).sum() == errors]
        assert found[name] == (of_target >= threshold).mean()
    same = estimated_accuracy(source, source)
    assert same["max_confidence"] == float(source.correct.double().mean())  # of the source itself it is exact
    wrong = Rows(source.features, source.logits, (source.predicted + 1) % K)
    assert estimated_accuracy(wrong, target)["max_confidence"] == 0.0


def test_rows_are_chosen_by_their_number_alone():
    assert fixed_rows(5).tolist() == [0, 1, 2, 3, 4]
    chosen = fixed_rows(5000)
    assert len(chosen) == len(chosen.unique()) == 2000
    assert torch.equal(chosen, fixed_rows(5000))
    assert torch.equal(chosen, chosen.sort().values)


@pytest.mark.parametrize("rule", [InformationMaximisation, SND, DEV, Circular, MixVal])
def test_rules_say_that_they_use_no_target_labels_and_need_classes(rule):
    assert not rule.uses_target_labels
    tasks = {"target": Binary(), "source": Binary()}
    check_rule(rule(), tasks)
    assert rule().monitor(tasks) == f"selection/{rule.name}"
    with pytest.raises(GraftError, match=f"selection={rule.name} with task=regression"):
        check_rule(rule(), {"target": Regression(), "source": Regression()})


def test_arguments_out_of_range_are_refused():
    with pytest.raises(GraftError, match=r"selection\.temperature=0"):
        SND(temperature=0)
    with pytest.raises(GraftError, match=r"selection\.weight=0\.5"):
        MixVal(weight=0.5)
