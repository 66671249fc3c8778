"""`hydra/sweeper=race`: the rungs of a race as batches of a sweep's jobs, for Hydra's launcher."""

import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from graft.cli import job as jobs
from graft.cli.arguments import REPEATED
from graft.config.facts import attribute
from graft.errors import GraftError, LaunchRefused
from graft.files import user_path
from graft.locations import CONF
from graft.race.decisions import Outcome
from graft.race.log import RaceLog
from graft.race.rungs import Job, Race
from graft.race.space import FACTOR, Option, Space, multiplied, option_of, read
from graft.runs import record
from graft.runs.folder import CONFIG, DONE, ERROR, LAST_CHECKPOINT, STOPPED, SweepFolder
from graft.runs.roles import REPEATS
from graft.runs.sweep_plan import SweepPlan
from graft.runs.sweeps import first_error_line
from graft.runs.untrusted import read_yaml


class Stopped(Exception):
    """A signal ended the race between two jobs; what was finished is in its folder."""


def run(
    context: HydraContext,
    task: TaskFunction,
    config: DictConfig,
    arguments: Sequence[str],
    *,
    named: str | None,
    budget: float | None,
    budget_s: float | None,
    refit: bool,
) -> list[Any]:
    """Race what the `named` space and the lists of values in `arguments` span; LaunchRefused for a mistake there.

    `refit` trains the winner on its validation labels too, once the race is over.
    """
    folder = Path(str(config.hydra.sweep.dir))
    try:
        fixed, axes, seeds = parsed(OverridesParser.create(config_loader=context.config_loader), arguments)
        space = space_of(named, config, fixed, axes)
        folder.mkdir(parents=True, exist_ok=True)
        log = RaceLog(folder, [*fixed.values()])
    except GraftError as error:
        raise LaunchRefused(str(error)) from None
    OmegaConf.save(config, folder / "multirun.yaml")
    SweepPlan(None, [key for options in space.axes.values() for key, _ in options[0].overrides]).write()
    log.settings = {
        "axes": {axis: [one.label for one in options] for axis, options in space.axes.items()},
        "budget": budget,
        "budget_s": budget_s,
        "seeds": [seed for seed in seeds if seed is not None],
    }
    log.write()
    race = Race(
        space,
        Jobs(context, task, config, fixed),
        log,
        epochs=config.training.epochs,
        seeds=seeds,
        budget=budget,
        budget_s=budget_s,
        start_s=start_seconds(),
        validate_every=config.training.validate_every_epochs,
        say=lambda line: print(line, flush=True),
    )
    print(f"race: {len(space.candidates())} candidates of {', '.join(space.axes) or 'one recipe'}", flush=True)
    try:
        winner = race.winner()
        for outcome in race.tested(winner):
            say_where_it_comes_from(folder / outcome.folder, log)
        for outcome in race.refitted(winner) if refit else []:
            print(refit_line(folder / outcome.folder, outcome.failure, log), flush=True)
    except Stopped:
        pass  # the callback around the sweep says how to go on
    except GraftError as error:
        jobs.STATE.unrecorded = True
        print(error, flush=True)
    else:
        for one in log.jobs.values():
            if one.checkpoint:
                Path(one.checkpoint).unlink(missing_ok=True)
    return []


def parsed(
    parser: OverridesParser, arguments: Sequence[str]
) -> tuple[dict[str, str], dict[str, list[Option]], list[str | None]]:
    """By key the overrides of all jobs, the axes that the command line names, and its seeds.

    GraftError for lists of splits or folds: what one validates on another one tests.
    """
    fixed: dict[str, str] = {}
    axes: dict[str, list[Option]] = {}
    seeds: list[str | None] = [None]
    for one in parser.parse_overrides(list(arguments)):
        key = one.get_key_element()
        if not one.is_sweep_override():
            axes.pop(key, None)  # of what an experiment sweeps
            fixed[key] = one.input_line or ""
            continue
        if not one.is_discrete_sweep():
            raise GraftError(f"`{one.input_line}`: a race takes values one by one, such as {key}=1e-4,1e-3")
        values = list(one.sweep_string_iterator())
        if key == "seed":
            seeds = list(values)
        elif key in REPEATS:
            word = next((f"{word}=... or " for word, name in REPEATED.items() if name == key), "")
            raise GraftError(
                f"`{word}{key}={','.join(values)}` in a race: what one split validates on "
                "another one tests; give one value"
            )
        else:
            fixed.pop(key, None)
            axes[key] = [option_of(key, value) for value in values]
    return fixed, axes, seeds


