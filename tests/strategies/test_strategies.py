"""Which parameters each strategy trains in which epochs, by names; what then moves is in test_steps.py."""

from itertools import pairwise

import pytest
import timm.layers
from torch import nn

from graft.backbones.cnn import cnn
from graft.backbones.timm import TimmBackbone
from graft.backbones.torchvision import TorchvisionBackbone
from graft.errors import GraftError
from graft.rates.backbone_ratio import BackboneRatio
from graft.rates.discriminative import Discriminative
from graft.rates.geometric import Geometric
from graft.rates.layer_decay import LayerDecay
from graft.rates.uniform import Uniform
from graft.strategies.base import batchnorm_parameters, frozen_modules, stage_names
from graft.strategies.bit_hyperrule import BitHyperRule, crop_for, steps_for
from graft.strategies.bitfit import BitFit
from graft.strategies.fine_tune import FineTune
from graft.strategies.freeze_until import FreezeUntil
from graft.strategies.frozen import Frozen
from graft.strategies.full import Full
from graft.strategies.gradual import Gradual
from graft.strategies.lp_ft import LinearProbeThenFineTune
from graft.strategies.norm_only import NormOnly
from graft.strategies.scratch import Scratch
from graft.strategies.surgical import Surgical


@pytest.fixture(scope="module")
def resnet():
    return TorchvisionBackbone("resnet18", size=32)


@pytest.fixture(scope="module")
def vit():
    return TimmBackbone("vit_tiny_patch16_224", size=32)


def names(backbone, *stages):
    return {name for stage in stages for name in backbone.stage_parameters(stage)}


def everything(backbone):
    return {name for name, _ in backbone.named_parameters()}


def test_full_and_scratch_train_everything_but_only_full_starts_from_pretrained_weights(resnet):
    assert Full().phases(5, resnet) == Scratch().phases(5, resnet)
    (phase,) = Full().phases(5, resnet)
    assert (phase.epochs, phase.stages, phase.parameters) == (5, stage_names(resnet), everything(resnet))
    assert (Full.pretrained, Scratch.pretrained) == (True, False)


def test_frozen_trains_nothing_of_the_backbone(resnet):
    (phase,) = Frozen().phases(5, resnet)
    assert (phase.epochs, phase.stages, phase.parameters) == (5, (), frozenset())


@pytest.mark.parametrize(("epochs", "fraction", "expected"), [(10, 0.5, (5, 5)), (2, 0.9, (1, 1)), (7, 0.1, (1, 6))])
def test_lp_ft_probes_first_and_both_phases_have_an_epoch(resnet, epochs, fraction, expected):
    phases = LinearProbeThenFineTune(fraction, lr_ratio=0.2).phases(epochs, resnet)
    assert [p.epochs for p in phases] == list(expected)
    assert [p.parameters for p in phases] == [frozenset(), everything(resnet)]
    assert [p.lr_factor for p in phases] == [1.0, 0.2]
    assert [p.restarts for p in phases] == [True, True]


def test_lp_ft_refuses_what_leaves_no_room_for_two_phases(resnet):
    with pytest.raises(GraftError, match=r"training\.epochs >= 2, not 1"):
        LinearProbeThenFineTune().phases(1, resnet)
    with pytest.raises(GraftError, match=r"probe_fraction=1\.0"):
        LinearProbeThenFineTune(probe_fraction=1.0)


# Gradual


def test_gradual_adds_a_stage_from_the_top_every_n_epochs_under_one_schedule(resnet):
    stages = stage_names(resnet)
    phases = Gradual(every_epochs=2).phases(20, resnet)
    assert [p.epochs for p in phases] == [2] * len(stages) + [20 - 2 * len(stages)]
    assert [p.stages for p in phases] == [stages[len(stages) - n :] for n in range(len(stages) + 1)]
    assert phases[2].parameters == names(resnet, *stages[-2:])
    assert [p.restarts for p in phases] == [True] + [False] * len(stages)


