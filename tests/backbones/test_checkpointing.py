"""Checkpointing changes what a step costs and nothing that it computes: all comparisons are bit for bit."""

import copy
import gc

import pytest
import torch
from lanes import slow
from torch import Tensor, nn

from graft.backbones.base import Backbone, ImageBackbone, Stage
from graft.backbones.checkpointing import checkpoint_gradients
from graft.backbones.cnn import cnn
from graft.backbones.huggingface import HuggingFaceBackbone
from graft.backbones.lenet import lenet
from graft.backbones.recurrent import RecurrentBackbone
from graft.backbones.stochastic_depth import set_stochastic_depth
from graft.backbones.timm import TimmBackbone
from graft.backbones.torchvision import TorchvisionBackbone
from graft.errors import GraftError
from graft.training.normalization import add_source_statistics, source_statistics

NETWORKS = {
    "resnet18": lambda: TorchvisionBackbone("resnet18", size=32),
    "mobilenet_v2": lambda: TorchvisionBackbone("mobilenet_v2", size=32),
    "densenet": lambda: TorchvisionBackbone("densenet121", size=32),  # no residual blocks: by stages
    "efficientnet_lite0": lambda: TimmBackbone("tf_efficientnet_lite0", size=32),
    "vit": lambda: TimmBackbone("vit_tiny_patch16_224", size=32),
    "lenet": lambda: lenet(channels=3, size=32),
    "cnn": lambda: cnn(channels=3, size=32),
}


def checkpointed(backbone: Backbone) -> Backbone:
    checkpoint_gradients(backbone)
    return backbone


