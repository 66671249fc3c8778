"""Sweeps whose jobs run in processes of SLURM's, Ray's or this machine's: each job once, one summary, one exit code."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from graft.cli import job
from graft.cli.job import State
from graft.cli.remote_jobs import RemoteJob, ended_without_a_word
from tests import fake_slurm
from tests.small_run import CONF

SCRIPT = str(Path(CONF).parent / "train.py")
TINY = [
    *("backbone=lenet", "backbone.weights=source", "data.source.samples=80", "data.labels_per_class=4"),
    *("data.eval_batch_size=512", "pretrain.epochs=1", "training.epochs=2", "training.threads=1", "baselines=none"),
    *("trainer.limit_test_batches=1", "trainer.limit_val_batches=1", "trainer.precision=32-true", "logger=csv"),
]
SLURM = ["hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1"]


@pytest.fixture
def environment(tmp_path):
    own = {"GRAFT_ROOT": str(tmp_path), "GRAFT_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **own}


def begin(environment, folder, *overrides):
    command = [sys.executable, SCRIPT, "-m", *TINY, f"hydra.sweep.dir={folder}", *overrides]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def sweep(environment, folder, *overrides):
    """Exit code and what is printed."""
    process = begin(environment, folder, *overrides)
    printed = process.communicate(timeout=900)[0]
    return process.returncode, printed


def wait_for(look, seconds=900):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.02)
    raise TimeoutError


def by_seed(folder):
    """The folders of the jobs by their seeds."""
    found = {}
    for file in folder.glob("*/overrides.yaml"):
        lines = [line for line in file.read_text().splitlines() if "seed=" in line]
        found[lines[-1].rpartition("=")[2]] = file.parent
    return found


def training(folder, seed):
    """The process that trains a seed's job, once it has a checkpoint."""

    def look():
        job = by_seed(folder).get(seed) if folder.exists() else None
        return job if job and (job / "checkpoints/last.ckpt").exists() else None

    return json.loads((wait_for(look) / ".graft.lock").read_text())["pid"]


def slurm_logs(folder):
    return "\n".join(file.read_text() for file in folder.glob(".submitit/**/*_log.*"))


def ends_of(folder):
    return {seed: (job / "DONE").read_text() for seed, job in by_seed(folder).items() if (job / "DONE").exists()}


