"""What each strategy does to a real network: which parameters and buffers move, at which rate, resumed or not."""

import pytest
import pytorch_lightning as pl
import torch
import toy
from lanes import slow
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from graft.backbones.timm import TimmBackbone
from graft.backbones.torchvision import TorchvisionBackbone
from graft.data.module import TransferDataModule
from graft.data.sources.digits import Digits
from graft.inputs.base import DomainBatch
from graft.rates.discriminative import Discriminative
from graft.rates.geometric import Geometric
from graft.rates.layer_decay import LayerDecay
from graft.rates.uniform import Uniform
from graft.strategies.adapter import Adapter
from graft.strategies.bit_hyperrule import BitHyperRule
from graft.strategies.bitfit import BitFit
from graft.strategies.fine_tune import FineTune
from graft.strategies.fixed_head import FixedHead
from graft.strategies.freeze_until import FreezeUntil
from graft.strategies.frozen import Frozen
from graft.strategies.full import Full
from graft.strategies.gradual import Gradual
from graft.strategies.ia3 import IA3
from graft.strategies.lora import LoRA
from graft.strategies.lp_ft import LinearProbeThenFineTune
from graft.strategies.norm_only import NormOnly
from graft.strategies.scratch import Scratch
from graft.strategies.surgical import Surgical
from graft.training.schedules import Constant, Cosine, OneCycle

LR = 0.01
EPOCHS = 6
STAGES = ("conv1", "layer1", "layer2", "layer3", "layer4")
ALL, HEAD = set(STAGES), "head"


def build(strategy, rates=None, backbone=None, schedule=None, optimizer="SGD", classes=3):
    torch.manual_seed(0)
    backbone = backbone or TorchvisionBackbone("resnet18", size=32)
    strategy.prepare(backbone)
    options = {"momentum": 0.9} if optimizer == "SGD" else {}
    return toy.module_of(
        backbone,
        ["target"],
        classes,
        domains=["target"],
        strategy=strategy,
        rates=rates or Uniform(),
        schedule=schedule or Constant(),
        optimizer=toy.optimizer(optimizer, LR, **options),
    )


def trainer_of(callbacks=(), epochs=EPOCHS, **options):
    return toy.trainer_on_cpu(callbacks, max_epochs=epochs, use_distributed_sampler=False, **options)


def state_of(module):
    prefixes = ("backbone.", "heads.")
    return {name: value.clone() for name, value in module.state_dict().items() if name.startswith(prefixes)}


class Watch(pl.Callback):
    """Keeps, for every epoch, what its single step moved and the rates it moved with."""

    def __init__(self):
        self.moved, self.rates = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.before = state_of(pl_module)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        after = state_of(pl_module)
        self.moved.append({name for name, value in after.items() if not torch.equal(value, self.before[name])})
        groups = trainer.optimizers[0].param_groups
        self.rates.append({group["name"].removesuffix(" (no decay)"): group["lr"] for group in groups})


def steps(module):
    """One step an epoch on eight small images, each epoch followed by a validation."""
    torch.manual_seed(1)
    batch = DomainBatch(torch.randn(8, 3, 32, 32), torch.arange(8) % 3)
    watch = Watch()
    trainer_of([watch]).fit(
        module, {"target": toy.loader_of(batch, 8)}, DataLoader([{"target": batch}], batch_size=None)
    )
    return watch


def stage_of(name):
    """Written from torchvision's names, not from the backbone's stages."""
    part = name.split(".")[2] if name.startswith("backbone.network") else HEAD
    return {"bn1": "conv1"}.get(part, part)


def is_statistic(name):
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))


def is_norm(name):
    return "bn" in name or "downsample.1" in name


def names_where(module, keep):
    return {name for name in state_of(module) if not name.startswith("backbone.input_") and keep(name)}


def in_stages(stages):
    return lambda name: stage_of(name) in stages


def head_or_norm(name):
    return stage_of(name) == HEAD or is_norm(name)


