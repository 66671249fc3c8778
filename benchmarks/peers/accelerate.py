"""The bare loop as Accelerate's documentation changes it: a loader, and everything prepared."""

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from benchmarks import networks
from benchmarks.peers.bare import tensors
from benchmarks.turns import Plan, Turn


def fit(plan: Plan, turn: Turn) -> None:
    """Accelerate on the CPU, nothing tracked."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    network = networks.build(plan.network).train()
    loader = DataLoader(TensorDataset(*tensors(plan)), plan.batch_size, shuffle=True)
    network, optimizer, loader = accelerator.prepare(network, torch.optim.SGD(network.parameters(), lr=plan.lr), loader)
    for _ in range(plan.epochs):
        turn.begin()
        for images, labels in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(network(images), labels)
            accelerator.backward(loss)
            optimizer.step()