def images(samples=3, seed=0) -> Tensor:
    return torch.randn(samples, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def loss_of(features: Tensor) -> Tensor:
    return (features.float() * torch.linspace(-1, 1, features.numel()).view_as(features)).square().sum()


def step(backbone: Backbone, forward=lambda backbone: backbone(images())) -> dict[str, Tensor]:
    """All that a training step leaves behind: loss, gradients, buffers and the state of the random numbers."""
    torch.manual_seed(1)
    loss = loss_of(forward(backbone))
    drawn = torch.rand(1)
    loss.backward()
    grads = {f"grad {name}": p.grad for name, p in backbone.named_parameters() if p.grad is not None}
    return {"loss": loss, "drawn": drawn, "drawn after": torch.rand(1), **grads, **backbone.state_dict()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert list(one) == list(other)
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


SMALL = ("resnet18", "lenet")  # the others in `make test-all`


@pytest.mark.parametrize("network", [*SMALL, *slow(*(name for name in NETWORKS if name not in SMALL))])
def test_a_step_is_the_one_without(network):
    plain = NETWORKS[network]().train()
    if network not in ("lenet", "cnn", "densenet"):
        set_stochastic_depth(plain, 0.5)
    other = checkpointed(copy.deepcopy(plain))
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    assert_same(step(plain), step(other))
    assert all(p.grad is not None for p in other.parameters())
    moved = {name for name, value in other.state_dict().items() if not torch.equal(value, before[name])}
    assert all(name in moved for name in before if "num_batches_tracked" in name)


@pytest.mark.parametrize("network", ["bert", "gru"])
def test_layers_of_encoders_are_cut(tiny_bert, network):
    tokenizer = str(tiny_bert)
    plain = {
        "bert": lambda: HuggingFaceBackbone(tokenizer, max_length=16),
        "gru": lambda: RecurrentBackbone("gru", tokenizer=tokenizer, hidden_size=4, layers=2),
    }[network]().train()
    other = checkpointed(copy.deepcopy(plain))
    inputs = plain.example_inputs()
    forward = lambda backbone: backbone(inputs)  # noqa: E731
    assert_same(step(plain, forward), step(other, forward))


@pytest.mark.slow
def test_bfloat16_is_the_same_too():
    plain = TorchvisionBackbone("resnet18", size=32).train()
    other = checkpointed(copy.deepcopy(plain))

    def forward(backbone):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return torch.cat([backbone(images()), backbone(images(seed=1))])  # the second finds cast weights

    assert_same(step(plain, forward), step(other, forward))


@pytest.mark.parametrize(("network", "module"), [("resnet18", "layer3.0"), ("vit", "blocks.3"), ("cnn", "conv2")])
def test_blocks_are_computed_again_in_the_backward_pass_and_only_there(network, module):
    backbone = checkpointed(NETWORKS[network]().train())
    runs = []
    inner = next(m for m in backbone.network.get_submodule(module).modules() if isinstance(m, (nn.Conv2d, nn.Linear)))
    inner.register_forward_hook(lambda *_: runs.append(1))
    loss = loss_of(backbone(images()))
    assert len(runs) == 1
    loss.backward()
    assert len(runs) == 2
    with torch.no_grad():
        backbone(images())
    assert len(runs) == 3


def kept_bytes(backbone: Backbone) -> int:
    """Bytes that a forward pass keeps for the backward pass: what autograd saves, and inputs of checkpointed blocks."""
    own = {t.untyped_storage().data_ptr() for t in [*backbone.parameters(), *backbone.buffers()]}
    saved: list[Tensor] = []
    gc.collect()
    gc.freeze()  # from here on Python lists only what is new
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        features = backbone(images(8))
    storages = [t.untyped_storage() for t in gc.get_objects() if type(t) is Tensor and t is not features]
    gc.unfreeze()
    return sum({s.data_ptr(): s.nbytes() for s in storages if s.data_ptr() not in own}.values())


@pytest.mark.slow
@pytest.mark.parametrize(("network", "ratio"), [("resnet18", 0.65), *slow(("vit", 0.15), ("cnn", 0.25))])
def test_less_is_kept_for_the_backward_pass(network, ratio):
    plain = NETWORKS[network]().train()
    other = checkpointed(copy.deepcopy(plain))
    assert kept_bytes(other) < ratio * kept_bytes(plain)


def test_a_frozen_norm_is_computed_again_with_the_statistics_of_the_domain_it_saw():
    plain = TorchvisionBackbone("resnet18", size=32).eval()
    add_source_statistics(plain)
    for name, buffer in plain.named_buffers():
        if "source_running" in name:
            nn.init.uniform_(buffer, 0.5, 1.5)
    other = checkpointed(copy.deepcopy(plain))

    def forward(backbone):
        with source_statistics(backbone):
            source = backbone(images())
        return torch.cat([source, backbone(images(seed=1))])

    assert_same(step(plain, forward), step(other, forward))


class Remembering(nn.Module):
    """A residual block whose output depends on what it saw before, as normalisation by moving statistics does."""

    def __init__(self) -> None:
        super().__init__()
        self.drop_path = None
        self.linear = nn.Linear(4, 4)
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        out = x + self.linear(x - self.mean).tanh()
        self.mean.lerp_(x.detach().mean(0), 0.5)
        return out


def small_backbone(network: nn.Module) -> Backbone:
    stages = [Stage("all", ("network",))]
    return ImageBackbone("small", network, size=32, channels=3, feature_size=4, stages=stages, input_layers=["0"])


def test_a_layer_that_reads_what_it_changes_sees_the_same_twice_and_gradients_can_be_asked_for_twice():
    torch.manual_seed(0)
    plain = small_backbone(nn.Sequential(Remembering(), Remembering())).train()
    other = checkpointed(copy.deepcopy(plain))
    found = []
    for backbone in (plain, other):
        x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
        loss = loss_of(torch.cat([backbone(x), backbone(x)]))
        first = torch.autograd.grad(loss, list(backbone.parameters()), retain_graph=True)
        second = torch.autograd.grad(loss, list(backbone.parameters()))
        assert all(map(torch.equal, first, second))
        found.append([*first, *backbone.buffers()])
    assert all(map(torch.equal, *found))


def test_a_copy_runs_its_own_layers():
    backbone = checkpointed(TorchvisionBackbone("resnet18", size=32).eval())
    other = copy.deepcopy(backbone)
    for parameter in other.network.layer2.parameters():
        nn.init.zeros_(parameter)
    assert not torch.equal(other(images()), backbone(images()))
    other(images()).sum().backward()
    assert all(p.grad is None for p in backbone.parameters())


def test_maps_recorded_while_the_network_runs_are_recorded_once_and_have_the_same_gradient():
    plain = TorchvisionBackbone("resnet18", size=32).train()
    other = checkpointed(copy.deepcopy(plain))
    recorded = []

    def forward(backbone):
        maps = []
        layer = backbone.network.layer3[0].bn1  # inside of a block
        handle = layer.register_forward_hook(lambda module, inputs, output: maps.append(output))
        features = backbone(images())
        handle.remove()
        recorded.append(maps)
        return torch.cat([features, *(m.mean((2, 3)).repeat(1, 2) for m in maps)])

    assert_same(step(plain, forward), step(other, forward))
    assert [len(maps) for maps in recorded] == [1, 1]


def test_a_network_with_nothing_to_cut_is_refused():
    with pytest.raises(GraftError, match=r"gradient_checkpointing=true: small has neither"):
        checkpoint_gradients(small_backbone(nn.Linear(4, 4)))
