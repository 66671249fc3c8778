"""The fit of a strategy that trains nothing: a validation of the network as it is."""

import time

from graft.callbacks.throughput import peak_memory_mb, reset_peak_memory
from graft.experiment import Experiment
from graft.probe.fit import features_of, validated
from graft.selection.base import of_validation
from graft.stacked.fit import Best, LoggedRow, StackedFit, logged
from graft.training.fitting import Fitting


def validate_only(experiment: Experiment, fitting: Fitting) -> StackedFit:
    """What a fit of no step leaves; the validation metrics choose nothing."""
    started, module, data = time.perf_counter(), experiment.module, experiment.data
    device = fitting.trainer.strategy.root_device
    reset_peak_memory(device)
    fitting.trainer.precision_plugin.convert_module(module)
    module.eval()  # else BatchNorm of the head would take the statistics of validation
    rows = {name: features_of(experiment, fitting, name, "val") for name in data.eval_domains}
    values = logged(validated(experiment, rows))
    monitor = experiment.rule.monitor(module.tasks)
    weights = {name: value.detach().clone() for name, value in module.heads.state_dict().items()}
    best = Best(values.get(monitor or "", 0.0), 0, 0, weights, of_validation(values))
    found = StackedFit(jobs=1, rows=[LoggedRow(0, 1, values)], best=best)
    found.peak_memory_mb = peak_memory_mb(device)
    found.seconds = time.perf_counter() - started
    return found
