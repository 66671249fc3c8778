"""`compare=transfer` written out as a sweep, FLOPs that are counted, and the scratch that has as many as transfer."""

import pytest
import torch
from test_cli import run_and_list_modules
from torch import nn

from graft import network
from graft.backbones.lenet import lenet
from graft.cli.arguments import typed
from graft.errors import GraftError
from graft.experiment import assemble
from graft.heads.bottleneck import BottleneckHead
from graft.strategies.frozen import Frozen
from graft.strategies.full import Full
from graft.training import flops
from tests.small_run import config_in, train_in

LENET = ["backbone=lenet", "backbone.dropout=0", "data.image_size=16", "backbone.weights=source"]
SMALL = [*LENET, "data.source.samples=300", "pretrain.epochs=2", "data.labels_per_class=4", "data.batch_size=16"]


def written_out(*words):
    return typed(words, lambda: [])


def test_one_word_is_a_sweep_of_scratch_twice_and_transfers_at_the_same_rates_and_seeds(capsys):
    words = written_out("experiment=resnet_ft", "compare=transfer")
    assert words == [
        *("-m", "strategy=scratch,scratch_matched,frozen,full,lp_ft,gradual"),
        *("optimizer.lr=0.0002,0.001,0.005,0.025", "seed=0,1,2,3,4", "pretrain.seed=${seed}", "experiment=resnet_ft"),
    ]
    assert "Each of the 6 strategies is tried with the same learning rates and seeds." in capsys.readouterr().out


def test_what_is_typed_beside_it_stays(capsys):
    typed_too = ["seeds=2", "optimizer.lr=1e-3,1e-2", "pretrain.seed=3", "data.labels_per_class=2,5"]
    words = written_out("experiment=resnet_ft", "compare=transfer", "others=lora", *typed_too)
    expected = ["-m", "strategy=scratch,scratch_matched,frozen,full,lora", "experiment=resnet_ft", "seed=0,1"]
    assert words == [*expected, *typed_too[1:]]


