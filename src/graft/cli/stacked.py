"""`hydra/launcher=stacked`: jobs that can train together do, then each is tested and recorded as in any sweep."""

import gc
import os
import pickle
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, configure_log, env_override, setup_globals
from hydra.core.utils import run_job as run_hydra_job
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from graft import config, signals
from graft.cli import job
from graft.cli.hydra_versions import IS_1_3
from graft.cli.sweep_configs import SweepConfigs
from graft.errors import GraftError, Interrupted, first_line, listed
from graft.garbage import freeze_libraries
from graft.runs.folder import DONE, LAST_CHECKPOINT
from graft.stacked import reasons

COLLECT_EVERY = 32  # jobs: going through the objects of 64 that are set up takes .1 s, twice a job's test and record

if TYPE_CHECKING:  # of torch, which only a sweep with jobs to train together imports
    from graft.run import Setup


def launch(
    context: HydraContext,
    task: TaskFunction,
    base: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    first: int,
    composer: SweepConfigs | None = None,
) -> list[JobReturn]:
    """Run a batch of jobs, as Hydra's own launcher does: `first` is the number of the first one.

    `composer` is one of the same sweep, where further batches follow.
    """
    setup_globals()
    configure_log(base.hydra.hydra_logging, base.hydra.verbose)
    sweep = Path(str(base.hydra.sweep.dir))
    sweep.mkdir(parents=True, exist_ok=True)
    composer = composer or SweepConfigs(context, base)
    configs = [numbered(composer.compose(one), number) for number, one in enumerate(job_overrides, first)]
    setups = trained_together(configs, sweep)
    done: list[JobReturn] = []
    for one in configs:
        setup = setups.pop(folder_of(one), None)
        function = partial(cast(Any, task), setup=setup) if setup else task
        done.append(run_one(context, function, one))
        if setup and len(done) % COLLECT_EVERY == 0:
            gc.collect()
        configure_log(base.hydra.hydra_logging, base.hydra.verbose)
    return done


