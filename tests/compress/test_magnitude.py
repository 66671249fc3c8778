"""Unstructured pruning: the schedule, which weights are zero, and that they stay so."""

import pytest
import torch

from graft.backbones.cnn import cnn
from graft.compress.magnitude import Magnitude
from graft.errors import GraftError


def weights_of(backbone):
    return [backbone.network.conv1[0].weight, backbone.network.conv2[0].weight, backbone.network.fc[2].weight]


def test_the_schedule_is_the_cubic_one_of_zhu_and_gupta():
    compression = Magnitude(sparsity=0.8, start=0.2, end=0.6)
    assert compression.target(0.1) == 0
    assert compression.target(0.4) == pytest.approx(0.8 - 0.8 * 0.5**3)
    assert compression.target(0.6) == compression.target(1.0) == 0.8


def test_the_smallest_weights_of_all_layers_are_zero(context_of):
    backbone = cnn(size=8)
    compression = Magnitude(sparsity=0.7, end=0.5, every_steps=1)
    compression.prepare(context_of(backbone), None)
    before = torch.cat([weight.detach().flatten() for weight in weights_of(backbone)])
    compression.after_step(1, 0.5)
    after = torch.cat([weight.detach().flatten() for weight in weights_of(backbone)])
    zeros = round(0.7 * len(before))
    assert torch.equal(after == 0, before.abs() <= before.abs().sort().values[zeros - 1])
    assert torch.equal(after[after != 0], before[after != 0])
    assert compression.results()["sparsity"] == pytest.approx(0.7, abs=1e-4)
    assert bool((backbone.network.conv1[0].bias != 0).any())


def test_what_is_zero_stays_zero_and_more_follows(context_of):
    backbone = cnn(size=8)
    compression = Magnitude(sparsity=0.6, end=0.8, every_steps=2)
    compression.prepare(context_of(backbone), None)
    zeros, counts = torch.tensor(False), []
    for step in range(1, 11):
        with torch.no_grad():
            for weight in weights_of(backbone):
                weight.add_(torch.randn_like(weight))
        compression.after_step(step, step / 10)
        now = torch.cat([weight.detach().flatten() for weight in weights_of(backbone)]) == 0
        assert bool((now | ~zeros).all())
        zeros = now
        counts.append(int(now.sum()))
    assert counts[0] == 0, "not every step chooses"
    assert counts == sorted(counts)
    assert counts[7] == counts[-1]
    assert [compression.may_choose(epoch) for epoch in (0,)] == [True]


def test_an_average_gets_its_zeros_before_it_is_validated(context_of):
    backbone = cnn(size=8)
    compression = Magnitude(sparsity=0.5, end=0.1)
    compression.prepare(context_of(backbone), None)
    compression.after_step(1, 1.0)
    with torch.no_grad():
        for weight in weights_of(backbone):
            weight.add_(1e-6)
    compression.before_validation()
    assert compression.results()["sparsity"] == pytest.approx(0.5, abs=1e-4)


def test_frozen_layers_are_left_alone_and_some_must_train(context_of):
    backbone = cnn(size=8)
    compression = Magnitude(sparsity=0.5, end=0.1)
    compression.prepare(context_of(backbone, trained=frozenset({"network.conv2.0.weight"})), None)
    compression.after_step(1, 1.0)
    assert [bool((weight == 0).any()) for weight in weights_of(backbone)] == [False, True, False]
    with pytest.raises(GraftError, match="no convolution or linear layer of cnn trains"):
        Magnitude().prepare(context_of(backbone, trained=frozenset()), None)


def test_a_checkpoint_of_another_compression_is_refused(context_of):
    with pytest.raises(GraftError, match="trained with compress=prune"):
        Magnitude().prepare(context_of(cnn(size=8)), {"kind": "prune"})
    with pytest.raises(GraftError, match="trained with compress=none"):
        Magnitude().prepare(context_of(cnn(size=8)), {})
