"""Soft targets against the formulas written out, number by number, in double precision."""

import math

import pytest
import torch

from graft.compress.soft_targets import LOSSES, in_words_of, number_targets, sigmoid_targets, softmax_targets
from graft.tasks.binary import Binary
from graft.tasks.multiclass import Multiclass
from graft.tasks.multilabel import Multilabel
from graft.tasks.regression import Regression


def softmax(values):
    powers = [math.exp(value) for value in values]
    return [power / sum(powers) for power in powers]


def softmax_by_hand(student, teacher, temperature):
    total = 0.0
    for own, theirs in zip(student.tolist(), teacher.tolist(), strict=True):
        q, p = (softmax([value / temperature for value in row]) for row in (own, theirs))
        total += sum(b * (math.log(b) - math.log(a)) for a, b in zip(q, p, strict=True))
    return temperature**2 * total / len(student)


def sigmoid_by_hand(student, teacher, temperature):
    total = 0.0
    for own, theirs in zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True):
        q, p = (1 / (1 + math.exp(-value / temperature)) for value in (own, theirs))
        total += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    return temperature**2 * total / student.numel()


def number_by_hand(student, teacher, temperature):
    pairs = zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True)
    return sum((own - theirs) ** 2 for own, theirs in pairs) / student.numel()


CASES = [(softmax_targets, softmax_by_hand), (sigmoid_targets, sigmoid_by_hand), (number_targets, number_by_hand)]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize(("loss", "by_hand"), CASES)
def test_value_and_gradient_are_those_of_the_formula(loss, by_hand, temperature):
    random = torch.Generator().manual_seed(0)
    student, teacher = 3 * torch.randn(2, 4, 5, generator=random, dtype=torch.float64)
    student.requires_grad_()
    value = loss(student, teacher, temperature)
    assert value.item() == pytest.approx(by_hand(student, teacher, temperature), rel=1e-12)
    value.backward()
    for row in range(4):
        for column in range(5):
            shift = torch.zeros_like(teacher)
            shift[row, column] = 1e-6
            ahead, behind = (by_hand(student + sign * shift, teacher, temperature) for sign in (1, -1))
            assert student.grad[row, column].item() == pytest.approx((ahead - behind) / 2e-6, rel=1e-5, abs=1e-8)


def test_two_classes_are_taught_alike_by_one_output_and_by_two():
    """A binary task's one logit is the difference of two, of which the mean stands still."""
    random = torch.Generator().manual_seed(1)
    student, teacher = torch.randn(2, 6, 1, generator=random, dtype=torch.float64)
    pairs = [torch.cat([torch.zeros_like(one), one], dim=1) for one in (student, teacher)]
    assert sigmoid_targets(student, teacher, 3.0).item() == pytest.approx(softmax_targets(*pairs, 3.0).item())


def test_extreme_logits_give_finite_losses_and_gradients():
    student = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    teacher = torch.tensor([[-1e4, 1e4], [-1e4, 1e4]])
    for loss in LOSSES.values():
        student.grad = None
        value = loss(student, teacher, 1.0)
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(student.grad).all()


def test_classes_are_matched_by_name_and_the_teachers_others_left_out():
    logits = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    for task in (Multiclass(), Multilabel()):
        translate = in_words_of(task, ("dog", "cat"), task, ("cat", "owl", "dog", "cow"))
        assert translate(logits).tolist() == [[3.0, 1.0]]


def test_a_binary_teachers_log_odds_turn_with_its_classes():
    logits = torch.tensor([[2.0], [-1.0]])
    assert in_words_of(Binary(), ("no", "yes"), Binary(), ("no", "yes"))(logits).equal(logits)
    assert in_words_of(Binary(), ("no", "yes"), Binary(), ("yes", "no"))(logits).equal(-logits)


def test_a_number_comes_in_the_students_unit():
    own, theirs = Regression(), Regression()
    own.load_state_dict({"mean": 10.0, "std": 2.0})
    theirs.load_state_dict({"mean": 0.0, "std": 8.0})
    translated = in_words_of(own, None, theirs, None)(torch.tensor([[2.0], [0.5]]))
    assert translated.tolist() == [[3.0], [-3.0]]  # 16 and 4 in the labels' unit
    assert own.predictions(translated).tolist() == theirs.predictions(torch.tensor([[2.0], [0.5]])).tolist()
