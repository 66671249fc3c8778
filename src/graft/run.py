"""The story of a run: assemble, pretrain, fit, select, test, write."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graft.callbacks.interrupt import keyboard_interrupts
from graft.errors import Diverged, Interrupted, Pruned
from graft.experiment import Experiment, assemble, prepare, score_baselines, score_before_growth
from graft.federated import results as federation
from graft.loggers import build as loggers
from graft.model.calibrate import neighbours_for, reads_validation, temperature_for, thresholds_for
from graft.model.save import keep_checkpoints, keep_model, redacted, save_predictions
from graft.pretrain import pretrain
from graft.probe import retrieval, seen_unseen
from graft.probe.closed import fit_at_once, takes_no_step
from graft.probe.tip_adapter import fill_cache
from graft.report import card, plots, publish, tables
from graft.runs import checkpoints, describe, record
from graft.runs.context import RunContext, run_context
from graft.runs.folder import COMPRESSED, MERGED, SOUP, SWAD, WISE_FT, in_own_folder
from graft.stacked.fit import StackedFit
from graft.stacked.replay import replay
from graft.training import growth
from graft.training.cross_validation import cross_validate, plan_folds
from graft.training.evaluation import test, validation_metrics, validation_outputs
from graft.training.fitting import Fitting, fit
from graft.training.lightning import is_rank_zero
from graft.training.tuning import resolve_auto
from graft.weights import greedy_soup, wise_ft
from graft.weights.averaging import Restated


@dataclass
class Setup:
    """A run before its fit."""

    config: Mapping[str, Any]  # as it was given
    experiment: Experiment
    context: RunContext
    results: dict[str, Any]
    resumed: Path | None
    start: wise_ft.Weights | None
    seconds: float  # that this took
    stacked: StackedFit | None = None  # where its fit was done together with those of other jobs


@in_own_folder
def train(config: Mapping[str, Any], setup: Setup | None = None) -> dict[str, Any]:
    """Run one experiment and return its results, which are also in `results.json` of the run folder.

    `config` is plain and resolved; `setup` is what `set_up` made of it, where that is done. Raises GraftError for a
    user's mistake, Diverged where training met values that are not finite, and Interrupted after a Ctrl-C, once what
    was reached is saved.
    """
    setup = setup or set_up(config)
    experiment, context, results, resumed = setup.experiment, setup.context, setup.results, setup.resumed

    with recorded(experiment, results, context, started_before(setup)) as fitting, connected(experiment):
        cross_validate(experiment)
        if setup.stacked:
            replay(fitting, experiment, setup.stacked)
            results["stacked"] = {"jobs": setup.stacked.jobs, "fit_s": setup.stacked.seconds}
        elif takes_no_step(experiment):
            fitted, found = fit_at_once(experiment, fitting)
            results |= found
            replay(fitting, experiment, fitted)
        else:
            fit(fitting.trainer, experiment, resumed)
        selected = checkpoints.load_selected(experiment, resumed, fitting.trainer)
        if experiment.greedy_soup and selected["rule"] == experiment.rule.name:
            batches = int(fitting.trainer.num_training_batches)
            metrics, results["soup"] = greedy_soup.apply(experiment, selected, fitting.checkpoints.top, batches)
            selected |= {"metrics": metrics, "epoch": None}
            checkpoints.save_network(experiment, SOUP)
        if experiment.swad:
            results["swad"] = experiment.swad.finish(experiment.module)
            restated = Restated(int(fitting.trainer.num_training_batches))
            selected |= {"metrics": validation_metrics(experiment, [restated]), "epoch": None}
            checkpoints.save_network(experiment, SWAD)
        if experiment.module.compression.finish():
            checkpoints.save_network(experiment, COMPRESSED)
        if experiment.module.strategy.merge(experiment.module.backbone):
            checkpoints.save_network(experiment, MERGED)
        if setup.start:
            selected["metrics"], results["wise_ft"] = wise_ft.apply(experiment, setup.start)
            checkpoints.save_network(experiment, WISE_FT)
        test_and_describe(experiment, results, selected, fitting, in_sweep=context.sweep is not None)
    return results


def set_up(config: Mapping[str, Any]) -> Setup:
    """Everything before the fit; nothing is written to the run's folder, but why pretraining diverged."""
    started, context = time.perf_counter(), run_context()
    experiment = assemble(config, share_data=context.sweep is not None)
    resumed = checkpoints.to_resume(experiment)
    pretrained(experiment, context, checkpoints.compression_in(resumed))
    if experiment.data.federation:
        experiment.data.federation.method.check(experiment.module, experiment.epochs)
    results = describe.of_setup(experiment, context, resolve_auto(experiment, resumed))
    start = wise_ft.start_of(experiment)
    return Setup(config, experiment, context, results, resumed, start, seconds=time.perf_counter() - started)


def started_before(setup: Setup) -> float:
    """When a run began that has taken the time of its setup and its share of a fit together with others."""
    of_fit = setup.stacked.seconds / setup.stacked.jobs if setup.stacked else 0.0
    return time.perf_counter() - setup.seconds - of_fit


def pretrained(experiment: Experiment, context: RunContext, compressed: Mapping[str, Any] | None = None) -> None:
    """Pretrain on the source where weights come from there; baselines, and what strategy, compression, terms do."""
    federation, module = experiment.data.federation, experiment.module
    try:
        if federation is None or federation.pretrains:
            pretrain(experiment)
        else:
            federation.join(module, experiment.data)
    except Diverged as diverged:
        if is_rank_zero():
            found = {"format": record.FORMAT, "status": record.DIVERGED, "message": str(diverged), "metrics": {}}
            found |= {"name": experiment.config["name"], "overrides": context.overrides}
            record.write(found | {"data": experiment.data.summary()}, experiment.folder)
        raise
    if experiment.config["test"]:
        score_baselines(experiment)
    score_before_growth(experiment)
    fill_cache(experiment)
    if federation is not None:
        federation.see_network(module)
    prepare(experiment, compressed)
    plan_folds(experiment)