CASES = {
    # name: (strategy, rates, what moves in epochs 0 to 5, rates of conv1, layer4 and the head in the last epoch)
    "scratch": (Scratch(), Uniform(), [in_stages({*ALL, HEAD})] * 6, (1, 1, 1)),
    "full": (Full(), Uniform(), [in_stages({*ALL, HEAD})] * 6, (1, 1, 1)),
    "discriminative": (Full(), Discriminative(2.6), [in_stages({*ALL, HEAD})] * 6, (2.6**-5, 1 / 2.6, 1)),
    "layer_decay": (Full(), LayerDecay(0.5), [in_stages({*ALL, HEAD})] * 6, (0.5**5, 0.5, 1)),
    "full_without_batchnorm": (
        Full(train_bn=False),
        Uniform(),
        [lambda n: stage_of(n) == HEAD or not is_norm(n)] * 6,
        (1, 1, 1),
    ),
    "frozen": (Frozen(), Uniform(), [in_stages({HEAD})] * 6, (None, None, 1)),
    "frozen_with_batchnorm": (Frozen(train_bn=True), Uniform(), [head_or_norm] * 6, (1, 1, 1)),
    "lp_ft": (
        LinearProbeThenFineTune(0.5, 0.3),
        Uniform(),
        [in_stages({HEAD})] * 3 + [in_stages({*ALL, HEAD})] * 3,
        (0.3, 0.3, 0.3),
    ),
    "gradual": (
        Gradual(),
        LayerDecay(0.5),
        [in_stages({HEAD, *STAGES[5 - n :]}) for n in range(6)],
        (0.5**5, 0.5, 1),
    ),
    "freeze_until": (
        FreezeUntil(stages=2),
        Uniform(),
        [in_stages({"layer2", "layer3", "layer4", HEAD})] * 6,
        (None, 1, 1),
    ),
    "surgical": (Surgical("layer2"), Uniform(), [in_stages({"layer2", HEAD})] * 6, (None, None, 1)),
    "surgical_without_head": (
        Surgical("last", train_head=False),
        Uniform(),
        [in_stages({"layer4"})] * 6,
        (None, 1, None),
    ),
    "fixed_head": (FixedHead(), Uniform(), [in_stages(ALL)] * 6, (1, 1, None)),
    "bitfit": (
        BitFit(),
        Uniform(),
        [lambda n: stage_of(n) == HEAD or n.endswith("bias") or is_statistic(n)] * 6,
        (1, 1, 1),
    ),
    "norm_only": (NormOnly(), Uniform(), [head_or_norm] * 6, (1, 1, 1)),
    "bit_hyperrule": (BitHyperRule(), Uniform(), [in_stages({*ALL, HEAD})] * 6, (0.001, 0.001, 0.001)),
}


SOON = ("frozen", "gradual", "layer_decay", "bitfit")  # the rest in `make test-all`


@pytest.mark.parametrize("case", [*SOON, *slow(*(case for case in CASES if case not in SOON))])
def test_a_step_moves_exactly_what_the_strategy_says(case):
    strategy, rates, moving, (first, last, head) = CASES[case]
    module = build(strategy, rates)
    watch = steps(module)
    for epoch, keep in enumerate(moving):  # also the epochs after a validation
        assert watch.moved[epoch] == names_where(module, keep), f"epoch {epoch}"
    expected = {"backbone/conv1": first, "backbone/layer4": last, "head/target": head}
    for part, rate in expected.items():
        assert watch.rates[-1].get(part) == (None if rate is None else pytest.approx(LR * rate)), part


@pytest.mark.slow
def test_fine_tune_cycles_twice_and_spreads_the_rates():
    module = build(FineTune(freeze_epochs=2), Geometric(0.01))
    watch = steps(module)
    expected = [names_where(module, in_stages({HEAD}))] * 2 + [names_where(module, in_stages({*ALL, HEAD}))] * 4
    assert watch.moved[:-1] == expected[:-1]
    assert len(watch.moved) == len(expected)  # a cycle's last rate is too small to move every weight
    heads = [rates["head/target"] for rates in watch.rates]
    frozen, full = OneCycle(0.99, 25, 4000).table(2), OneCycle(0.3, 5, 20000).table(4)
    assert heads == pytest.approx([LR * p.factor for p in frozen] + [LR * 0.5 * p.factor for p in full])
    for rates in watch.rates[2:]:
        assert rates["backbone/conv1"] / rates["head/target"] == pytest.approx(0.01)
        assert rates["backbone/layer4"] / rates["head/target"] == pytest.approx(0.01 ** (1 / 5))


def test_gradual_goes_on_in_one_schedule():
    module = build(Gradual(every_epochs=2), schedule=Cosine(0.0))
    watch = steps(module)
    assert [r["head/target"] for r in watch.rates] == pytest.approx([LR * p.factor for p in Cosine(0.0).table(EPOCHS)])


# Resume

