import copy
import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from graft.backbones.base import ImageBackbone, Stage
from graft.backbones.timm import TimmBackbone
from graft.backbones.torchvision import TorchvisionBackbone
from graft.errors import GraftError
from graft.inputs.base import DomainBatch
from graft.terms.regularization.channel_attention import (
    attention_weights,
    outputs_in_order,
    remembered,
    without_channel,
)
from graft.terms.regularization.delta import DELTA, delta_penalty

from .cases import CLASSES, disturb, setup_of, step_of, target_samples, train

LAYERS = {"stem": "network.stem", "layer1": "network.layer1"}


def by_hand(maps, pretrained, attention):
    """`1/2 * C * sum_c att_c * ||FM_c - FM0_c||^2 / (h*w)` of maps `(B, C, h, w)`, one sample at a time, averaged."""
    total = 0.0
    samples, channels, height, width = maps.shape
    for b in range(samples):
        for c in range(channels):
            distance = sum(
                (maps[b, c, i, j].item() - pretrained[b, c, i, j].item()) ** 2
                for i in range(height)
                for j in range(width)
            )
            total += 0.5 * channels * attention[c].item() * distance / (height * width)
    return total / samples


def stage_maps(backbone, inputs):
    """Maps of the tiny backbone's stages, computed without any hook."""
    stem = backbone.network.stem(inputs)
    return {"stem": stem, "layer1": backbone.network.layer1(stem)}


def prepared(backbone, **options):
    context = setup_of(backbone)
    term = DELTA(**options)
    term.prepare(context)
    return term, context


def weights_of(term):
    """Channel weights by layer of the tiny backbone."""
    return dict(zip(LAYERS, term.channel_weights.split([4, 6]), strict=True))


# The formula


def test_the_penalty_and_its_gradient_are_those_of_the_formula():
    generator = torch.Generator().manual_seed(0)
    maps, pretrained = torch.randn(2, 3, 4, 2, 5, generator=generator, dtype=torch.float64)
    attention = torch.rand(4, generator=generator, dtype=torch.float64).softmax(0)
    maps.requires_grad_()
    value = delta_penalty(maps.flatten(2), pretrained.flatten(2), attention)
    value.backward()
    assert value.item() == pytest.approx(by_hand(maps, pretrained, attention), rel=1e-12)
    for index in [(0, 0, 0, 0), (2, 3, 1, 4), (1, 2, 0, 3)]:
        expected = 4 * attention[index[1]] * (maps[index] - pretrained[index]) / (2 * 5) / 3
        assert maps.grad[index].item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("attention", [True, False])
