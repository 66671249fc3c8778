"""What the tests of terms train on: a setup as a run makes it, and a training step by hand."""

from collections.abc import Iterator, Mapping

import torch
import toy
from torch import Tensor, nn

from graft.backbones.base import Backbone
from graft.inputs.base import DomainBatch
from graft.terms.base import TermContext, TrainStep

CLASSES = 3


def target_samples(backbone: Backbone, count: int = 12, seed: int = 3) -> tuple[Tensor, Tensor]:
    """Images for the backbone, and classes that follow each other."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, backbone.channels, *backbone.size, generator=generator, dtype=torch.float64)
    labels = torch.arange(count) % CLASSES
    return (inputs + labels.view(-1, 1, 1, 1)).to(backbone.input_mean.dtype), labels


def setup_of(backbone: Backbone, **changes) -> TermContext:
    """A setup with a linear head; samples come in two batches."""
    torch.manual_seed(1)
    head = nn.Linear(backbone.feature_size, CLASSES).to(backbone.input_mean)
    inputs, labels = target_samples(backbone)

    def samples() -> Iterator[DomainBatch]:
        yield from toy.split(DomainBatch(inputs, labels), 8)

    settings = {
        "backbone": backbone,
        "heads": {"shared": head},
        "target_head": head,
        "pretrained_head": None,
        "pretrained": True,
        "num_classes": CLASSES,
        "samples": samples,
        "source_samples": None,
    }
    return TermContext(**(settings | changes))


def step_of(context: TermContext, pairs: Mapping[str, tuple[Tensor, Tensor]], joint: bool = False) -> TrainStep:
    """A training step on inputs and labels: a forward of the backbone for every domain, or one for all."""
    inputs = {domain: x for domain, (x, _) in pairs.items()}
    if joint:
        parts = context.backbone(torch.cat(list(inputs.values()))).split([len(x) for x in inputs.values()])
        features = dict(zip(inputs, parts, strict=True))
    else:
        features = {domain: context.backbone(x) for domain, x in inputs.items()}
    logits = {domain: context.target_head(f) for domain, f in features.items()}
    return TrainStep(toy.batch_of_tensors(pairs), features, logits, progress=0.0)


def train(term, context: TermContext, steps: int = 30, lr: float = 0.1) -> list[float]:
    """Minimise the term alone by gradient descent; its values."""
    parameters = [*context.backbone.parameters(), *context.target_head.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=lr)
    values = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = term(step_of(context, {"target": target_samples(context.backbone)}))
        value.backward()
        optimizer.step()
        values.append(value.item())
    return values


def disturb(module: nn.Module, scale: float = 0.1, seed: int = 5) -> None:
    """Move all parameters away from where they are."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)
