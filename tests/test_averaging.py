"""Averages against explicit loops over the weights of every step, and what of them is validated, saved and trained."""

import copy

import pytest
import pytorch_lightning as pl
import torch
import toy
from test_module import SGD, batch_of, build_module, moved, snapshot
from torch import nn

from graft.callbacks.checkpoints import Checkpoints
from graft.errors import GraftError
from graft.objectives.alpha import AlphaWeighted
from graft.strategies.freeze_until import FreezeUntil
from graft.strategies.frozen import Frozen
from graft.strategies.lp_ft import LinearProbeThenFineTune
from graft.training.schedules import Constant, Cosine, OneCycle
from graft.weights.averaging import EMA, SWA, network, recompute_statistics


class Data(pl.LightningDataModule):
    """Two batches an epoch, of 4 and 3 samples, in float64."""

    def __init__(self, domains=("target",)):
        super().__init__()
        whole = batch_of(domains, size=7, dtype=torch.float64)
        by_domain = zip(*(toy.split(one, 4) for one in whole.values()), strict=True)
        self.batches = [dict(zip(whole, ones, strict=True)) for ones in by_domain]

    def train_dataloader(self):
        return self.loader(self.batches)

    def val_dataloader(self):
        return self.loader(self.batches[:1])

    def train_batches(self):
        return iter(self.batches)

    def loader(self, batches):
        return torch.utils.data.DataLoader(batches, batch_size=None, collate_fn=None)


class Trajectory(pl.Callback):
    """Weights after every step, and those that are validated."""

    def __init__(self):
        self.steps, self.validated = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps.append(weights(pl_module))

    def on_validation_epoch_end(self, trainer, pl_module):
        self.validated.append(weights(pl_module))


def weights(module):
    return {name: value.clone() for name, value in network(module).state_dict().items()}


def double(tiny_backbone, **keywords):
    return build_module(tiny_backbone(), **keywords).double()


def fit(module, averaging=None, epochs=4, data=None, callbacks=(), ckpt_path=None, **options):
    trainer = toy.trainer_on_cpu([*([averaging] if averaging else []), *callbacks], max_epochs=epochs, **options)
    trainer.fit(module, data or Data(), ckpt_path=ckpt_path, weights_only=True)


def assert_close(found, expected, names=None):
    for name in names or expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-12, atol=1e-13, msg=name)


def is_statistic(name):
    return "running_" in name or "num_batches" in name


# EMA


def test_ema_is_the_explicit_loop_from_the_first_weights_on(tiny_backbone):
    module, seen = double(tiny_backbone), Trajectory()
    average = weights(module)
    fit(module, EMA(decay=0.3), callbacks=[seen])
    for n, state in enumerate(seen.steps):
        decay = min(0.3, (1 + n) / (10 + n))  # .1, .18, .25, then .3
        for name, value in state.items():
            counter = not value.is_floating_point()
            average[name] = value if counter else decay * average[name] + (1 - decay) * value
    assert len(seen.steps) == 8
    assert_close(weights(module), average)
    assert average["backbone.network.stem.1.num_batches_tracked"] == 8


def test_a_batch_that_only_accumulates_gradients_is_no_step(tiny_backbone):
    module, seen = double(tiny_backbone), Trajectory()
    start = weights(module)
    fit(module, EMA(decay=0.9), epochs=1, callbacks=[seen], accumulate_grad_batches=2)
    name = "heads.shared.weight"
    assert_close(weights(module), {name: 0.1 * start[name] + 0.9 * seen.steps[1][name]})


@pytest.mark.parametrize("averaging", [None, EMA(decay=0.9), SWA(0.0, lr_fraction=None)], ids=["none", "ema", "swa"])
def test_averaging_changes_nothing_about_the_training(tiny_backbone, averaging):
    plain, averaged = (Trajectory(), Trajectory())
    for seen, callback in ((plain, None), (averaged, averaging)):
        fit(double(tiny_backbone), callback, callbacks=[seen])
    assert all(moved(a, b) == set() for a, b in zip(plain.steps, averaged.steps, strict=True))


@pytest.mark.parametrize("averaging", [EMA(0.9), SWA(0.0)], ids=["ema", "swa"])
def test_frozen_weights_are_bit_equal_in_the_average(tiny_backbone, averaging):
    torch.manual_seed(0)
    module = build_module(tiny_backbone(), strategy=Frozen())
    before = snapshot(module)
    data = Data()
    for batch in data.batches:
        batch["target"].inputs = batch["target"].inputs.float()
    fit(module, averaging, data=data)
    assert {name.split(".")[0] for name in moved(before, snapshot(module))} == {"heads"}


