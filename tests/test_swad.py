"""`averaging=swad`: its window against the paper's algorithm, its mean against a loop over steps, and a resumed run."""

import json
import random

import pytest
import pytorch_lightning as pl
import torch
from lanes import slow
from test_averaging import Trajectory, double, fit

from graft.errors import GraftError, Interrupted
from graft.strategies.freeze_until import FreezeUntil
from graft.strategies.frozen import Frozen
from graft.strategies.full import Full
from graft.strategies.lp_ft import LinearProbeThenFineTune
from graft.training.schedules import Constant
from graft.weights.averaging import network
from graft.weights.swad import SWAD, find_window
from tests.small_run import train_in


def algorithm_1(losses, converge, tolerance, ratio):
    """(t_s, t_e) of the paper's algorithm 1, one validation after the other; t_e None where it goes to the end."""
    start = limit = None
    for i in range(len(losses)):
        if start is None:
            last = losses[max(0, i - converge + 1) : i + 1]
            if len(last) == converge and last[0] == min(last):
                start, limit = i - converge + 1, ratio * sum(last) / converge
        else:
            last = losses[max(0, i - tolerance + 1) : i + 1]
            if len(last) == tolerance and limit < min(last):
                return start, i - tolerance
    return start, None


def test_the_window_is_the_papers():
    found, drawn = set(), random.Random(0)
    for _ in range(3000):
        losses = [round(drawn.uniform(0.5, 2), 1) for _ in range(drawn.randint(1, 25))]
        converge, tolerance, ratio = drawn.randint(1, 4), drawn.randint(1, 6), drawn.uniform(1, 1.5)
        first, last = algorithm_1(losses, converge, tolerance, ratio)
        window = find_window(losses, converge, tolerance, ratio)
        if first is None:
            assert window is None
        else:
            expected = {"first": first, "last": len(losses) - 1 if last is None else last, "ended": last is not None}
            assert window == expected, (losses, converge, tolerance, ratio)
        found.add((first is None, last is None))
    assert found == {(True, True), (False, True), (False, False)}


class GivenLosses(SWAD):
    """Sees other validation losses than the run has."""

    def __init__(self, given, domain="target", **options):
        super().__init__(domain=domain, **options)
        self.given = given

    def close(self, loss):
        super().close(self.given[len(self.losses)])


def trained(tiny_backbone, averaging, callbacks=(), strategy=None, **options):
    module, seen = double(tiny_backbone, schedule=Constant(), strategy=strategy or Full()), Trajectory()
    fit(module, epochs=len(averaging.given), callbacks=[averaging, seen, *callbacks], **options)
    return module, seen.steps


@pytest.mark.parametrize(
    ("losses", "steps"),
    [
        ([5, 4, 1, 2, 2, 9, 1, 8, 8, 8, 8], range(2 * 2, 2 * 7)),  # ends two before the first two of 8 in a row
        ([5, 4, 1, 2, 2, 9, 1], range(2 * 2, 2 * 7)),  # to the end of the run
        ([5, 4, 3, 2, 1], range(2 * 4, 2 * 5)),  # no window: the last segment
    ],
)
def test_the_mean_is_of_every_step_of_the_window(tiny_backbone, losses, steps):
    averaging = GivenLosses(losses, converge=3, tolerance=2, loss_ratio=1.3)
    module, seen = trained(tiny_backbone, averaging)
    found = averaging.finish(module)
    assert found["steps"] == len(steps)
    for name, value in network(module).named_parameters():
        mean = torch.stack([seen[step][name] for step in steps]).mean(0)
        torch.testing.assert_close(value.detach(), mean, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("strategy", "frozen"),
    [(LinearProbeThenFineTune(), ()), (FreezeUntil(1), ("backbone.network.stem",)), (Frozen(), ("backbone",))],
)
def test_means_are_of_what_trains_in_some_phase(tiny_backbone, strategy, frozen):
    averaging = GivenLosses([5, 4, 3, 2], converge=1, tolerance=2)
    module, seen = trained(tiny_backbone, averaging, strategy=strategy)
    names = [name for name, _ in network(module).named_parameters()]
    assert averaging.state_dict()["trained"] == [name for name in names if not name.startswith(frozen)]
    steps = averaging.finish(module)["steps"]
    for name, value in network(module).named_parameters():
        mean = torch.stack([step[name] for step in seen[-steps:]]).mean(0)
        torch.testing.assert_close(value.detach(), mean, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("stopped_after", [1, 4, 8])
def test_a_run_that_goes_on_finds_the_mean_of_the_whole_one(tiny_backbone, tmp_path, stopped_after):
    class Save(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.current_epoch == stopped_after and batch_idx == 0:
                trainer.save_checkpoint(tmp_path / "stopped.ckpt")

        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == stopped_after:
                trainer.save_checkpoint(tmp_path / "epoch.ckpt")

    losses = [5, 4, 1, 2, 2, 9, 1, 8, 8, 8]
    whole, resumed, inside = (GivenLosses(losses, tolerance=2) for _ in range(3))
    module, _ = trained(tiny_backbone, whole, [Save()])
    expected = whole.finish(module)
    again, _ = trained(tiny_backbone, resumed, ckpt_path=tmp_path / "epoch.ckpt")
    assert resumed.finish(again) == expected
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters(), strict=True))
    inside.load_state_dict(next(iter(swad_states(tmp_path / "stopped.ckpt"))))
    assert inside._open.steps == 1


