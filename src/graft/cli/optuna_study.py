"""`hydra/sweeper=optuna`: trials that Optuna chooses, for Hydra's launcher, and what became of them for Optuna."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from graft.cli import job as jobs
from graft.errors import GraftError, LaunchRefused
from graft.runs import record
from graft.runs.folder import DONE, RESULTS, STOPPED
from graft.runs.roles import REPEATS
from graft.runs.sweep_plan import SweepPlan
from graft.studies.library import StudySettings, optuna, pruner_of, sampler_of, settings_of


def run(
    context: HydraContext,
    task: TaskFunction,
    config: DictConfig,
    arguments: Sequence[str],
    given: Mapping[str, Any],
) -> None:
    """Search what the lists and intervals in `arguments` span; LaunchRefused for a mistake there or in `given`."""
    folder = Path(str(config.hydra.sweep.dir))
    try:
        settings = settings_of(given)
        fixed, space = parsed(OverridesParser.create(config_loader=context.config_loader), arguments)
        folder.mkdir(parents=True, exist_ok=True)
        trials = Trials(settings, space, config)
    except GraftError as error:
        raise LaunchRefused(str(error)) from None
    OmegaConf.save(config, folder / "multirun.yaml")
    SweepPlan(settings.n_trials, list(space)).write()
    logging.getLogger("hydra._internal.core_plugins.basic_launcher").setLevel(logging.WARNING)  # a line a trial
    launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)
    try:
        while batch := trials.next():
            overrides = [
                [*fixed, *(f"{key}={value}" for key, value in one.params.items()), f"hydra.sweeper.trial={one.number}"]
                for one in batch
            ]
            returns = launcher.launch(overrides, initial_job_idx=trials.done)
            trials.tell(batch, returns)
            if (folder / STOPPED).exists():
                return
    except GraftError as error:
        jobs.STATE.unrecorded = True
        print(error, flush=True)
    print(trials.line(), flush=True)


def parsed(parser: OverridesParser, arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The overrides of all trials, and by key the distribution of what is searched; GraftError where nothing is.

    Of several of one key the last one counts, so that a command line replaces what its experiment searches.
    """
    last = {one.get_key_element(): one for one in parser.parse_overrides(list(arguments))}
    space = {key: distribution(one) for key, one in last.items() if one.is_sweep_override()}
    if repeats := [key for key in space if key in REPEATS]:
        raise GraftError(
            f"`{last[repeats[0]].input_line}` under hydra/sweeper=optuna: it would search for the luckiest. Give one "
            "value, and repeat the best trial with several: -m ... seed=0,1,2"
        )
    if not space:
        raise GraftError(
            "hydra/sweeper=optuna has nothing to search: give values, such as strategy=frozen,full or "
            "'optimizer.lr=tag(log,interval(1e-4,1e-1))'"
        )
    return [one.input_line or "" for key, one in last.items() if key not in space], space


def distribution(override: Override) -> Any:
    """What Optuna draws an override's values from: an interval, with whole ends of whole numbers, or a list."""
    distributions, value = optuna().distributions, override.value()
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        whole = isinstance(value.start, int) and isinstance(value.end, int)
        kind = distributions.IntDistribution if whole else distributions.FloatDistribution
        try:
            return kind(value.start, value.end, log="log" in value.tags)
        except ValueError as error:
            raise GraftError(f"`{override.input_line}`: {error}") from None
    if isinstance(value, RangeSweep) and isinstance(value.start, int) and isinstance(value.step, int):
        return distributions.IntDistribution(value.start, cast(int, value.stop) - 1, step=value.step)
    return distributions.CategoricalDistribution(list(override.sweep_string_iterator()))


