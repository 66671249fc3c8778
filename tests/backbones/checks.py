"""What must hold for every backbone, whatever library it comes from."""

import torch
from torch import nn

from graft.backbones.base import Backbone


def check_features(backbone: Backbone) -> None:
    """Features have the promised shape, and all parameters get a gradient from them."""
    backbone.train()
    features = backbone(torch.randn(2, backbone.input_spec.channels, *backbone.input_spec.size))
    assert features.shape == (2, backbone.feature_size)
    (features * torch.randn_like(features)).sum().backward()
    assert [name for name, parameter in backbone.named_parameters() if parameter.grad is None] == []


def check_stages(backbone: Backbone) -> None:
    """Every parameter is in exactly one stage, and the stages run in their order."""
    named = [name for stage in backbone.stages for name in backbone.stage_parameters(stage.name)]
    assert sorted(named) == sorted(name for name, _ in backbone.named_parameters())
    assert len({stage.name for stage in backbone.stages}) == len(backbone.stages)

    stage_of = {name: i for i, stage in enumerate(backbone.stages) for name in backbone.stage_parameters(stage.name)}
    ran: list[int] = []
    for name, module in backbone.named_modules():
        own = [stage_of[f"{name}.{key}"] for key, _ in module.named_parameters(recurse=False) if name]
        if own and isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(lambda _m, _x, _y, stage=own[0]: ran.append(stage))
    backbone.eval()
    with torch.no_grad():
        backbone(torch.randn(1, backbone.input_spec.channels, *backbone.input_spec.size))
    assert ran == sorted(ran)
    assert set(ran) == set(range(len(backbone.stages)))


def check_freezing(backbone: Backbone) -> None:
    """A step with only the last stage trained leaves the others bit-equal, statistics and dropout too."""
    *frozen, last = [stage.name for stage in backbone.stages]
    backbone.train()
    for name in frozen:
        for parameter in backbone.stage_parameters(name).values():
            parameter.requires_grad_(False)
        for module in backbone.stage_modules(name):
            module.eval()
    trained = backbone.stage_parameters(last)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    optimizer = torch.optim.SGD(trained.values(), lr=0.1)
    backbone(torch.randn(4, backbone.input_spec.channels, *backbone.input_spec.size)).square().sum().backward()
    optimizer.step()
    prefixes = next(stage for stage in backbone.stages if stage.name == last)
    changed = {name for name, value in backbone.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert {name for name in changed if not prefixes.covers(name)} == set()
