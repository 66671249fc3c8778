"""Validation and test of the weights that are in a module."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from pytorch_lightning.callbacks import Callback
from torch import Tensor

from graft.cache.features import FeatureCache
from graft.callbacks.frozen_features import FrozenFeatures
from graft.data.loader import EvalLoader
from graft.data.module import TransferDataModule
from graft.experiment import Experiment
from graft.model.save import gathered, in_order
from graft.module import TransferModule
from graft.selection.base import of_validation
from graft.training.modalities import WITHOUT, gate_means, without_each
from graft.training.trainer import build_trainer


def validation_metrics(experiment: Experiment, callbacks: Sequence[Callback] = ()) -> dict[str, float]:
    """Validation metrics of the weights that are in the module; nothing is logged.

    Behind a backbone that never trained they are those of its kept features, which the fit has read.
    """
    config = experiment.config
    settings = {**config["trainer"], "profiler": None}
    if config["cache"]["features"] and experiment.data.federation is None:
        callbacks = [FrozenFeatures(FeatureCache(experiment.cache)), *callbacks]
    trainer = build_trainer(settings, config["training"], experiment.epochs, experiment.folder, [], callbacks)
    trainer.validate(experiment.module, experiment.data, verbose=False)
    return of_validation(trainer.callback_metrics)


class Evaluator(Protocol):
    """What tests a network and lets it predict: a Trainer, or what does the same with less."""

    limit_val_batches: int | float

    @property
    def callback_metrics(self) -> Mapping[str, Any]:
        """What the last test logged."""

    def test(self, model: TransferModule, dataloaders: TransferDataModule, *, verbose: bool) -> Any:
        """Collect test metrics and predictions, and log them."""

    def predict(self, model: TransferModule, dataloaders: EvalLoader) -> Any:
        """What the network says of each batch."""


class Outputs(NamedTuple):
    """What a network makes of N samples, in the order of their split."""

    indices: Tensor  # (N,)
    predictions: Tensor  # (N, ...), as metrics take them
    logits: Tensor  # (N, K)
    features: Tensor | None  # (N, D); None where the head takes tokens of a pass that has none


def validation_outputs(trainer: Evaluator, experiment: Experiment) -> Outputs | None:
    """Those of the target's validation split; None where the Trainer leaves batches out."""
    limit = trainer.limit_val_batches
    if isinstance(limit, int) or limit != 1.0:  # the integer 1 is one batch
        return None
    return outputs_of(trainer, experiment.module, experiment.data.eval_loader("target", "val"))


def outputs_of(trainer: Evaluator, module: TransferModule, loader: EvalLoader) -> Outputs:
    """Those of a domain's loader; every process takes part, and has all of them."""
    batches: Any = trainer.predict(module, loader)
    parts = [batch[loader.domain] for batch in batches]
    with_features = all(part[3] is not None for part in parts)
    found = in_order(gathered(parts if with_features else [part[:3] for part in parts]))
    indices, predictions, logits, *features = found
    return Outputs(indices, predictions, logits, features[0] if features else None)


def test(trainer: Evaluator, module: TransferModule, data: TransferDataModule) -> dict[str, float]:
    """Test metrics as they are, of each of several sources, and of the target under each shift.

    The last two are called `test/source_<name>/<metric>` and `test/target_<shift>/<metric>`. A fusion is tested without
    each of its modalities too: `test/target_without_<part>/<metric>`.
    """
    with gate_means(module.backbone) as module.gates:
        trainer.test(module, data, verbose=False)
    confusion, predictions = dict(module.confusion), module.test_predictions
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("test/")}
    metrics |= of_sources(module, data)
    for shift in data.test_shifts:
        data.test_shift = shift
        trainer.test(module, data, verbose=False)
        for name, value in trainer.callback_metrics.items():
            if name.startswith("test/target/"):
                metrics[name.replace("target", f"target_{shift}")] = float(value)
    for part in without_each(module.backbone):
        trainer.test(module, data, verbose=False)
        for name, value in trainer.callback_metrics.items():
            if name.startswith("test/target/"):
                metrics[name.replace("target", WITHOUT.format(part))] = float(value)
    module.confusion, module.test_predictions = confusion, predictions
    return metrics


def of_sources(module: TransferModule, data: TransferDataModule) -> dict[str, float]:
    """Metrics of each source, where there are several, from the predictions of the last test.

    Every process takes part, and knows all of them. A source without a test sample has none.
    """
    source = data.domains.get("source")
    if "source" not in data.test_domains or source is None or len(source.sources) < 2:
        return {}
    indices, predictions = in_order(gathered(module.test_predictions["source"]))
    numbers, labels, task = source.test.sources, source.test.labels, module.tasks["source"]
    assert numbers is not None  # as there are several sources
    assert labels is not None  # a test split always has them
    metrics: dict[str, float] = {}
    for number, name in enumerate(source.sources):
        if (of_one := numbers[indices] == number).any():
            computed = task.metrics(data.num_outputs("source", task))
            computed.update(predictions[of_one], task.targets(labels[indices[of_one]]), scores=predictions[of_one])
            metrics |= {f"test/source_{name}/{metric}": float(value) for metric, value in computed.compute().items()}
    return metrics
