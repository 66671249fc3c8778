import pytest
from torch import nn
from torch.nn.functional import cross_entropy

from graft.compress.base import CompressionContext


@pytest.fixture
def context_of():
    """What a compression sees of a backbone that trains as a whole, with a new linear head on it."""

    def context_of(backbone, samples=(), trained=None, epochs=4):
        head = nn.Linear(backbone.feature_size, 3)
        names = frozenset(name for name, _ in backbone.named_parameters())
        return CompressionContext(
            backbone=backbone,
            heads={"target": head},
            target_head=head,
            epochs=epochs,
            trained=names if trained is None else trained,
            samples=lambda number: samples,
            loss=cross_entropy,
        )

    return context_of
