"""Sweeps and soups that SIGKILL ends at one of their files, and that the same command finishes.

What is written whole is moved to its place: the process is killed there, so that all that came before is on the disk
and this is not. It runs in children of this process, which has imported everything.
"""

import csv
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from graft.callbacks import checkpoints
from graft.cli.main import compose
from tests.proof import chaos
from tests.proof.forked import forked

TINY = [
    *("name=kills", "backbone=lenet", "backbone.weights=source", "data.image_size=32", "data.source.samples=80"),
    *("data.labels_per_class=4", "data.eval_batch_size=64", "pretrain.epochs=1", "training.epochs=2"),
    *("trainer.limit_val_batches=1", "trainer.limit_test_batches=1", "training.threads=1", "trainer=cpu"),
    *("trainer.precision=32-true", "logger=csv"),
]
TIMES = ("fit_s", "total_s")  # columns of summary.csv that a clock says
LEFT = re.compile(r"(?!\.graft\.(json|best_model\.lock)$)\.graft\..*|.*\.unfinished|previous\.ckpt|unfinished-.*")


def graft(root: Path, *words: str, kill: Callable[[str], bool] | None = None) -> int:
    """The exit code of `graft <words>` in a child that keeps everything below `root`; it prints to `<root>.log`.

    `kill` is asked at every file or folder that is moved to its place.
    """

    def work() -> None:
        os.environ |= {"GRAFT_ROOT": str(root), "GRAFT_CACHE": str(root / "cache")}
        checkpoints.SHORTEST_S, checkpoints.LARGEST_SHARE = 0.0, 1.0  # a checkpoint at the end of every epoch
        if kill:
            kill_at(kill)
        sys.argv = ["train.py"]
        if code := compose(list(words)):
            os._exit(code)

    root.mkdir(parents=True, exist_ok=True)
    return forked(work, root.with_suffix(".log"))


def kill_at(kill: Callable[[str], bool]) -> None:
    """End this process where something would be moved to a place for which `kill` says so."""
    for name in ("replace", "rename"):
        move = getattr(Path, name)

        def killing(self: Path, target: Path, move: Callable[[Path, Path], Path] = move) -> Path:
            if kill(Path(target).as_posix()):
                os.kill(os.getpid(), signal.SIGKILL)
            return move(self, target)

        setattr(Path, name, killing)


def at(pattern: str, number: int = 1) -> Callable[[str], bool]:
    """Names the `number`-th move to a place with this pattern."""
    met = 0

    def kill(place: str) -> bool:
        nonlocal met
        met += re.search(pattern, place) is not None
        return met == number

    return kill


def killed_and_finished(root: Path, whole: Path, kill: Callable[[str], bool], *words: str) -> list[str]:
    """Kill a command, type it again, and say what of its sweep is not as in the uninterrupted one."""
    if (code := graft(root, *words, kill=kill)) != -signal.SIGKILL:
        return [f"the command that is killed ended with {code}"]
    if code := graft(root, *words):
        return [f"the same command ended with {code}: {root.with_suffix('.log').read_text()[-600:]}"]
    return unequal(whole, root)


def unequal(whole: Path, other: Path) -> list[str]:
    """What is not the same below two folders of one sweep each: files, jobs, summary, and what a kill left behind."""
    names = [{file.relative_to(root).as_posix() for file in root.rglob("*")} for root in (whole, other)]
    found = [f"{name} is in one folder only" for name in sorted(names[0] ^ names[1])]
    found += [f"{name} was left" for name in names[1] if LEFT.fullmatch(Path(name).name)]
    jobs = [Path(name).parent for name in names[0] if name.endswith("/overrides.yaml")]
    found += [f"{job}: {text}" for job in jobs for text in chaos.differences(whole / job, other / job)]
    if len({(root / "sweep" / "best_model.json").read_text() for root in (whole, other)}) > 1:
        found.append("best_model.json")
    return found if summary(whole) == summary(other) else [*found, "summary.csv"]


def unequal_soups(whole: Path, other: Path) -> list[str]:
    """What is not the same in the run folders of one soup each: files, weights and results."""
    names = [{file.relative_to(root).as_posix() for file in root.rglob("*")} for root in (whole, other)]
    found = [f"{name} is in one folder only" for name in sorted(names[0] ^ names[1])]
    soups = [torch.load(folder / "checkpoints" / "soup.pt", weights_only=True) for folder in (whole, other)]
    results = [json.loads((folder / "results.json").read_text()) for folder in (whole, other)]
    for key in ("status", "metrics", "selection", "score", "soup"):
        found += [f"results.json: {key}{place}" for place in chaos.unequal(results[0][key], results[1][key])]
    return found + [f"soup.pt{place}" for place in chaos.unequal(*soups)]


def summary(root: Path) -> list[dict[str, str]]:
    """The rows of summary.csv without what a clock says."""
    with (root / "sweep" / "summary.csv").open(newline="") as file:
        return [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]
