"""Compare backbones on your data before training any: `graft rank data=<data> [backbone=a,b@<weights>]`."""

import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graft.cli.words import own_and_config
from graft.errors import GraftError
from graft.files import user_path, write_whole
from graft.locations import CONF

if TYPE_CHECKING:  # of numpy and scipy, which a mistake in the command line does not need
    from graft.transferability.base import Measure

USAGE = """graft rank data=<data> [backbone=<a>,<b>@<weights>] [measures=<a>] [resamples=20] [to=<folder>] [key=value]
  backbone   candidates: options of backbone, with weights after an @ (imagenet, a file, a run's folder, null = random);
             without it every one for the data whose weights are on this machine
  measures   some of linear_probe, knn, logme, h_score, h_score_regularised, parc, leep, nce, parameters, imagenet
  resamples  for the intervals, 0 = none; validation scores take 20 times as many
  to         a folder for rank.csv, rank.json and rank.md
  key=value  everything else is the config's, as in `graft train`: data, experiment, data.labels_per_class=10, ..."""
KEYS = ("backbone", "measures", "resamples", "to")
RESAMPLES = 20
SHOWN = 5  # candidates side by side
# What training would need and nothing here does.
OVERRIDES = ("logger=csv", "baselines=none", "head=linear", "selection=target_val", "term=[]")


def main(arguments: list[str]) -> int:
    """Print the table, what its measures mean and, where a folder is named, write it there; returns the exit code."""
    settings, overrides = settings_of(arguments)
    if not overrides:
        print(USAGE, file=sys.stderr)
        return 2
    resamples = settings.get("resamples", str(RESAMPLES))
    if not resamples.isdecimal() or resamples == "1":
        raise GraftError(f"resamples={resamples}: a number of bootstrap resamples from 2, or 0 for no intervals.")

    from graft.transferability.candidates import evidence_of, found_here, modality_of, named

    words = [word for word in settings.get("backbone", "").strip("[]").split(",") if word]
    candidates = named(words) if words else []
    if not candidates:
        candidates = found_here(modality_of(checked([*overrides, "strategy=scratch"])))
    configs = [checked([*overrides, *one.overrides]) for one in candidates]

    from graft.report.tables import print_table
    from graft.transferability import ranking

    measures = chosen(settings.get("measures", ""), ranking.MEASURES)
    cells: list[ranking.Cell] = []
    for candidate, config in zip(candidates, configs, strict=True):
        started = time.perf_counter()
        evidence = evidence_of(config, ranking.MOST)
        took = time.perf_counter() - started
        print(f"{candidate.name}: {evidence.features.shape[1]} features, in {took:.1f} s", file=sys.stderr, flush=True)
        cells += [ranking.cell(measure, candidate.name, evidence, int(resamples)) for measure in measures]
    sizes = {"training_samples": len(evidence.labels), "validation_samples": len(evidence.val_labels)}

    names = [one.name for one in candidates]
    for start in range(0, len(names), SHOWN):
        part = ranking.table(cells, names[start : start + SHOWN], measures)
        print_table(part.header, part.rows)
    whole = ranking.table(cells, names, measures)
    text = "\n".join([whole.caption, seen(sizes), *ranking.explanation(cells, measures)])
    print(text)
    if "to" in settings:
        about = {"overrides": shlex.join(overrides), "resamples": int(resamples), **sizes}
        contents = {
            "rank.csv": ranking.as_csv(cells),
            "rank.md": f"{whole.as_markdown()}\n{text}\n",
            "rank.json": json.dumps(ranking.as_json(cells, measures, about), indent=2) + "\n",
        }
        write(contents, user_path(settings["to"]))
    return 0


def write(contents: Mapping[str, str], folder: Path) -> None:
    """Write files into a folder, which is made, and print where. Raises GraftError where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_whole(folder / name, content)
    except OSError as error:
        raise GraftError(f"to={folder} cannot be written: {error}.") from None
    print(folder)


def checked(overrides: Sequence[str]) -> dict[str, Any]:
    """The config of a candidate. Raises GraftError for a mistake in it."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from graft.cli.launch import explain
    from graft.cli.notebook import check_composed
    from graft.config.conflicts.stream import is_stream

    try:
        config = check_composed([*overrides, *OVERRIDES])
        if is_stream(config["data"]["target"]):
            raise GraftError(
                "graft rank: data.target is read as a stream, and it measures features of samples at hand. Take some "
                "thousand of them as a folder or a table: data=image_folder data.target.root=..."
            )
        return config
    except (HydraException, OmegaConfBaseException) as error:
        raise GraftError(explain(error, CONF)) from None


def seen(sizes: Mapping[str, int]) -> str:
    """How many samples were looked at."""
    training, validation = sizes["training_samples"], sizes["validation_samples"]
    return f"Seen: {training:,} training and {validation:,} validation samples, and none of the test split."


def settings_of(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """This verb's own keys, and the config's. Raises GraftError for what is none, or is set for each candidate."""
    settings, overrides = own_and_config("rank", arguments, KEYS, USAGE)
    for word in overrides:
        if word.partition("=")[0] in ("backbone.weights", "strategy"):
            raise GraftError(f"graft rank: `{word}` is set for each candidate: backbone=<option>@<weights>")
    return settings, overrides


def chosen(names: str, known: "Sequence[Measure]") -> "list[Measure]":
    """The measures of these names, all without any. Raises GraftError for one that there is not."""
    wanted = [name for name in names.strip("[]").split(",") if name]
    by_name = {one.name: one for one in known}
    if unknown := [name for name in wanted if name not in by_name]:
        raise GraftError(f"measures={unknown[0]}: there is no such measure. Allowed: {', '.join(by_name)}")
    return [one for name, one in by_name.items() if not wanted or name in wanted]
