import pytest
import torch
from torch import nn

from graft.terms.base import Setup, Step


@pytest.fixture
def make_setup(tiny_backbone):
    """A pretrained tiny network with a head of its own over 4 source classes, and a target with 3 classes."""

    def build(pretrained=True, own_head=True, num_classes=3, dtype=torch.float32, **given):
        backbone = given.pop("backbone", None) or tiny_backbone()
        backbone = backbone.to(dtype).eval()
        torch.manual_seed(7)
        target_head = given.pop("target_head", None) or nn.Linear(6, 3)
        if own_head:
            backbone.set_classifier(nn.Linear(6, 4).to(dtype))
        generator = torch.Generator().manual_seed(3)
        batches = [(torch.randn(n, 1, 8, 8, generator=generator).to(dtype), torch.arange(n) % 3) for n in (8, 8, 5)]
        return Setup(
            backbone=backbone,
            heads={"shared": target_head.to(dtype)},
            target_head=target_head.to(dtype),
            classifier=backbone.classifier,
            pretrained=pretrained,
            num_classes=num_classes,
            **{"samples": lambda: batches, "source_samples": None} | given,
        )

    return build


@pytest.fixture
def make_step():
    """A training step of target samples through a backbone and a head, with what else the test gives."""

    def build(setup, size=8, labels=None, seed=0, unlabelled=False):
        generator = torch.Generator().manual_seed(seed)
        inputs = torch.randn(size, 1, 8, 8, generator=generator).to(setup.backbone.input_mean.dtype)
        drawn = torch.randint(0, 3, (size,), generator=generator)
        features = setup.backbone(inputs)
        return Step(
            inputs={"target": inputs},
            labels={"target": None if unlabelled else drawn if labels is None else labels},
            features={"target": features},
            outputs={"target": setup.target_head(features)},
            progress=0.0,
        )

    return build
