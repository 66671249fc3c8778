"""Distance of weights and similarity of features, against other ways to compute them; projections and neighbours."""

import copy

import numpy as np
import pytest
import torch

from graft.inputs.base import Fields
from graft.inspection.activations import pooled
from graft.inspection.change import linear_cka, relative_distance
from graft.inspection.neighbours import nearest, surely_right, surely_wrong
from graft.inspection.projection import principal


def hsic_cka(x, y):
    """CKA from HSIC with centring matrices, as the paper defines it."""
    n = len(x)
    centring = np.eye(n) - np.ones((n, n)) / n

    def hsic(a, b):
        return np.trace(a @ a.T @ centring @ b @ b.T @ centring) / (n - 1) ** 2

    return hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))


@pytest.mark.parametrize("samples", [12, 60])
def test_cka_is_that_of_the_paper(samples):
    random = np.random.default_rng(0)
    x = random.normal(size=(samples, 20))
    y = x @ random.normal(size=(20, 7)) + random.normal(size=(samples, 7)) + 3
    assert linear_cka(torch.tensor(x), torch.tensor(y)) == pytest.approx(hsic_cka(x, y), rel=1e-10)


def test_cka_does_not_see_rotation_scale_and_offset():
    x = torch.randn(50, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rotation = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    assert linear_cka(x, 3 * x @ rotation + 2) == pytest.approx(1)
    assert linear_cka(x, torch.ones(50, 3)) == 0


def test_distance_is_relative_and_by_stage(tiny_backbone):
    before = tiny_backbone()
    after = copy.deepcopy(before)
    with torch.no_grad():
        for parameter in after.stage_parameters("layer1").values():
            parameter.mul_(1.5)
    assert relative_distance(before, after, "stem") == (0.0, 3, 3)
    distance, shared, tensors = relative_distance(before, after, "layer1")
    assert (distance, shared, tensors) == (pytest.approx(0.5), 3, 3)


def test_only_tokens_of_a_text_are_averaged():
    output = torch.tensor([[[1.0], [3.0], [100.0]], [[2.0], [100.0], [100.0]]])
    inputs = Fields({"attention_mask": torch.tensor([[1, 1, 0], [1, 0, 0]])})
    assert pooled(output, inputs).tolist() == [[2.0], [2.0]]
    assert pooled((output, None), torch.zeros(2)).shape == (2, 1)
    assert pooled("no tensor", inputs) is None


def test_principal_components_are_those_of_the_covariance():
    features = np.random.default_rng(0).normal(size=(40, 6)) * np.arange(1, 7)
    points, share = principal(features)
    values, vectors = np.linalg.eigh(np.cov(features.T, bias=True))
    expected = (features - features.mean(0)) @ vectors[:, ::-1][:, :2]
    np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-9)
    assert share == pytest.approx(values[-2:].sum() / values.sum())


def test_nearest_are_those_of_the_largest_cosine():
    rows = torch.tensor([[1.0, 0.0], [0.0, 5.0], [1.0, 1.0]])
    similarity, places = nearest(torch.tensor([[2.0, 0.1]]), rows, 2)
    assert places.tolist() == [[0, 2]]
    cosine = torch.nn.functional.cosine_similarity(torch.tensor([[2.0, 0.1]]), rows)
    torch.testing.assert_close(similarity[0], cosine[[0, 2]])


def test_the_surest_are_taken():
    found = {
        "label": ["a", "b", "a", "b"],
        "prediction": ["a", "a", "b", "b"],
        "probabilities": np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.4, 0.6]]),
        "classes": ["a", "b"],
    }
    assert surely_wrong(found, 5) == [2, 1]
    assert surely_right(found, 1) == [0]
    numbers = {"label": [1.0, 2.0], "prediction": [1.5, 5.0], "classes": None}
    assert surely_wrong(numbers, 1) == [1]
    assert surely_right(numbers, 1) == [0]
