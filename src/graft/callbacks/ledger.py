"""Writes a run's ledger: what every selection rule without target labels says of its candidate checkpoints."""

import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from graft.data.module import TransferDataModule
from graft.errors import GraftError
from graft.module import TransferModule
from graft.runs import ledger
from graft.runs.ledger import Ledger, Scored
from graft.selection.accuracy import estimated_accuracy
from graft.selection.base import SelectionRule, check_rule
from graft.selection.candidate import Candidate
from graft.selection.circular import Circular
from graft.selection.dev import DEV
from graft.selection.entropy import Entropy
from graft.selection.information_maximisation import InformationMaximisation
from graft.selection.last import Last
from graft.selection.mixval import MixVal
from graft.selection.snd import SND
from graft.selection.source_val import SourceValidation
from graft.training.lightning import data_of

RULES = (SourceValidation, Entropy, InformationMaximisation, SND, DEV, Circular, MixVal, Last)


class LedgerFile(Callback):
    """Scores the network at candidate epochs, fixed beforehand, by every rule, and tests it.

    Nothing reads the test scores while the run goes on: what the run selects is the same without the ledger.
    """

    def __init__(self, folder: Path, rule: SelectionRule, epochs: Collection[int], ready: Callable[[], bool]) -> None:
        """`epochs`, from 0, are those of the candidates; `ready` says whether the present weights may be chosen."""
        self.folder = folder
        self.rule = rule
        self.epochs = epochs
        self.ready = ready
        self._rules: list[SelectionRule] = []
        self._ledger: Ledger | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin a ledger, or go on with that of the epochs before."""
        assert isinstance(pl_module, TransferModule)
        before = ledger.read(self.folder)
        task = pl_module.tasks["target"]
        self._rules, left_out = suitable(self.rule, pl_module, trainer)
        self._ledger = {
            "format": ledger.FORMAT,
            "terms": list(pl_module.terms),
            "rule": self.rule.name,
            "directions": {rule.name: rule.higher_is_better(pl_module.tasks) for rule in self._rules},
            "left_out": left_out,
            "metric": task.main_metric,
            "higher_is_better": task.higher_is_better,
            "candidates": [one for one in before["candidates"] if one["epoch"] < trainer.current_epoch]
            if before
            else [],
            "seconds": before["seconds"] if before else 0.0,
        }

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Score a candidate, and write all so far."""
        assert isinstance(pl_module, TransferModule)
        if trainer.state.fn != "fit" or trainer.sanity_checking or trainer.current_epoch not in self.epochs:
            return
        if not self.ready():
            return
        assert self._ledger is not None
        started = time.perf_counter()
        self._ledger["candidates"].append(self._scored(trainer, pl_module))
        self._ledger["seconds"] += time.perf_counter() - started
        if trainer.is_global_zero:
            ledger.write(self._ledger, self.folder)

    def _scored(self, trainer: pl.Trainer, module: TransferModule) -> Scored:
        candidate, metric = Candidate(module, trainer), module.tasks["target"].main_metric
        source, target = candidate.rows("source"), candidate.rows("target")
        return {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "scores": {rule.name: score_of(rule, candidate) for rule in self._rules},
            "estimates": dict(estimated_accuracy(source, target)) if comparable(data_of(trainer)) else {},
            "oracle": {
                "val": float(trainer.callback_metrics[f"val/target/{metric}"]),
                "test": test_score(candidate),
            },
        }


def comparable(data: TransferDataModule) -> bool:
    """Whether every sample of the target is of a class that the source has too."""
    return data.same_classes and data.label_sets != "open"


def suitable(
    own: SelectionRule, module: TransferModule, trainer: pl.Trainer
) -> tuple[list[SelectionRule], dict[str, str]]:
    """The rules that suit a run, the run's `own` among them as it is set up; by name, why others do not."""
    rules: dict[str, SelectionRule] = {rule.name: rule for rule in (kind() for kind in RULES)}
    if not own.uses_target_labels and (own.name in rules or own.domains):
        rules[own.name] = own
    found, left_out = [], {}
    for name, rule in rules.items():
        try:
            check_rule(rule, module.tasks)
            rule.check(data_of(trainer))
            found.append(rule)
        except GraftError as error:
            left_out[name] = str(error)
    return found, left_out


def score_of(rule: SelectionRule, candidate: Candidate) -> float:
    """What a rule says of a candidate; of one that selects nothing, its epoch."""
    trainer = candidate.trainer
    monitor = rule.monitor(candidate.module.tasks)
    if monitor is None:
        return float(trainer.current_epoch)
    if monitor in trainer.callback_metrics:
        return float(trainer.callback_metrics[monitor])
    if (metric := rule.metric()) is None:
        return rule.score(candidate)
    metric.distributed_available_fn = not_distributed
    for domain in rule.domains:
        rows = candidate.rows(domain)
        metric.update(domain, rows.features, rows.logits)
    return float(metric.compute())


def not_distributed() -> bool:
    """For metrics of rows that every process has all of."""
    return False


@torch.no_grad()
def test_score(candidate: Candidate) -> float:
    """The task's main metric on the target's test split."""
    module, data, task = candidate.module, candidate.data, candidate.module.tasks["target"]
    metrics: Any = task.metrics(data.num_outputs("target", task)).to(module.device)
    for metric in metrics.values():
        metric.distributed_available_fn = not_distributed
    split = data.domains["target"].test
    for batch in data.batches_of("target", "test", torch.arange(len(split))):
        _, logits = candidate.outputs("target", batch)
        assert batch.labels is not None  # a test split always has them
        targets = task.targets(batch.labels.to(logits.device))
        metrics.update(task.predictions(logits), targets, scores=task.scores(logits))
    return float(metrics.compute()[task.main_metric])
