import pytest
import torch
from torch import nn

from .cases import CLASSES, setup_of, step_of


@pytest.fixture
def make_setup(tiny_backbone):
    """A pretrained tiny network with a head of its own over 4 source classes."""

    def build(backbone=None, own_head=True, dtype=torch.float32, **changes):
        backbone = (backbone or tiny_backbone()).to(dtype).eval()
        torch.manual_seed(7)
        if own_head:
            backbone.set_pretrained_head(nn.Linear(backbone.feature_size, 4).to(dtype))
        return setup_of(backbone, **{"pretrained_head": backbone.pretrained_head} | changes)

    return build


@pytest.fixture
def make_step():
    """A training step of random target samples."""

    def build(context, size=8, labels=None, seed=0, unlabelled=False):
        generator = torch.Generator().manual_seed(seed)
        inputs = torch.randn(size, 1, 8, 8, generator=generator).to(context.backbone.input_mean.dtype)
        if labels is None and not unlabelled:
            labels = torch.randint(0, CLASSES, (size,), generator=generator)
        return step_of(context, {"target": (inputs, labels)})

    return build
