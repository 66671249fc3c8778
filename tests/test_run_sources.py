"""Runs on several sources: frozen features are kept, every source has its score, terms over sources resume."""

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning.callbacks import ModelCheckpoint

from graft.backbones.lenet import lenet
from graft.cli.job import execute
from graft.experiment import assemble, prepare
from graft.training.fitting import Fitting
from tests.small_run import config_in

SIZES = {"ink": 10, "oil": 20, "pen": 10}  # images of each class
TINY = [
    "data=domains",
    "data.target_domain=pen",
    "data.target_setting=unsupervised",
    "data.epoch=source",
    "data.batch_size=8",
    "data.num_workers=0",
    "data.image_size=16",
    "data.source.domain.split.near_duplicates=ignore",
    "data.target.split.near_duplicates=ignore",
    "backbone=lenet",
    "backbone.channels=3",
    "objective.alpha=1",
    "selection=source_val",
    "training.epochs=2",
    "training.threads=1",
    "trainer=cpu",
    "logger=csv",
    "callbacks.progress=null",
]


@pytest.fixture
def config(tmp_path):
    """The config of a run on three domains of light and dark pictures, each in another colour."""
    random = np.random.default_rng(0)
    for channel, (domain, number) in enumerate(SIZES.items()):
        for name, light in (("dark", 60), ("light", 160)):
            (tmp_path / "art" / domain / name).mkdir(parents=True)
            for i in range(number):
                pixels = random.integers(0, 60, (8, 8, 3), dtype=np.uint8)
                pixels[..., channel] += light
                Image.fromarray(pixels).save(tmp_path / "art" / domain / name / f"{i}.png")

    def config(*overrides, folder="run"):
        return config_in(tmp_path, *TINY, f"data.root={tmp_path / 'art'}", *overrides, folder=folder)

    return config


def test_a_frozen_run_reads_kept_features_and_scores_every_source(config, tmp_path):
    torch.manual_seed(0)
    torch.save(lenet(channels=3, size=16).state_dict(), tmp_path / "lenet.pt")
    frozen = ["strategy=frozen", f"backbone.weights={tmp_path / 'lenet.pt'}", "term=[groupdro,vrex]"]
    frozen += ["data.source.sampling=equal"]
    results = execute(config(*frozen))
    metrics, data = results["metrics"], results["data"]
    assert data["source"]["name"] == "ink + oil"
    assert data["target"]["labels"]["train"] == 0
    stored = {(one["domain"], one["split"]) for one in results["feature_cache"]["entries"]}
    assert {("source", "train"), ("source", "val"), ("source", "test"), ("target", "test")} <= stored
    tests = {"ink": 3, "oil": 6}  # of 20 and 40
    assert data["source"]["test"] == sum(tests.values())
    pooled = sum(count * metrics[f"test/source_{name}/acc"] for name, count in tests.items()) / sum(tests.values())
    assert metrics["test/source/acc"] == pytest.approx(pooled, abs=1e-6)
    computed = execute(config(*frozen, "cache.features=false", folder="again"))
    assert computed["metrics"]["val/source/loss"] == pytest.approx(metrics["val/source/loss"], rel=1e-4)


def fitted(settings, folder, resume=None):
    """State of a module after a fit, which leaves a checkpoint after every step."""
    experiment = assemble(settings)
    prepare(experiment)
    trainer = Fitting(experiment, [], in_sweep=True).trainer
    names = {"filename": "{step}", "auto_insert_metric_name": False, "enable_version_counter": False}
    if resume is None:
        trainer.callbacks.append(ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1, **names))
    trainer.fit(experiment.module, experiment.data, ckpt_path=resume, weights_only=True)
    return {k: v for k, v in experiment.module.state_dict().items() if k.startswith(("back", "head", "term"))}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint.*")
def test_a_run_killed_inside_an_epoch_goes_on_bit_for_bit(config, tmp_path):
    terms = ["strategy=scratch", "term=[groupdro,vrex,source_coral]", "term.groupdro.eta=1", "term.vrex.warmup_steps=5"]
    whole = fitted(config(*terms), tmp_path / "steps")
    resumed = fitted(config(*terms, folder="again"), tmp_path / "steps", resume=tmp_path / "steps" / "4.ckpt")
    weights = whole["terms.groupdro.group_weights"]
    assert weights.sum() == pytest.approx(1)
    assert weights[0] != weights[1]
    assert whole["terms.vrex.steps"] == 12
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(value, whole[name]) for name, value in resumed.items())


@pytest.mark.slow
def test_pretraining_learns_from_all_sources(config):
    pretraining = ["strategy=full", "backbone.weights=source", "pretrain.epochs=2", "pretrain.batch_size=8"]
    pretraining += ["+term@pretrain.term=groupdro", "training.epochs=1"]
    metrics = {}
    for sampling in ("size", "equal"):  # which makes other pretrained weights, also under a cache that has the first
        results = execute(config(*pretraining, f"data.source.sampling={sampling}", folder=sampling))
        metrics[sampling] = results["metrics"]["val/source/loss"]
    assert metrics["size"] != metrics["equal"]
