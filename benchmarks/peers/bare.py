"""A loop as a person writes it, on tensors that were transformed before it begins."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import networks
from benchmarks.images import load, normalised
from benchmarks.turns import Plan, Turn


def tensors(plan: Plan) -> tuple[Tensor, Tensor]:
    """Images float `(N, C, H, W)` and labels `(N,)` of the plan's training part."""
    images, labels = load(plan.images)["train"]
    return normalised(images), labels


def fit(plan: Plan, turn: Turn) -> None:
    """SGD in the default memory format."""
    network = networks.build(plan.network).train()
    loop(plan, turn, network, *tensors(plan), torch.optim.SGD(network.parameters(), lr=plan.lr))


def fit_channels_last(plan: Plan, turn: Turn) -> None:
    """AdamW in the memory format that convolutions like best."""
    network = networks.build(plan.network).train().to(memory_format=torch.channels_last)
    images, labels = tensors(plan)
    images = images.to(memory_format=torch.channels_last)
    loop(plan, turn, network, images, labels, torch.optim.AdamW(network.parameters(), lr=plan.lr))


def loop(
    plan: Plan, turn: Turn, network: nn.Module, images: Tensor, labels: Tensor, optimizer: torch.optim.Optimizer
) -> None:
    """Epoch after epoch in random batches, nothing kept and nothing shown."""
    for _ in range(plan.epochs):
        turn.begin()
        for indices in torch.randperm(len(labels)).split(plan.batch_size):
            optimizer.zero_grad()
            loss = F.cross_entropy(network(images[indices]), labels[indices])
            loss.backward()
            optimizer.step()
