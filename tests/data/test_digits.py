import torch

from graft.data.sources.digits import Digits


def test_splits():
    data = Digits().load(0)
    assert [len(split) for split in (data.train, data.val, data.test)] == [1000, 297, 500]
    assert data.train.inputs.shape == (1000, 1, 8, 8)
    assert data.train.inputs.max() == 255
    assert data.classes == tuple("0123456789")
    for split in (data.train, data.val, data.test):
        shares = split.labels.bincount() / len(split)
        assert (shares - 0.1).abs().max() < 0.01


def test_the_split_seed_decides():
    first, again, other = (Digits().load(seed) for seed in (0, 0, 1))
    assert torch.equal(first.test.inputs, again.test.inputs)
    assert not torch.equal(first.test.inputs, other.test.inputs)
    assert first.fingerprint == other.fingerprint
