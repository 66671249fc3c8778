"""The proxy A-distance against its definition, and what a discriminator's accuracy is."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from graft.inspection.domain_distance import ROWS, domain_distance
from graft.terms.alignment.discriminator import domain_accuracy


def rows(count, seed, shift=0.0):
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed)) + shift


def test_domains_far_apart_are_at_2_and_equal_ones_near_0():
    assert domain_distance(rows(100, 0), rows(100, 1, shift=20)).value == 2
    found = domain_distance(rows(4 * ROWS, 0), rows(4 * ROWS, 1))
    assert found.tested == ROWS
    assert abs(found.value) < 4 * 3 * 0.5 / ROWS**0.5  # three standard errors of the error, times its factor


def test_the_error_is_that_of_a_linear_classifier_on_the_other_half():
    source, target = rows(60, 0), rows(60, 1, shift=0.7)
    fitted, held_out = (torch.cat([source[start::2], target[start::2]]).numpy() for start in (0, 1))
    labels = [0] * 30 + [1] * 30
    wrong = (LogisticRegression(C=2).fit(fitted, labels).predict(held_out) != labels).sum()  # 10 on rows of norm 5
    found = domain_distance(source, target)
    assert found.tested == 60
    assert abs(found.wrong - wrong) <= 1
    assert found.value == pytest.approx(2 * (1 - 2 * found.wrong / 60))


def test_the_larger_domain_gives_no_more_rows_than_the_smaller_one():
    assert domain_distance(rows(500, 0), rows(41, 1)).tested == 40


def test_what_cannot_be_measured_is_none():
    assert domain_distance(rows(1, 0), rows(50, 1)) is None
    assert domain_distance(rows(50, 0), rows(50, 1) * float("nan")) is None


def test_a_discriminators_accuracy_counts_both_domains_alike():
    source, target = torch.tensor([2.0, -1.0]), torch.tensor([-1.0, -2.0, -3.0, 1.0])
    assert domain_accuracy(source, target).item() == pytest.approx((0.5 + 0.75) / 2)
