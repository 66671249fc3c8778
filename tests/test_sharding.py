"""Two processes that share one copy of the weights (FSDP2) train as one process does, and go on in one."""

import json
import subprocess
import sys

import pytest
import torch
from pytorch_lightning.strategies.launchers import _MultiProcessingLauncher
from torch import distributed

import graft
from graft.training.sharding import FullySharded
from tests.processes import COMMON, LENET, ONE, check_same, fitted
from tests.test_ranks import SCRIPT, TINY, environment, folders, torchrun

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*")]  # of Lightning, about forked processes

FSDP = ["trainer=fsdp", "trainer.accelerator=cpu"]
SHARDED = [*FSDP, "trainer.devices=2", "data.batch_size=8"]
WHOLE = [*ONE, "data.batch_size=16"]
DATA = ["data.source.samples=300", "data.labels_per_class=8", "data.augment=none"]
SCRATCH = [*DATA, "backbone.weights=null", "strategy=scratch"]
PRETRAINED = [*DATA, "backbone.weights=source", "pretrain.epochs=1"]


@pytest.fixture
def forks(monkeypatch):
    """Processes as the tests of DDP have them: forked, so that nothing is imported again."""

    def configure(self):
        self._launcher = _MultiProcessingLauncher(self, start_method="fork")

    monkeypatch.setattr(FullySharded, "_configure_launcher", configure)


@pytest.mark.parametrize(
    "options",
    [
        [*SCRATCH, "training.gradient_clip_norm=0.1", "training.accumulate_batches=2"],
        [*PRETRAINED, "strategy=frozen"],
        [*PRETRAINED, "strategy=lp_ft", "training.epochs=3", "training.weight_clip=0.1"],
        [*PRETRAINED, "strategy=lora", "strategy.r=2"],
    ],
    ids=["scratch", "frozen", "lp_ft", "lora"],
)
def test_two_processes_with_a_shard_each_train_as_one_with_all_of_it(tmp_path, forks, options):
    (whole,) = fitted(tmp_path, *COMMON, *LENET, *options, *WHOLE, folder="one")
    check_same(fitted(tmp_path, *COMMON, *LENET, *options, *SHARDED, folder="two"), whole)


def test_a_fit_goes_from_two_processes_to_one_and_back(tmp_path, forks):
    config = [*COMMON, *LENET, *SCRATCH, "training.epochs=3", "optimizer.options.momentum=0.9"]
    (whole,) = fitted(tmp_path, *config, *WHOLE, folder="whole")
    fitted(tmp_path, *config, *SHARDED, folder="first", last_epoch=0)
    fitted(tmp_path, *config, *WHOLE, folder="second", checkpoint=tmp_path / "first.ckpt", last_epoch=1)
    third = fitted(tmp_path, *config, *SHARDED, folder="third", checkpoint=tmp_path / "second.ckpt")
    for saved, begun in (("first", "second"), ("second", "third")):  # without a step between, to the bit
        state = torch.load(tmp_path / f"{saved}.ckpt", weights_only=True)["state_dict"]
        own = torch.load(tmp_path / f"{begun}_begins_0.pt", weights_only=True)
        assert own.keys() == state.keys()
        assert all(torch.equal(own[key], value) for key, value in state.items())
    check_same(third, whole)


TEXTS = ["data=text", "data/domain@data.target=text_file", "data.epoch=2", "strategy=scratch", "backbone.weights=null"]


@pytest.mark.parametrize(
    "options",
    [
        [*SCRATCH, "backbone=timm", "backbone.name=vit_tiny_patch16_224", "data.image_size=32", "head=attention"],
        [*TEXTS, "backbone=gru", "backbone.dropout=0", "head=attention"],
    ],
    ids=["vit", "gru"],
)
def test_networks_in_blocks_train_in_shards_as_whole(tmp_path, options):
    if options[0] == "data=text":
        file = tmp_path / "texts.csv"
        file.write_text("\n".join(["text,label", *(f"red {i} {'blue ' * (i % 5)},{i % 2}" for i in range(80))]))
        options = [*options, f"data.target.file={file}"]
    common = [*COMMON, *options, "data.epoch=2", "training.epochs=1", "selection=last", "data.batch_size=8"]
    (whole,) = fitted(tmp_path, *common, *ONE, folder="one")
    try:
        check_same(fitted(tmp_path, *common, *FSDP, "trainer.devices=1", folder="two"), whole, number=1)
    finally:
        distributed.destroy_process_group()


def test_a_whole_run_of_two_processes_ends_as_that_of_one_and_its_model_opens_in_one(tmp_path):
    options = ["data.augment=none", "backbone.dropout=0", "optimizer=sgd", "trainer.limit_test_batches=1.0"]
    code, printed = torchrun(tmp_path / "two", *options, *FSDP, "trainer.devices=2", "data.batch_size=8")
    assert code == 0, printed
    command = [sys.executable, SCRIPT, *TINY, *options, "trainer=cpu", "data.batch_size=16"]
    subprocess.run(command, env=environment(tmp_path / "one"), check=True, capture_output=True)
    results = []
    for root in (tmp_path / "one", tmp_path / "two"):
        (folder,) = folders(root)
        results.append(json.loads((folder / "results.json").read_text())["metrics"])
    assert results[1] == pytest.approx(results[0], rel=1e-5, abs=1e-5)
    assert graft.load_run(folder).predict(torch.zeros(2, 1, 28, 28)) is not None
