"""Runs on tar shards: what a config refuses, shards written by the verb, and a run that is stopped in an epoch."""

import json

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from lanes import one_in
from PIL import Image
from small_run import CONF, config_in, train_in

from graft.cli.hydra_versions import VERSION_BASE
from graft.cli.main import main
from graft.commands.check import fit_once
from graft.config import plain
from graft.config.conflicts.names import Names
from graft.config.conflicts.stream import stream_contradictions
from graft.runs import record
from graft.runs.folder import LAST_CHECKPOINT

SHARDS = ("data=shards", "backbone.weights=null", "strategy=scratch")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Two classes of 20 photos, dark and bright, which `graft shards` has written."""
    root, noise = tmp_path_factory.mktemp("streams"), np.random.default_rng(0)
    for name, low in (("dark", 0), ("light", 120)):
        (root / "photos" / name).mkdir(parents=True)
        for number in range(20):
            pixels = noise.integers(low, low + 120, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "photos" / name / f"{number}.png")
    words = ["data=image_folder", f"data.target.root={root / 'photos'}", f"to={root / 'shards'}", "shard_mb=0.012"]
    assert main(["shards", *words, f"paths.cache_dir={root / 'cache'}"]) == 0
    return root / "shards"


def test_the_verb_writes_shards_their_sizes_and_classes(shards):
    sizes = json.loads((shards / "sizes.json").read_text())
    assert sorted(sizes) == sorted(path.name for path in shards.glob("*.tar"))
    assert sum(sizes.values()) == 40
    assert len([name for name in sizes if name.startswith("train")]) > 2
    assert (shards / "classes.txt").read_text() == "dark\nlight\n"


def test_the_verb_says_what_is_wrong_with_its_words(shards, capsys):
    assert main(["shards"]) == 2
    assert "graft shards data=<data> to=" in capsys.readouterr().err
    for words, said in ((["shard_mb=x"], "shard_mb=x"), (["photos"], "'photos' is no key=value")):
        assert main(["shards", "data=image_folder", "to=there", *words]) == 2
        assert said in capsys.readouterr().err


def found_in(*overrides):
    with initialize_config_dir(CONF, **VERSION_BASE):
        cfg = compose("train", overrides=[*overrides, "paths.run_dir=run"], return_hydra_config=True)
    choices = dict(cfg.hydra.runtime.choices)
    config = plain(cfg)
    return list(stream_contradictions(config, Names(config, choices)))


@pytest.mark.parametrize(
    ("overrides", "said"),
    one_in(
        3,
        [
            (["data.labels_per_class=5"], "`data.labels_per_class=5` with a stream as `data.target`"),
            (["data.balance=sampler"], "`data.balance=sampler` with a stream"),
            (["data.evaluation=kfold", "data.folds=3", "data.fold=0"], "`data.evaluation=kfold` with a stream"),
            (["strategy=probe"], "`strategy=probe` with a stream"),
            (["selection=budget"], "`selection=budget` with a stream"),
            (["data.target_setting=semi"], "`data.target_setting=semi` with a stream"),
            (["cache.augmented_views=2"], "`cache.augmented_views=2` with a stream"),
            (["save.neighbours=true"], "`save.neighbours=true` with a stream"),
            (["baselines=[linear]"], "`baselines` by name with a stream"),
            (["backbone.weights=target", "strategy=full"], "`backbone.weights=target` with a stream"),
            (["data/domain@data.source=image_shards", "data.source_classes=[1]"], "`data.source_classes=[1]` with a"),
        ],
    ),
)
def test_what_needs_all_samples_is_refused_by_the_config(overrides, said):
    found = found_in(*SHARDS, "data.target.root=r", *overrides)
    assert [line for line in found if said in line], found


def test_a_stream_by_itself_passes():
    assert found_in(*SHARDS, "data.target.root=r") == []
    assert found_in("data=image_folder", "data.target.root=r", "data.labels_per_class=5") == []


@pytest.mark.slow
def test_a_refusal_is_one_message_without_torch(app, shards):
    done = app(*SHARDS, f"data.target.root={shards}", "data.labels_per_class=5")
    assert done.code == 2
    assert "with a stream as `data.target`" in done.err
    assert not app.configs


def small(shards, *more):
    return (
        *(*SHARDS, f"data.target.root={shards}", "backbone=lenet", "data.image_size=16", "data.batch_size=8"),
        *("training.threads=1", "trainer=cpu", "logger=csv", "data.num_workers=0", "data.augment=light", *more),
    )


@pytest.mark.slow
def test_a_run_learns_from_shards_and_says_what_it_left_out(shards, tmp_path):
    results = train_in(tmp_path, *small(shards, "training.epochs=8", "optimizer.lr=0.01"))
    assert results["status"] == record.FINISHED
    assert results["data"]["target"]["train"] == 28
    assert results["metrics"]["test/target/acc"] > 0.8
    assert results["skipped_in_training"] == {}


@pytest.mark.slow
@pytest.mark.parametrize("epoch", ["target", 3])
def test_a_run_stopped_in_an_epoch_ends_with_the_whole_ones_weights(shards, tmp_path, epoch):
    words = small(shards, "training.epochs=3", f"data.epoch={epoch}")
    fit_once(config_in(tmp_path, *words, folder="stopped"), stop=True)
    resumed = fit_once(config_in(tmp_path, *words, "resume=true", folder="stopped"), stop=False)
    whole = fit_once(config_in(tmp_path, *words, folder="whole"), stop=False)
    assert (tmp_path / "stopped" / LAST_CHECKPOINT).is_file()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


@pytest.mark.slow
def test_pretraining_reads_a_stream_too(shards, tmp_path):
    words = ("backbone=lenet", "strategy=full", "backbone.weights=source", "data.image_size=16")
    results = train_in(
        tmp_path,
        *("data=image_folder", f"data.target.root={shards.parent / 'photos'}", "data/domain@data.source=image_shards"),
        *(f"data.source.root={shards}", *words, "training.epochs=1", "pretrain.epochs=2", "training.threads=1"),
        *("trainer=cpu", "logger=csv", "data.num_workers=0", "data.batch_size=8"),
    )
    assert results["weights"]["pretraining"]["samples"] == 28
