"""What a race's pick loses against the choice of the whole sweep, and what it costs of it.

    GRAFT_DATA=<folder> python -m benchmarks.race_regret <folder> <seeds> [cell ...]

For each cell (data, labels, backbone) and seed, in processes of their own on the same cache: `graft race` over the
default space of the cell's modality, the sweep of the same candidates by hydra/launcher=stacked, both without
baselines, and where the backbone is pretrained `experiment=autogluon_recipe`. The sweep's choice is its best job by
validation, and so is frozen's among its frozen ones. Results go into the folder; what is there is not run again, and
the tables are of all that is there.
"""

import json
import resource
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cells import (
    COMMON,
    FLOWERS,
    GLYPHS,
    LABELS,
    LITE0,
    MOBILENET,
    PHOTOS,
    ROWS,
    SPEAKERS,
    SPEECH,
    TABLE,
    sentences,
)
from benchmarks.commands import ROOT, CommandError, environment
from graft.runs.record import read, value_of

RESEMBLYZER = (*SPEECH, "data.batch_size=20", "backbone=speaker_lstm", "backbone.weights=pip:resemblyzer")
EPOCHS = ("training.epochs=20", "training.validate_every_epochs=5")


def budget(labels: int) -> tuple[str, ...]:
    """So many labels a class, for 20 epochs."""
    return (*EPOCHS, f"{LABELS}{labels}")


CELLS = {
    # Default spaces were chosen with the best rates of these in mind, and the length of the first rung (docs/race.md),
    "breast_cancer_20": (*TABLE, *budget(20)),
    "digits_lenet_10": (*GLYPHS, *budget(10)),
    "fsdd_speakers_5": (*RESEMBLYZER, SPEAKERS, *budget(5)),
    # and are shown on these.
    "german_credit_50": (*TABLE, "data/domain@data.target=german_credit", *budget(50)),
    "breast_cancer_errors_10": (*TABLE, "data/domain@data.target=breast_cancer_mean_error", *budget(10)),
    "digit_rows_50": (*ROWS, *budget(50)),
    "digits_lenet_5": (*GLYPHS, *budget(5)),
    "flowers5_lite0_10": (*FLOWERS, *LITE0, *budget(10)),
    "flowers5_mobilenet_20": (*FLOWERS, *MOBILENET, *budget(20)),
    "pneumonia_lite0_20": (*PHOTOS, "data/domain@data.target=pneumonia", *LITE0, *budget(20)),
    "yelp_minilm_20": (*sentences("yelp"), *budget(20)),
    "imdb_minilm_20": (*sentences("imdb"), *budget(20)),
    "amazon_minilm_20": (*sentences("amazon_cells"), *budget(20)),
    "fsdd_resemblyzer_5": (*RESEMBLYZER, *budget(5)),
    "fsdd_resemblyzer_10": (*RESEMBLYZER, *budget(10)),
}
TUNED_ON = list(CELLS)[:3]
WITHOUT_A_RECIPE = (*TABLE, *ROWS)  # of AutoGluon's, which fine-tunes
RECIPE = ("experiment=autogluon_recipe", "training.validate_every_epochs=1")


def main(arguments: Sequence[str]) -> None:
    """Run what is missing, and print a line a cell: regret in points of the main metric, and the share of CPU time."""
    folder, seeds, cells = Path(arguments[0]), int(arguments[1]), arguments[2:] or list(CELLS)
    for seed in range(seeds):
        for cell in cells:
            file = folder / f"{cell}_{seed}.json"
            if not file.exists():
                shutil.rmtree(folder / "work" / "logs", ignore_errors=True)  # of one that was killed
                found = measured(folder / "work", cell, seed)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(found, indent=1))
    there = {
        cell: [json.loads(file.read_text()) for file in sorted(folder.glob(f"{cell}_[0-9].json"))] for cell in CELLS
    }
    print("| cell | n | race | whole sweep's choice | frozen | AutoGluon's recipe | CPU of race / sweep |")
    print("|---|---|---|---|---|---|---|")
    for cell, found in there.items():
        if found:
            print(line(cell, found))
    shown = [found for cell, found in there.items() if found and cell not in TUNED_ON]
    print(f"\n{len(shown)} cells that nothing was chosen on, means over cells of their means over seeds:")
    for name, of_one in {
        "regret, points": lambda one: 100 * (one["sweep"]["test"] - one["race"]["test"]),
        "race less frozen, points": lambda one: difference(one, "frozen"),
        "race less AutoGluon's recipe, points": lambda one: difference(one, "recipe"),
        "CPU of race / sweep": lambda one: one["race"]["cpu_s"] / one["sweep"]["cpu_s"],
    }.items():
        if values := [statistics.fmean(map(of_one, found)) for found in shown if of_one(found[0]) is not None]:
            print(f"- {name}: {statistics.fmean(values):.2f}{half_interval_of(values)} over {len(values)}")


