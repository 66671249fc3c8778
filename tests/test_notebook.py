"""Graft from Python: the config check, the run folder and the caches of the command line."""

import os
import signal
from pathlib import Path

import pytest
import torch
import yaml

import graft
from graft.errors import GraftError

SMALL = [
    *("experiment=resnet_ft", "backbone=lenet", "data.source.samples=60", "pretrain.epochs=1", "training.epochs=1"),
    *("training.threads=1", "trainer=cpu", "logger=csv"),
]


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAFT_ROOT", str(tmp_path))
    monkeypatch.setenv("GRAFT_CACHE", str(tmp_path / "cache"))


def test_a_run_leaves_a_whole_folder_and_is_not_done_twice(tmp_path, capsys):
    handler, environment = signal.getsignal(signal.SIGINT), dict(os.environ)
    folder = tmp_path / "run"
    values = {"hydra.run.dir": folder, "data.test_shifts": ["blur"], "optimizer.lr": 2e-3}
    results = graft.train(*SMALL, seed=1, **values)
    assert "test/target_blur/acc" in results["metrics"]
    assert {"config.yaml", "overrides.yaml", "results.json", "metrics.csv", "DONE", "checkpoints", ".graft.json"} <= {
        path.name for path in folder.iterdir()
    }
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert (config["seed"], config["optimizer"]["lr"], config["data"]["test_shifts"]) == (1, 2e-3, ["blur"])
    assert (signal.getsignal(signal.SIGINT), dict(os.environ)) == (handler, environment)
    assert "Pretraining on the source" in capsys.readouterr().out

    assert graft.train(*SMALL, seed=1, **values)["metrics"] == results["metrics"]
    other = graft.train(*SMALL, seed=2)
    assert other["weights"]["source"] == "source (cached)"
    assert "Pretraining" not in capsys.readouterr().out
    assert len(list(tmp_path.glob("logs/resnet_ft/runs/*/DONE"))) == 1


def test_mistakes_are_told_at_once_and_leave_no_folder(tmp_path):
    with pytest.raises(GraftError, match="2 mistakes") as error:
        graft.train(*SMALL, seed=-1, **{"optimizer.lr": "fast"})
    assert "`seed=-1`" in str(error.value)
    assert not list(tmp_path.glob("logs/*/runs/*/config.yaml"))


def test_a_whole_config_is_taken_too(tmp_path):
    folder = tmp_path / "first"
    first = graft.train(*SMALL, **{"hydra.run.dir": folder})
    config = yaml.safe_load((folder / "config.yaml").read_text())
    again = graft.train(config, **{"paths.run_dir": str(tmp_path / "second")})
    assert again["metrics"] == first["metrics"]
    assert (tmp_path / "second" / "DONE").exists()
    with pytest.raises(GraftError, match="one mapping that is a whole config"):
        graft.train({"seed": 1})


def test_assemble_builds_what_is_named_and_trains_nothing(tmp_path):
    experiment = graft.assemble(*SMALL, strategy="scratch")
    assert experiment.module.backbone.name == "lenet"
    assert experiment.pretrained is None
    assert not (tmp_path / "cache" / "computed").exists()
    inputs = torch.rand(2, *experiment.module.backbone.input_shape)
    assert experiment.module(inputs).shape == (2, 10)
    assert not list(Path(tmp_path).glob("logs/*/runs/*/config.yaml"))


def test_the_size_that_a_strategy_decides_reaches_the_backbone():
    experiment = graft.assemble(*SMALL, strategy="bit_hyperrule", **{"data.image_size": None})
    assert experiment.decided["data.image_size"] == experiment.module.backbone.size[0] == 128
