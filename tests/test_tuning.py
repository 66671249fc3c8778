"""The range test and the search for a batch size: what they find, and that nothing of the run moves."""

import copy
import math
import random

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from lanes import slow
from pytorch_lightning.utilities.seed import _collect_rng_states as random_states
from test_module import build_module

import graft
from graft import registry
from graft.config.conflicts.training import tuning_contradictions
from graft.data.module import TransferDataModule
from graft.data.sources.digits import Digits
from graft.errors import GraftError
from graft.objectives.alpha import AlphaWeighted
from graft.rates.backbone_ratio import BackboneRatio
from graft.report import tables
from graft.strategies.frozen import Frozen
from graft.strategies.full import Full
from graft.strategies.lp_ft import LinearProbeThenFineTune
from graft.training import default_rates, tuning
from graft.training.schedules import AveragingWindow
from graft.training.tuning import Curve

RATES = [10.0 ** (-5 + i / 4) for i in range(24)]
CONFIG = {
    "trainer": {"accelerator": "cpu", "limit_train_batches": 1},
    "training": {
        "epochs": 4,
        "gradient_clip_norm": None,
        "accumulate_batches": 1,
        "validate_every_epochs": 1,
        "log_every_steps": 1,
    },
    "tuning": {"low": 1e-4, "high": 1.0, "steps": 12, "suggestion": "valley", "max_batch_size": 32},
    "callbacks": {},
}


def with_keys(group, **keys):
    return CONFIG | {group: CONFIG[group] | keys}


@pytest.fixture
def data(tiny_backbone):
    data = TransferDataModule(Digits(), batch_size=8, labels_per_class=2)
    data.load()
    data.set_input(tiny_backbone().input_spec)
    return data


@pytest.fixture
def module(tiny_backbone, data):
    def build(**options):
        module = build_module(tiny_backbone(dropout=0.5), **options)
        module.heads["shared"] = torch.nn.Linear(6, 10)
        return module

    return build


# Curves made by hand