def difference(one: dict[str, Any], other: str) -> float | None:
    """By how many points the race's winner is above another way; None where there is no such way."""
    return 100 * (one["race"]["test"] - one[other]["test"]) if one[other] else None


def line(cell: str, found: Sequence[dict[str, Any]]) -> str:
    """A cell's line."""
    shares = [one["race"]["cpu_s"] / one["sweep"]["cpu_s"] for one in found]
    means = {
        way: f"{statistics.fmean(one[way]['test'] for one in found):.3f}" if found[0][way] else ""
        for way in ("race", "sweep", "frozen", "recipe")
    }
    costs = [statistics.fmean(one[way]["cpu_s"] for one in found) for way in ("race", "sweep")]
    return (
        f"| {cell} | {len(found)} | {' | '.join(means.values())} | "
        f"{statistics.fmean(shares):.2f} ({costs[0]:.0f} s / {costs[1]:.0f} s) |"
    )


def half_interval_of(values: Sequence[float]) -> str:
    """A mean's 95 % interval as text, of three values and more."""
    if len(values) < 3:
        return ""
    from graft.report.statistics import over_units

    low, high = over_units(values, 0.0).interval()
    return f" ({low:.1f} to {high:.1f})"


def measured(work: Path, cell: str, seed: int) -> dict[str, Any]:
    """Test score, choice and CPU seconds of the race and of the whole sweep."""
    recipe = [*CELLS[cell], *COMMON, f"seed={seed}", f"name={cell}"]
    warm_caches(recipe, work)
    race, sweep = work / "logs" / "race", work / "logs" / "sweep"
    race_s = seconds("race", [*recipe, f"hydra.sweep.dir={race}"], work)
    log = json.loads((race / "race.json").read_text())
    axes = [
        f"{axis}={','.join(one.partition('=')[2] for one in labels)}"
        for axis, labels in log["settings"]["axes"].items()
    ]
    own = [one for one in recipe if one.partition("=")[0] not in log["settings"]["axes"]]
    sweep_s = seconds("train", ["-m", *own, *axes, "hydra/launcher=stacked", f"hydra.sweep.dir={sweep}"], work)
    winner = read(race / log["result"]["folders"][0])
    jobs = [read(file.parent) for file in sweep.glob("*/DONE")]
    frozen = [one for one in jobs if "strategy=frozen" in one["overrides"]]
    higher = winner["selection"]["mode"] != "min"
    return {
        "race": {**of(winner), "cpu_s": race_s, "result": log["result"]},
        "sweep": {**of(best(jobs, higher)), "cpu_s": sweep_s, "jobs": [of(one) for one in jobs]},
        "frozen": of(best(frozen, higher)) if frozen else None,
        "recipe": autogluon(recipe, work) if set(CELLS[cell]).isdisjoint(WITHOUT_A_RECIPE) else None,
    }


def warm_caches(recipe: Sequence[str], work: Path) -> None:
    """Pretrain, and keep the features that frozen jobs read: else the race would pay for what the sweep then finds."""
    overrides = [*recipe, "training.epochs=5"]  # validated as often as the recipe is, which is part of pretraining
    if "strategy=scratch" not in recipe:
        overrides.append("strategy=frozen")
    seconds("train", [*overrides, f"hydra.run.dir={work / 'logs' / 'warm'}"], work)


def best(jobs: Sequence[Any], higher: bool) -> Any:
    """The job that validation chooses."""
    return (max if higher else min)((one for one in jobs if value_of(one) is not None), key=value_of)


def autogluon(recipe: Sequence[str], work: Path) -> dict[str, Any]:
    """AutoGluon's recipe on the cell, with its own epochs."""
    folder = work / "logs" / "recipe"
    own = [one for one in recipe if one not in EPOCHS]
    cost = seconds("train", [*RECIPE, *own, f"hydra.run.dir={folder}"], work)
    return {**of(read(folder)), "cpu_s": cost}


def of(results: Any) -> dict[str, Any]:
    """What is kept of a run."""
    return {"overrides": results["overrides"], "val": value_of(results), "test": results["score"]["value"]}


def seconds(verb: str, arguments: Sequence[str], work: Path) -> float:
    """CPU seconds of a command; raises CommandError where it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = environment(work / "cache") | {"GRAFT_ROOT": str(work), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "graft", verb, *arguments], cwd=ROOT, env=own, capture_output=True, text=True
    )
    if done.returncode:
        raise CommandError(f"graft {verb} {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main(sys.argv[1:])
