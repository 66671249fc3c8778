"""What a job's fit in a stack left, put where the fit of its own Trainer would have left it."""

from graft.experiment import Experiment
from graft.stacked.evaluation import HeadEvaluator
from graft.stacked.fit import StackedFit
from graft.training.fitting import Fitting
from graft.training.lightning import count_as_done


def replay(fitting: Fitting, experiment: Experiment, fit: StackedFit) -> None:
    """Log every row, write the chosen weights, and let the run's Trainer and its measurements know of the fit."""
    for row in fit.rows:
        for logger in fitting.trainer.loggers:
            logger.log_metrics({**row.values, "epoch": row.epoch}, row.step - 1)
    for logger in fitting.trainer.loggers:
        logger.save()
    module, best = experiment.module, fit.best
    assert best is not None  # every rule of a stack has one when it has trained
    module.heads.load_state_dict(best.weights)
    content = fitting.checkpoints.content(module, module.state_dict(), best.epoch, best.step, best.metrics)
    # Of a rule that follows nothing too: last.ckpt is what a training goes on from, which weights alone are not
    fitting.trainer.strategy.save_checkpoint(content, fitting.checkpoints.best_file)
    count_as_done(fitting.trainer, fit.epochs, fit.steps, best.metrics)
    share = 1 / fit.jobs
    fitting.throughput.take_over(
        fit_s=fit.seconds * share,
        train_s=fit.train_seconds * share,
        samples=fit.samples,
        peak_memory_mb=fit.peak_memory_mb,
    )
    fitting.features.entries |= fit.stored
    if fit.rows_by_split:
        fitting.evaluator = HeadEvaluator(fitting.trainer, experiment.data, fit.rows_by_split)