def swad_states(file):
    states = torch.load(file, weights_only=True)["callbacks"].values()
    return [state for state in states if "pending" in state]


def test_a_side_that_is_not_validated_is_refused(tiny_backbone):
    with pytest.raises(GraftError, match=r"averaging\.domain=source: .* no val/source/loss\. .*domain=target"):
        trained(tiny_backbone, GivenLosses([1, 1], domain="source"))


SMALL = [
    *("backbone=timm", "backbone.name=test_resnet", "backbone.weights=null", "strategy=scratch", "data.source=null"),
    *("averaging=swad", "averaging.tolerance=2", "averaging.converge=1", "averaging.loss_ratio=1.1", "selection=last"),
    *("training.epochs=6", "training.threads=1", "data.labels_per_class=4", "data.image_size=16", "data.batch_size=16"),
    *("optimizer.lr=0.03", "scheduler=constant", "trainer=cpu", "logger=csv", "allow=[test_run]"),
]


def saved(folder):
    found = torch.load(folder / "checkpoints" / "swad.pt", weights_only=True)
    return {f"{part}.{name}": value for part in found for name, value in found[part].items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    return train_in(root, *SMALL), root / "run"


def test_the_mean_is_validated_and_tested_and_its_window_recorded(whole):
    results, folder = whole
    found = results["swad"]
    assert found["window"] is not None, "without a window this shows little"
    assert found["steps"] == 3 * (found["window"]["last"] - found["window"]["first"] + 1)
    assert found["monitor"] == "val/target/loss"
    assert results["labels"]["choosing"] == 297
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["metrics"]["val/target/loss"] == pytest.approx(found["losses"][-1])
    assert results["metrics"]["val/target/loss"] != last["metrics"]["val/target/loss"]
    assert all(not torch.equal(last["state_dict"][k], v) for k, v in saved(folder).items() if k.endswith("weight"))


@pytest.mark.parametrize("where", slow("epoch: 3, batch: 1", "epoch: 1, batch: 0"))
def test_a_resumed_run_tests_the_mean_of_the_uninterrupted_one_bit_for_bit(whole, tmp_path, where):
    with pytest.raises(Interrupted):
        train_in(tmp_path, *SMALL, f"+callbacks.stop={{_target_: test_run.StopAt, {where}}}")
    results = train_in(tmp_path, *SMALL, "resume=true")
    assert results["swad"] == whole[0]["swad"]
    assert results["metrics"] == json.loads((whole[1] / "results.json").read_text())["metrics"]
    expected = saved(whole[1])
    assert all(torch.equal(value, expected[name]) for name, value in saved(tmp_path / "run").items())