def test_ema_goes_on_over_phases_and_keeps_the_pretrained_backbone_while_it_is_frozen(tiny_backbone):
    module, seen = double(tiny_backbone, strategy=LinearProbeThenFineTune(0.5)), Trajectory()
    start = weights(module)
    fit(module, EMA(decay=0.9), callbacks=[seen])
    for epoch in (0, 1):
        assert {name.split(".")[0] for name in moved(start, seen.validated[epoch])} == {"heads"}
    name = "backbone.network.stem.0.weight"
    average = start[name]
    for n, state in enumerate(seen.steps):
        decay = min(0.9, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * state[name]
    assert_close(weights(module), {name: average})


# SWA


def test_swa_is_the_mean_of_the_last_epochs_ends(tiny_backbone):
    module, seen = double(tiny_backbone), Trajectory()
    fit(module, SWA(start_fraction=0.5), epochs=6, callbacks=[seen])
    ends = seen.steps[1::2]
    trained = [name for name in ends[0] if not is_statistic(name)]
    for epoch in (3, 4, 5):  # validated is the mean of what there is, the epoch just finished included
        mean = {name: sum(state[name] for state in ends[3 : epoch + 1]) / (epoch - 2) for name in trained}
        assert_close(seen.validated[epoch], mean)
    assert_close(weights(module), mean)
    for epoch in (0, 1, 2):
        assert moved(seen.validated[epoch], ends[epoch]) == set()


def explicit_statistics(module, batches):
    """Mean over the batches of every BatchNorm's batch statistics, by looking at what comes in."""
    model, found = copy.deepcopy(module).train(), {}
    for name, norm in model.backbone.named_modules():
        if isinstance(norm, nn.BatchNorm2d):
            seen = found[name] = []
            norm.register_forward_pre_hook(
                lambda _, x, seen=seen: seen.append((x[0].mean((0, 2, 3)), x[0].transpose(0, 1).flatten(1).var(1)))
            )
    with torch.no_grad():
        for batch in batches:
            model.domain_features(batch)
    means = {f"backbone.{n}.running_mean": sum(m for m, _ in seen) / len(seen) for n, seen in found.items()}
    return means | {f"backbone.{n}.running_var": sum(v for _, v in seen) / len(seen) for n, seen in found.items()}


def test_swa_computes_batchnorm_statistics_for_the_average(tiny_backbone):
    module, data = double(tiny_backbone), Data()
    fit(module, SWA(start_fraction=0.5), data=data)
    assert_close(weights(module), explicit_statistics(module, data.batches))


def test_swa_leaves_the_statistics_of_frozen_layers_alone(tiny_backbone):
    module = double(tiny_backbone, strategy=FreezeUntil(stages=1))
    before = weights(module)
    fit(module, SWA(start_fraction=0.5))
    changed = moved(before, weights(module))
    assert not {name for name in changed if name.startswith("backbone.network.stem")}
    assert "backbone.network.layer1.1.running_mean" in changed


@pytest.mark.parametrize("bn", ["joint", "separate", "domain_specific"])
def test_statistics_of_two_domains_are_kept_as_bn_says(tiny_backbone, bn):
    module, data = double(tiny_backbone, objective=AlphaWeighted(0.5), bn=bn), Data(("target", "source"))
    before = weights(module)
    recompute_statistics(module, data.train_batches)
    found = weights(module)
    alone = {domain: [{domain: batch[domain]} for batch in data.batches] for domain in ("target", "source")}
    if bn == "joint":
        expected = explicit_statistics(module, data.batches)
    elif bn == "separate":
        expected = explicit_statistics(module, alone["target"] + alone["source"])
    else:
        module.bn = "separate"  # the target's own, as if there were no source
        expected = explicit_statistics(module, alone["target"])
        of_source = explicit_statistics(module, alone["source"])
        expected |= {name.replace("running", "source_running"): value for name, value in of_source.items()}
    assert_close(found, expected)
    assert {name for name in moved(before, found) if not is_statistic(name)} == set()
    assert all(norm.momentum == 0.1 for norm in module.modules() if isinstance(norm, nn.BatchNorm2d))


class Rates(pl.Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        group = trainer.optimizers[0].param_groups[-1]
        self.seen.append((group["lr"], group["momentum"]))


def trained_rates(tiny_backbone, averaging, schedule, **settings):
    rates = Rates()
    module = double(tiny_backbone, schedule=schedule, window=averaging.window(4), **settings)
    fit(module, averaging, callbacks=[rates])
    return [rate for rate, _ in rates.seen]


def test_the_learning_rate_stands_still_while_swa_averages(tiny_backbone):
    cosine = [0.1, 0.0962, 0.0854, 0.0691, 0.05, 0.0309]
    assert trained_rates(tiny_backbone, SWA(0.75, 0.4), Cosine(0.0)) == pytest.approx([*cosine, 0.04, 0.04], abs=1e-4)
    whole = [*cosine, 0.0146, 0.0038]
    assert trained_rates(tiny_backbone, SWA(0.75, None), Cosine(0.0)) == pytest.approx(whole, abs=1e-4)
    assert trained_rates(tiny_backbone, SWA(0.0, 0.4), OneCycle()) == pytest.approx([0.04] * 8)


def test_in_a_phase_the_rate_is_a_fraction_of_the_phases(tiny_backbone):
    strategy = LinearProbeThenFineTune(0.5, lr_ratio=0.5)
    rates = trained_rates(tiny_backbone, SWA(0.75, 0.4), Constant(), strategy=strategy)
    assert rates == pytest.approx([0.1] * 4 + [0.05] * 2 + [0.02] * 2)


def test_swa_over_two_phases_is_refused_with_what_to_type(tiny_backbone):
    module = double(tiny_backbone, strategy=LinearProbeThenFineTune(0.6), window=SWA(0.5).window(10))
    with pytest.raises(GraftError, match=r"begin at epoch 6 .* epoch 7 of 10.*start_fraction=0\.6 or more"):
        module.phases(10)
    module.window = SWA(0.6).window(10)
    assert len(module.phases(10)) == 2


def test_options_out_of_range_are_refused():
    with pytest.raises(GraftError, match=r"averaging\.decay=1\.0"):
        EMA(1.0)
    with pytest.raises(GraftError, match=r"averaging\.start_fraction=1"):
        SWA(1)


# What is saved


def test_a_checkpoint_of_weights_alone_holds_what_was_validated(tiny_backbone, tmp_path):
    averaging, seen = SWA(start_fraction=0.5), Trajectory()
    best = Checkpoints(tmp_path, "val/target/loss", ready=lambda: averaging.started)  # the worst: the first epochs'
    module = double(tiny_backbone, optimizer=SGD | {"lr": 0.5})
    fit(module, averaging, callbacks=[seen, best], enable_checkpointing=True)
    saved = torch.load(tmp_path / "best.ckpt", weights_only=True)
    assert saved["epoch"] in (2, 3)  # those with an average
    assert moved(seen.validated[saved["epoch"]], saved["state_dict"]) == set()
    assert "backbone.network.stem.0.weight" in moved(seen.steps[-1], saved["state_dict"])


@pytest.mark.parametrize("averaging", [lambda: EMA(0.9), lambda: SWA(0.4)], ids=["ema", "swa"])
@pytest.mark.parametrize("stopped_after", [1, 3])
def test_a_run_that_goes_on_has_the_weights_and_the_average_of_the_whole_one(
    tiny_backbone, tmp_path, averaging, stopped_after
):
    class Save(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch + 1 == stopped_after:
                trainer.save_checkpoint(tmp_path / "stopped.ckpt")

    whole, seen = double(tiny_backbone, schedule=Cosine()), Trajectory()
    fit(whole, averaging(), epochs=5, callbacks=[seen, Save()])
    stopped = torch.load(tmp_path / "stopped.ckpt", weights_only=True)
    started = "averaging" in stopped
    assert started is (averaging().window(5) is None or stopped_after == 3)
    if started:
        assert moved(seen.steps[2 * stopped_after - 1], stopped["averaging"]["training"]) == set()
    assert moved(seen.validated[stopped_after - 1], stopped["state_dict"]) == set()

    resumed, later = double(tiny_backbone, schedule=Cosine()), Trajectory()
    fit(resumed, averaging(), epochs=5, callbacks=[later], ckpt_path=tmp_path / "stopped.ckpt")
    assert moved(seen.steps[-1], later.steps[-1]) == set()
    assert moved(weights(whole), weights(resumed)) == set()
