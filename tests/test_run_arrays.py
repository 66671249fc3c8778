"""Runs on arrays in an npz, from the file to results."""

import json

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from graft.errors import GraftError
from graft.run import train
from tests.test_run import CONF

TINY = ["training.epochs=2", "training.threads=1", "trainer=cpu", "logger=csv", "strategy=scratch"]


@pytest.fixture
def run(tmp_path):
    def run(*overrides):
        paths = [f"++paths.run_dir={tmp_path / 'run'}", f"++paths.cache_dir={tmp_path}", f"paths.root={tmp_path}"]
        with initialize_config_dir(CONF, version_base="1.3"):
            cfg = compose("train", overrides=[*TINY, *paths, *overrides])
        (tmp_path / "run").mkdir(exist_ok=True)
        return train(cfg)

    return run


@pytest.fixture
def xrays(tmp_path):
    """Overrides for grey images, three in four of the first class, which is darker; one cannot be used."""
    random, labels = np.random.default_rng(0), (np.arange(80) % 4 == 0).astype(np.uint8)
    images = (random.random((80, 8, 8)) + labels[:, None, None]) / 2
    images[5, 0, 0] = np.nan
    np.savez(tmp_path / "xrays.npz", images=images, labels=labels)
    file = f"data.target.file={tmp_path / 'xrays.npz'}"
    return ["data=image_folder", "data/domain@data.target=image_arrays", file, "data.num_workers=0", "backbone=lenet"]


def test_two_classes_by_auroc_with_class_weights(run, xrays, tmp_path):
    keys = ["task=binary", "task.main_metric=auroc", "data.balance=weights", "data.target.on_bad_sample=skip"]
    found = run(*xrays, *keys, "data.image_size=16", "training.epochs=10", "optimizer.lr=1e-2")
    metrics = found["metrics"]
    assert found["selection"]["monitor"] == "val/target/auroc"
    assert found["score"]["metric"] == "test/target/auroc"
    assert metrics["test/target/auroc"] > 0.9
    rates = [metrics["test/target/sensitivity"], metrics["test/target/specificity"]]
    (true_no, false_yes), (false_no, true_yes) = found["confusion"]["test/target"]["matrix"]
    assert rates == pytest.approx([true_yes / (true_yes + false_no), true_no / (true_no + false_yes)])
    notes = json.loads((tmp_path / "run" / "results.json").read_text())["data"]["target"]["notes"]
    assert "skipped: 1 images (images[5]: a value is NaN or infinite)" in notes[0]


def test_a_bad_image_is_an_error_unless_it_is_to_be_skipped(run, xrays):
    with pytest.raises(GraftError, match=r"images\[5\]: a value is NaN.*data\.target\.on_bad_sample=skip"):
        run(*xrays)
