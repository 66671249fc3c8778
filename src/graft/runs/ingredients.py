"""What goes into a model soup: a sweep's jobs that fine-tuned one pretrained network for one task."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graft import config
from graft.config.facts import attribute
from graft.errors import GraftError, listed
from graft.runs import sweeps
from graft.runs.folder import CONFIG, RESULTS
from graft.runs.record import is_older
from graft.runs.roles import REPEATS
from graft.runs.untrusted import read_config

# Keys of the soup's own command; everything else is its jobs'.
OWN = (
    *("soup", "name", "tags", "notes", "trainer", "callbacks", "logger", "paths", "resume", "allow"),
    "training.threads",
)
# Groups that decide data, network and what is validated, and the keys in them that may still differ between jobs.
SHARED = ("data", "backbone", "head", "source_head", "task", "source_task", "bn", "selection")
MAY_DIFFER = (
    *("data.seed", "data.subset_seed", "data.epoch", "data.augment", "data.balance", "data.num_workers"),
    *("data.batch_size", "data.source_batch_size", "data.eval_batch_size"),
    *("head.dropout", "task.label_smoothing", "source_task.label_smoothing"),
)


@dataclass(frozen=True)
class Ingredient:
    """A finished job of the sweep."""

    name: str  # its folder in the sweep's, and the overrides in which it differs from others
    folder: Path
    config: Mapping[str, Any]
    results: Mapping[str, Any]


def read(folder: Path, allow: Sequence[str] = ()) -> list[Ingredient]:
    """Every job of a sweep's folder; GraftError where they make no soup, with what stands against it.

    The folder may be somebody else's: a job's config names Graft's parts and those of the packages in `allow` only.
    """
    jobs = sweeps.read_jobs(folder) if folder.is_dir() else []
    if not jobs:
        inside = " It is one run's own folder." if (folder / CONFIG).exists() else ""
        raise GraftError(
            f"soup={folder}: this is no sweep's folder, there are no jobs in it.{inside} Give the folder that a sweep "
            "(train.py -m) printed last, such as logs/<name>/sweeps/<time>_<id>."
        )
    missing = [
        f"{one.folder} ({'failed' if one.error else 'diverged' if one.diverged else 'not finished'})"
        for one in jobs
        if one.results is None
    ]
    if missing:
        raise GraftError(
            f"soup={folder}: {len(missing)} of {len(jobs)} jobs are not done: {listed(missing)}. Run them with the "
            f"sweep's command and hydra.sweep.dir={folder}, or delete the folders of those to leave out."
        )
    if len(jobs) < 2:
        raise GraftError(f"soup={folder}: there is one job only, and a soup is the mean of several.")
    if older := [one.folder for one in jobs if one.results and is_older(one.results)]:
        raise GraftError(
            f"soup={folder}: {listed(older)} are runs of an older Graft, whose configs name parts where they were "
            "then. Run the sweep again in a new folder."
        )
    varied = [*sweeps.split_overrides(jobs)[0], *REPEATS]
    ingredients = [
        Ingredient(
            " ".join([one.folder, *(f"{key}={value}" for key, value in one.overrides.items() if key in varied)]),
            folder / one.folder,
            read_config(folder / one.folder / CONFIG, allow),
            one.results,
        )
        for one in jobs
        if one.results is not None
    ]
    check_alike(folder, ingredients)
    return ingredients


def check_alike(folder: Path, ingredients: Iterable[Ingredient]) -> None:
    """GraftError where jobs differ in data, network or pretrained weights, with what differs and in which of them."""
    found = {one.folder.name: identity(one) for one in ingredients}
    different = []
    for key in dict.fromkeys(key for values in found.values() for key in values):
        jobs: dict[str, list[str]] = {}
        for name, values in found.items():
            jobs.setdefault(values.get(key, "absent"), []).append(name)
        if len(jobs) > 1:
            different.append(f"{key}: " + ", ".join(f"{value} ({listed(names)})" for value, names in jobs.items()))
    if different:
        raise GraftError(
            f"soup={folder}: a soup is made of jobs that fine-tuned the same network for the same task, but they "
            f"differ in {listed(different, separator='; ')}. Delete the folders of those to leave out, or make "
            "another sweep."
        )
    first = next(iter(found.values()))
    if first["pretrained weights"] == "none":
        raise GraftError(
            f"soup={folder}: its jobs started from random weights. The mean of such networks is no better than "
            "chance: sweep with backbone.weights=source, imagenet, ... and another strategy than scratch."
        )
    if not attribute(first["selection._target_"], "domains", ("target",)):
        rule = first["selection._target_"].split(".")[-2]
        raise GraftError(
            f"soup={folder}: its jobs have selection={rule}, so there is no metric to choose the soup by. Sweep with "
            "selection=target_val or selection=source_val."
        )


def identity(ingredient: Ingredient) -> dict[str, str]:
    """What all ingredients must have in common, key by key."""
    shared = {key: ingredient.config.get(key) for key in SHARED}
    values = {key: config.shown(value) for key, value in config.leaves(shared) if key not in MAY_DIFFER}
    for domain, summary in ingredient.results["data"].items():
        values[f"content of data.{domain}"] = str(summary["fingerprint"])
    values["pretrained weights"] = pretrained_weights(ingredient.results["weights"])
    return values


def pretrained_weights(report: Mapping[str, Any] | None) -> str:
    """Name of the weights that a job started from; pretraining's cache entry says everything that it depends on."""
    if report is None:
        return "none"
    return f"source ({Path(report['folder']).name})" if "folder" in report else report["source"]


def settings(own: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a soup's run: its jobs' where they agree, the first one's where they need not; `own` for OWN.

    What only training needs is left out; where a job had a search for numbers, they are those that it found.
    """
    first = read(Path(own["soup"]), own["allow"])[0]
    made = {**own, **first.config, **{key: own[key] for key in OWN if "." not in key}, "term": {}}
    for group in ("training", "save", "report"):  # the jobs' Graft may not have had all keys that this one reads
        made[group] = {**own[group], **made[group]}
    made["training"] |= {"threads": own["training"]["threads"], "wise_ft_alphas": None}
    for group, key, found in (
        ("optimizer", "lr", "lr"),
        ("data", "batch_size", "batch_size"),
        ("backbone", "layer", "layer"),
    ):
        if made[group].get(key) in ("auto", "default"):
            made[group] = {**made[group], key: found_number(first, found)}
    return made


def found_number(ingredient: Ingredient, name: str) -> float:
    """What a job's search found, from its results; they may be somebody else's, so that text is not taken for it."""
    if (value := sweeps.number(ingredient.results, ("tuning", name, "value"))) is None:
        raise GraftError(f"{ingredient.folder / RESULTS}: tuning.{name}.value is no number. Run the job again.")
    return value


def check_overrides(overrides: Iterable[str]) -> None:
    """GraftError for what a command with `soup=` cannot change."""
    keys = [sweeps.split_override(line)[0] for line in overrides]
    ignored = [key for key in keys if not any(key == own or key.startswith(f"{own}.") for own in OWN)]
    if ignored:
        raise GraftError(
            f"`{'`, `'.join(ignored)}` with `soup=`: the sweep's jobs decide about data, network and training; "
            f"leave it out. What a soup takes: {', '.join(OWN)}."
        )


def label_subsets(ingredients: Sequence[Ingredient]) -> int:
    """How many selections of labels the ingredients saw: as often their budget went into a soup."""
    data = [one.config["data"] for one in ingredients]
    return 1 if data[0]["labels_per_class"] is None else len({settings["subset_seed"] for settings in data})
