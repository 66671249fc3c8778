"""Loading recordings in the second epoch, when Graft has each of them decoded and resampled."""

import importlib.util
import statistics
from pathlib import Path

import numpy as np

from benchmarks.measure import ratios
from benchmarks.peers import graft, soundfile
from benchmarks.row import Bar, Measured, Row, Settings
from benchmarks.turns import Contestant, Plan, compete
from graft.cli.job import quoted

RATE = 8000  # samples a second of the files, half of what the network takes
CLASSES = 5


def missing() -> str:
    """Why the row cannot run here; empty where it can."""
    return "" if importlib.util.find_spec("soundfile") else "needs soundfile"


def recordings(folder: Path, parts: dict[str, int]) -> Path:
    """Write WAV files of .3 to .8 seconds of a tone in noise, a folder a class under each part's."""
    from soundfile import write

    random = np.random.default_rng(0)
    for part, number in ((part, number) for part, count in parts.items() for number in range(count)):
        label = number % CLASSES
        times = np.arange(random.integers(int(0.3 * RATE), int(0.8 * RATE))) / RATE
        wave = 0.5 * np.sin(2 * np.pi * 200 * (label + 1) * times) + 0.05 * random.standard_normal(len(times))
        file = folder / part / str(label) / f"{number}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        write(file, wave, RATE)
    return folder


def loading(settings: Settings) -> Measured:
    """How many times faster Graft's train loader is; the first epoch, which decodes, is the one that warms up."""
    count = settings.pick(2000, 100)
    folder = recordings(settings.folder / "recordings", {"train": count, "val": 20, "test": 20})
    overrides = (
        *("data=speech", f"data.target.root={quoted(folder)}", "backbone=mel_cnn", "strategy=scratch", "logger=csv"),
    )
    plan = Plan(folder, "", settings.folder, overrides, batch_size=32, threads=settings.threads)
    contestants = [Contestant("graft", graft.load), Contestant("soundfile", soundfile.load)]
    times = compete(contestants, plan, settings.repeats).seconds
    note = f"{count} recordings; the usual epoch took {statistics.median(times['soundfile']):.3f} s"
    return Measured(ratios(times["soundfile"], times["graft"]), notes=[note], details={"seconds": times})


ROWS = [
    Row(
        "audio",
        "soundfile and scipy, second epoch of recordings",
        "Graft",
        Bar(">=", 1.0),
        loading,
        repeats=10,
        missing=missing,
    )
]