@pytest.mark.parametrize(
    ("launcher", "package", "extra"),
    [("slurm", "submitit", "sweep"), ("slurm_local", "submitit", "sweep"), ("ray", "ray", "ray")],
)
def test_a_launcher_without_its_package_says_what_to_install(app, tmp_path, monkeypatch, launcher, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    found = app("-m", "experiment=resnet_ft", "seed=0,1", f"hydra/launcher={launcher}", f"hydra.sweep.dir={tmp_path}/s")
    assert found.code == 2
    assert f"pip install 'graft[{extra}]'" in found.err


def test_a_launcher_that_gives_up_still_makes_a_summary(app, tmp_path, monkeypatch):
    from hydra._internal.core_plugins.basic_launcher import BasicLauncher

    whole = BasicLauncher.launch

    def lose_the_second(self, job_overrides, initial_job_idx):
        whole(self, job_overrides[:1], initial_job_idx)
        raise RuntimeError("a worker was killed")

    monkeypatch.setattr(BasicLauncher, "launch", lose_the_second)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    found = app("-m", "experiment=resnet_ft", "seed=0,1", f"hydra.sweep.dir={tmp_path}/sweep")
    assert found.code == 1
    assert "LOST The launcher gave up: a worker was killed" in found.err
    assert "Go on with: " in found.err
    assert (tmp_path / "sweep/summary.csv").read_text().count("\n") == 2
    monkeypatch.undo()


def test_a_job_whose_process_is_gone_is_told_and_ends_nothing_else(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["train.py", "-m", "seed=0,1"])
    monkeypatch.setattr("graft.cli.job.STATE", State())
    base = OmegaConf.create({"hydra": {"sweep": {"dir": "logs/sweep"}}})
    one = RemoteJob(None, None, base, ["seed=1"], 1, {}, {}, [])
    assert ended_without_a_word(one, "it was killed").return_value is None  # Hydra raises what a failed one holds
    assert job.STATE.unrecorded  # exit code 1
    said = capsys.readouterr().err
    assert "LOST seed=1\nit was killed\nGo on with: " in said
    assert said.rstrip().endswith("-m seed=0,1 hydra.sweep.dir=logs/sweep")


@pytest.mark.slow
def test_slurm_runs_what_is_not_done_and_a_job_that_makes_room_goes_on(tmp_path, environment):
    pytest.importorskip("submitit")
    fake_slurm.put_on_path(tmp_path / "slurm", environment)
    folder = tmp_path / "sweep"
    overrides = [*SLURM, "hydra.launcher.array_parallelism=2", "seed=0,1,2", "training.epochs=40"]
    process = begin(environment, folder, *overrides)
    os.kill(training(folder, "0"), signal.SIGUSR2)  # as SLURM before the time is over, or where others need the place
    os.kill(training(folder, "1"), signal.SIGKILL)  # as SLURM for too much memory
    printed = process.communicate(timeout=900)[0]
    logs = slurm_logs(folder)
    assert process.returncode == 1, printed + logs
    assert set(ends_of(folder)) == {"0", "2"}, printed + logs
    assert "Stopped by SIGUSR2 after step" in logs
    assert "Going on from" in logs
    assert "Requeued job 7000_0" in logs
    assert not (folder / "STOPPED").exists()
    assert printed.count("LOST ") == 1
    assert "seed=1" in printed.partition("LOST ")[2].splitlines()[0]
    assert (folder / "report.html").exists()
    assert ",2," in (folder / "summary.csv").read_text()

    code, printed = sweep(environment, folder, *overrides)
    logs = slurm_logs(folder)
    assert code == 0, printed + logs
    assert logs.count("Already done, skipped") == 2
    assert logs.count("Going on from") == 2
    assert set(ends_of(folder)) == {"0", "1", "2"}


@pytest.mark.slow
def test_a_job_of_several_tasks_of_slurms_is_one_run(tmp_path, environment):
    pytest.importorskip("submitit")
    fake_slurm.put_on_path(tmp_path / "slurm", environment)
    overrides = [*SLURM, "hydra.launcher.tasks_per_node=2", "trainer=ddp_cpu", "seed=0,abc"]
    code, printed = sweep(environment, tmp_path / "sweep", *overrides)
    logs = slurm_logs(tmp_path / "sweep")
    assert code != 0
    assert list(ends_of(tmp_path / "sweep")) == ["0"], printed + logs
    assert "`seed=abc`: must be" in printed
    assert "LOST" not in printed
    (results,) = (tmp_path / "sweep").glob("*/results.json")
    assert json.loads(results.read_text())["cost"]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["slurm_local", "ray"])
def test_other_processes_give_folders_a_summary_and_an_exit_code(tmp_path, environment, launcher):
    if not importlib.util.find_spec({"slurm_local": "submitit"}.get(launcher, launcher)):
        pytest.skip(f"{launcher} is not installed")
    overrides = [f"hydra/launcher={launcher}", "optimizer.lr=1e-3,abc", "seed=0,1"]
    overrides += ["hydra.launcher.jobs=2"] * (launcher == "ray")
    code, printed = sweep(environment, tmp_path / "sweep", *overrides)
    assert code == 1, printed
    assert printed.count("`optimizer.lr=abc`: must be") >= 2, printed
    done = sorted((tmp_path / "sweep").glob("*/DONE"))
    assert len(done) == 2, printed
    assert (tmp_path / "sweep/summary.csv").read_text().count("\n") == 3
    times = [file.stat().st_mtime_ns for file in done]
    assert sweep(environment, tmp_path / "sweep", *overrides)[0] == code
    assert [file.stat().st_mtime_ns for file in done] == times