def test_gradual_unfreezes_at_listed_epochs_and_leaves_the_rest_frozen(resnet):
    phases = Gradual(unfreeze_at=[3, 4]).phases(10, resnet)
    assert [p.epochs for p in phases] == [3, 1, 6]
    assert phases[-1].parameters == names(resnet, *stage_names(resnet)[-2:])


def test_gradual_stops_where_training_does(resnet):
    assert [p.epochs for p in Gradual(every_epochs=3).phases(4, resnet)] == [3, 1]
    assert [p.epochs for p in Gradual(every_epochs=4).phases(4, resnet)] == [4]


@pytest.mark.parametrize("epochs", [[0, 2], [3, 2], [2, 2]])
def test_gradual_refuses_epochs_out_of_order(epochs):
    with pytest.raises(GraftError, match="rising order"):
        Gradual(unfreeze_at=epochs)


def test_gradual_refuses_more_epochs_than_stages(resnet):
    with pytest.raises(GraftError, match="unfreezes 9 stages"):
        Gradual(unfreeze_at=list(range(1, 10))).phases(20, resnet)


# Parts of the backbone


def test_freeze_until_counts_stages_from_the_input(resnet):
    first, *others = stage_names(resnet)
    (phase,) = FreezeUntil(stages=1).phases(5, resnet)
    assert phase.stages == tuple(others)
    assert everything(resnet) - phase.parameters == names(resnet, first)


def test_freeze_until_a_module_inside_a_stage(resnet):
    (phase,) = FreezeUntil(stages=None, module="layer3.1").phases(5, resnet)
    frozen = everything(resnet) - phase.parameters
    assert {n for n in frozen if "layer3" in n} == {n for n in everything(resnet) if n.startswith("network.layer3.0.")}
    assert not {n for n in frozen if "layer4" in n}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": 9}, "has 5 stages"),
        ({"stages": None, "module": "layer9"}, r"layer4\.1\.bn2"),
        ({"stages": 1, "module": "layer3"}, "set the other to null"),
        ({"stages": None}, "set the other to null"),
    ],
)
def test_freeze_until_refuses_what_the_backbone_does_not_have(resnet, options, message):
    with pytest.raises(GraftError, match=message):
        FreezeUntil(**options).phases(5, resnet)


@pytest.mark.parametrize(("stage", "index"), [("first", 0), ("last", -1), ("layer3", 3)])
def test_surgical_trains_one_stage(resnet, stage, index):
    chosen = stage_names(resnet)[index]
    (phase,) = Surgical(stage, train_head=False).phases(5, resnet)
    assert (phase.stages, phase.parameters, phase.heads) == ((chosen,), names(resnet, chosen), False)


def test_surgical_names_the_stages_there_are(resnet):
    with pytest.raises(GraftError, match="layer4"):
        Surgical("layer9").phases(5, resnet)


def test_bitfit_trains_biases_and_nothing_else(vit):
    (phase,) = BitFit().phases(5, vit)
    biases = {f"{name}.bias" for name, m in vit.named_modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.LayerNorm)}
    assert phase.parameters == biases
    assert phase.stages == stage_names(vit)


def test_norm_only_trains_norms_of_every_kind(resnet, vit):
    assert NormOnly().phases(5, resnet)[0].parameters == batchnorm_parameters(resnet)
    (phase,) = NormOnly().phases(5, vit)
    assert {name for name in everything(vit) if "norm" in name} == phase.parameters
    vit_rms = TimmBackbone("vit_tiny_patch16_224", size=32)
    vit_rms.network.norm = timm.layers.RmsNorm(192)
    assert "network.norm.weight" in NormOnly().phases(5, vit_rms)[0].parameters


def test_what_trains_only_norms_or_biases_refuses_a_network_without(resnet):
    with pytest.raises(GraftError, match="no norm layers"):
        NormOnly().phases(5, cnn())
    without = TorchvisionBackbone("resnet18", size=32)
    for module in without.modules():
        if getattr(module, "bias", None) is not None:
            module.bias = None
    with pytest.raises(GraftError, match="no biases"):
        BitFit().phases(5, without)


# Recipes


