"""Tip-Adapter's cache is filled before any fit; its fit without training is a search over two numbers."""

import time
from itertools import product
from typing import Any

import torch

from graft.backbones.split_backbone import eval_mode
from graft.callbacks.throughput import peak_memory_mb, reset_peak_memory
from graft.errors import GraftError
from graft.experiment import Experiment
from graft.heads.tip_adapter import TipAdapterHead
from graft.probe.fit import features_of, validated
from graft.selection.base import of_validation, rank
from graft.stacked.fit import Best, LoggedRow, StackedFit, logged
from graft.strategies.tip_adapter import TipAdapter
from graft.training.fitting import Fitting
from graft.training.trainer import first_device


@torch.no_grad()
def fill_cache(experiment: Experiment) -> None:
    """Let a head that caches have the features of the target's training samples; nothing to do for others."""
    module, data = experiment.module, experiment.data
    head = module.head("target")
    if not isinstance(head, TipAdapterHead):
        return
    labels = data.domains["target"].train.labels
    assert labels is not None  # see graft.config.conflicts
    backbone = module.backbone.to(first_device(experiment.config["trainer"]))
    device = next(backbone.parameters()).device
    with eval_mode(backbone):
        batches = data.plain_batches("target", "train")
        features = torch.cat([backbone(batch.inputs.to(device)).cpu() for batch in batches])
    backbone.to("cpu")
    head.fill(features, labels)


def fit_tip_adapter(experiment: Experiment, fitting: Fitting) -> tuple[StackedFit, dict[str, Any]]:
    """Validate every pair of numbers and put the best into the head; of equal ones the first, with the least vote.

    Also what is put down in results.json. GraftError where there is nothing to choose by.
    """
    started, module, data = time.perf_counter(), experiment.module, experiment.data
    strategy, head = module.strategy, module.head("target")
    assert isinstance(strategy, TipAdapter)
    assert isinstance(head, TipAdapterHead)  # see graft.config.conflicts
    monitor = experiment.rule.monitor(module.tasks)
    if monitor is None or experiment.rule.has_score or not len(data.domains["target"].val):
        raise GraftError(
            f"strategy=tip_adapter chooses two numbers by a metric of validation samples; selection="
            f"{experiment.rule.name} gives none on these data. Use selection=target_val on data with a validation "
            "split, or strategy=frozen."
        )
    device = fitting.trainer.strategy.root_device
    reset_peak_memory(device)
    fitting.trainer.precision_plugin.convert_module(module)
    rows = {name: features_of(experiment, fitting, name, "val") for name in data.eval_domains}
    higher, tried, best = experiment.rule.higher_is_better(module.tasks), [], None
    for alpha, beta in product(sorted(strategy.alphas), sorted(strategy.betas)):
        head.set_strengths(alpha, beta)
        values = logged(validated(experiment, rows))
        tried.append({"alpha": alpha, "beta": beta, "value": values[monitor]})
        if best is None or rank(values[monitor], higher) > rank(best.value, higher):
            weights = {name: value.detach().clone() for name, value in module.heads.state_dict().items()}
            best = Best(values[monitor], 0, 0, weights, of_validation(values))
            chosen = tried[-1]
    assert best is not None
    module.heads.load_state_dict(best.weights)
    found = StackedFit(jobs=1, rows=[LoggedRow(0, 1, dict(best.metrics))], best=best, epochs=1)
    found.peak_memory_mb = peak_memory_mb(device)
    found.seconds = time.perf_counter() - started
    return found, {"monitor": monitor, **chosen, "samples": len(head.keys), "tried": tried}
