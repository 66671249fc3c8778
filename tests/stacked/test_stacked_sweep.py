"""A stacked sweep leaves what the same sweep leaves one by one."""

import csv
import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from omegaconf import OmegaConf

from graft.backbones.lenet import lenet
from graft.cli import main as cli
from graft.cli.hydra_versions import IS_1_3
from graft.stacked import fit

SMALL = (
    *("data=glyphs_digits", "backbone=lenet", "strategy=frozen", "data.labels_per_class=3", "data.batch_size=16"),
    *("trainer=cpu", "training.epochs=3", "training.threads=1", "baselines=none", "logger=csv", "save.model=none"),
)
KEPT = ("cut", "domain", "split", "samples", "bytes")  # of features
# What may differ: when and how fast it was, and whose it is.
TIMES = ("time", "samples_per_s", "peak_memory_mb", "feature_cache", "stacked", "git")


@pytest.fixture
def sweep(tmp_path, monkeypatch, capsys):
    """Runs a sweep of heads on a LeNet of fixed random weights; its folder, exit code and output."""
    torch.manual_seed(5)
    torch.save(lenet(size=32).state_dict(), tmp_path / "lenet.pt")
    monkeypatch.setenv("GRAFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GRAFT_ROOT", str(tmp_path))

    def run(launcher, *overrides, folder=None):
        folder = tmp_path / (folder or launcher)
        more = (f"backbone.weights={tmp_path / 'lenet.pt'}", f"hydra/launcher={launcher}", f"hydra.sweep.dir={folder}")
        monkeypatch.setattr(sys, "argv", ["train.py"])
        code = cli.main(["-m", *SMALL, *more, *overrides])
        return folder, code, capsys.readouterr()

    return run


def jobs_of(folder):
    """The folders of a sweep's finished jobs, by name."""
    return {path.parent.name: path.parent for path in folder.glob("*/DONE")}


def table(file):
    """The rows of a CSV file."""
    return list(csv.DictReader(file.read_text().splitlines()))


def compare(one_by_one, together, tolerance):
    """Same folders and files, rows, checkpoints and results; numbers to a relative tolerance."""
    names = jobs_of(one_by_one)
    assert names.keys() == jobs_of(together).keys()
    for name, first in names.items():
        second = together / name
        files = [{str(path.relative_to(job)) for path in job.rglob("*")} for job in (first, second)]
        weights = ["checkpoints/best.ckpt"] * 2
        if "checkpoints/last.ckpt" in files[0]:  # of selection=last, with what its training would go on from
            weights[0] = "checkpoints/last.ckpt"
        assert files[0] - {weights[0]} == files[1] - {weights[1]}
        rows = [table(job / "metrics.csv") for job in (first, second)]
        assert [{key for key, value in row.items() if value} for row in rows[0]] == [
            {key for key, value in row.items() if value} for row in rows[1]
        ]
        for before, after in zip(*rows, strict=True):
            for key in filter(before.get, before):
                # A sample on the border between two classes may be counted with either.
                loose = (
                    max(tolerance, 1e-2)
                    if tolerance > 1e-6 and not key.endswith(("loss", "epoch", "step"))
                    else tolerance
                )
                assert float(after[key]) == pytest.approx(float(before[key]), rel=loose, abs=1e-12), (name, key)
        predicted = [pq.read_table(job / "predictions.parquet").to_pydict() for job in (first, second)]
        chances = [torch.tensor(one.pop("probabilities")) for one in predicted]
        torch.testing.assert_close(chances[1], chances[0], rtol=0, atol=max(tolerance, 1e-6))
        if tolerance < 1e-6:
            assert predicted[0] == predicted[1]
        results = [json.loads((job / "results.json").read_text()) for job in (first, second)]
        assert results[0].keys() == results[1].keys() - {"stacked"}
        features = [
            # Alone a job keeps no training samples of which few are drawn
            {tuple(one[key] for key in KEPT) for one in of["feature_cache"]["entries"] if one["split"] != "train"}
            for of in results
        ]
        assert features[0] == features[1]
        assert results[0]["selection"]["epoch"] == results[1]["selection"]["epoch"]
        if tolerance < 1e-6:
            for key in results[0].keys() - {*TIMES}:
                assert results[1][key] == pytest.approx(results[0][key], rel=tolerance) if key == "metrics" else True
                assert key in ("metrics", "selection", "score", "temperature") or results[1][key] == results[0][key], (
                    key
                )
        best = [torch.load(job / one, weights_only=True) for job, one in zip((first, second), weights, strict=True)]
        if weights[0] == weights[1]:
            assert best[0].keys() == best[1].keys()
        assert [best[0][key] for key in ("epoch", "global_step")] == [best[1][key] for key in ("epoch", "global_step")]
        for key, tensor in best[0]["state_dict"].items():
            assert tensor.dtype == best[1]["state_dict"][key].dtype
            torch.testing.assert_close(best[1]["state_dict"][key], tensor, rtol=tolerance, atol=tolerance)


