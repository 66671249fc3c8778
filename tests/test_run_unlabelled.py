"""Runs with a labelled source and an unlabelled target, whose batches feed the terms."""

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from graft.baselines.plan import ADAPTATIONS
from graft.cli.job import execute
from graft.errors import GraftError, Interrupted
from graft.experiment import assemble, prepare
from graft.training.fitting import Fitting
from tests.small_run import config_in, train_in

TINY = [
    "backbone=lenet",
    "strategy=scratch",
    "data.image_size=16",
    "data.source.samples=300",
    "data.labels_per_class=null",
    "data.target_setting=unsupervised",
    "data.epoch=3",
    "data.batch_size=8",
    "data.eval_batch_size=512",
    "objective.alpha=1",
    "selection=source_val",
    "term=[mcd,mean_teacher]",
    "training.epochs=2",
    "training.threads=1",
    "trainer=cpu",
    "logger=csv",
    "callbacks.progress=null",
]


@pytest.fixture
def config(tmp_path):
    def config(*overrides, folder="run"):
        return config_in(tmp_path, *TINY, *overrides, folder=folder)

    return config


@pytest.mark.slow
def test_a_run_trains_terms_on_the_target_and_sees_none_of_its_labels(config, tmp_path):
    results = execute(config("training.epochs=1", "baselines=auto"))
    assert results["status"] == "done"
    adapting = [f"{name}_pixels" for name in ADAPTATIONS if name != "importance_weighted"]  # which is for tables
    assert [*results["baselines"]] == ["linear_pixels_source_only", *adapting]  # others need labels of the target
    assert results["data"]["target"]["labels"]["train"] == 0
    assert results["selection"]["oracle"] is False
    header = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0]
    assert {"train/term/mcd", "train/term/mean_teacher", "train/source/loss"} <= set(header.split(","))
    assert "train/target/loss" not in header


def fitted(settings, folder, resume=None):
    """State of a module after a fit of the whole experiment, which leaves a checkpoint after every step."""
    experiment = assemble(settings)
    prepare(experiment)
    trainer = Fitting(experiment, [], in_sweep=True).trainer
    names = {"filename": "{step}", "auto_insert_metric_name": False, "enable_version_counter": False}
    if resume is None:
        trainer.callbacks.append(ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1, **names))
    trainer.fit(experiment.module, experiment.data, ckpt_path=resume, weights_only=True)
    return experiment, {
        k: v for k, v in experiment.module.state_dict().items() if k.startswith(("back", "head", "term"))
    }


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint.*")
def test_a_run_killed_inside_an_epoch_goes_on_bit_for_bit(config, tmp_path):
    experiment, whole = fitted(config(), tmp_path / "steps")
    assert experiment.data.train_domains == ("source", "target")
    assert experiment.data.views == {"source": (), "target": ("weak",)}
    _, resumed = fitted(config(folder="again"), tmp_path / "steps", resume=tmp_path / "steps" / "4.ckpt")
    assert {"terms.mcd.head.linear.weight", "terms.mean_teacher.teacher.1.linear.weight"} <= set(whole)
    assert all(torch.equal(value, whole[name]) for name, value in resumed.items())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["data.source=null", "selection=last", "objective.alpha=0"],
            r"term\.mcd trains on the source too, but data\.",
        ),
        (["training.mixup_alpha=0.2"], r"training\.mixup_alpha=0\.2 with term\.mean_teacher"),
    ],
)
def test_what_the_config_check_cannot_see_is_refused_before_anything_trains(config, overrides, message):
    with pytest.raises(GraftError, match=message):
        assemble(config(*overrides))


SEMI = [
    *("data.target_setting=semi", "data.labels_per_class=2", "data.source.samples=200", "data.image_size=16"),
    *("data.batch_size=16", "data.epoch=4", "backbone=timm", "backbone.name=test_resnet", "backbone.weights=null"),
    *("objective.alpha=0.5", "term=[mcc]", "selection=last", "training.epochs=3", "training.threads=1", "trainer=cpu"),
    *("logger=csv", "callbacks.progress=null", "allow=[tests]"),
]


def last_weights(root, folder):
    return torch.load(root / folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.slow
def test_a_partly_labelled_targets_run_killed_inside_an_epoch_resumes_bit_for_bit(tmp_path):
    options = [*SEMI, "strategy=scratch", "data.augment=light"]
    whole = train_in(tmp_path, *options, folder="whole")
    stop = "+callbacks.stop={_target_: tests.test_run.StopAt, epoch: 1, batch: 1}"
    with pytest.raises(Interrupted):
        train_in(tmp_path, *options, stop, folder="stopped")
    results = train_in(tmp_path, *options, "resume=true", folder="stopped")
    assert results["metrics"] == whole["metrics"]
    expected, found = (last_weights(tmp_path, folder) for folder in ("whole", "stopped"))
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


@pytest.mark.slow
def test_a_partly_labelled_target_trains_the_same_behind_cached_features(tmp_path):
    options = [*SEMI, "strategy=frozen", "data.augment=none", "data.epoch=40"]
    plain = train_in(tmp_path, *options, "cache.features=false", folder="plain")
    cached = train_in(tmp_path, *options, folder="cached")
    assert not plain["feature_cache"]["entries"]
    splits = {(one["domain"], one["split"]) for one in cached["feature_cache"]["entries"]}
    assert {("source", "train"), ("target", "train")} <= splits
    assert cached["metrics"] == pytest.approx(plain["metrics"], rel=1e-5)
    expected, found = (last_weights(tmp_path, folder) for folder in ("plain", "cached"))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)  # features of larger batches round otherwise
