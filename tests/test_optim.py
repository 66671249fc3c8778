import pytest
import torch
from torch import nn

from graft.errors import GraftError
from graft.training.optim import build_optimizer, match_layout


def group(*parameters):
    return [{"name": "all", "params": list(parameters), "lr": 0.1, "weight_decay": 0.01}]


def is_fused(target, options=None, fused=True, device="cpu"):
    parameter = nn.Parameter(torch.ones(3, device=device))
    optimizer = build_optimizer(f"torch.optim.{target}", group(parameter), 0.1, options or {}, fused)
    return optimizer.param_groups[0].get("fused")


@pytest.mark.parametrize("target", ["SGD", "Adam", "AdamW"])
def test_an_optimizer_that_can_be_fused_is(target):
    assert is_fused(target) is True


@pytest.mark.parametrize("option", ["fused", "foreach", "differentiable"])
def test_an_option_that_chooses_the_implementation_is_left_alone(option):
    assert not is_fused("SGD", {option: False})


def test_what_cannot_be_fused_is_built_without():
    assert is_fused("RMSprop") is None
    assert is_fused("AdamW", fused=False) is None
    assert is_fused("AdamW", device="meta") is None  # a device without fused kernels


def test_a_mistake_in_the_options_names_them():
    with pytest.raises(GraftError, match=r"optimizer.options=\{'momentumm': 0.9\} do not fit torch.optim.SGD"):
        is_fused("SGD", {"momentumm": 0.9})
    with pytest.raises(GraftError, match=r"did you mean torch.optim.SGD"):
        is_fused("Sgd")


def steps(parameter, optimizer, numbers):
    for number in numbers:
        optimizer.zero_grad()
        (parameter * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))).sum().backward()
        optimizer.step()


@pytest.mark.parametrize("target", ["SGD", "AdamW"])
@pytest.mark.parametrize("before", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("after", [torch.contiguous_format, torch.channels_last])
def test_a_checkpoint_of_another_memory_format_goes_on_the_same(target, before, after):
    options = {"momentum": 0.9} if target == "SGD" else {}
    start = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(9))

    def build(weights, memory_format, fused):
        parameter = nn.Parameter(weights.clone().contiguous(memory_format=memory_format))
        return parameter, build_optimizer(f"torch.optim.{target}", group(parameter), 0.1, options, fused)

    expected, plain = build(start, torch.contiguous_format, False)
    steps(expected, plain, range(6))

    saved, first = build(start, before, True)
    steps(saved, first, range(3))
    resumed, second = build(saved.detach(), after, True)
    second.load_state_dict(first.state_dict())
    match_layout(second)
    steps(resumed, second, range(3, 6))
    torch.testing.assert_close(resumed.detach(), expected.detach())
