import copy

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
import toy
from pytorch_lightning.callbacks import Checkpoint
from torch import nn
from torch.utils.data import DataLoader

from graft.backbones.cnn import cnn
from graft.inputs.base import DomainBatch
from graft.module import step_seed
from graft.objectives.additive import AdditiveRetraining
from graft.objectives.alpha import AlphaWeighted
from graft.rates.backbone_ratio import BackboneRatio
from graft.selection.target_val import TargetValidation
from graft.strategies.frozen import Frozen
from graft.strategies.full import Full
from graft.strategies.lp_ft import LinearProbeThenFineTune
from graft.terms.base import Term
from graft.training.schedules import Cosine, OneCycle, Plateau

SGD = toy.optimizer(momentum=0.9)


def build_module(backbone, **settings):
    torch.manual_seed(1)
    return toy.module_of(backbone, **settings)


def batch_of(domains, size=8, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return {
        domain: DomainBatch(
            torch.randn(size, 1, 8, 8, generator=generator).to(dtype),
            torch.randint(0, 3, (size,), generator=generator),
        )
        for domain in domains
    }


def loaders_of(domains, seed=0):
    return {domain: toy.loader_of(one, 4) for domain, one in batch_of(domains, seed=seed).items()}


def fit(module, domains=("target",), epochs=2, callbacks=(), validate=False, ckpt_path=None, loaders=None, **options):
    trainer = toy.trainer_on_cpu(callbacks, max_epochs=epochs, **options)
    val = DataLoader([{"target": one} for one in toy.split(batch_of(["target"])["target"], 4)], batch_size=None)
    trainer.fit(
        module, loaders or loaders_of(domains), val if validate else None, ckpt_path=ckpt_path, weights_only=True
    )
    return trainer


def snapshot(module):
    return {name: value.clone() for name, value in module.state_dict().items() if not name.startswith(METRICS)}


METRICS = ("train_metrics", "eval_losses", "eval_metrics", "test_metrics")


def moved(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


class AtEpochStart(pl.Callback):
    """Keeps weights, training modes and rates at the first batch of every epoch."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 0:
            leaves = {n for n, m in pl_module.backbone.named_modules() if m.training and not [*m.children()]}
            self.seen.append({"weights": snapshot(pl_module), "training": leaves})

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 0:
            self.seen[-1]["rates"] = {group["name"]: group["lr"] for group in trainer.optimizers[0].param_groups}


# The objective


def test_the_gradient_at_alpha_is_the_weighted_sum_of_the_two(tiny_backbone):
    module = build_module(tiny_backbone().double(), objective=AlphaWeighted(0.3)).double().eval()
    batch = batch_of(["target", "source"], dtype=torch.float64)
    parameters = list(module.parameters())

    losses = module.domain_losses(batch, module.domain_outputs(batch))
    combined = torch.autograd.grad(module.objective(losses, 0.0), parameters)
    alone = {}
    for domain, one in batch.items():
        logits = module.heads["shared"](module.backbone(one.inputs))
        alone[domain] = torch.autograd.grad(F.cross_entropy(logits, one.labels), parameters)

    for got, source, target in zip(combined, alone["source"], alone["target"], strict=True):
        torch.testing.assert_close(got, 0.3 * source + 0.7 * target, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("alpha", "domain"), [(0.0, "target"), (1.0, "source")])
def test_alpha_at_its_ends_is_training_on_one_side_bit_for_bit(tiny_backbone, alpha, domain):
    module = build_module(tiny_backbone(dropout=0.5), objective=AlphaWeighted(alpha))
    fit(module, domains=module.objective.domains())

    reference = build_module(tiny_backbone(dropout=0.5))  # the same network and a loop of its own
    network = nn.Sequential(reference.backbone, reference.heads["shared"]).train()
    decayed = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": 0.01}, {"params": plain}], lr=0.1, momentum=0.9, fused=True
    )
    for epoch in range(2):
        for step, one in enumerate(loaders_of([domain])[domain]):
            torch.manual_seed(step_seed(0, epoch, step))
            optimizer.zero_grad()
            F.cross_entropy(network(one.inputs), one.labels).backward()
            optimizer.step()
    assert moved(snapshot(module), snapshot(reference)) == set()


@pytest.mark.parametrize(("schedule", "alphas"), [("linear", [1.0, 0.5]), ("step", [1.0, 0.0])])
def test_a_scheduled_alpha_is_logged_each_epoch(tiny_backbone, schedule, alphas):
    class Watch(pl.Callback):
        seen = []  # noqa: RUF012

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.seen.append(pl_module.objective.alpha((trainer.global_step - 1) / 4))

    Watch.seen = []
    module = build_module(tiny_backbone(), objective=AlphaWeighted(1.0, 0.0, schedule))
    trainer = fit(module, domains=("source", "target"), callbacks=[Watch()])
    assert [Watch.seen[0], Watch.seen[2]] == alphas
    assert trainer.callback_metrics["objective/source_weight"] == 0.0


def test_additive_retraining_moves_the_backbone_and_leaves_the_source_head(tiny_backbone):
    module = build_module(tiny_backbone(), heads=("source", "target"), objective=AdditiveRetraining(0.5))
    before = snapshot(module)
    fit(module, domains=("source", "target"))
    changed = moved(before, snapshot(module))
    assert not {name for name in changed if name.startswith("heads.source")}
    assert {name.split(".")[0] + "." + name.split(".")[1] for name in changed} == {"backbone.network", "heads.target"}


def test_a_separate_head_whose_domain_has_no_weight_does_not_train(tiny_backbone):
    module = build_module(tiny_backbone(), heads=("source", "target"))
    before = snapshot(module)
    fit(module)
    assert not {name for name in moved(before, snapshot(module)) if name.startswith("heads.source")}


# Strategies


def test_frozen_leaves_every_backbone_parameter_and_buffer_bit_equal(tiny_backbone):
    module = build_module(tiny_backbone(dropout=0.5), strategy=Frozen())
    before, watch = snapshot(module), AtEpochStart()
    fit(module, callbacks=[watch], validate=True)
    assert {name.split(".")[0] for name in moved(before, snapshot(module))} == {"heads"}
    for epoch in watch.seen:  # also after the validation that ends the first epoch
        assert epoch["training"] == set()
    assert all(p.grad is None for p in module.backbone.parameters())


def test_a_phase_freezes_once_and_frozen_parts_are_in_eval_mode_at_the_begin_of_each_epoch(tiny_backbone, monkeypatch):
    applied, modes = [], []
    module = build_module(tiny_backbone(), strategy=LinearProbeThenFineTune(probe_fraction=0.5))
    apply = module.apply_phase

    class Disturb(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            layers = [part for part in pl_module.backbone.modules() if [*part.parameters(recurse=False)]]
            modes.append({layer.training for layer in layers})

        def on_train_epoch_end(self, trainer, pl_module):
            for part in pl_module.backbone.modules():
                part.training = not part.training

    monkeypatch.setattr(module, "apply_phase", lambda phase: applied.append(module.current_epoch) or apply(phase))
    fit(module, epochs=6, callbacks=[Disturb()])
    assert applied == [0, 3]
    steps = len(modes) // 6
    assert modes == [{False}] * 3 * steps + [{True}] * 3 * steps


def test_lp_ft_moves_the_head_first_and_everything_after(tiny_backbone):
    strategy = LinearProbeThenFineTune(probe_fraction=0.5, lr_ratio=0.2)
    module = build_module(tiny_backbone(), strategy=strategy, rates=BackboneRatio(0.1))
    watch = AtEpochStart()
    fit(module, epochs=4, callbacks=[watch], validate=True)
    first, second, third = (watch.seen[i]["weights"] for i in (0, 1, 2))
    assert {n.split(".")[0] for n in moved(first, second) | moved(second, third)} == {"heads"}
    learned = {n for n in moved(third, snapshot(module)) if "num_batches" not in n}
    assert learned == {n for n in third if "num_batches" not in n and not n.startswith("backbone.input_")}
    assert watch.seen[0]["rates"]["head/shared"] == pytest.approx(0.1)
    rates = {"backbone/stem": 0.002, "backbone/layer1": 0.002, "head/shared": 0.02}
    assert watch.seen[2]["rates"] == pytest.approx(rates | {f"{part} (no decay)": r for part, r in rates.items()})


def test_full_moves_everything(tiny_backbone):
    module = build_module(tiny_backbone())
    before = snapshot(module)
    fit(module)
    assert moved(before, snapshot(module)) == {n for n in before if not n.startswith("backbone.input_")}


def test_norms_and_biases_go_without_weight_decay_unless_asked(tiny_backbone):
    for decay_all, plain in ((False, 0.0), (True, 0.01)):
        module = build_module(tiny_backbone(), optimizer=SGD | {"decay_norms_and_biases": decay_all})
        groups = fit(module, epochs=1).optimizers[0].param_groups
        decays = {p.ndim > 1: g["weight_decay"] for g in groups for p in g["params"]}
        assert decays == {True: 0.01, False: plain}


# What happens to a batch, and what makes a step of batches


class Shift:
    """A batch transform: random, and another one in every epoch."""

    def __call__(self, batch, epoch):
        shifted = {}
        for domain, one in batch.items():
            soft = None if one.labels is None else 0.9 * F.one_hot(one.labels, 3) + 0.1 / 3
            shifted[domain] = DomainBatch(one.inputs + epoch + torch.rand(()), soft)
        return shifted


class SeesAll(Term):
    """A term of no value that keeps what it is shown."""

    weight = 1.0

    def __init__(self):
        super().__init__()
        self.steps = []

    def forward(self, step):
        self.steps.append(step)


def test_network_loss_scores_and_terms_see_the_transformed_batch(tiny_backbone):
    term = SeesAll()
    module = build_module(tiny_backbone(), terms={"sees": term}, batch_transforms=[Shift()])
    reference = build_module(tiny_backbone(), optimizer=SGD | {"lr": 1e-30})
    module.optimizer_config["lr"] = 1e-30
    trainer = fit(module)
    losses = []
    for number, step in enumerate(term.steps):
        epoch, batch_idx = divmod(number, 2)
        drawn = list(loaders_of(["target"])["target"])[batch_idx]
        torch.manual_seed(step_seed(0, epoch, batch_idx))
        shifted = drawn.inputs + epoch + torch.rand(())
        assert torch.equal(step.inputs["target"], shifted)
        torch.testing.assert_close(step.labels["target"], 0.9 * F.one_hot(drawn.labels, 3) + 0.1 / 3)
        logits = reference.train()(shifted)
        losses.append(F.cross_entropy(logits, drawn.labels, label_smoothing=0.1).item())
    assert trainer.callback_metrics["train/target/loss"].item() == pytest.approx(sum(losses[2:]) / 2, rel=1e-5)
    assert 0 <= trainer.callback_metrics["train/target/acc"] <= 1


def test_two_accumulated_batches_make_the_step_of_one_twice_as_large():
    class Watch(pl.Callback):
        def __init__(self):
            self.seen = []

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.seen.append((trainer.optimizers[0].param_groups[-1]["lr"], pl_module.progress))

    found = {}
    for size, accumulate in ((8, 1), (4, 2)):
        torch.manual_seed(0)
        watch = Watch()
        strategy = LinearProbeThenFineTune(0.5, lr_ratio=0.5)
        module = build_module(cnn(size=8, dropout=0.0), strategy=strategy, schedule=Cosine(0.25)).double()
        batch = batch_of(["target"], size=32, dtype=torch.float64)["target"]
        loaders = {"target": toy.loader_of(batch, size)}
        fit(module, epochs=4, callbacks=[watch], loaders=loaders, accumulate_grad_batches=accumulate)
        found[accumulate] = snapshot(module), watch.seen
    (once, seen_once), (accumulated, seen_accumulated) = found[1], found[2]
    assert len(seen_once) == 16
    assert seen_accumulated[1::2] == seen_once  # as many steps, at the same rates and the same progress
    assert [rate for rate, _ in seen_accumulated[::2]] == [rate for rate, _ in seen_once]
    for name, value in once.items():
        torch.testing.assert_close(accumulated[name], value, rtol=1e-10, atol=1e-12)


def test_a_clipped_step_goes_as_far_as_the_largest_norm_allows_and_in_the_same_direction(tiny_backbone):
    sgd = SGD | {"weight_decay": 0.0, "options": {}}
    steps = {}
    for norm in (None, 1e6, 0.01):
        module = build_module(tiny_backbone(), optimizer=sgd)
        before = {name: p.detach().clone() for name, p in module.named_parameters()}
        one = {"target": toy.loader_of(batch_of(["target"])["target"], 8)}
        fit(module, epochs=1, loaders=one, gradient_clip_val=norm)
        steps[norm] = torch.cat([(p.detach() - before[name]).flatten() for name, p in module.named_parameters()])
    assert torch.equal(steps[1e6], steps[None])
    assert steps[None].norm() > 0.1 * 0.01
    assert steps[0.01].norm().item() == pytest.approx(0.1 * 0.01, rel=1e-4)  # rate times norm
    assert F.cosine_similarity(steps[0.01], steps[None], dim=0).item() == pytest.approx(1.0)


def test_weights_that_train_stay_in_their_range_and_norms_biases_and_frozen_ones_are_left_alone(tiny_backbone):
    for strategy, trains in ((Full(), True), (Frozen(), False)):
        module = build_module(tiny_backbone(), strategy=strategy, weight_clip=0.05)
        before = snapshot(module)
        fit(module)
        after = {name: value.abs().max() for name, value in module.named_parameters() if value.ndim > 1}
        assert all(value <= 0.05 for name, value in after.items() if trains or name.startswith("heads."))
        assert trains or not {name for name in moved(before, snapshot(module)) if name.startswith("backbone.")}
        assert any(before[name].abs().max() > 0.05 for name in after)
        assert all(value.max() > 0.5 for name, value in before.items() if name.endswith("bn1.weight"))


# Schedules and resume


def test_each_phase_has_a_schedule_of_its_own(tiny_backbone):
    class Rates(pl.Callback):
        def __init__(self):
            self.seen = []

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.seen.append(trainer.optimizers[0].param_groups[-1]["lr"])

    rates = Rates()
    module = build_module(tiny_backbone(), strategy=LinearProbeThenFineTune(0.5, 0.5), schedule=Cosine(0.0))
    fit(module, epochs=4, callbacks=[rates])
    half_cosine = [1.0, 0.853553, 0.5, 0.146447]
    assert rates.seen == pytest.approx([0.1 * v for v in half_cosine] + [0.05 * v for v in half_cosine], rel=1e-4)


def test_one_cycle_drives_momentum_too(tiny_backbone):
    optimizer = fit(build_module(tiny_backbone(), schedule=OneCycle())).optimizers[0]
    assert optimizer.param_groups[0]["momentum"] != 0.9


def test_plateau_lowers_the_rate_when_the_monitored_metric_stands_still(tiny_backbone):
    frozen_head = build_module(
        tiny_backbone(),
        schedule=Plateau(factor=0.5, patience_epochs=0),
        rule=TargetValidation(),
        optimizer=SGD | {"lr": 1e-12},
    )
    trainer = fit(frozen_head, epochs=3, validate=True)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.25e-12)


def test_a_resumed_plateau_has_seen_every_epoch_and_lowers_the_rate_where_the_uninterrupted_one_does(
    tiny_backbone, tmp_path
):
    def build():
        plateau, still = Plateau(factor=0.5, patience_epochs=1), SGD | {"lr": 1e-12}
        return build_module(tiny_backbone(), schedule=plateau, rule=TargetValidation(), optimizer=still)

    class SaveAfterSecond(Checkpoint):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                trainer.save_checkpoint(tmp_path / "stopped.ckpt")

    whole = fit(build(), epochs=3, validate=True, callbacks=[SaveAfterSecond()])
    resumed = fit(build(), epochs=3, validate=True, ckpt_path=tmp_path / "stopped.ckpt")
    assert [one.optimizers[0].param_groups[0]["lr"] for one in (whole, resumed)] == pytest.approx([0.5e-12] * 2)
    assert (
        whole.lr_scheduler_configs[0].scheduler.state_dict() == resumed.lr_scheduler_configs[0].scheduler.state_dict()
    )


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_a_resumed_run_ends_with_the_weights_of_the_uninterrupted_one(tiny_backbone, tmp_path, stop_after):
    def build():
        strategy = LinearProbeThenFineTune(0.5)
        adam = SGD | {"_target_": "torch.optim.Adam", "options": {}}
        return build_module(tiny_backbone(dropout=0.5), strategy=strategy, schedule=Cosine(0.1), optimizer=adam)

    class SaveAfter(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch + 1 == stop_after:
                trainer.save_checkpoint(tmp_path / "stopped.ckpt")

    whole = build()
    fit(whole, epochs=4, callbacks=[SaveAfter()])
    resumed = build()
    fit(resumed, epochs=4, ckpt_path=tmp_path / "stopped.ckpt")
    assert moved(snapshot(whole), snapshot(resumed)) == set()


# BatchNorm under two domains


def test_joint_normalises_both_domains_as_one_batch_and_separate_each_on_its_own(tiny_backbone):
    batch = batch_of(["source", "target"])
    joint, separate = (build_module(tiny_backbone(), bn=bn).train() for bn in ("joint", "separate"))
    both = torch.cat([one.inputs for one in batch.values()])
    expected = joint.heads["shared"](copy.deepcopy(joint.backbone)(both)).split(8)
    torch.testing.assert_close(list(joint.domain_outputs(batch).values()), list(expected))
    for domain, outputs in separate.domain_outputs(batch).items():
        torch.testing.assert_close(
            outputs, separate.heads["shared"](copy.deepcopy(separate.backbone)(batch[domain].inputs))
        )


def test_domain_specific_statistics_are_those_of_training_on_each_domain_alone(tiny_backbone):
    batch = batch_of(["source", "target"])
    module = build_module(tiny_backbone(), bn="domain_specific").train()
    module.domain_outputs(batch)
    for domain, prefix in (("target", "running"), ("source", "source_running")):
        alone = tiny_backbone().train()
        alone(batch[domain].inputs)
        expected = alone.state_dict()["network.stem.1.running_mean"]
        torch.testing.assert_close(module.backbone.state_dict()[f"network.stem.1.{prefix}_mean"], expected)


def test_domain_specific_evaluates_each_domain_with_its_own_statistics(tiny_backbone):
    batch = batch_of(["source", "target"])
    module = build_module(tiny_backbone(), bn="domain_specific").train()
    for _ in range(50):
        module.domain_outputs({"source": DomainBatch(batch["source"].inputs + 3), "target": batch["target"]})
    module.eval()
    inputs = batch["target"].inputs
    assert not torch.allclose(module(inputs, "source"), module(inputs, "target"))
    plain = tiny_backbone()
    plain.load_state_dict({k: v for k, v in module.backbone.state_dict().items() if "source_" not in k})
    torch.testing.assert_close(module(inputs, "target"), module.heads["shared"](plain.eval()(inputs)))


@pytest.mark.parametrize(("precision", "clip"), [("32-true", 1.0), ("bf16-mixed", None)])
def test_the_step_is_fused(tiny_backbone, precision, clip):
    trainer = fit(build_module(tiny_backbone()), precision=precision, gradient_clip_val=clip)
    assert trainer.optimizers[0].param_groups[0]["fused"] is True


def test_mixed_precision_with_clipping_is_not_fused_which_lightning_would_refuse(tiny_backbone):
    trainer = fit(build_module(tiny_backbone()), precision="bf16-mixed", gradient_clip_val=1.0)
    assert not trainer.optimizers[0].param_groups[0]["fused"]