def test_the_term_sums_the_penalty_over_the_stages(tiny_backbone, attention):
    backbone = tiny_backbone().double().eval()
    before = copy.deepcopy(backbone)
    term, context = prepared(backbone, attention=attention)
    backbone.train()  # as in training: the pretrained one stays in eval
    disturb(backbone)
    inputs, labels = target_samples(backbone)
    twin = copy.deepcopy(backbone)
    value = term(step_of(context, {"target": (inputs, labels)}))
    trained, pretrained = stage_maps(twin, inputs), stage_maps(before, inputs)
    expected = sum(by_hand(trained[s], pretrained[s], weights_of(term)[s]) for s in LAYERS)
    assert value.item() == pytest.approx(expected, rel=1e-10)
    value.backward()
    twin_value = sum(
        delta_penalty(trained[s].flatten(2), pretrained[s].detach().flatten(2), weights_of(term)[s]) for s in LAYERS
    )
    twin_value.backward()
    for got, wanted in zip(backbone.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(got.grad, wanted.grad, rtol=1e-9, atol=1e-12)


def test_layers_chooses_stages(tiny_backbone):
    backbone = tiny_backbone().double().eval()
    before = copy.deepcopy(backbone)
    term, context = prepared(backbone, layers=["layer1"], attention=False)
    backbone.train()
    disturb(backbone)
    inputs, labels = target_samples(backbone)
    twin = copy.deepcopy(backbone)
    value = term(step_of(context, {"target": (inputs, labels)}))
    maps, pretrained = stage_maps(twin, inputs)["layer1"], stage_maps(before, inputs)["layer1"]
    assert value.item() == pytest.approx(by_hand(maps, pretrained, torch.full((6,), 1 / 6)), rel=1e-10)


# The attention


def test_channel_weights_are_those_of_switching_off_one_channel_after_the_other(tiny_backbone):
    backbone = tiny_backbone().double()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter *= 3  # so that single channels matter
    term, _ = prepared(backbone, attention_samples=7)
    backbone.eval()

    inputs, labels = target_samples(backbone)
    w, b = probe_by_newton(backbone(inputs).detach(), labels)
    chosen = torch.cat([torch.nonzero(labels == c)[: 7 // CLASSES, 0] for c in range(CLASSES)])

    def loss(features):
        logits = features @ w.T + b
        total = 0.0
        for row, label in zip(logits.tolist(), labels[chosen].tolist(), strict=True):
            total += math.log(sum(math.exp(v) for v in row)) - row[label]
        return total / len(chosen)

    stem, pool = backbone.network.stem(inputs[chosen]), backbone.network.pool
    unchanged = loss(pool(backbone.network.layer1(stem)))
    for stage, channels in (("stem", 4), ("layer1", 6)):
        increases = []
        for channel in range(channels):
            maps = stem.clone() if stage == "stem" else backbone.network.layer1(stem).clone()
            maps[:, channel] = 0
            increases.append(loss(pool(backbone.network.layer1(maps) if stage == "stem" else maps)) - unchanged)
        expected = torch.tensor([math.exp(i / 5) for i in increases], dtype=torch.float64)
        assert max(increases) > 0.05
        torch.testing.assert_close(weights_of(term)[stage], expected / expected.sum(), rtol=1e-5, atol=1e-6)
        assert weights_of(term)[stage].sum().item() == pytest.approx(1)


def test_standardized_attention_is_the_softmax_of_standard_scores():
    increases = torch.tensor([0.001, 0.004, -0.002, 0.0], dtype=torch.float64)
    mean = sum(increases.tolist()) / 4
    spread = math.sqrt(sum((v - mean) ** 2 for v in increases.tolist()) / 4)
    expected = torch.tensor([math.exp((v - mean) / spread / 5) for v in increases.tolist()], dtype=torch.float64)
    torch.testing.assert_close(attention_weights(increases, standardize=True), expected / expected.sum())
    same = attention_weights(torch.full((4,), 0.3), standardize=True)
    torch.testing.assert_close(same, torch.full((4,), 0.25))


def probe_by_newton(features, labels):
    """Weights and biases of the logistic regression `1/2 ||W||^2 + sum of cross entropies`, by Newton's method."""
    n, d = features.shape
    padded = torch.cat([features, torch.ones(n, 1, dtype=torch.float64)], dim=1)
    one_hot = nn.functional.one_hot(labels, CLASSES).double()
    decay = torch.ones(CLASSES, d + 1, dtype=torch.float64)
    decay[:, -1] = 0
    theta = torch.zeros(CLASSES * (d + 1), dtype=torch.float64)

    def objective(flat):
        table = flat.view(CLASSES, d + 1)
        logits = padded @ table.T
        return (decay * table.square()).sum() / 2 - (one_hot * logits.log_softmax(1)).sum()

    for _ in range(20):
        gradient = torch.autograd.functional.jacobian(objective, theta)
        theta = theta - torch.linalg.pinv(torch.autograd.functional.hessian(objective, theta)) @ gradient
    table = theta.view(CLASSES, d + 1)
    return table[:, :-1], table[:, -1]


def test_what_runs_before_a_layer_is_computed_once_and_the_backbone_is_left_as_it_was(tiny_backbone):
    context = setup_of(tiny_backbone())
    runs = {name: [] for name in LAYERS.values()}
    for name, seen in runs.items():
        part = context.teacher.backbone.get_submodule(name)[0]
        part.register_forward_hook(lambda _m, _x, _y, seen=seen: seen.append(1))
    term = DELTA()
    term.prepare(context)
    # one sample for its shape, two batches for the probe, two runs without and one with every channel switched off
    assert {name: len(seen) for name, seen in runs.items()} == {"network.stem": 5 + 4, "network.layer1": 5 + 4 + 6}
    inputs, _ = target_samples(context.backbone)
    torch.testing.assert_close(context.teacher.backbone(inputs), context.backbone.eval()(inputs))
    assert not any("forward" in vars(module) for module in context.teacher.backbone.modules())


@pytest.mark.parametrize(
    "build",
    [partial(TorchvisionBackbone, "resnet18"), partial(TimmBackbone, "vit_tiny_patch16_224")],
    ids=["in-place ReLU", "tokens"],
)
def test_repeating_earlier_outputs_changes_no_feature(build):
    backbone = build(size=32).eval().requires_grad_(False)
    inputs, _ = target_samples(backbone, 2)
    ran = dict(outputs_in_order(backbone, inputs))
    layer = backbone.output_module(backbone.stages[2].name)
    before = {name: output for name, output in ran.items() if list(ran).index(name) < list(ran).index(layer)}
    assert len(before) >= 2
    with remembered(backbone, before):
        quick = without_channel(backbone, layer, 3, inputs)
    assert torch.equal(quick, without_channel(backbone, layer, 3, inputs))
    assert not torch.equal(quick, backbone(inputs))


def test_the_attention_is_the_same_a_second_time_and_in_the_checkpoint(tiny_backbone):
    first, _ = prepared(tiny_backbone())
    second, _ = prepared(tiny_backbone())
    assert list(first.state_dict()) == ["channel_weights"]
    assert torch.equal(first.channel_weights, second.channel_weights)
    assert not list(first.parameters())


# The recorded maps


def test_domains_are_paired_with_their_own_maps_however_they_run(tiny_backbone):
    backbone = tiny_backbone().double()
    term, context = prepared(backbone)
    disturb(backbone)
    for module in backbone.modules():
        module.training = not isinstance(module, nn.BatchNorm2d)  # so that batches do not change each other
    batch = {"source": target_samples(backbone, 4, seed=9), "target": target_samples(backbone, 6)}
    separate, joint = term(step_of(context, batch)), term(step_of(context, batch, joint=True))
    swapped = term(step_of(context, {"target": batch["target"], "source": batch["source"]}))
    torch.testing.assert_close(separate, joint)
    torch.testing.assert_close(separate, swapped)


def test_other_forwards_leave_a_step_alone(tiny_backbone):
    backbone = tiny_backbone().double()
    term, context = prepared(backbone)
    disturb(backbone)
    batch = {"target": target_samples(backbone)}
    backbone.train()
    expected = term(step_of(context, batch)).item()
    step = step_of(context, batch)
    backbone.eval()
    backbone(target_samples(backbone, 5)[0])  # validation
    backbone.train()
    with torch.no_grad():
        copy.deepcopy(backbone)(target_samples(backbone, 5)[0])
    context.teacher.backbone(target_samples(backbone, 5)[0])
    assert term(step).item() == expected
    with pytest.raises(RuntimeError, match="did the backbone run"):
        term(step)  # its maps are gone


def test_a_step_that_nobody_read_is_forgotten(tiny_backbone):
    backbone = tiny_backbone().double()
    term, context = prepared(backbone)
    disturb(backbone)
    for _ in range(3):
        step_of(context, {"target": target_samples(backbone, 5)})
    twin = copy.deepcopy(backbone)
    value = term(step_of(context, {"target": target_samples(backbone)}))
    maps = stage_maps(twin, target_samples(backbone)[0])
    pretrained = stage_maps(context.teacher.backbone, target_samples(backbone)[0])
    expected = sum(by_hand(maps[s], pretrained[s], weights_of(term)[s]) for s in LAYERS)
    assert value.item() == pytest.approx(expected, rel=1e-10)


def test_a_deep_copy_records_for_itself(tiny_backbone):
    term, context = prepared(tiny_backbone())
    step = step_of(context, {"target": target_samples(context.backbone)})  # leaves maps with their graph behind
    backbone, twin = copy.deepcopy((context.backbone, term))
    twin_setup = setup_of(backbone)
    disturb(backbone)
    value = twin(step_of(twin_setup, {"target": target_samples(backbone)}))
    assert value > term(step) + 0.01


def test_a_module_replaced_after_prepare_is_recorded(tiny_backbone):
    term, context = prepared(tiny_backbone(), layers=["layer1"])
    context.backbone.network.layer1 = copy.deepcopy(context.backbone.network.layer1)
    assert term(step_of(context, {"target": target_samples(context.backbone)})).requires_grad


def test_gradient_checkpointing_changes_nothing(tiny_backbone):
    values = []
    for checkpointing in (False, True):
        backbone = tiny_backbone().double()
        term, context = prepared(backbone)
        disturb(backbone)
        if checkpointing:
            backbone.network.layer1.forward = partial(checkpoint, backbone.network.layer1.forward, use_reentrant=False)
            backbone.network.stem.forward = partial(checkpoint, backbone.network.stem.forward, use_reentrant=False)
            next(backbone.parameters()).register_hook(lambda grad: values.append("backward"))
        values.append(train(term, context, steps=3, lr=0.01))
    assert values[0] == values.pop()
    assert values[1:] == ["backward"] * 3


# On networks


def test_it_pulls_the_maps_back(tiny_backbone):
    term, context = prepared(tiny_backbone().eval())
    disturb(context.backbone, scale=0.3)
    context.backbone.train()
    for module in context.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    values = train(term, context, steps=60, lr=0.05)
    assert values[-1] < 0.1 * values[0]


@pytest.mark.slow
def test_a_vision_transformers_tokens_are_maps():
    backbone = TimmBackbone("vit_tiny_patch16_224", size=32)
    term, context = prepared(backbone, layers=["patch_embed", "blocks.0", "blocks.11"], attention=False)
    assert term.channel_weights.shape == (3 * 192,)
    batch = {"target": target_samples(backbone, 4)}
    assert term(step_of(context, batch)) == 0
    disturb(backbone, scale=0.02)
    value = term(step_of(context, batch))
    inputs = batch["target"][0]
    expected = 0.0
    for name in ("patch_embed", "blocks.0", "norm"):
        outputs = []
        for network in (backbone.network, context.teacher.backbone.network):
            module, keep = network.get_submodule(name), lambda _m, _x, y, kept=outputs: kept.append(y.detach())
            handle = module.register_forward_hook(keep)
            network(inputs)
            handle.remove()
        tokens, tokens0 = outputs  # (B, N, D)
        expected += 0.5 * ((tokens - tokens0) ** 2).sum(2).sum(1).mean().item() / tokens.shape[1]
    assert value.item() == pytest.approx(expected, rel=1e-4)
    values = train(term, context, steps=3, lr=1e-4)
    assert values[-1] < 0.8 * values[0]


def test_channels_last_maps_and_features_are_read_along_their_channels():
    class ToChannelsLast(nn.Module):
        def forward(self, x):
            return x.permute(0, 2, 3, 1)

    torch.manual_seed(0)
    network = nn.Sequential()
    network.add_module("maps", nn.Sequential(nn.Conv2d(1, 5, 3), ToChannelsLast()))
    network.add_module("features", nn.Sequential(nn.Flatten(), nn.Linear(5 * 36, 7)))
    stages = [Stage(name, (f"network.{name}",)) for name in ("maps", "features")]
    backbone = ImageBackbone("swin", network, size=8, channels=1, feature_size=7, stages=stages)
    term, context = prepared(backbone)
    assert term.channel_weights.shape == (5 + 7,)
    disturb(backbone)
    twin = copy.deepcopy(network)
    inputs, labels = target_samples(backbone)
    value = term(step_of(context, {"target": (inputs, labels)}))
    frozen = context.teacher.backbone.network
    maps, maps0 = twin.maps[0](inputs), frozen.maps[0](inputs)
    features, features0 = (net(inputs)[:, :, None, None] for net in (twin, frozen))
    first, second = term.channel_weights.split([5, 7])
    expected = by_hand(maps, maps0, first) + by_hand(features, features0, second)
    assert value.item() == pytest.approx(expected, rel=1e-4)


# Refusals


def test_what_it_cannot_work_with_is_refused(tiny_backbone):
    with pytest.raises(GraftError, match="delta needs pretrained weights"):
        DELTA().prepare(setup_of(tiny_backbone(), pretrained=False))
    for layers in (["layer7"], []):
        with pytest.raises(GraftError, match=r"term.delta.layers=.*Allowed: null for all, or some of stem, layer1"):
            DELTA(layers=layers).prepare(setup_of(tiny_backbone()))
    with pytest.raises(GraftError, match=r"delta.weight=-1"):
        DELTA(weight=-1)
    with pytest.raises(GraftError, match=r"delta.attention_samples=0"):
        DELTA(attention_samples=0)


@pytest.mark.parametrize("kind", ["unlabelled", "several a sample", "numbers"])
def test_attention_needs_a_class_a_sample_and_uniform_weights_do_not(tiny_backbone, kind):
    backbone = tiny_backbone()
    inputs, labels = target_samples(backbone)
    labels = {"unlabelled": None, "several a sample": nn.functional.one_hot(labels), "numbers": labels.float()}[kind]
    changes = {"samples": lambda: [DomainBatch(inputs, labels)], "num_classes": None if kind == "numbers" else CLASSES}
    with pytest.raises(GraftError, match=r"Set term.delta.attention=false"):
        DELTA().prepare(setup_of(backbone, **changes))
    DELTA(attention=False).prepare(setup_of(backbone, **changes))


def test_a_stage_without_maps_is_refused(tiny_backbone):
    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    class First(nn.Module):
        def forward(self, pair):
            return pair[0]

    backbone = tiny_backbone()
    backbone.network.layer1.add_module("pair", Pair())
    backbone.network.pool = nn.Sequential(First(), backbone.network.pool)
    with pytest.raises(GraftError, match=r"network.layer1 puts out no map.*term.delta.layers"):
        DELTA().prepare(setup_of(backbone))
    DELTA(layers=["stem"]).prepare(setup_of(backbone))
