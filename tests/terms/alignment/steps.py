"""Training steps on given features, and gradients of a value, in double precision."""

import torch
from torch import Tensor, nn

from graft.backbones.base import Backbone
from graft.inputs.base import DomainBatch
from graft.terms.base import TermContext, TrainStep

CLASSES, SIZE = 3, 4


def features_of_sizes(source: int = 5, target: int = 7, size: int = SIZE) -> dict[str, Tensor]:
    """Random features of both domains, of unequal batch sizes if not asked otherwise."""
    generator = torch.Generator().manual_seed(0)
    sizes = {"source": source, "target": target}
    return {
        domain: (torch.randn(n, size, generator=generator, dtype=torch.float64) + shift).requires_grad_()
        for (domain, n), shift in zip(sizes.items(), (0.0, 0.5), strict=True)
    }


def head_of(size: int = SIZE) -> nn.Linear:
    """A linear classifier, always the same."""
    torch.manual_seed(3)
    return nn.Linear(size, CLASSES).double()


def step_on(features: dict[str, Tensor], head: nn.Module | None = None, progress: float = 0.0) -> TrainStep:
    """A step whose backbone gave these features."""
    head = head or head_of(next(iter(features.values())).shape[1])
    logits = {domain: head(values) for domain, values in features.items()}
    return TrainStep({d: DomainBatch(x) for d, x in features.items()}, features, logits, progress, features)


def context_of(backbone: Backbone, head: nn.Module, **changes) -> TermContext:
    """What a term is prepared with."""
    settings = {
        "backbone": backbone,
        "heads": {"shared": head},
        "target_head": head,
        "pretrained_head": None,
        "pretrained": True,
        "num_classes": CLASSES,
        "samples": lambda: [],
        "source_samples": None,
    }
    return TermContext(**settings | changes)


def check_same(value: Tensor, expected: Tensor, moved: dict[str, Tensor]) -> None:
    """Assert that value and gradients agree, each of them above 0 somewhere."""
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)
    ours = torch.autograd.grad(value, [*moved.values()], retain_graph=True)
    theirs = torch.autograd.grad(expected, [*moved.values()])
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-12)
        assert one.any()
