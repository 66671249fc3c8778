"""Loading photos in the second epoch, when Graft has each of them decoded, over the usual pipeline on PIL images."""

import statistics

from benchmarks import images
from benchmarks.measure import ratios
from benchmarks.peers import graft, pil
from benchmarks.row import Bar, Measured, Row, Settings
from benchmarks.turns import Contestant, Plan, compete
from graft.cli.job import quoted

USUAL = {"none": Contestant("pil", pil.load_plain), "light": Contestant("pil", pil.load_augmented)}


def loading(settings: Settings, augment: str) -> Measured:
    """How many times faster Graft's train loader is; the first epoch, which decodes, is the one that warms up."""
    folder = settings.folder / "photos"
    name = images.photos(folder, settings.pick(1000, 60), few=20)
    overrides = (
        *("data=image_folder", f"data.target.root={quoted(folder)}", f"data.augment={augment}", "data.num_workers=0"),
        *(f"data.image_size={pil.SIDE}", "backbone=resnet18", "strategy=scratch", "logger=csv"),
    )
    plan = Plan(folder, "", settings.folder, overrides, batch_size=32, threads=settings.threads)
    result = compete([Contestant("graft", graft.load), USUAL[augment]], plan, settings.repeats)
    times = result.seconds
    cpu = {name: [epoch.cpu_s for epoch in epochs] for name, epochs in result.epochs.items()}
    beside = {"the same in CPU seconds": ratios(cpu["pil"], cpu["graft"])}
    note = f"on {name}; the usual epoch took {statistics.median(times['pil']):.3f} s"
    details = {"seconds": times, "cpu_seconds": cpu}
    return Measured(ratios(times["pil"], times["graft"]), beside, [note], details)


def plain(settings: Settings) -> Measured:
    """Resize and crop."""
    return loading(settings, "none")


def augmented(settings: Settings) -> Measured:
    """Random crop and mirroring."""
    return loading(settings, "light")


FASTER = Bar(">=", 10.0)
ROWS = [
    Row("loading", "PIL pipeline, second epoch of photos", "Graft, augment=none", FASTER, plain, repeats=10),
    Row("loading_light", "PIL pipeline, second epoch of photos", "Graft, augment=light", FASTER, augmented, repeats=10),
]
