import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from graft.errors import GraftError
from graft.inputs.base import DomainBatch
from graft.terms.regularization.co_tuning import (
    STRENGTHS,
    CoTuning,
    calibration_temperature,
    direct_relationship,
    reverse_relationship,
)


def predictions(samples=60, source_classes=5, target_classes=3, seed=0):
    """Source probabilities that say something about the target class, and the labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(samples) % target_classes
    centres = torch.randn(target_classes, source_classes, generator=generator, dtype=torch.float64)
    logits = centres[labels] + torch.randn(samples, source_classes, generator=generator, dtype=torch.float64)
    return logits.softmax(dim=1), labels


def test_direct_is_the_mean_prediction_of_each_class():
    probabilities, labels = predictions()
    relationship = direct_relationship(probabilities, labels, 4)
    for target in range(3):
        members = [p for p, y in zip(probabilities.tolist(), labels.tolist(), strict=True) if y == target]
        expected = [sum(column) / len(members) for column in zip(*members, strict=True)]
        np.testing.assert_allclose(relationship[target], expected, rtol=1e-12)
    assert not relationship[3].any()  # a class without samples


@pytest.mark.slow
def test_reverse_is_the_inverse_by_bayes_of_the_likeliest_regression():
    probabilities, labels = predictions()
    relationship = reverse_relationship(probabilities, labels, 3).numpy()
    np.testing.assert_allclose(relationship.sum(axis=1), 1, rtol=1e-12)

    candidates = []
    for strength in STRENGTHS:
        fitted = LogisticRegression(fit_intercept=False, C=strength, max_iter=1000).fit(probabilities, labels)
        candidate = np.zeros((3, 5))
        for t in range(3):
            for s in range(5):
                likelihoods = [math.exp(fitted.coef_[k][s]) for k in range(3)]  # of the one-hot input s
                candidate[t, s] = likelihoods[t] / sum(likelihoods) * probabilities[:, s].mean().item()
            candidate[t] /= candidate[t].sum()
        candidates.append(candidate)
    distances = [np.abs(relationship - candidate).max() for candidate in candidates]
    assert min(distances) < 1e-6
    assert 0 < int(np.argmin(distances)) < len(STRENGTHS) - 1  # the choice is neither end of what is searched


@pytest.mark.slow
def test_reverse_finds_the_relationship_of_a_known_joint_distribution():
    p_target_given_source = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
    marginal = np.array([0.2, 0.5, 0.3])
    rows, labels = [], []
    for s in range(3):  # a source net that is sure: one-hot predictions in the right proportions
        for t in range(2):
            count = round(10000 * marginal[s] * p_target_given_source[s, t])
            rows += [[1.0 if k == s else 0.0 for k in range(3)]] * count
            labels += [t] * count
    relationship = reverse_relationship(torch.tensor(rows, dtype=torch.float64), torch.tensor(labels), 2)
    joint = (p_target_given_source * marginal[:, None]).T
    np.testing.assert_allclose(relationship, joint / joint.sum(axis=1, keepdims=True), atol=2e-3)


def test_calibration_finds_the_temperature_that_overconfident_logits_need():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 3, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(dim=1), 1, generator=generator).squeeze(1)  # logits are exact as they are
    temperature = calibration_temperature(2.5 * logits, labels)
    assert temperature == pytest.approx(2.5, rel=0.05)

    def loss(t):
        scaled = (2.5 * logits / t).numpy()
        return np.mean([math.log(np.exp(row).sum()) - row[y] for row, y in zip(scaled, labels, strict=True)])

    assert loss(temperature) < min(loss(temperature * 0.99), loss(temperature * 1.01))


@pytest.mark.parametrize("relationship", ["direct", "reverse"])
def test_value_and_gradient_are_the_cross_entropy_to_the_relationship(make_setup, make_step, relationship):
    context = make_setup(dtype=torch.float64)
    term = CoTuning(relationship=relationship)
    term.prepare(context)
    step = make_step(context)
    features = step.seen["target"].detach().requires_grad_()
    step.seen["target"] = features
    value = term(step)
    gradient, head_gradient = torch.autograd.grad(value, [features, term.classifier.weight])

    weight, bias = term.classifier.weight.detach(), term.classifier.bias.detach()
    expected, expected_gradient, expected_head = 0.0, torch.zeros(8, 6).double(), torch.zeros(4, 6).double()
    for n, label in enumerate(step.labels["target"].tolist()):
        logits = [sum(weight[k, d] * features[n, d].item() for d in range(6)).item() + bias[k].item() for k in range(4)]
        total = sum(math.exp(v) for v in logits)
        for k in range(4):
            p, t = math.exp(logits[k]) / total, term.relationship[label, k].item()
            expected -= t * math.log(p) / 8
            expected_gradient[n] += (p - t) * weight[k] / 8
            expected_head[k] += (p - t) * features[n].detach() / 8
    assert value.item() == pytest.approx(expected, rel=1e-10)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(head_gradient, expected_head, rtol=1e-9, atol=1e-12)


def test_the_relationship_comes_from_the_pretrained_nets_calibrated_predictions(make_setup):
    source = DomainBatch(torch.randn(20, 1, 8, 8, dtype=torch.float64), torch.arange(20) % 4)
    context = make_setup(dtype=torch.float64, source_samples=lambda: [source])
    term = CoTuning()
    term.prepare(context)
    with torch.no_grad():
        temperature = calibration_temperature(context.pretrained_head(context.backbone(source.inputs)), source.labels)
        assert not 0.9 < temperature < 1.1
        for target in range(3):
            rows = [
                (context.pretrained_head(context.backbone(x[None]))[0] / temperature).softmax(dim=0)
                for batch in context.samples()
                for x, y in zip(batch.inputs, batch.labels, strict=True)
                if y == target
            ]
            torch.testing.assert_close(term.relationship[target], sum(rows) / len(rows), rtol=1e-9, atol=1e-12)


def test_mixed_labels_mix_the_rows(make_setup, make_step):
    context = make_setup(dtype=torch.float64)
    term = CoTuning()
    term.prepare(context)
    first, second = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1]), torch.tensor([1, 1, 0, 2, 2, 0, 1, 0])
    one_hot = torch.eye(3, dtype=torch.float64)
    mixed = term(make_step(context, labels=0.3 * one_hot[first] + 0.7 * one_hot[second]))
    apart = [term(make_step(context, labels=labels)) for labels in (first, second)]
    torch.testing.assert_close(mixed, 0.3 * apart[0] + 0.7 * apart[1])


def test_a_step_moves_backbone_and_copied_head_and_leaves_the_relationship(make_setup, make_step):
    context = make_setup()
    term = CoTuning()
    term.prepare(context)
    context.backbone.train()
    before = {name: value.clone() for name, value in term.state_dict().items()}
    assert set(before) == {"relationship", "classifier.weight", "classifier.bias"}
    optimizer = torch.optim.SGD([*context.backbone.parameters(), *term.parameters()], lr=0.1)
    values = []
    for _ in range(20):
        optimizer.zero_grad()
        value = term(make_step(context))
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < values[0]
    assert all(p.grad.any() for p in context.backbone.parameters())
    changed = {name for name, value in term.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pretrained": False}, "term.co_tuning needs pretrained weights"),
        ({"own_head": False}, "backbone.weights=source"),
        ({"num_classes": None}, "target with classes"),
        ({"samples": lambda: [DomainBatch(torch.zeros(4, 1, 8, 8))]}, "data.target_setting=supervised"),
    ],
)
def test_refuses_what_has_no_relationship(make_setup, changes, message):
    with pytest.raises(GraftError, match=message):
        CoTuning().prepare(make_setup(**changes))


def test_reverse_refuses_a_class_with_one_sample(make_setup):
    context = make_setup(samples=lambda: [DomainBatch(torch.randn(5, 1, 8, 8), torch.tensor([0, 0, 1, 1, 2]))])
    with pytest.raises(GraftError, match="relationship=direct"):
        CoTuning(relationship="reverse").prepare(context)


def test_refuses_an_unknown_relationship_and_steps_without_labels(make_setup, make_step):
    with pytest.raises(GraftError, match=r"'bayes' is not known\. Allowed: direct, reverse"):
        CoTuning(relationship="bayes")
    context = make_setup()
    term = CoTuning()
    term.prepare(context)
    with pytest.raises(GraftError, match=r"objective\.alpha < 1"):
        term(make_step(context, unlabelled=True))
