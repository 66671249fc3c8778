"""The fit of `strategy=probe`: what gradient steps leave of a run, from one closed fit of its head."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graft.backbones.split_backbone import FEATURES, SplitBackbone
from graft.cache.extract import Pass, computed, stored_features
from graft.callbacks.throughput import peak_memory_mb, reset_peak_memory
from graft.data.sampling import EvalBatches
from graft.errors import GraftError
from graft.experiment import Experiment
from graft.heads.cross_modal import CrossModalHead
from graft.probe.names import names_in, with_names
from graft.probe.solver import Loss, Solutions, solve
from graft.selection.base import of_validation, rank
from graft.stacked.fit import Best, LoggedRow, StackedFit, logged
from graft.strategies.probe import Probe
from graft.tasks.base import Task
from graft.training.fitting import Fitting

LOSSES: dict[str, Loss] = {
    "multiclass": "softmax",
    "multilabel": "sigmoid",
    "binary": "sigmoid",
    "regression": "squares",
}


def fit_probe(experiment: Experiment, fitting: Fitting) -> tuple[StackedFit, dict[str, Any]]:
    """Fit the head at every penalty and choose by the run's selection rule, of equal ones the strongest penalty.

    Also what is put down in results.json: the penalties, what each reads on validation, and the chosen one. GraftError
    where there is nothing to choose by, and for a fit that does not converge.
    """
    started = time.perf_counter()
    module, data, strategy = experiment.module, experiment.data, experiment.module.strategy
    assert isinstance(strategy, Probe)  # the only one with a closed fit
    monitor = experiment.rule.monitor(module.tasks)
    if monitor is None or experiment.rule.has_score or not all(len(data.domains[d].val) for d in data.eval_domains):
        raise GraftError(
            f"strategy=probe chooses its penalty by a metric of validation samples; selection={experiment.rule.name} "
            "gives none on these data. Use selection=target_val on data with a validation split, or strategy=frozen."
        )
    reset_peak_memory(fitting.trainer.strategy.root_device)
    fitting.trainer.precision_plugin.convert_module(module)
    module.eval()  # else BatchNorm of a projection would take the statistics of what is read
    (domain,) = data.train_domains
    rows = {name: features_of(experiment, fitting, name, "val") for name in data.eval_domains}
    train, labels = features_of(experiment, fitting, domain, "train"), data.domains[domain].train.labels
    assert labels is not None  # see graft.config.conflicts
    solutions = solved(experiment, domain, train, labels, strategy.penalties)
    if not solutions.converged:
        raise GraftError(
            f"strategy=probe: no convergence after {solutions.steps} steps. Use stronger penalties: "
            f"strategy.penalties={strategy.penalties[:-1]}"
        )
    candidates = [
        put_and_validate(experiment, domain, solutions, place, rows) for place in range(len(strategy.penalties))
    ]
    higher = experiment.rule.higher_is_better(module.tasks)
    place = max(range(len(candidates)), key=lambda one: rank(candidates[one].value, higher))
    best = candidates[place]
    module.heads.load_state_dict(best.weights)
    found = StackedFit(jobs=1, best=best, epochs=1, steps=solutions.steps)
    trained = logged(training_values(experiment, domain, train, labels))
    found.rows = [LoggedRow(0, solutions.steps, values) for values in (best.metrics, trained)]
    found.peak_memory_mb = peak_memory_mb(fitting.trainer.strategy.root_device)
    found.seconds = found.train_seconds = time.perf_counter() - started
    tried = [{"penalty": p, "value": one.value} for p, one in zip(strategy.penalties, candidates, strict=True)]
    return found, {"monitor": monitor, "penalty": strategy.penalties[place], "tried": tried} | names_in(
        module.head(domain)
    )


def features_of(experiment: Experiment, fitting: Fitting, domain: str, split: str) -> Tensor:
    """Features `(N, D)` of a split on the CPU, from the cache that frozen runs share where there is one."""
    trainer, backbone = fitting.trainer, experiment.module.backbone
    one = Pass(experiment.data, domain, split, trainer.precision_plugin, trainer.strategy.root_device)
    backbone.to(one.device)
    rows = stored_features(one, backbone, fitting.features) if experiment.config["cache"]["features"] else None
    return computed(SplitBackbone(backbone, FEATURES), one) if rows is None else rows[:]


def solved(
    experiment: Experiment, domain: str, features: Tensor, labels: Tensor, penalties: Sequence[float]
) -> Solutions:
    """The task's linear models of a domain's features `(N, D)` and labels, in the order of the penalties.

    Of a head that adds names they are models of the vectors in the space of the names, which are samples too.
    """
    module, head = experiment.module, experiment.module.head(domain)
    task, outputs = module.tasks[domain], experiment.data.num_outputs(domain, module.tasks[domain])
    weights = module.class_weights.get(domain)
    if weights is not None and labels.ndim == 1:
        of_samples = weights[labels.long()]
        weights = of_samples / of_samples.mean()  # the task divides by their sum
    elif weights is not None:
        weights = weights.expand(len(labels), -1)
    if isinstance(head, CrossModalHead):
        features, labels, weights = with_names(head, features, labels, weights)
    return solve(features, targets_of(task, labels, outputs), penalties, LOSSES[task.name], weights)


def targets_of(task: Task, labels: Tensor, outputs: int) -> Tensor:
    """Labels as the columns `(N, K)` that a linear model is fitted to."""
    if task.name == "regression":
        state = task.state_dict()
        return ((labels.double() - state["mean"]) / state["std"]).reshape(-1, 1)
    if labels.ndim == 2 or outputs == 1:
        return labels.double().reshape(len(labels), -1)
    return nn.functional.one_hot(labels.long(), outputs).double()


def linear_of(head: nn.Module) -> nn.Linear:
    """The layer of a head that the fit solves for: the only one of a linear head."""
    if isinstance(head, CrossModalHead):
        return head.linear
    (layer,) = (one for one in head.modules() if isinstance(one, nn.Linear))
    return layer


@torch.no_grad()
def put_and_validate(
    experiment: Experiment, domain: str, solutions: Solutions, place: int, rows: dict[str, Tensor]
) -> Best:
    """The head of one penalty's solution, which is in the module from then on, and what it reads on validation."""
    module = experiment.module
    layer, monitor = linear_of(module.head(domain)), experiment.rule.monitor(module.tasks)
    assert monitor is not None  # see fit_probe
    layer.weight.copy_(solutions.weights[place])
    layer.bias.copy_(solutions.biases[place])
    values = logged(validated(experiment, rows))
    weights = {name: value.detach().clone() for name, value in module.heads.state_dict().items()}
    return Best(values[monitor], 0, solutions.steps, weights, of_validation(values))


