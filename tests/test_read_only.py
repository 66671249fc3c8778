"""A folder that stops being writable while something works in it: one line that names it, and nothing half written."""

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from train_app import PROJECT

from graft.runs import checkpoints

pytestmark = pytest.mark.slow
DIGITS = ["data=mnist", "data/domain@data.target=digits", "backbone=lenet", "data.labels_per_class=3"]
SCRATCH = [*DIGITS, "strategy=scratch", "backbone.weights=null"]
SMALL = ["trainer=cpu", "logger=csv", "data.num_workers=0", "training.threads=1"]
DROP_FROM_BOUNDING_SET, OVERRIDES = 24, (1, 2)  # prctl, and what lets root write and read everywhere
SECONDS = 240


def without_overrides() -> None:
    """Of a process that is about to start: as root it is bound by the modes of folders, as everybody else is."""
    for capability in OVERRIDES:
        ctypes.CDLL(None).prctl(DROP_FROM_BOUNDING_SET, capability)


def writable(folder: Path, mode: int) -> None:
    """Give a folder and all in it another mode."""
    for one in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        one.chmod(mode)


@pytest.fixture
def train(tmp_path):
    """`train(arguments, folder, when)`: train.py, and `folder()` is read-only as soon as `when()` says so."""
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    probe = [sys.executable, "-c", f"open({str(locked / 'file')!r}, 'w')"]
    if not subprocess.run(probe, preexec_fn=without_overrides, capture_output=True).returncode:
        pytest.skip("nothing keeps this user from writing to a read-only folder")
    environment = {**os.environ, "GRAFT_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    shut: list[Path] = []

    def train(arguments: list[str], folder: Callable[[], Path], when: Callable[[], bool]) -> tuple[int, str, str]:
        command = [sys.executable, "train.py", *arguments, *SMALL]
        with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
            process = subprocess.Popen(
                command, cwd=PROJECT, env=environment, preexec_fn=without_overrides, stdout=out, stderr=err
            )
            end = time.monotonic() + SECONDS
            while process.poll() is None and not when() and time.monotonic() < end:
                time.sleep(0.01)
            if process.poll() is None:
                shut.append(folder())
                writable(shut[-1], 0o555)
            try:
                process.wait(SECONDS)
            finally:
                process.kill()
        return process.returncode, (tmp_path / "out").read_text(), (tmp_path / "err").read_text()

    yield train
    for folder in shut:
        writable(folder, 0o755)


def unfinished(folder: Path) -> list[Path]:
    """Files that were being written, beside their places."""
    return [path for path in folder.rglob(".graft.?*") if path.suffix != ".lock" and path.name != ".graft.json"]


def test_a_run_folder(train, tmp_path):
    run = tmp_path / "run"
    arguments = [*SCRATCH, "training.epochs=3000", f"hydra.run.dir={run}"]
    code, _, error = train(arguments, lambda: run, (run / "checkpoints" / "last.ckpt").exists)
    assert code == 1, error
    lines = [line for line in error.splitlines() if "cannot be written" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"{run} (")
    assert "Permission denied" in lines[0]
    assert "Traceback" not in error
    assert not {"DONE", "results.json", "error.txt"} & {path.name for path in run.iterdir()}
    assert not unfinished(run)
    assert checkpoints.load_whole(run / "checkpoints" / "last.ckpt")["epoch"] < 3000
    writable(run, 0o755)
    again = [*SCRATCH, "training.epochs=3000", f"hydra.run.dir={run}", "resume=true", "trainer.max_time=00:00:00:03"]
    code, out, error = train(again, lambda: tmp_path / "locked", lambda: False)
    assert code == 0, out + error
    assert (run / "DONE").exists()


def test_a_cache(train, tmp_path):
    cache, run = tmp_path / "cache", tmp_path / "run"
    arguments = ["experiment=resnet_ft", "backbone=lenet", "strategy=frozen", "data.source.samples=400"]
    arguments += ["pretrain.epochs=3", "training.epochs=2", f"hydra.run.dir={run}"]
    code, out, error = train(arguments, lambda: cache, lambda: any(cache.glob("*/unfinished-*")))
    assert code == 0, error
    assert "Traceback" not in error
    (line,) = [line for line in out.splitlines() if "cannot be kept" in line and "Pretraining" in line]
    assert line.endswith(f"{cache / 'computed'} cannot be written (Permission denied)")
    assert (run / "DONE").exists()
    assert not [entry for entry in (cache / "computed").iterdir() if len(entry.name) == 64]
    writable(cache, 0o755)
    code, out, error = train([*arguments[:-1], f"hydra.run.dir={tmp_path / 'next'}"], lambda: cache, lambda: False)
    assert code == 0, error
    assert "cannot be kept" not in out
    assert not list((cache / "computed").glob("unfinished-*"))


def test_a_job_of_a_sweep(train, tmp_path):
    sweep = tmp_path / "sweep"
    arguments = ["-m", *SCRATCH, "training.epochs=20", "seed=0,1", f"hydra.sweep.dir={sweep}"]

    def begun() -> list[Path]:
        return list(sweep.glob("*/checkpoints/last.ckpt"))

    code, _, error = train(arguments, lambda: begun()[0].parents[1], lambda: bool(begun()))
    assert code == 1, error
    assert "Traceback" not in error
    (line,) = [line for line in error.splitlines() if "cannot be written" in line]
    (done,) = sweep.glob("*/DONE")  # the next job
    assert done.parent.name not in line
    assert (sweep / "summary.csv").exists()
    assert not unfinished(sweep)


def test_a_sweep_folder(train, tmp_path):
    sweep = tmp_path / "sweep"
    arguments = ["-m", *SCRATCH, "training.epochs=2", "seed=0,1,2", f"hydra.sweep.dir={sweep}"]
    code, _, error = train(arguments, lambda: sweep, lambda: any(sweep.glob("*/DONE")))
    assert code not in (0, None), error
    assert "Traceback" not in error
    lines = [line for line in error.splitlines() if "cannot be written" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"{sweep} (")
    writable(sweep, 0o755)
    code, out, error = train(arguments, lambda: tmp_path / "locked", lambda: False)
    assert code == 0, out + error
    assert len(list(sweep.glob("*/DONE"))) == 3