def test_a_stacked_sweep_leaves_what_the_jobs_leave_one_by_one(sweep):
    grid = ("trainer.precision=64-true", "optimizer.lr=1e-3,1e-2", "seed=0,1")
    one_by_one, code, _ = sweep("basic", *grid)
    together, stacked_code, shown = sweep("stacked", *grid)
    assert (code, stacked_code) == (0, 0)
    assert "Trained together: 4 of 4 jobs." in shown.out
    assert len(jobs_of(together)) == 4
    compare(one_by_one, together, 1e-9)
    summaries = [table(folder / "summary.csv") for folder in (one_by_one, together)]
    times = [key for key in summaries[0][0] if key.endswith("_s")]
    for rows in summaries:
        for row in rows:
            for key in times:
                del row[key]
    assert summaries[0] == summaries[1]
    for job in jobs_of(together).values():
        results = json.loads((job / "results.json").read_text())
        assert results["stacked"]["jobs"] == 4
        assert results["time"]["fit_s"] == pytest.approx(results["stacked"]["fit_s"] / 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ("scheduler=one_cycle,constant", "optimizer=sgd", "optimizer.weight_decay=0.0,0.1"),
        ("objective.alpha=0.0,0.3,0.7", "data/domain@data.source=glyphs", "data.source.samples=256", "seed=0,1"),
        ("objective.alpha=0.5", "head.sharing=separate", "data.source.samples=256", "seed=0,1,2"),
        (
            "head=mlp",
            "head.hidden=[8]",
            "task.label_smoothing=0.1",
            "data.balance=weights",
            "seed=0,1",
            "optimizer.lr=1e-3,1e-2",
        ),
        (
            "selection=entropy",
            "training.validate_every_epochs=2",
            "training.epochs=4",
            "seed=0,1",
            "data.balance=sampler",
        ),
        ("selection=last", "training.validate_every_epochs=2", "training.epochs=4", "seed=0,1"),
        ("optimizer=adam", "optimizer.weight_decay=0.1", "data.eval_batch_size=40", "scheduler=step", "seed=0,1"),
        ("data.test_shifts=[blur]", "seed=0,1", "save.model=always"),
    ],
)
def test_it_does_so_whatever_the_jobs_train_with(sweep, overrides):
    one_by_one, code, _ = sweep("basic", *overrides)
    together, stacked_code, shown = sweep("stacked", *overrides)
    assert (code, stacked_code) == (0, 0)
    number = len(jobs_of(one_by_one))
    trained = sum("stacked" in (job / "results.json").read_text() for job in jobs_of(together).values())
    assert f"Trained together: {trained} of {number} jobs." in shown.out
    assert trained >= 2
    compare(one_by_one, together, 1e-4)


@pytest.mark.slow
def test_what_cannot_train_together_trains_alone_and_the_line_says_why(sweep):
    folder, code, shown = sweep("stacked", "strategy=frozen,full", "seed=0,1", "training.epochs=2")
    assert code == 0
    assert "Trained together: 2 of 4 jobs. One by one: strategy=full trains the backbone (2)." in shown.out
    assert len(jobs_of(folder)) == 4


@pytest.mark.slow
def test_a_job_that_diverges_does_so_alone_and_harms_no_other(sweep):
    grid = ("optimizer=sgd", "optimizer.lr=1e-2,1e38", "seed=0,1")
    one_by_one, _, _ = sweep("basic", *grid)
    together, code, shown = sweep("stacked", *grid)
    assert code == 0
    assert "Trained together: 2 of 4 jobs. One by one: values that are not finite (2)." in shown.out
    words = [
        sorted((job / "DONE").read_text() for job in jobs_of(folder).values()) for folder in (one_by_one, together)
    ]
    assert words[0] == words[1]
    assert words[0][0] != words[0][-1]


