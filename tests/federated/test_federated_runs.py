"""Whole runs of a federation: equal to plain training where they have to be, and to themselves when resumed."""

import numpy as np
import pytest
import torch
from lanes import slow

import graft
from graft.callbacks import checkpoints
from graft.errors import Diverged, GraftError, Interrupted
from graft.runs.checkpoints import load
from tests.small_run import train_in

TINY = [
    *("data=table", "data/domain@data.target=wine", "backbone=mlp", "backbone.width=16", "strategy=scratch"),
    *("optimizer=sgd", "optimizer.lr=0.05", "training.epochs=2", "trainer=cpu", "logger=csv", "training.threads=1"),
    *("data.batch_size=8", "data.eval_batch_size=512", "allow=[tests]"),
]
FIVE = ["federated.clients=5", "federated.partition=dirichlet_by_class", "federated.beta=1"]
FAULTS = [*FIVE, "federated.participation=0.8", "federated.drop_out=0.2", "federated.corrupt=0.2", "training.epochs=4"]


@pytest.fixture
def run(tmp_path):
    def run(*overrides, folder="run"):
        return train_in(tmp_path, *TINY, *overrides, folder=folder), tmp_path / folder

    return run


def content(folder, name="last"):
    return load(folder / "checkpoints" / f"{name}.ckpt")


def assert_same_weights(one, other):
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name


def test_of_one_client_it_is_plain_training_bit_for_bit(run):
    plain = ["optimizer.options.momentum=0", "optimizer.options.nesterov=false"]
    results, folder = run(*plain, folder="plain")
    alone, other = run(*plain, "federated=fedavg", "federated.clients=1", folder="alone")
    assert_same_weights(content(folder), content(other))
    assert alone["metrics"]["test/target/acc"] == results["metrics"]["test/target/acc"]
    assert alone["federated"]["fairness"]["mean"] == pytest.approx(results["score"]["value"])
    sent = results["parameters"]["trainable"] * 4  # bytes of single precision, in each direction and round
    assert [row["bytes_up"] for row in alone["federated"]["rounds"]] == [sent] * 2


@pytest.mark.slow
def test_one_full_batch_of_every_client_is_the_step_on_all_samples_together(run):
    # In double precision: gradients of means over samples, weighted by how many, are the mean over all of them
    step = [
        *("optimizer.options.momentum=0", "optimizer.options.nesterov=false", "optimizer.weight_decay=0"),
        *("scheduler=constant", "backbone.dropout=0", "data.batch_size=512", "trainer.precision=64-true"),
    ]
    _, folder = run(*step, folder="pooled")
    _, other = run(*step, *FIVE, "federated=fedavg", folder="federated")
    for name, value in content(folder)["state_dict"].items():
        assert value.dtype != torch.float32
        torch.testing.assert_close(content(other)["state_dict"][name], value, rtol=1e-10, atol=1e-12)


@pytest.fixture
def every_round_saved(monkeypatch):
    monkeypatch.setattr(checkpoints, "SHORTEST_S", 0.0)
    monkeypatch.setattr(checkpoints, "LARGEST_SHARE", 1e9)


@pytest.mark.usefixtures("every_round_saved")
@pytest.mark.parametrize(
    "method",
    [
        ["federated=fedbn", "head=bottleneck", "head.width=8"],
        *slow(
            ["federated=fedavg", "federated.server_momentum=0.5", "optimizer=adamw"],
            ["federated=fedprox"],
            ["federated=local"],
        ),
    ],
    ids=lambda method: method[0].partition("=")[2],
)
@pytest.mark.parametrize("batch", [4, *slow(0)])
def test_a_run_that_was_stopped_in_a_round_goes_on_bit_for_bit(run, method, batch):
    whole, folder = run(*FAULTS, *method, folder="whole")
    stop = f"+callbacks.stop={{_target_: tests.test_run.StopAt, epoch: 2, batch: {batch}}}"
    with pytest.raises(Interrupted):
        run(*FAULTS, *method, stop, folder="stopped")
    resumed, other = run(*FAULTS, *method, "resume=true", folder="stopped")
    assert_same_weights(content(folder), content(other))
    assert resumed["federated"] == whole["federated"]
    assert resumed["metrics"] == whole["metrics"]
    assert sum(len(row["rejected"]) for row in whole["federated"]["rounds"]) > 0
    assert sum(len(row["dropped"]) for row in whole["federated"]["rounds"]) > 0


def test_alone_every_client_predicts_its_own_samples_and_nothing_is_sent(run):
    results, folder = run("federated=local", *FIVE)
    found = results["federated"]
    right = sum(one["score"] * one["test"] for one in found["clients"] if one["test"])
    tested = sum(one["test"] for one in found["clients"])
    assert results["metrics"]["test/target/acc"] == pytest.approx(right / tested)
    assert (tested, sum(one["train"] for one in found["clients"])) == (27, 124)
    assert set(found["bytes"].values()) == {0}
    kept = content(folder, "best")["federation"]["personal"]
    largest = max(range(5), key=lambda client: found["clients"][client]["train"])
    weights = graft.load_run(folder, allow=["tests"]).backbone.state_dict()
    for name in (one for one in kept[largest] if one.startswith("backbone.")):
        assert torch.equal(kept[largest][name], weights[name.removeprefix("backbone.")]), name


def test_a_round_in_which_nothing_can_be_used_ends_the_run_with_a_reason(run):
    with pytest.raises(Diverged, match="every answer of round 1 holds NaN or infinity: client 0, 1, 2, 3, 4"):
        run("federated=fedavg", *FIVE, "federated.corrupt=1")


@pytest.mark.slow
def test_one_bad_answer_can_end_the_run(run):
    with pytest.raises(Diverged, match=r"(?s)an answer of round \d holds NaN .* federated.on_bad_client=reject"):
        run("federated=fedavg", *FAULTS, "federated.on_bad_client=stop", "federated.corrupt=0.5")


@pytest.mark.slow
def test_a_column_makes_the_clients_and_one_that_is_not_there_is_named(run):
    with pytest.raises(GraftError, match=r"federated.column=city: the target has no such column"):
        run("federated=fedavg", "federated.partition=column", "federated.clients=null", "federated.column=city")


@pytest.mark.slow
def test_batchnorm_has_to_be_there_for_fedbn(run):
    with pytest.raises(GraftError, match="federated=fedbn: no BatchNorm trains in backbone=mlp"):
        run("federated=fedbn", *FIVE)


@pytest.mark.slow
def test_in_one_round_mixtures_of_frozen_features_teach_the_server(run):
    _, pretrained = run("training.epochs=20", folder="pretrained")
    frozen = ["strategy=frozen", f"backbone.weights={pretrained}", "training.epochs=30", "optimizer.lr=0.5"]
    pooled, _ = run(*frozen, folder="pooled")
    results, _ = run(*frozen, *FIVE, "federated=fedpft", "federated.components=1", folder="one_round")
    again, _ = run(*frozen, *FIVE, "federated=fedpft", "federated.components=1", folder="again")
    assert again["metrics"] == results["metrics"]
    assert results["metrics"]["test/target/acc"] > pooled["metrics"]["test/target/acc"] - 0.12
    held = sum(int(np.count_nonzero(one["classes"])) for one in results["federated"]["clients"])
    assert results["federated"]["bytes"]["up"] == held * (4 * (1 + 16 + 16) + 8)
    assert len(results["federated"]["rounds"]) == 1
    assert results["data"]["target"]["train"] == 124