def test_the_valley_is_the_middle_of_the_longest_fall():
    losses = [3.0] * 6 + [3 - 0.2 * i for i in range(1, 13)] + [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    # 13 points fall, numbers 5 to 17; a third and half a third of 13 are 4 and 2, counted from the point before
    assert tuning.valley(RATES, losses) == RATES[17 - 13 + 4 + 2]


def test_the_valley_bridges_a_bump():
    smooth = [10.0 - i for i in range(20)] + [20.0] * 4
    bumpy = [*smooth[:10], 30.0, *smooth[11:]]
    assert RATES.index(tuning.valley(RATES, bumpy)) == pytest.approx(RATES.index(tuning.valley(RATES, smooth)), abs=1)


@pytest.mark.parametrize("losses", [[1.0 * i for i in range(24)], [1.0] * 24])
def test_a_loss_that_never_falls_suggests_the_lowest_rate(losses):
    assert tuning.valley(RATES, losses) == RATES[0]


def test_steep_looks_at_the_slope_over_the_logarithm_and_minimum_stays_a_tenth_below():
    losses = [5.0] * 24
    losses[8:] = [2.0 - 0.01 * i for i in range(16)]  # falls by 3 in one step, then slowly
    losses[20] = 0.5
    assert tuning.steep(RATES, losses) == RATES[7]
    assert tuning.minimum(RATES, losses) == pytest.approx(RATES[20] / 10)


def test_smoothing_is_a_running_average_that_starts_right():
    assert tuning.smooth([2.0] * 5) == pytest.approx([2.0] * 5)
    assert tuning.smooth([1.0, 3.0])[1] == pytest.approx((0.98 * 1 + 3) / 1.98)


def test_suggestions_leave_out_the_ends_and_have_two_digits():
    rates = [float(r) for r in np.geomspace(1e-4, 1, 40)]
    found = Curve(rates, [50.0 - i for i in range(40)], diverged=True, phase=1, seconds=0.0).suggestions()
    assert found["minimum"] == float(f"{rates[34] / 10:.2g}")  # the lowest of all is the last, rates[39]
    assert found["valley"] == float(f"{rates[4 + 31 // 3 + 31 // 6 - 1]:.2g}")  # 31 points fall, from rates[4] on
    assert found["median"] == sorted(found[name] for name in ("valley", "steep", "minimum"))[1]


def test_a_few_points_have_suggestions_too(tmp_path):
    curve = Curve([1e-3, 1e-2], [2.0, 1.0], diverged=True, phase=1, seconds=0.0)
    assert curve.suggestions() == dict.fromkeys(("valley", "steep", "minimum", "median"), 0.001)
    curve.write_csv(tmp_path / "lr_find.csv")
    assert (tmp_path / "lr_find.csv").read_text().splitlines()[:2] == ["lr,loss,smoothed", "0.001,2.0,2.0"]


# Trying on a copy


class Spy(pl.Callback):
    """Stands where the progress bar does, and keeps what each step was done with."""

    def __init__(self):
        Spy.rates, Spy.frozen, Spy.sizes, Spy.progress = [], [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        groups = trainer.optimizers[0].param_groups
        Spy.rates.append({group["name"]: group["lr"] for group in groups})
        Spy.frozen.append([n for n, p in pl_module.backbone.named_parameters() if not p.requires_grad])
        Spy.sizes.append(len(batch["target"]))
        Spy.progress.append(pl_module.progress)


@pytest.fixture(autouse=True)
def trust_the_spy():
    registry.trust(["test_tuning"])
    yield
    registry.trust([])


SPIED = CONFIG | {"callbacks": {"progress": {"_target_": "test_tuning.Spy"}}}


def state(module, data):
    return copy.deepcopy(
        {
            "weights": dict(module.state_dict()),
            "trains": {name: p.requires_grad for name, p in module.named_parameters()},
            "modes": [m.training for m in module.modules()],
            "optimizer": module.optimizer_config,
            "schedule": type(module.schedule),
            "strategy": type(module.strategy),
            "data": (data.batch_size, data.source_batch_size, data.epoch, data.trainer),
            "random": random_states(),
        }
    )


def assert_same(before, after):
    for name in before.keys() - {"weights", "random"}:
        assert before[name] == after[name], name
    assert all(torch.equal(value, after["weights"][name]) for name, value in before["weights"].items())
    assert torch.equal(before["random"]["torch"], after["random"]["torch"])
    assert before["random"]["python"] == after["random"]["python"]
    assert str(before["random"]["numpy"]) == str(after["random"]["numpy"])


@pytest.mark.slow
@pytest.mark.parametrize("search", [tuning.lr_range_test, tuning.find_batch_size])
def test_nothing_of_the_run_moves(module, data, tmp_path, search):
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    run = module(strategy=LinearProbeThenFineTune(0.5))
    before = state(run, data)
    search(CONFIG, run, data, tmp_path)
    assert_same(before, state(run, data))
    assert list(tmp_path.iterdir()) == []


def test_the_rates_rise_by_a_factor_and_the_backbone_follows(module, data, tmp_path):
    curve = tuning.lr_range_test(SPIED, module(rates=BackboneRatio(0.1)), data, tmp_path)
    assert curve.rates == pytest.approx(np.geomspace(1e-4, 1, 12))
    assert [step["head/shared"] for step in Spy.rates] == pytest.approx(curve.rates)
    assert [step["backbone/stem"] for step in Spy.rates] == pytest.approx([rate / 10 for rate in curve.rates])
    assert Spy.sizes == [8] * 12  # more steps than an epoch has: the samples come again
    assert not curve.diverged


def test_the_phase_that_trains_most_is_tested_at_its_own_factor(module, data, tmp_path):
    curve = tuning.lr_range_test(SPIED, module(strategy=LinearProbeThenFineTune(0.5, 0.3)), data, tmp_path)
    assert curve.phase == 2
    assert Spy.frozen == [[]] * 12
    assert Spy.rates[0]["head/shared"] == pytest.approx(0.3e-4)


def test_a_batch_is_no_larger_than_in_training(module, data, tmp_path):
    data.batch_size = 64
    tuning.lr_range_test(SPIED, module(), data, tmp_path)
    assert set(Spy.sizes) == {20}


def test_what_is_scheduled_over_a_run_stands_still(module, data, tmp_path):
    run = module(objective=AlphaWeighted(0.0, 0.8))
    tuning.lr_range_test(SPIED, run, data, tmp_path)
    assert set(Spy.progress) == {0.5}
    assert run.fixed_progress is None


def test_a_rate_of_the_last_epochs_has_no_part_in_it(module, data, tmp_path):
    curve = tuning.lr_range_test(SPIED, module(window=AveragingWindow(0, 0.5)), data, tmp_path)
    assert [step["head/shared"] for step in Spy.rates] == pytest.approx(curve.rates)


def test_the_loss_of_a_step_is_the_mean_over_its_batches(module, data, tmp_path):
    data.batch_size = 20
    whole = tuning.lr_range_test(CONFIG, module(strategy=Frozen()), data, tmp_path)
    data.batch_size = 10  # the same 20 samples in two batches
    halves = tuning.lr_range_test(
        with_keys("training", accumulate_batches=2), module(strategy=Frozen()), data, tmp_path
    )
    assert halves.losses == pytest.approx(whole.losses, rel=1e-4)


def test_the_same_seed_gives_the_same_curve_and_another_seed_another(module, data, tmp_path):
    first, again = (tuning.lr_range_test(CONFIG, module(seed=1), data, tmp_path) for _ in range(2))
    other = tuning.lr_range_test(CONFIG, module(seed=2), data, tmp_path)
    assert first.losses == again.losses != other.losses


@pytest.mark.parametrize("high", [1e3, 1e30])
def test_a_test_that_diverges_stops(module, data, tmp_path, high):
    curve = tuning.lr_range_test(with_keys("tuning", high=high, steps=40), module(), data, tmp_path)
    assert curve.diverged
    assert 2 < len(curve.losses) < 40
    assert len(curve.rates) == len(curve.losses)
    assert all(map(math.isfinite, [*curve.losses, *curve.suggestions().values()]))


def test_a_loss_that_is_never_finite_is_told(module, data, tmp_path):
    run = module()
    run.heads["shared"].weight.data.fill_(math.nan)
    with pytest.raises(GraftError, match=r"no finite loss.*tuning\.low"):
        tuning.lr_range_test(CONFIG, run, data, tmp_path)


# The batch size


def out_of_memory_above(size):
    """A training step that fails as torch does where memory ends."""

    def training_step(self, batch, batch_idx):
        if len(batch["target"]) > size:
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            )
        return self.objective(self.domain_losses(batch, self.domain_outputs(batch)), 0.0)

    return training_step


@pytest.mark.parametrize(("key", "found"), [(8, 8), *slow((32, 16), (1, 1))])
def test_the_batch_size_stops_at_the_samples_and_at_the_key(module, data, tmp_path, key, found):
    config = with_keys("tuning", max_batch_size=key)
    assert tuning.batch_size_limit(config, data) == min(key, 20)
    assert tuning.find_batch_size(config, module(), data, tmp_path) == found


@pytest.mark.slow
@pytest.mark.parametrize(("memory", "found"), [(9, 8), (2, 2)])
def test_the_batch_size_is_the_largest_that_fits(module, data, tmp_path, monkeypatch, memory, found):
    monkeypatch.setattr("graft.module.TransferModule.training_step", out_of_memory_above(memory))
    assert tuning.find_batch_size(CONFIG, module(strategy=Full()), data, tmp_path) == found


@pytest.mark.slow
def test_a_network_for_which_there_is_no_memory_is_told(module, data, tmp_path, monkeypatch):
    monkeypatch.setattr("graft.module.TransferModule.training_step", out_of_memory_above(0))
    with pytest.raises(GraftError, match="not even 2 samples fit"):
        tuning.find_batch_size(CONFIG, module(), data, tmp_path)


def test_another_error_of_a_step_is_not_about_memory(module, data, tmp_path, monkeypatch):
    def training_step(self, batch, batch_idx):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr("graft.module.TransferModule.training_step", training_step)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        tuning.find_batch_size(CONFIG, module(), data, tmp_path)


# A default rate


def test_a_default_rate_is_a_number_in_the_results_and_in_what_trains(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAFT_ROOT", str(tmp_path))
    small = ["data=table", "backbone=mlp", "strategy=scratch", "trainer=cpu", "training.epochs=1", "baselines=none"]
    small += ["training.threads=1", "logger=csv", "callbacks.progress=null", "save.model=none"]
    results = graft.train(*small, "optimizer.lr=default", **{"paths.run_dir": str(tmp_path / "run")})
    rate = default_rates.RATES["mlp", "from scratch"]
    assert results["tuning"]["lr"] == {"value": rate, "default": "mlp, from scratch"}
    assert {group["lr"] for group in results["parameters"]["groups"]} == {rate}
    (line,) = tables.tuning_lines(results)
    assert line == f"learning rate: {rate:g}, the default of mlp, from scratch"


@pytest.mark.parametrize(
    ("strategy", "trained"), [("frozen", "head"), ("full", "everything"), ("layer_decay", "layer by layer")]
)
def test_the_default_is_that_of_what_trains_at_which_rates(tmp_path, monkeypatch, strategy, trained):
    monkeypatch.setenv("GRAFT_ROOT", str(tmp_path))
    words = ["data=mnist_usps", "data/domain@data.target=digits", "data.source=null", "backbone=lenet", "trainer=cpu"]
    backbone = graft.assemble(*words, "strategy=scratch").module.backbone
    torch.save(backbone.state_dict(), tmp_path / "lenet.pt")
    experiment = graft.assemble(*words, f"strategy={strategy}", f"backbone.weights={tmp_path / 'lenet.pt'}")
    assert tuning.trained_by(experiment) == trained


def test_the_defaults_say_what_was_not_measured():
    assert default_rates.default_rate("mypkg.Video", "head").describe() == {
        "value": 1e-3,
        "default": "Video, head: nothing was measured",
    }
    config = {
        "tuning": {"low": 1e-4, "high": 1.0},
        "trainer": {"devices": 1, "strategy": "auto"},
        "optimizer": {"lr": "default", "_target_": "torch.optim.SGD"},
        "data": {"batch_size": 8},
        "tune": None,
    }
    (found,) = tuning_contradictions(config)
    assert found.startswith("`optimizer.lr=default` with `optimizer._target_=torch.optim.SGD`: the defaults were")
