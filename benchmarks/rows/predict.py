"""Predicting on photos with a run's model, over a bare loop with the same decoding and network."""

from collections.abc import Sequence
from pathlib import Path

import torch

import graft
from benchmarks import commands, images
from benchmarks.measure import cost, interleave
from benchmarks.row import Bar, Measured, Row, Settings, compared
from graft.cli.job import quoted
from graft.data.readers.images import decode
from graft.model.model import Model

BATCH = 64


def bare(model: Model, files: Sequence[Path]) -> None:
    """Decode, transform, run the network and take the most probable class: nothing else."""
    transform = model.backbone.input_spec.transform()  # type: ignore[attr-defined]  # an image backbone's
    with torch.inference_mode():
        for start in range(0, len(files), BATCH):
            pictures = [decode(file, 3, transform.geometry.shorter) for file in files[start : start + BATCH]]
            model.logits(transform(pictures)).softmax(1).max(1)


def predicting(settings: Settings) -> Measured:
    """What `predict` costs, confidence and energy included."""
    folder = settings.folder / "photos"
    name = images.photos(folder, settings.pick(400, 20), few=20)
    data = ("data=image_folder", f"data.target.root={quoted(folder)}", "data.image_size=96", "data.num_workers=0")
    short = ("backbone=resnet18", "strategy=scratch", "debug=fast", "logger=csv", "trainer=cpu")
    commands.run([*data, *short], settings.folder / "run", settings.folder / "cache")
    torch.set_num_threads(settings.threads)
    model, files = (
        graft.load_run(settings.folder / "run", allow=["benchmarks"]),
        sorted((folder / "train").rglob("*.jpg")),
    )
    works = {
        "graft": lambda: cost(lambda: model.predict(files, batch_size=BATCH)),
        "bare": lambda: cost(lambda: bare(model, files)),
    }
    for work in works.values():
        work()  # warms up
    costs = interleave(works, settings.repeats)
    best = len(files) / min(one.seconds for one in costs["graft"])
    return compared(costs, [f"on {len(files):,} photos ({name}); {best:.0f} images/s at best"])


ROWS = [Row("predict", "photos: predict", "a bare loop", Bar("<=", 1.10), predicting, repeats=10)]