@torch.no_grad()
def training_values(experiment: Experiment, domain: str, features: Tensor, labels: Tensor) -> dict[str, Any]:
    """Loss and main metric of the weights in the module on the training samples, as an epoch logs them."""
    module = experiment.module
    logits = module.head(domain)(features.to(linear_of(module.head(domain)).weight))
    module.train_metrics[domain].add(module.domain_loss(domain, logits, labels), logits, labels)
    return module.training_values(1.0, 0.0)


@torch.no_grad()
def validated(experiment: Experiment, rows: dict[str, Tensor]) -> dict[str, Any]:
    """What a validation of the weights in the module logs, from features `(N, D)` by domain."""
    module = experiment.module
    for domain, features in rows.items():
        for labels, batch in batches(experiment, domain, features):
            logits, task = module.head(domain)(batch), module.tasks[domain]
            smoothed = task.loss(logits, labels) if task.smooths_labels else None
            module.add_losses(domain, *task.summed_loss(logits, labels), smoothed, len(labels))
            module.add_predictions(domain, logits, labels)
            module.add_to_rule(domain, batch, logits)
    return module.validation_values()


def batches(experiment: Experiment, domain: str, features: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Labels and features of a domain's validation split, in batches."""
    labels, weight = experiment.data.domains[domain].val.labels, next(experiment.module.head(domain).parameters())
    assert labels is not None  # validation always has them
    for _, indices in EvalBatches(len(features), experiment.data.eval_batch_size):
        yield labels[indices], features[indices].to(weight)