@pytest.mark.slow
def test_ctrl_c_ends_the_sweep_and_the_same_folder_does_what_is_missing(sweep, monkeypatch):
    grid = ("seed=0,1", "optimizer.lr=1e-3,1e-2")
    finished, _, _ = sweep("stacked", "seed=0", "optimizer.lr=1e-3", folder="s")
    (done,) = jobs_of(finished).values()
    stamp = (done / "DONE").stat().st_mtime_ns
    train_epoch = fit.Fitting.train_epoch

    def interrupted(self, epoch):
        os.kill(os.getpid(), signal.SIGINT)
        train_epoch(self, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(fit.Fitting, "train_epoch", interrupted)
        folder, code, shown = sweep("stacked", *grid, folder="s")
    assert code == 130
    assert "To run what is missing" in shown.err
    assert len(jobs_of(folder)) == 1
    folder, code, shown = sweep("stacked", *grid, folder="s")
    assert code == 0
    assert "Trained together: 3 of 3 jobs." in shown.out
    assert shown.out.count("Already done") == 1
    assert len(jobs_of(folder)) == 4
    assert (done / "DONE").stat().st_mtime_ns == stamp
    one_by_one, _, _ = sweep("basic", *grid)
    compare(one_by_one, folder, 1e-4)


def test_jobs_are_composed_as_hydra_composes_them(sweep, monkeypatch):
    from graft.cli import stacked
    from graft.cli.sweep_configs import SweepConfigs

    pairs = []
    compose = SweepConfigs.compose

    def both(self, overrides):
        found = compose(self, overrides)
        pairs.append(
            [OmegaConf.to_yaml(one) for one in (found, self.loader.load_sweep_config(self.base, list(overrides)))]
        )
        return found

    monkeypatch.setattr(SweepConfigs, "compose", both)
    monkeypatch.setattr(stacked, "run_one", lambda context, task, one: SimpleNamespace(return_value=None))
    monkeypatch.setattr(stacked, "trained_together", lambda configs, folder: {})
    _, code, shown = sweep("stacked", "seed=0,1", "notes=null,'a b'")
    assert code != 2, shown.err
    assert len(pairs) == 4
    assert all(ours == hydras for ours, hydras in pairs)
    assert len({ours for ours, _ in pairs}) == 4


def test_a_job_runs_as_hydra_runs_it(sweep, monkeypatch):
    from graft.cli import stacked

    seen, returned = [], []

    def noted(cfg):
        hydra = HydraConfig.get()
        seen.append((OmegaConf.to_yaml(cfg), hydra.runtime.output_dir, hydra.job.num, os.environ["STACKED"]))
        assert Path(hydra.runtime.output_dir).is_dir()
        if cfg.seed:
            raise ValueError("one")
        return 0.5

    ours = stacked.run_one

    def both(context, task, one):
        returned.append(ours(context, noted, one))
        keys = {"job_dir_key": "hydra.sweep.dir", "job_subdir_key": "hydra.sweep.subdir"}
        returned.append(stacked.run_hydra_job(hydra_context=context, task_function=noted, config=one, **keys))
        return SimpleNamespace(return_value=None)

    monkeypatch.setattr(stacked, "run_one", both)
    monkeypatch.setattr(stacked, "trained_together", lambda configs, folder: {})
    sweep("stacked", "seed=0,1", "+hydra.job.env_set.STACKED=x")
    assert len(seen) == len(returned) == 4
    assert "STACKED" not in os.environ
    assert seen[0] == seen[1] != seen[2] == seen[3]
    for first, second in (returned[:2], returned[2:]):
        for name in ("overrides", "cfg", "working_dir", "task_name", "status"):
            assert getattr(first, name) == getattr(second, name)
        assert first.hydra_cfg.hydra == second.hydra_cfg.hydra
    assert returned[0].return_value == 0.5
    with pytest.raises(ValueError, match="one"):
        _ = returned[2].return_value


@pytest.fixture
def composed(monkeypatch):
    """The overrides of every job that Hydra itself composes from now on."""
    found = []
    hydras = ConfigLoaderImpl.load_sweep_config

    def counted(self, master_config, sweep_overrides):
        found.append(sweep_overrides)
        return hydras(self, master_config, sweep_overrides)

    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", counted)
    return found


@pytest.mark.skipif(not IS_1_3, reason="the sweeper of Hydra 1.4 looks at every job")
def test_hydra_composes_a_kind_of_jobs_once_for_the_look_at_them_and_for_the_jobs(sweep, composed, monkeypatch):
    from graft.cli import stacked

    run = []
    monkeypatch.setattr(stacked, "run_one", lambda context, task, one: run.append(one) or JobReturn())
    monkeypatch.setattr(stacked, "trained_together", lambda configs, folder: {})
    sweep("stacked", "seed=0,1,2", "optimizer=adamw,sgd")
    assert len(run) == 6
    assert sorted(one[-1] for one in composed) == ["optimizer=adamw", "optimizer=sgd"]


@pytest.mark.parametrize("launcher", ["stacked", "basic"])
def test_no_job_begins_where_a_later_one_does_not_compose(sweep, launcher):
    folder, code, shown = sweep(launcher, "seed=0,1", "optimizer=adamw,adamv")
    assert code == 2
    assert "`optimizer=adamv`: there is no such option (did you mean `optimizer=adam`?)" in shown.err
    assert not jobs_of(folder)
    assert not list(folder.glob("*/config.yaml"))


def test_a_key_that_is_not_there_is_refused_in_the_words_of_one_run(sweep):
    folder, code, shown = sweep("basic", "optimizer.lrr=0.1,0.2")
    assert code == 2
    assert "`optimizer.lrr`: there is no such key or group (did you mean `optimizer.lr`?)" in shown.err
    assert not list(folder.glob("*/config.yaml"))
