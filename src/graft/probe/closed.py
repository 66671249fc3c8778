"""The fit of a strategy that takes no gradient step, and what it leaves in results.json."""

from typing import Any

from graft.experiment import Experiment
from graft.probe.fit import fit_probe
from graft.probe.nothing import validate_only
from graft.probe.tip_adapter import fit_tip_adapter
from graft.stacked.fit import StackedFit
from graft.training.fitting import Fitting


def takes_no_step(experiment: Experiment) -> bool:
    """Whether the strategy is of this kind."""
    strategy = experiment.module.strategy
    return strategy.closed_fit or strategy.trains_nothing


def fit_at_once(experiment: Experiment, fitting: Fitting) -> tuple[StackedFit, dict[str, Any]]:
    """Nothing, a cache's two numbers, or a linear head to convergence."""
    strategy = experiment.module.strategy
    if strategy.trains_nothing:
        return validate_only(experiment, fitting), {}
    if strategy.fills_cache:
        fit, found = fit_tip_adapter(experiment, fitting)
        return fit, {"tip_adapter": found}
    fit, found = fit_probe(experiment, fitting)
    return fit, {"probe": found}