def test_pretraining_of_unknown_cost_has_no_scratch_of_equal_flops(capsys):
    words = written_out("experiment=resnet_ft", "backbone.weights=imagenet", "compare=transfer", "seeds=1")
    assert words[1] == "strategy=scratch,frozen,full,lp_ft,gradual"
    assert not any(word.startswith("pretrain.seed") for word in words)
    assert "pretraining's FLOPs are not known (backbone.weights=imagenet)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare=all"], "what can be compared is compare=transfer"),
        (["compare=transfer", "strategy=full"], "name those with others="),
        (["others=lora"], "which is not there"),
        (["compare=transfer", "backbone.weights=null"], "nothing to transfer"),
        (["compare=transfer", "experiment=resnet_f"], "did you mean `experiment=resnet_ft`"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_message(words, message):
    with pytest.raises(GraftError, match=message.replace("(", r"\(")):
        written_out(*words)


def test_a_mistake_beside_it_imports_no_torch():
    out = run_and_list_modules("compare=transfer", "experiment=resnet_f")
    assert "code 2" in out
    assert out.endswith("modules hydra omegaconf yaml\n")


# FLOPs


def dense(sizes):
    """FLOPs of a linear layer's forward pass, from (inputs, outputs)."""
    return sum(2 * a * b for a, b in sizes)


def test_flops_are_those_of_the_passes_that_a_phase_takes_and_leave_no_trace():
    backbone, head = lenet(size=28, channels=1), nn.Linear(500, 10)
    inputs = torch.rand(3, 1, 28, 28)
    before = [module.training for module in backbone.modules()]
    forward = 2 * 24 * 24 * 25 * 20 + 2 * 8 * 8 * 25 * 20 * 50 + dense([(800, 500), (500, 10)])
    first = 2 * 24 * 24 * 25 * 20  # the images need no gradient
    (full,), (frozen,) = Full().phases(1, backbone), Frozen().phases(1, backbone)
    assert flops.of_sample(backbone, head, full, inputs) == 3 * forward - first
    assert flops.of_sample(backbone, head, frozen, inputs) == forward + dense([(500, 10)])
    assert [module.training for module in backbone.modules()] == before
    assert all(p.requires_grad and p.grad is None for p in (*backbone.parameters(), *head.parameters()))


def test_a_network_is_counted_once_for_every_phase_and_every_size_of_its_inputs(monkeypatch):
    monkeypatch.setattr(flops, "COUNTED", {})
    counted, calls = flops.counted, []
    monkeypatch.setattr(flops, "counted", lambda *given: calls.append(given) or counted(*given))

    def sample(strategy, size):
        backbone, head = lenet(size=size, channels=1), nn.Linear(500, 10)
        return flops.of_sample(backbone, head, strategy.phases(1, backbone)[0], torch.rand(2, 1, size, size))

    asked = [(Full(), 28), (Frozen(), 28), (Full(), 32), (Frozen(), 32)]
    first = [sample(*one) for one in asked]
    assert [sample(*one) for one in asked] == first
    assert len(calls) == len({*first}) == 4


def test_a_head_whose_weights_are_computed_of_others_is_counted():
    backbone, head = lenet(size=28, channels=1), BottleneckHead(500, 10, width=32, weight_norm=True)
    (frozen,) = Frozen().phases(1, backbone)
    forward = 2 * 24 * 24 * 25 * 20 + 2 * 8 * 8 * 25 * 20 * 50 + dense([(800, 500), (500, 32), (32, 10)])
    trained = dense([(500, 32), (32, 10), (32, 10)])  # of the classifier its input too
    assert flops.of_sample(backbone, head, frozen, torch.rand(2, 1, 28, 28)) == forward + trained


def test_a_backbone_of_the_same_arguments_is_checked_once_and_begins_as_before(tmp_path, monkeypatch):
    monkeypatch.setattr(network, "CHECKED", set())
    check, calls = network.check_backbone, []
    monkeypatch.setattr(network, "check_backbone", lambda backbone: calls.append(backbone) or check(backbone))
    names = ("experiment=sequence_digits", "backbone.layers=1")
    first, second = (assemble(config_in(tmp_path, *names)).module.state_dict() for _ in range(2))
    assert len(calls) == 1
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assemble(config_in(tmp_path, "experiment=sequence_digits", "backbone.layers=2"))
    assert len(calls) == 2


def test_recurrent_layers_are_counted_as_products_of_matrices(tmp_path):
    found = assemble(config_in(tmp_path, "experiment=sequence_digits", "backbone.layers=1"))
    module, phases = found.module, found.module.phases(1)
    (counted,) = flops.per_epoch(module.backbone, {"target": module.head("target")}, phases, found.data)
    inputs, state = (2 * 4 * size * 64 * 2 for size in (8, 64))  # a step of 8 pixels: four gates, both directions
    forward = 8 * (inputs + state) + dense([(128, 10)])
    assert counted / 1000 == 3 * forward - 8 * inputs - state  # neither pixels nor the first state need a gradient


@pytest.mark.slow
def test_scratch_matched_takes_the_flops_of_pretraining_and_full_together(tmp_path):
    results = {
        strategy: train_in(
            tmp_path, *SMALL, f"strategy={strategy}", "training.epochs=2", "trainer=cpu", "logger=csv", folder=strategy
        )
        for strategy in ("full", "scratch", "scratch_matched")
    }
    full, scratch, matched = (one["cost"] for one in results.values())
    assert full["target_steps"] == scratch["target_steps"] == 2 * 3
    assert full["flops"]["target"] == scratch["flops"]["total"]
    assert full["flops"]["pretraining"] > 5 * full["flops"]["target"]
    assert matched["flops"]["total"] == pytest.approx(full["flops"]["total"], rel=0.1)
    assert matched["target_steps"] == 2 * results["scratch_matched"]["settings"]["data.epoch"]
    assert [one["matches_flops"] for one in (full, scratch, matched)] == [False, False, True]
