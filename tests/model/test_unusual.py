"""Scores of inputs unlike the training data, and the samples that are nearest to an input."""

import numpy as np
import pytest
import torch

from graft.errors import GraftError
from graft.model import neighbours, unusual
from graft.model.neighbours import Neighbours
from graft.tasks.binary import Binary
from graft.tasks.multiclass import Multiclass
from graft.tasks.multilabel import Multilabel
from graft.tasks.regression import Regression


def test_energy_is_that_of_the_paper_and_low_where_the_network_is_sure():
    logits = torch.tensor([[10.0, 0.0, 0.0], [0.1, 0.0, 0.0]])
    torch.testing.assert_close(Multiclass().energy(logits), -logits.exp().sum(1).log())
    one = Binary().energy(torch.tensor([[-4.0], [4.0], [0.0]]))
    assert one[0] == one[1] < one[2], "both classes count alike"
    assert Multilabel().energy(torch.tensor([[5.0, 5.0]])) < Multilabel().energy(torch.tensor([[-5.0, -5.0]]))
    assert Regression().energy(torch.zeros(2, 1)) is None


def test_a_threshold_accepts_its_share_of_validation():
    values = torch.randn(400, generator=torch.Generator().manual_seed(0))
    found = unusual.thresholds({"energy": values, "distance": torch.full((400,), float("nan"))})
    assert found["samples"] == 400
    assert set(found["thresholds"]) == {"energy"}
    assert 0.95 <= (values <= found["thresholds"]["energy"]).float().mean() < 0.96
    assert unusual.thresholds({}) is None


def test_distance_decides_where_there_is_one():
    scores = {"energy": np.array([0.0, 2.0]), "distance": np.array([2.0, 0.0])}
    limits = {"energy": 1.0, "distance": 1.0}
    assert unusual.is_unusual(scores, limits).tolist() == [True, False]
    assert unusual.is_unusual({"energy": scores["energy"]}, limits).tolist() == [False, True]
    assert unusual.is_unusual(scores, {}) is None


def test_nearest_and_distance_are_those_of_features_of_length_one(tmp_path, monkeypatch):
    random = torch.Generator().manual_seed(0)
    features, queries = torch.randn(3000, 8, generator=random), torch.randn(50, 8, generator=random)
    kept = Neighbours.of(features, [f"sample {n}" for n in range(3000)], ["a", None] * 1500)
    neighbours.write(tmp_path / "neighbours.safetensors", kept)
    monkeypatch.setattr(neighbours, "SIMILARITIES", 3000 * 7)  # several chunks of queries
    read = neighbours.read(tmp_path / "neighbours.safetensors")
    unit, asked = (values / values.norm(dim=1, keepdim=True) for values in (features, queries))
    distances = torch.cdist(asked, unit).sort(dim=1)
    torch.testing.assert_close(read.distances(queries), distances.values[:, 2], atol=2e-3, rtol=0)  # k=3 of 3,000
    near = read.nearest(queries, 2)
    assert [one[0].sample for one in near] == [f"sample {n}" for n in distances.indices[:, 0].tolist()]
    assert all(one[0].label == ("a" if int(one[0].sample.split()[1]) % 2 == 0 else None) for one in near)


def test_a_torn_file_is_named(tmp_path):
    (tmp_path / "neighbours.safetensors").write_bytes(b"torn")
    with pytest.raises(GraftError, match="predicts without it"):
        neighbours.read(tmp_path / "neighbours.safetensors")
