"""How far a default learning rate, and one that a range test reads, are from the best one of a grid.

    GRAFT_DATA=<folder> python -m benchmarks.default_rates <folder> [cell ...]

Each cell (data, labels, backbone, strategy) trains at every rate with every seed, all in this process, under
hydra/launcher=stacked, and at the rate of each rule of the range test. Results go into the folder; what is there is not
run again, and the tables are of all that is there. A gap is the mean test score of the best rate in hindsight less that
of a rate or a rule.
"""

import json
import os
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cells import COMMON, FLOWERS, GLYPHS, LABELS, LITE0, MOBILENET, ROWS, TABLE, sentences
from benchmarks.commands import CommandError
from graft.cli.main import main as cli
from graft.runs.record import read, value_of
from graft.training.tuning import SUGGESTIONS

RATES = ("0.001", "0.003", "0.01", "0.03", "0.1")
SEEDS = (0, 1)
RULES = (*SUGGESTIONS, "median")
BEFORE = "0.001"  # the default of optimizer=adamw for everything
SPEECH = ("experiment=speech_digits", "training.validate_every_epochs=5", "training.epochs=20")
FROZEN = ("strategy=frozen", "training.epochs=20", "data.augment=none")


CELLS: Mapping[str, tuple[str, ...]] = {
    # The rates were chosen on these, by validation,
    "table breast_cancer 20": (*TABLE, "training.epochs=20", f"{LABELS}20"),
    "sequence digit_rows 10": (*ROWS, "training.epochs=20", f"{LABELS}10"),
    "image lenet digits 10": (*GLYPHS, "strategy=full", "training.epochs=20", f"{LABELS}10"),
    "image lite0 flowers5 20": (*FLOWERS, *LITE0, *FROZEN, f"{LABELS}20"),
    "text minilm amazon 20": (*sentences("amazon_cells"), *FROZEN, f"{LABELS}20"),
    "audio resemblyzer fsdd 20": (*SPEECH, "strategy=frozen", f"{LABELS}20"),
    # and are shown on these.
    "table wine 10": (*TABLE, "data/domain@data.target=wine", "training.epochs=20", f"{LABELS}10"),
    "table german_credit": (*TABLE, "data/domain@data.target=german_credit", "training.epochs=20"),
    "sequence digit_rows 50": (*ROWS, "training.epochs=20", f"{LABELS}50"),
    "image lenet digits 5": (*GLYPHS, "strategy=full", "training.epochs=20", f"{LABELS}5"),
    "image lenet digits 10 frozen": (*GLYPHS, *FROZEN, f"{LABELS}10"),
    "image lite0 flowers5 5": (*FLOWERS, *LITE0, *FROZEN, f"{LABELS}5"),
    "image mobilenet flowers5 20": (*FLOWERS, *MOBILENET, *FROZEN, f"{LABELS}20"),
    "text minilm yelp 10": (*sentences("yelp"), *FROZEN, f"{LABELS}10"),
    "text minilm imdb 20": (*sentences("imdb"), *FROZEN, f"{LABELS}20"),
    "audio resemblyzer fsdd 5": (*SPEECH, "strategy=frozen", f"{LABELS}5"),
}
TUNED_ON = list(CELLS)[:6]


def main(arguments: Sequence[str]) -> None:
    """Run what is missing, and print a line a cell: of the rates, then of the range test's rules."""
    folder, cells = Path(arguments[0]), list(arguments[1:])
    for cell in cells or CELLS:
        file = folder / f"{cell.replace(' ', '_')}.json"
        if not file.exists():
            shutil.rmtree(folder / "work" / "logs", ignore_errors=True)  # of one that was killed
            found = measured(folder / "work", cell)
            file.write_text(json.dumps(found, indent=1))
    there = {cell: folder / f"{cell.replace(' ', '_')}.json" for cell in CELLS}
    all_found = {cell: json.loads(file.read_text()) for cell, file in there.items() if file.exists()}
    print("| cell | chosen on it | best rate by validation | by test | 1e-3 | gaps of all rates, points | CPU s |")
    print("|---|---|---|---|---|---|---|")
    for cell, found in all_found.items():
        print(line(cell, found))
    print(f"\n| cell | chosen on it | best rate by test | {' | '.join(RULES)} |")
    print("|---|---|---|" + "---|" * len(RULES))
    for cell, found in all_found.items():
        print(line_of_rules(cell, found))