RESUMED = {
    "lp_ft": (LinearProbeThenFineTune, {"probe_fraction": 0.5}),
    "gradual": (Gradual, {"every_epochs": 1}),
    "gradual_train_bn": (Gradual, {"every_epochs": 1, "train_bn": True}),
    "fine_tune": (FineTune, {}),
    "freeze_until": (FreezeUntil, {"stages": 1}),
    "surgical": (Surgical, {}),
    "bitfit": (BitFit, {}),
    "norm_only": (NormOnly, {}),
    "frozen": (Frozen, {}),
    "full": (Full, {"train_bn": False}),
    "bit_hyperrule": (BitHyperRule, {}),
    "lora": (LoRA, {"r": 2, "dropout": 0.3}),
    "dora": (LoRA, {"r": 2, "dora": True}),
    "ia3": (IA3, {"train_bn": True}),
    "adapter": (Adapter, {"bottleneck": 2}),
}


class Diary(pl.Callback):
    """Notes before every step what trains, in which mode, and how fast."""

    def __init__(self):
        self.entries = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        trainable = [name for name, p in pl_module.named_parameters() if p.requires_grad]
        training = [name for name, m in pl_module.backbone.named_modules() if m.training]
        groups = [(g["name"], g["lr"], g["base_lr"], g["betas"], g["weight_decay"]) for g in optimizer.param_groups]
        self.entries.append((trainer.global_step, trainable, training, groups))


def fit_digits(strategy, backbone, callbacks, resume=None, epochs=4):
    """Three steps an epoch on real digits with augmentation."""
    module = build(strategy, LayerDecay(0.5), backbone, OneCycle(), "AdamW", classes=10)
    data = TransferDataModule(Digits(), batch_size=10, labels_per_class=3, augment="light", eval_batch_size=512)
    data.load()
    data.set_input(backbone.input_spec)
    trainer = trainer_of(callbacks, epochs, limit_val_batches=0)
    trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    return state_of(module)


def test_rates_by_block_divide_stages_and_leave_every_parameter_in_one_group():
    backbone = TimmBackbone("test_resnet", size=64)
    module = build(Full(), LayerDecay(0.5, unit="block"), backbone, Constant(), "AdamW")
    depths = backbone.block_depths()
    table = {row["name"]: row for row in module.parameter_table(1)}
    rates = {row["lr"] / module.optimizer_config["lr"] for row in table.values()}
    assert rates == {0.5**depth for depth in (0, *depths.values())}
    assert sum(row["parameters"] for row in table.values()) == sum(p.numel() for p in module.parameters())
    rate_of = {}

    class Look(pl.Callback):
        def on_train_start(self, trainer, pl_module):
            names = {id(p): name for name, p in backbone.named_parameters()}
            for group in trainer.optimizers[0].param_groups:
                rate_of.update({names[id(p)]: group["base_lr"] for p in group["params"] if id(p) in names})

    batch = DomainBatch(torch.randn(8, 3, 64, 64), torch.arange(8) % 3)
    trainer_of([Look()], 1, limit_val_batches=0).fit(module, {"target": toy.loader_of(batch, 8)})
    lr = module.optimizer_config["lr"]
    assert rate_of == pytest.approx({name: lr * 0.5**depth for name, depth in depths.items()})


QUICK = ("lp_ft", "lora")  # several phases, and what is added to the network


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint.*")  # resuming saves nothing here
@pytest.mark.parametrize("case", [*QUICK, *slow(*(case for case in RESUMED if case not in QUICK))])
def test_a_run_killed_in_any_phase_goes_on_as_if_it_had_not_been(case, tiny_backbone, tmp_path):
    make, options = RESUMED[case]
    names = {"filename": "{step}", "auto_insert_metric_name": False, "enable_version_counter": False}
    every_step = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1, **names)
    diary = Diary()
    whole = fit_digits(make(**options), tiny_backbone(dropout=0.5), [every_step, diary])
    assert len(diary.entries) == 12
    for step in (1, 3, 4, 5, 6, 7, 8, 9, 11):  # inside and at the end of every epoch, so of every phase
        resumed = Diary()
        weights = fit_digits(
            make(**options), tiny_backbone(seed=9, dropout=0.5), [resumed], resume=tmp_path / f"{step}.ckpt"
        )
        assert resumed.entries == diary.entries[step:], f"killed after step {step}"
        assert all(torch.equal(value, weights[name]) for name, value in whole.items()), f"killed after step {step}"
