import pytest
import torch
import toy
from torch import nn


@pytest.fixture
def train():
    """Three steps of a prepared strategy on random images; returns the names of what moved in the backbone."""

    def train(strategy, backbone, steps=3):
        adamw = toy.optimizer("AdamW", lr=0.01)
        module = toy.module_of(backbone, ["target"], domains=["target"], strategy=strategy, optimizer=adamw).train()
        (phase,) = strategy.phases(1, backbone)
        module.apply_phase(phase)
        before = {name: value.clone() for name, value in backbone.state_dict().items()}
        optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=0.01)
        images = torch.randn(4, backbone.channels, *backbone.size).to(backbone.input_mean)
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(images), torch.arange(4) % 3).backward()
            optimizer.step()
        backbone.eval()
        return {name for name, value in backbone.state_dict().items() if not torch.equal(value, before[name])}

    return train