def run_one(context: HydraContext, task: TaskFunction, one: DictConfig) -> JobReturn:
    """Run a job as the `run_job` of Hydra 1.3 does, which copies its config four times: 30 ms of a processor.

    Where an option asks for what only Hydra does, it is Hydra that runs the job, and under 1.4 always.
    """
    if not IS_1_3 or one.hydra.output_subdir is not None or one.hydra.job.chdir:
        return run_hydra_job(
            hydra_context=context,
            task_function=task,
            config=one,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
    own = cast(DictConfig, pickle.loads(pickle.dumps(one)))  # in a third of the time of copy.deepcopy
    with read_write(own), open_dict(own):
        del own["hydra"]
    overrides = cast(list[str], OmegaConf.to_container(one.hydra.overrides.task))
    done = JobReturn(overrides, cfg=own, hydra_cfg=one, working_dir=os.getcwd(), task_name=JobRuntime().get("name"))
    folder_of(one).mkdir(parents=True, exist_ok=True)
    with hydra_config(one), env_override(one.hydra.job.env_set):
        configure_log(one.hydra.job_logging, one.hydra.verbose)
        context.callbacks.on_job_start(config=one, task_function=task)
        try:
            done.return_value, done.status = task(own), JobStatus.COMPLETED
        except Exception as error:
            done.return_value, done.status = error, JobStatus.FAILED
        context.callbacks.on_job_end(config=one, job_return=done)
    return done


def numbered(one: DictConfig, number: int) -> DictConfig:
    """The config of a job, with its number and its folder."""
    with open_dict(one):
        one.hydra.job.id, one.hydra.job.num = str(number), number
    with hydra_config(one):
        folder = os.path.abspath(os.path.join(str(one.hydra.sweep.dir), str(one.hydra.sweep.subdir)))
        with read_write(one.hydra.runtime), open_dict(one.hydra.runtime):
            one.hydra.runtime.output_dir = folder
    return one


def folder_of(one: DictConfig) -> Path:
    """Where a job runs."""
    return Path(one.hydra.runtime.output_dir)


@contextmanager
def hydra_config(one: DictConfig) -> Iterator[None]:
    """Let Hydra know of a job as while it runs: by the job's config itself, where `set_config` takes a copy."""
    hydra: Any = HydraConfig.instance()  # which types what it holds as the schema
    before, hydra.cfg = hydra.cfg, one
    try:
        yield
    finally:
        hydra.cfg = before


def trained_together(configs: Sequence[DictConfig], sweep: Path) -> dict[Path, "Setup"]:
    """Train the jobs that can train together; by folder what `graft.run.train` goes on from. Ctrl-C stops the sweep."""
    to_do = [one for one in configs if not (folder_of(one) / DONE).exists()]
    job.STATE.running = True
    try:
        with signals.scheduler_signals(), job.restored_process():
            return Together(to_do).train()
    except (Interrupted, KeyboardInterrupt) as error:
        job.interrupted(sweep, sweep, error, goes_on_itself=False)
        return {}
    finally:
        job.STATE.running = False


class Together:
    """The jobs of a sweep that are to do, of which some train together."""

    def __init__(self, configs: Sequence[DictConfig]) -> None:
        self.configs = configs
        self.settings: dict[Path, dict[str, Any]] = {}  # by folder the plain config of a job that may train with others
        self.alone: Counter[str] = Counter()  # how many jobs train alone, by why

    def train(self) -> dict[Path, "Setup"]:
        """Set up and train what can train together, and print how many do and why the others do not."""
        groups = self.groups()
        trained: dict[Path, Setup] = {}
        if groups:
            from graft import run  # and with it all that takes long to import

            gc.collect()
            freeze_libraries()  # before what only the first jobs need is there
            for group in groups:
                trained |= {setup.experiment.folder: setup for setup in self.fitted(self.set_up(group, run.set_up))}
        if self.configs:
            print(self.summary(len(trained)), flush=True)
        return trained

    def groups(self) -> list[list[DictConfig]]:
        """Jobs that may train together as far as their configs say, two and more."""
        found: dict[str, list[DictConfig]] = {}
        for one in self.configs:
            try:
                settings = settings_of(one)
                why = "it goes on from a checkpoint" if (folder_of(one) / LAST_CHECKPOINT).exists() else None
                why = why or reasons.why_alone(settings)
            except GraftError as error:
                why = first_words(error)
            if why:
                self.alone[why] += 1
            else:
                self.settings[folder_of(one)] = settings
                found.setdefault(reasons.key_of(settings), []).append(one)
        groups = list(found.values())
        self.alone["no other job like it"] += sum(len(group) == 1 for group in groups)
        return [group for group in groups if len(group) > 1]

    def set_up(self, group: Sequence[DictConfig], set_up: Callable[[Mapping[str, Any]], "Setup"]) -> list["Setup"]:
        """Set up the jobs of a group; those with the first one's backbone share it, which is all that takes memory."""
        from graft.stacked import stacks

        found: list[Setup] = []
        for one in group:
            try:
                with hydra_config(one):
                    setup = set_up(self.settings[folder_of(one)])
                why = stacks.why_alone(setup.experiment)
            except (Interrupted, KeyboardInterrupt):
                raise
            except Exception as error:  # the job meets it again when its turn comes, and records it
                why = first_words(error)
            if not why and found and not stacks.share_backbone(setup.experiment, found[0].experiment):
                why = "its backbone is another one"
            if why:
                self.alone[why] += 1
            else:
                found.append(setup)
        return found

    def fitted(self, setups: Sequence["Setup"]) -> list["Setup"]:
        """Train them together, as far as they can be; those that were trained."""
        from graft.stacked.fit import fit_together
        from graft.stacked.stacks import stacks_of

        by_job = {id(setup.experiment): setup for setup in setups}
        trained = []
        for stack in stacks_of([setup.experiment for setup in setups]):
            if len(stack.jobs) == 1:
                self.alone["no other job like it"] += 1
                continue
            try:
                fits = fit_together(stack)
            except GraftError as error:
                self.alone[first_words(error)] += len(stack.jobs)
                continue
            for one, fit in zip(stack.jobs, fits, strict=True):
                if fit is None:
                    self.alone["values that are not finite"] += 1
                    continue
                setup = by_job[id(one)]
                setup.stacked = fit
                trained.append(setup)
        return trained

    def summary(self, trained: int) -> str:
        """How many jobs trained together, and why the others train alone."""
        text = f"Trained together: {trained} of {len(self.configs)} jobs."
        why = [f"{reason} ({number})" for reason, number in self.alone.most_common() if number]
        return f"{text} One by one: {listed(why, 5, '; ')}." if why else text


def settings_of(one: DictConfig) -> dict[str, Any]:
    """The plain config of a job, as its run will see it."""
    with hydra_config(one), env_override(one.hydra.job.env_set):
        return config.plain(one, without=("hydra",))


def first_words(error: Exception) -> str:
    """An error in a few words."""
    kind, words = type(error).__name__, first_line(error)
    return kind if words == kind else f"{kind}: {words[:80]}"