def test_fine_tune_is_a_frozen_epoch_and_then_everything_at_half_the_rate(resnet):
    frozen, full = FineTune().phases(6, resnet)
    assert (frozen.epochs, frozen.parameters, frozen.lr_factor) == (1, frozenset(), 1.0)
    assert (full.epochs, full.parameters, full.lr_factor) == (5, everything(resnet), 0.5)
    rates = [point.factor for point in full.schedule.table(100)]
    assert rates[0] == pytest.approx(1 / 5)
    assert max(range(100), key=rates.__getitem__) == pytest.approx(30, abs=1)
    assert rates[-1] < 0.01
    with pytest.raises(GraftError, match=r"training\.epochs >= 2, not 1"):
        FineTune().phases(1, resnet)


@pytest.mark.parametrize(
    ("samples", "steps"), [(10, 500), (19_999, 500), (20_000, 10_000), (499_999, 10_000), (500_000, 20_000)]
)
def test_bit_hyperrule_takes_its_steps_from_the_number_of_samples(samples, steps):
    assert steps_for(samples) == steps
    decided = BitHyperRule().settings(samples, lambda: None)
    assert decided["data.epoch"] * decided["training.epochs"] == steps
    assert decided.get("training.mixup_alpha") == (0.1 if samples >= 20_000 else None)


def test_bit_hyperrule_takes_its_resolution_from_the_images(resnet):
    assert (crop_for(96), crop_for(97)) == (128, 480)
    assert BitHyperRule().settings(100, lambda: 32)["data.image_size"] == 128


@pytest.mark.parametrize(
    ("samples", "schedule", "warmup", "falls"),
    [
        (100, "code", 100, [200, 300, 400]),
        (100, "paper", 0, [150, 300, 450]),
        (20_000, "code", 500, [3000, 6000, 9000]),
        (20_000, "paper", 0, [3000, 6000, 9000]),
    ],
)
def test_bit_hyperrule_has_the_schedule_of_the_paper_or_of_the_authors_code(resnet, samples, schedule, warmup, falls):
    rule = BitHyperRule(schedule=schedule)
    rule.settings(samples, lambda: None)
    rates = [point.factor for point in rule.phases(10, resnet)[0].schedule.table(steps_for(samples))]
    assert [step for step, (last, now) in enumerate(pairwise(rates), start=1) if now < 0.5 * last] == falls
    assert [step for step, rate in enumerate(rates) if rate == 1.0] == list(range(warmup, falls[0]))
    assert rates[-1] == pytest.approx(0.001)


# BatchNorm


@pytest.mark.parametrize(("train_bn", "trained"), [(None, False), (True, True), (False, False)])
def test_train_bn_says_whether_batchnorm_trains_in_frozen_stages(resnet, train_bn, trained):
    (phase,) = Frozen(train_bn=train_bn).phases(5, resnet)
    norms = [m for m in resnet.modules() if isinstance(m, nn.BatchNorm2d)]
    frozen = frozen_modules(resnet, phase)
    assert phase.parameters == (batchnorm_parameters(resnet) if trained else frozenset())
    assert [any(norm is module for module in frozen) for norm in norms] == [not trained] * len(norms)
    assert all(any(m is module for module in frozen) for m in resnet.modules() if isinstance(m, nn.Conv2d))


def test_train_bn_false_keeps_batchnorm_as_pretrained_while_the_rest_trains(resnet):
    (phase,) = Full(train_bn=False).phases(5, resnet)
    assert everything(resnet) - phase.parameters == batchnorm_parameters(resnet)
    assert {type(m) for m in frozen_modules(resnet, phase)} == {nn.BatchNorm2d}


# Rates


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        (Uniform(), [1, 1, 1]),
        (BackboneRatio(0.1), [0.1, 0.1, 0.1]),
        (Discriminative(2.6), [2.6**-3, 2.6**-2, 2.6**-1]),
        (LayerDecay(0.5), [0.125, 0.25, 0.5]),
        (Geometric(0.001), [0.001, 0.01, 0.1]),
    ],
)
def test_rates_are_fractions_of_the_heads(rates, expected):
    assert list(rates.multipliers(("stem", "layer1", "layer2")).values()) == pytest.approx(expected)