class Trials:
    """The trials of a study, as a sweep's folder or another storage has them."""

    def __init__(self, settings: StudySettings, space: Mapping[str, Any], config: DictConfig) -> None:
        """Begin a study, or go on with what is there."""
        self.settings, self.space, self.library = settings, space, optuna()
        self.direction = direction_of(config) if settings.direction == "auto" else settings.direction
        self.study = self.library.create_study(
            study_name=settings.study_name,
            storage=settings.storage,
            direction=self.direction,
            load_if_exists=True,
            pruner=pruner_of(settings, config.training.epochs),
        )
        if self.study.direction.name.lower() != self.direction:
            raise GraftError(
                f"hydra.sweeper.direction: the study `{settings.study_name}` in {settings.storage} is to "
                f"{self.study.direction.name.lower()}, this command to {self.direction}. Give another "
                "hydra.sweeper.study_name"
            )
        before = self.study.get_trials(deepcopy=False)
        self.study.sampler = sampler_of(settings, len(before))
        state = self.library.trial.TrialState
        self.done = sum(one.state in (state.COMPLETE, state.PRUNED) for one in before)
        # Of a command that was ended: their jobs go on from their checkpoints.
        self.begun = [
            self.library.trial.Trial(self.study, one._trial_id) for one in before if one.state is state.RUNNING
        ]
        self.left = settings.n_trials - self.done

    def next(self) -> list[Any]:
        """The trials to run now, those first that were begun; none at the end."""
        size = max(min(self.settings.n_jobs, self.left), 0)
        batch, self.begun = self.begun[:size], self.begun[size:]
        batch += [self.study.ask(dict(self.space)) for _ in range(size - len(batch))]
        return batch

    def tell(self, batch: Sequence[Any], returns: Sequence[JobReturn]) -> None:
        """Let the study know what became of trials; one that a signal ended stays open.

        GraftError where a job's selection rule goes the other way than the study.
        """
        states = self.library.trial.TrialState
        for trial, returned in zip(batch, returns, strict=True):
            folder = Path(cast(DictConfig, returned.hydra_cfg).hydra.runtime.output_dir)
            if not (folder / DONE).is_file() and (folder.parent / STOPPED).exists():
                continue
            results = record.read(folder) if (folder / DONE).is_file() and (folder / RESULTS).is_file() else {}
            value, status = record.value_of(results), results.get("status")
            self.done, self.left = self.done + 1, self.left - 1
            if status == record.PRUNED:
                self.study.tell(trial, state=states.PRUNED)
            elif value is None:
                self.study.tell(trial, state=states.FAIL)
            elif (results["selection"]["mode"] == "min") == (self.direction == "maximize"):
                raise GraftError(
                    f"hydra.sweeper.direction={self.direction}: {results['selection']['monitor']} is better the other "
                    "way. Leave it auto, and give each task and selection rule a study of its own"
                )
            else:
                self.study.tell(trial, value)

    def line(self) -> str:
        """What the study has found."""
        states = self.library.trial.TrialState
        every = self.study.get_trials(deepcopy=False)
        counts = [
            f"{number} {word}"
            for word, state in (("to their end", states.COMPLETE), ("pruned", states.PRUNED), ("failed", states.FAIL))
            if (number := sum(one.state is state for one in every))
        ]
        text = f"study `{self.settings.study_name}`: {len(every)} trials, {', '.join(counts)}; {self.settings.storage}"
        if not any(one.state is states.COMPLETE for one in every):
            return text
        best = self.study.best_trial
        return (
            f"{text}\nbest, of validation: {best.value:.4f} by {' '.join(f'{k}={v}' for k, v in best.params.items())}"
        )


def direction_of(config: DictConfig) -> str:
    """Whether more is better of what the selection rule follows."""
    from graft.build import build
    from graft.selection.base import SelectionRule
    from graft.tasks.base import Task

    rule: SelectionRule = build(OmegaConf.to_container(config.selection, resolve=True))
    target: Task = build(OmegaConf.to_container(config.task, resolve=True))
    source = build(OmegaConf.to_container(config.source_task, resolve=True)) if config.source_task else target
    return "maximize" if rule.higher_is_better({"target": target, "source": source}) else "minimize"