def space_of(named: str | None, config: DictConfig, fixed: Mapping[str, str], axes: dict[str, list[Option]]) -> Space:
    """The named space, or that of the target's modality; the command line's axes take the place of its own.

    A key that the command line sets is not raced, and without pretrained weights neither is the strategy.
    """
    name = named or attribute(config.data.target._target_, "modality", "image")
    file = CONF / "race" / f"{name}.yaml"
    if not file.is_file():
        file = user_path(name)
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in (CONF / "race").glob("*.yaml")))
        raise GraftError(f"`space={name}`: there is no such file; give a YAML file, or one of {known}")
    space = read(read_yaml(file), file)
    found = {
        axis: list(options) for axis, options in space.axes.items() if not any(key in fixed for key in keys(options))
    }
    if config.backbone.weights is None and not any("backbone" in axis for axis in axes):
        found.pop("strategy", None)
    found = {axis: options for axis, options in (found | axes).items() if options}
    return Space(
        {axis: multiplied(options, own_values(options, config)) for axis, options in found.items()}, space.rungs
    )


def keys(options: Sequence[Option]) -> set[str]:
    """The keys that an axis sets."""
    return {key for option in options for key, _ in option.overrides}


def own_values(options: Sequence[Option], config: DictConfig) -> dict[str, Any]:
    """The recipe's values of the keys that an axis multiplies."""
    found = [key for option in options for key, value in option.overrides if value.startswith(FACTOR)]
    return {key: OmegaConf.select(config, key) for key in found}


class Jobs:
    """Runs a race's jobs by Hydra's launcher, and reads what they left."""

    def __init__(self, context: HydraContext, task: TaskFunction, config: DictConfig, fixed: Mapping[str, str]) -> None:
        """`fixed` are overrides of all jobs, by key."""
        self.fixed = fixed
        self.folder = Path(str(config.hydra.sweep.dir))
        self.started = 0
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=context, task_function=task, config=config
        )

    def __call__(self, batch: Sequence[Job]) -> list[Outcome]:
        """Run jobs, and share their CPU time among them by their wall times. Raises Stopped after a signal."""
        began, before = time.time(), cpu_seconds()
        returns = self.launcher.launch([self.overrides(one) for one in batch], initial_job_idx=self.started)
        self.started += len(batch)
        taken = cpu_seconds() - before
        if (self.folder / STOPPED).exists():
            raise Stopped
        folders = [Path(cast(DictConfig, one.hydra_cfg).hydra.runtime.output_dir) for one in returns]
        found = [self.read(one, job) for one, job in zip(folders, batch, strict=True)]
        if found and self.started == len(batch):  # the process read and computed what all jobs need in its first job
            found[0] = without_start(found)
        done_now = [one.value is not None and self.done_at(one.folder) >= began for one in found]
        total = sum(one.cpu_s for one, now in zip(found, done_now, strict=True) if now)
        share = taken / total if total else 0.0
        return [replace(one, cpu_s=one.cpu_s * share) if now else one for one, now in zip(found, done_now, strict=True)]

    def done_at(self, name: str) -> float:
        """When a job was done, in seconds since the epoch."""
        return (self.folder / name / DONE).stat().st_mtime

    def overrides(self, job: Job) -> list[str]:
        """A job's overrides, over those of all jobs."""
        own = {one.partition("=")[0]: one for one in job.overrides}
        if job.begun and job.begun.checkpoint and Path(job.begun.checkpoint).is_file():
            own["resume"] = f"resume={job.begun.checkpoint}"
        return [*{**self.fixed, **own}.values()]

    def read(self, folder: Path, job: Job) -> Outcome:
        """What a job left; in the place of CPU seconds its wall time."""
        if not (folder / DONE).is_file():
            return Outcome(folder.name, failure=self.failure(folder))
        results = record.read(folder)
        if results["status"] == record.DIVERGED:
            return Outcome(folder.name, failure=f"diverged: {first_error_line(results['message'])}")
        selection, times = results["selection"], results["time"]
        total, last = times["total_s"] or 0.0, folder / LAST_CHECKPOINT
        settings = read_yaml(folder / CONFIG)
        goes_on = last.is_file() and may_go_on(settings, results)
        if last.is_file() and not goes_on and not job.is_whole:
            last.unlink()
        return Outcome(
            folder=folder.name,
            value=selection["value"],
            metric=selection["monitor"] or "",
            higher_is_better=selection["mode"] != "min",
            samples=results["data"]["target"]["val"],
            cpu_s=total,
            train_share=share_of(train_seconds(results), total),
            validation_share=share_of(times.get("validation_s"), total),
            once_share=share_of(times["pretrain_s"], total),
            epochs=settings["training"]["epochs"],
            validate_every=settings["training"]["validate_every_epochs"],
            checkpoint=str(last) if last.is_file() else "",
            can_go_on=goes_on,
        )

    def failure(self, folder: Path) -> str:
        """Why a job has no results, in a line."""
        if (folder / ERROR).is_file():
            return first_error_line((folder / ERROR).read_text())
        refused = [one["error"] for one in SweepFolder(self.folder).refused() if one["folder"] == folder.name]
        return first_error_line(refused[-1]) if refused else "it did not come to its end"


