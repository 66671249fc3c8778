"""A step with each adaptation term over a step on the source alone: LeNet, digits of 28 px, batches of 64, one thread.

Most terms draw a batch of the target beside the source's. AdaBN and TENT need BatchNorm, which LeNet has not.
"""

import statistics
from collections.abc import Callable
from pathlib import Path

from benchmarks import images
from benchmarks.measure import interleave, ratios
from benchmarks.row import Measured, Row, Settings
from benchmarks.steps import WARM_UP, begin, experiment_of
from graft.cli.job import quoted

BATCH = 64  # samples of a domain
JOINT = ("strategy=scratch", "objective.alpha=1")
ON_TRAINED = ("backbone.weights=source", "pretrain.epochs=1", "strategy=full", "objective.alpha=null")
TERMS = {
    **dict.fromkeys(("coral", "dan", "jan", "dann", "cdan", "mdd", "mcd", "afn", "bsp", "mcc"), JOINT),
    "adda": ON_TRAINED,
    **dict.fromkeys(("information_maximisation", "shot", "self_training", "fixmatch", "mean_teacher"), JOINT),
}
SOURCE = "source"


def overrides_of(name: str, file: Path, steps: int) -> list[str]:
    """A fit of some steps with a term, or on the source alone."""
    return [
        *("data/domain@data.source=stored", f"data.source.file={quoted(file)}", "data.target_setting=unsupervised"),
        *("backbone=lenet", "optimizer=sgd", f"data.batch_size={BATCH}", f"data.epoch={steps}"),
        "training.epochs=1",
        *((*TERMS[name], f"term=[{name}]") if name in TERMS else JOINT),
    ]


def terms_over_source(settings: Settings) -> Measured:
    """Steps of all terms in turns, each over the source's of the same round."""
    file, count = settings.folder / "digits.pt", WARM_UP + settings.repeats
    name = images.digits(file, BATCH * settings.pick(8, 2))
    contestants = {
        who: begin(
            experiment_of(settings.folder / who, settings.folder / "cache", file, overrides_of(who, file, count))
        )
        for who in (SOURCE, *settings.pick([*TERMS], ["dann"]))
    }
    works: dict[str, Callable[[], float]] = {who: steps.step for who, (steps, _) in contestants.items()}
    times = {who: taken[WARM_UP:] for who, taken in interleave(works, count).items()}
    for _, thread in contestants.values():
        thread.join()
    theirs = times.pop(SOURCE)
    over = {term: ratios(taken, theirs) for term, taken in times.items()}
    note = f"on {name}; a step on the source alone {1000 * statistics.median(theirs):.1f} ms of CPU"
    beside = {f"step with term={term}": values for term, values in over.items() if term != "dann"}
    return Measured(over["dann"], beside, [note], {"seconds": {SOURCE: theirs, **times}})


ROWS = [Row("terms", "step with term=dann", "source only; the others below", None, terms_over_source, repeats=24)]