def line(cell: str, found: Mapping[str, Any]) -> str:
    """A cell's line: each rate's gap."""
    gaps, by_val = gaps_of(found, RATES), means(found, RATES, "val")
    chosen = max(by_val, key=lambda rate: by_val[rate])
    each = ", ".join(f"{rate}: {gap:.1f}" for rate, gap in gaps.items())
    best = min(gaps, key=lambda rate: gaps[rate])
    before = gaps[BEFORE]
    return f"| {cell} | {on_it(cell)} | {chosen} | {best} | {before:.1f} | {each} | {found['cpu_s']:.0f} |"


def line_of_rules(cell: str, found: Mapping[str, Any]) -> str:
    """A cell's line: the rates that each rule read, and its gap."""
    by_rate, by_rule = gaps_of(found, RATES), gaps_of(found, RULES)
    best = min(by_rate, key=lambda rate: by_rate[rate])
    columns = []
    for rule in RULES:
        rates = "diverged" if rule not in by_rule else " and ".join(f"{rate:.2g}" for rate in rates_of(found, rule))
        columns.append(f"{by_rule.get(rule, float('nan')):.1f} ({rates})")
    return f"| {cell} | {on_it(cell)} | {best} | {' | '.join(columns)} |"


def on_it(cell: str) -> str:
    """Whether something was chosen on the cell."""
    return "yes" if cell in TUNED_ON else ""


def means(found: Mapping[str, Any], settings: Sequence[str], split: str) -> dict[str, float]:
    """Mean score of each rate or rule, so that more is better; without those whose every job diverged."""
    sign = 1 if found["higher_is_better"] else -1
    scores = {which: [job[split] for job in found["jobs"] if job["setting"] == which] for which in settings}
    return {which: sign * statistics.fmean(values) for which, values in scores.items() if values}


def rates_of(found: Mapping[str, Any], rule: str) -> list[float]:
    """The rate of each seed."""
    return [job["rate"] for job in found["jobs"] if job["setting"] == rule]


def gaps_of(found: Mapping[str, Any], settings: Sequence[str]) -> dict[str, float]:
    """How far the mean test score of each rate or rule is below that of the best rate, in points."""
    best = max(means(found, RATES, "test").values())
    return {which: 100 * (best - value) for which, value in means(found, settings, "test").items()}


def run(work: Path, words: Sequence[str]) -> None:
    """A command of graft in this process, with its own cache."""
    os.environ |= {"GRAFT_CACHE": str((work / "cache").absolute()), "GRAFT_ROOT": str(work.absolute())}
    sys.argv[1:] = []
    if code := cli(list(words)):
        raise CommandError(f"graft {' '.join(words)} ended with {code}")


def measured(work: Path, cell: str) -> dict[str, Any]:
    """Validation and test scores of every rate, rule and seed."""
    recipe = [*CELLS[cell], *COMMON, "name=rates", f"seed={','.join(map(str, SEEDS))}", "hydra/launcher=stacked"]
    jobs = []
    higher = True
    began = sum(os.times()[:4])
    for key, settings, more in (
        ("optimizer.lr", RATES, ()),
        ("tuning.suggestion", RULES, ("optimizer.lr=auto",)),
    ):
        sweep = work / "logs" / key
        run(work, ["train", "-m", *recipe, f"{key}={','.join(settings)}", *more, f"hydra.sweep.dir={sweep}"])
        for results in (read(file.parent) for file in sorted(sweep.glob("*/DONE"))):
            setting = next(one.partition("=")[2] for one in results["overrides"] if one.startswith(f"{key}="))
            if "score" in results:  # it did not diverge
                higher = results["selection"]["mode"] != "min"
                rate = results.get("tuning", {}).get("lr", {}).get("value") or float(setting)
                scores = {"val": value_of(results), "test": results["score"]["value"]}
                jobs.append({"setting": setting, "rate": rate, **scores})
    return {"jobs": jobs, "higher_is_better": higher, "cpu_s": sum(os.times()[:4]) - began}


if __name__ == "__main__":
    main(sys.argv[1:])