def without_start(found: Sequence[Outcome]) -> Outcome:
    """The first outcome, whose time beside training counts as what others of its batch took, and the rest as once."""
    beside = [one.cpu_s * one.other_share for one in found if one.value is not None]
    first = found[0]
    if first.value is None or len(beside) < 2:
        return first
    more = max(beside[0] - statistics.median(beside[1:]), 0.0)
    return replace(first, once_share=first.once_share + more / first.cpu_s)


def train_seconds(results: Mapping[str, Any]) -> float:
    """Of a run's training batches, the first one among them, of which the others say how long it would be when warm.

    The whole fit's, of a run from before these were measured.
    """
    times, steps = results["time"], results["cost"]["target_steps"]
    return times["train_s"] * steps / max(steps - 1, 1) if "train_s" in times else times["fit_s"]


def share_of(seconds: float | None, total: float) -> float:
    """Of a time that was measured apart the share of all."""
    return min((seconds or 0.0) / total, 1.0) if total else 0.0


def may_go_on(settings: Mapping[str, Any], results: Mapping[str, Any]) -> bool:
    """Whether a longer run would have done the same until here, so that it may begin at this one's checkpoint.

    So it is where nothing follows the number of epochs: rates, phases, terms, averages, sizes of images.
    """
    scheduler = settings["scheduler"]
    return (
        scheduler["_target_"].endswith(".Constant")
        and not scheduler.get("warmup_fraction")
        and len(results["phases"]) == 1
        and not results["terms"]
        and results["averaging"] == "none"
        and settings["training"]["progressive_resizing"]["initial_scale"] is None
        and settings["training"]["patience"] is None
        and not results["settings"]
    )


def refit_line(folder: Path, failure: str, log: RaceLog) -> str:
    """What the last training on all labels has become; it is put down in its own record and in the race's."""
    if not (folder / DONE).is_file():
        return f"race, refit: failed ({failure}). The winner's folder is whole."
    say_where_it_comes_from(folder, log)
    results = record.read(folder)
    assert log.result is not None
    log.result["refit"] = [*log.result.get("refit", []), folder.name]
    log.write()
    score = f"{results['score']['metric']} {results['score']['value']:.4f}"
    return f"race, refit on {results['labels']['training']:,} labels, nothing chosen: {score}; {folder.name}"


def say_where_it_comes_from(folder: Path, log: RaceLog) -> None:
    """Put into the record of a winner that it was chosen among others, and what that took."""
    result, results = log.result, record.read(folder)
    assert result is not None
    names = ("candidates", "jobs", "cpu_s", "full_sweep_s")
    results["race"] = {name: result[name] for name in names} | {"rungs": [one["name"] for one in log.rungs]}
    record.write(results, folder)


def start_seconds() -> float:
    """CPU seconds of importing torch and the like, which are no job's; 0 where that was done before."""
    before = cpu_seconds()
    import graft.run  # noqa: F401

    return cpu_seconds() - before


def cpu_seconds() -> float:
    """Of this process and those that it started and that have ended."""
    return sum(os.times()[:4])