@contextmanager
def connected(experiment: Experiment) -> Iterator[None]:
    """At the end of the block, however it came, tell the other machines of a federation."""
    federation, why = experiment.data.federation, ""
    try:
        yield
    except BaseException as error:
        why = str(error).split("\n")[0] or type(error).__name__
        raise
    finally:
        if federation is not None:
            federation.close(why)


@contextmanager
def recorded(experiment: Experiment, results: dict[str, Any], context: RunContext, started: float) -> Iterator[Fitting]:
    """Loggers and a Trainer for the block, and after it `results.json` and the printed results, however it ended."""
    config, folder = experiment.config, experiment.folder
    run_loggers = loggers.build_loggers(
        config.get("logger"),  # not there where the list is empty
        run_dir=folder,
        name=f"{config['name']} {context.label}".strip(),
        config=config,
        tags=config["tags"],
        group=context.sweep,
        job_type=config["strategy"]["_target_"].split(".")[-2],
    )
    fitting = Fitting(experiment, run_loggers, in_sweep=context.sweep is not None, trial=context.trial)
    main_process = fitting.trainer.is_global_zero
    if main_process and not context.sweep:
        tables.print_setup(results)
    try:
        loggers.start(run_loggers)
        with keyboard_interrupts():
            yield fitting
        results["status"] = record.FINISHED
    except Interrupted:
        results["status"] = record.INTERRUPTED
        raise
    except Diverged as diverged:
        results |= {"status": record.DIVERGED, "message": str(diverged)}
        if context.sweep:
            checkpoints.drop_last(folder)
        raise Diverged("\n".join([str(diverged), *checkpoints.kept(folder)])) from None
    except Pruned as pruned:
        results |= {"status": record.PRUNED, "message": str(pruned)}
        checkpoints.drop_all(folder)
        raise
    finally:
        results |= describe.of_cost(
            experiment, fitting, started, results["phases"], done=results["status"] == record.FINISHED
        )
        results["wandb"] = loggers.wandb_info(run_loggers)
        results["recording"] = loggers.broken(run_loggers)
        if main_process:
            results.update(redacted(results, config["save"]["redact"]))
            record.write(results, folder)
            if results["status"] == record.FINISHED:
                card.write(folder)
            loggers.log_results(run_loggers, results)
            done = results["status"] == record.FINISHED and not context.sweep
            if done and results["wandb"] and (page := publish.page_of_run(folder)):
                loggers.log_page(run_loggers, page)
        loggers.finish(run_loggers, ok=results["status"] == record.FINISHED)
        if main_process and (broken := loggers.broken(run_loggers)) != results["recording"]:
            results["recording"] = broken
            record.write(results, folder)

    if main_process:
        if context.sweep:  # prints one line a job, see graft.report.sweep_line
            if config["test"]:  # else there is a test to do
                checkpoints.drop_last(folder)
                keep_checkpoints(experiment)
        else:
            checkpoints.drop_previous(folder)
            tables.print_results(results, folder)
            plots.write_all(results, folder)  # 0.4 s, for which a sweep's jobs are too many


def test_and_describe(
    experiment: Experiment, results: dict[str, Any], selected: Mapping[str, Any], fitting: Fitting, *, in_sweep: bool
) -> None:
    """Put down what was selected, test those weights, which are in the module, and keep the model; or the first alone.

    With `test=false` nothing looks at the test split.
    """
    data, module, task = experiment.data, experiment.module, experiment.module.tasks["target"]
    results["selection"] = describe.of_selection(experiment, selected)
    results["metrics"] = dict(selected["metrics"])
    fitting.test_started = time.perf_counter()
    results["compression"] = module.compression.results()
    if not experiment.config["test"]:
        return
    results["metrics"] |= test(fitting.evaluator, module, data)
    results["metrics"] |= describe.forgetting(results["metrics"], experiment.pretrained, module.tasks.get("source"))
    results["score"] = describe.of_score(results["metrics"], task)
    federation.finish(experiment, fitting.trainer, results)
    results |= describe.of_rejection(task) | describe.of_fusion(module)
    results["confusion"] = describe.of_confusion(module, data)
    if experiment.growth and experiment.growth.before is not None:  # of the main process
        results["growth"] = describe.of_growth(experiment.growth, data, results["confusion"])
        results["metrics"] |= growth.metrics_of(results["growth"])
    if found := seen_unseen.seen_and_unseen(experiment, fitting):
        results["seen_unseen"] = found
        results["metrics"] |= seen_unseen.metrics_of(found)
    if retrieved := retrieval.of_captions(experiment, fitting):
        results["retrieval"] = retrieved
        results["metrics"] |= retrieval.metrics_of(retrieved)
    validated = validation_outputs(fitting.evaluator, experiment) if reads_validation(experiment) else None
    neighbours = neighbours_for(experiment, fitting.trainer)
    results["temperature"] = temperature_for(experiment, validated)
    results["unusual"] = thresholds_for(experiment, validated, neighbours)
    if experiment.config["save"]["predictions"]:
        save_predictions(experiment)
    keep_model(experiment, results, neighbours, in_sweep=in_sweep)
