import pytest
import torch
from torch import nn

from graft.module import TransferModule
from graft.objectives.alpha import AlphaWeighted
from graft.rates.uniform import Uniform
from graft.tasks.multiclass import Multiclass
from graft.training.schedules import Constant

ADAMW = {
    "_target_": "torch.optim.AdamW",
    "lr": 0.01,
    "weight_decay": 0.01,
    "decay_norms_and_biases": False,
    "options": {},
}


@pytest.fixture
def train():
    """Three steps of a prepared strategy on random images; returns the names of what moved in the backbone."""

    def train(strategy, backbone, steps=3):
        module = TransferModule(
            backbone=backbone,
            heads={"target": nn.Linear(backbone.feature_size, 3).to(backbone.input_mean)},
            tasks={"target": Multiclass()},
            num_outputs={"target": 3},
            objective=AlphaWeighted(0.0),
            strategy=strategy,
            rates=Uniform(),
            schedule=Constant(),
            optimizer=ADAMW,
        ).train()
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
