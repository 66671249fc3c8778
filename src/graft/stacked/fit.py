"""The fit of a stack: what a Trainer does for each of its jobs, for all of them in one step."""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from pytorch_lightning.plugins.precision import Precision
from torch import Tensor

from graft.cache.extract import Pass, stored_features
from graft.cache.features import FeatureCache, Stored
from graft.cache.rows import MappedRows, Rows
from graft.callbacks.throughput import peak_memory_mb, reset_peak_memory
from graft.data.sampling import EvalBatches, TrainBatches
from graft.errors import GraftError
from graft.experiment import Experiment
from graft.selection.base import of_validation, rank
from graft.stacked.evaluation import logged
from graft.stacked.heads import StackedHeads, evaluation_losses, training_losses
from graft.stacked.optimizers import build
from graft.stacked.stacks import Stack
from graft.tasks.metrics import HELD as HELD_STEPS
from graft.training.schedules import Point
from graft.training.trainer import build_trainer

HELD = 2**23  # numbers of logits that wait before metrics take them: one update of a metric costs as much as many rows
CPU = torch.device("cpu")


@dataclass(frozen=True)
class LoggedRow:
    """What was logged at once."""

    epoch: int  # from 0
    step: int  # optimizer steps done
    values: dict[str, float]


@dataclass(frozen=True)
class Best:
    """The head's weights with the best validation metric, or of a rule without one the last ones."""

    value: float  # not a number where nothing is followed
    epoch: int  # from 0
    step: int  # optimizer steps done
    weights: dict[str, Tensor]
    metrics: dict[str, float]


@dataclass
class StackedFit:
    """What the fit of one job left, in a stack of `jobs`; its seconds are those of the stack."""

    jobs: int
    rows: list[LoggedRow] = field(default_factory=list)
    best: Best | None = None
    validated: dict[str, float] = field(default_factory=dict)  # metrics of the last validation
    epochs: int = 0
    steps: int = 0
    samples: int = 0
    seconds: float = 0.0
    train_seconds: float = 0.0
    peak_memory_mb: float = 0.0
    stored: dict[str, Stored] = field(default_factory=dict)  # by key of the feature cache
    rows_by_split: dict[tuple[str, str], Rows] = field(default_factory=dict)  # to test on, and to predict


def fit_together(stack: Stack) -> list[StackedFit | None]:
    """Train the heads of a stack's jobs; None for a job that met values that are not finite, and has to train alone.

    The jobs' modules keep the weights that they began with. GraftError where the disk has no room for their features.
    """
    started = time.perf_counter()
    reset_peak_memory(CPU)
    fitting = Fitting(stack)
    for epoch in range(fitting.epochs):
        fitting.train_epoch(epoch)
        if (epoch + 1) % fitting.validate_every == 0:
            fitting.validate(epoch)
        fitting.log_epoch(epoch)
    fitting.keep_last()
    seconds, peak = time.perf_counter() - started, peak_memory_mb(CPU)
    for fit in fitting.fits:
        fit.epochs, fit.steps, fit.seconds, fit.peak_memory_mb = fitting.epochs, fitting.step, seconds, peak
        fit.samples, fit.train_seconds = fitting.samples, fitting.train_seconds
    return [fit if fine else None for fit, fine in zip(fitting.fits, fitting.fine.flatten().tolist(), strict=True)]


@dataclass(frozen=True)
class Features:
    """Of a split's samples, with their labels."""

    rows: MappedRows
    labels: Tensor
    stored: dict[str, Stored]  # what is known of the rows, for results.json


class Fitting:
    """A stack while it trains."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.jobs = stack.jobs
        self.leader = leader = stack.jobs[0]
        self.epochs, self.validate_every = leader.epochs, leader.config["training"]["validate_every_epochs"]
        self.validate_every = min(self.validate_every, self.epochs)
        trainer = build_trainer(leader.config["trainer"], leader.config["training"], self.epochs, leader.folder, [], [])
        self.precision: Precision = trainer.precision_plugin
        for job in self.jobs:
            self.precision.convert_module(job.module)
        self.fits = [StackedFit(jobs=len(self.jobs)) for _ in self.jobs]
        self.heads = StackedHeads([[job.module.heads for job in stream] for stream in stack.streams])
        self.shape = self.heads.shape
        self.fine = torch.ones(self.shape, dtype=torch.bool)
        self._read_features()
        self._prepare_steps()
        self.step, self.samples, self.train_seconds = 0, 0, 0.0
        # By domain, losses, logits and labels of steps that the training metrics have not seen yet
        self.held: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {domain: [] for domain in self.train_domains}

    # What is read

    def _read_features(self) -> None:
        """Features and labels of every stream's training samples, and of the validation samples that all share."""
        data, self.train_domains = self.leader.data, self.leader.data.train_domains
        self.read: dict[tuple[str, ...], tuple[MappedRows, dict[str, Stored]]] = {}  # by domain, split and fingerprint
        self.train = {
            domain: [self._features(stream[0], domain, "train") for stream in self.stack.streams]
            for domain in self.train_domains
        }
        self.val = {domain: self._features(self.leader, domain, "val") for domain in data.eval_domains}
        for (stream, _), job, fit in self._each():
            evaluated = {(domain, "val"): one for domain, one in self.val.items()}
            if job.config["test"]:
                splits = {domain: job.data.domains[domain].test for domain in job.data.test_domains}
                evaluated |= {(d, "test"): self._features(job, d, "test") for d, split in splits.items() if len(split)}
            of_job = [*(of_streams[stream] for of_streams in self.train.values()), *evaluated.values()]
            fit.stored = {key: entry for one in of_job for key, entry in one.stored.items()}
            fit.rows_by_split = {split: one.rows for split, one in evaluated.items()}

    def _features(self, job: Experiment, domain: str, split: str) -> Features:
        """GraftError where the disk has no room for them."""
        samples = getattr(job.data.domains[domain], split)
        assert samples.labels is not None  # see graft.stacked.stacks.why_alone
        key = (domain, split, samples.fingerprint)
        if key not in self.read:
            kept, one = FeatureCache(self.leader.cache), Pass(job.data, domain, split, self.precision, CPU)
            rows = stored_features(one, self.leader.module.backbone, kept)
            if rows is None:
                raise GraftError(f"the disk has no room for features ({kept.refused})")
            self.read[key] = rows, kept.entries
        rows, entries = self.read[key]
        return Features(rows, samples.labels, entries)

    def _prepare_steps(self) -> None:
        """Samplers of every stream, and for every job its rates, weight decays and objective's weights in each step."""
        self.samplers: dict[str, list[TrainBatches]] = {domain: [] for domain in self.train_domains}
        for stream in self.stack.streams:
            for domain, loader in stream[0].data.train_dataloader().items():
                self.samplers[domain].append(loader.batch_sampler)
        self.steps_per_epoch = self.leader.data.steps_per_epoch
        self.total = self.steps_per_epoch * self.epochs
        settings = [self._settings(job) for job in self.jobs]
        learning = list(settings[0])
        self.rates = [self._of_jobs([one[name][0] for one in settings]) for name in learning]
        self.decays = [self._of_jobs([one[name][1] for one in settings]) for name in learning]
        self.logged_rates = self.rates[-1].flatten().tolist()  # as a Trainer logs the last group's
        tables = self._tables()
        self.factors = self._of_jobs([[point.factor for point in table] for table in tables])
        cycled = [[math.nan if point.momentum is None else point.momentum for point in table] for table in tables]
        self.momenta = None if all(math.isnan(one[0]) for one in cycled) else self._of_jobs(cycled)
        at = [min(1.0, step / max(1, self.total)) for step in range(self.total)]
        weights = [[job.module.objective.weights(progress) for progress in at] for job in self.jobs]
        self.weights = {
            domain: self._of_jobs([[one[domain] for one in of_job] for of_job in weights])
            for domain in self.train_domains
        }
        self.class_weights = {domain: self._class_weights(domain) for domain in self.train_domains}
        self.learning = self.heads.let_learn(learning)
        optimizer = self.leader.config["optimizer"]
        self.optimizer = build(optimizer["_target_"], self.learning, optimizer["options"])

    def _settings(self, job: Experiment) -> dict[str, tuple[float, float]]:
        """Full rate and weight decay of each of a job's parameters that learn, in the order of its optimizer's."""
        names = {id(parameter): name for name, parameter in job.module.heads.named_parameters()}
        groups = job.module.optimizer_groups(job.module.phases(self.epochs))
        return {names[id(p)]: (group["base_lr"], group["weight_decay"]) for group in groups for p in group["params"]}

    def _tables(self) -> list[list[Point]]:
        """Every job's schedule; those of one configuration are one."""
        known: dict[str, list[Point] | None] = {}
        for job in self.jobs:
            key = json.dumps(job.config["scheduler"])
            if key not in known:
                known[key] = job.module.schedule_table(job.module.phases(self.epochs), self.total)
        tables = [known[json.dumps(job.config["scheduler"])] for job in self.jobs]
        return [table for table in tables if table is not None]  # see graft.stacked.reasons

    def _of_jobs(self, values: Sequence[Any]) -> Tensor:
        """A value, or several, of every job as `(S, R, ...)` in double precision."""
        return torch.tensor(values, dtype=torch.float64).unflatten(0, self.shape)

    def _class_weights(self, domain: str) -> Tensor | None:
        """Loss weights of the classes `(S, K)`."""
        of_streams = [stream[0].module.class_weights.get(domain) for stream in self.stack.streams]
        found = [weights for weights in of_streams if weights is not None]
        return torch.stack(found).to(self.learning_dtype) if found else None

    @property
    def learning_dtype(self) -> torch.dtype:
        """The type of the heads' parameters."""
        return next(iter(self.heads.parameters.values())).dtype

    # Training

    def train_epoch(self, epoch: int) -> None:
        """An epoch's steps."""
        started = time.perf_counter()
        for samplers in self.samplers.values():
            for sampler in samplers:
                sampler.set_epoch(epoch)
        with self.precision.forward_context():
            for step in range(self.steps_per_epoch):
                self._train_step(step)
        self.fine &= self.heads.finite()
        self.train_seconds += time.perf_counter() - started

    def _train_step(self, step_of_epoch: int) -> None:
        step, total_loss = self.step, torch.zeros(())
        for domain in self.train_domains:
            features, labels = self._batch(domain, step_of_epoch)
            head, task = self._head(domain), self.leader.module.tasks[domain]
            logits = self.heads.logits(head, features, by_stream=True)
            losses = training_losses(task, logits, labels, self.class_weights[domain])
            total_loss = total_loss + (self.weights[domain][..., step].to(losses) * losses).sum()
            self._count(domain, losses.detach(), logits.detach(), labels)
        gradients = torch.autograd.grad(total_loss, self.learning)
        factors, momenta = self.factors[..., step], None if self.momenta is None else self.momenta[..., step]
        self.optimizer.step(gradients, [rate * factors for rate in self.rates], self.decays, momenta)
        self.step += 1

    def _batch(self, domain: str, step: int) -> tuple[Tensor, Tensor]:
        """Features `(S, B, D)` and labels `(S, B, ...)` of a step."""
        drawn = []
        for sampler, split in zip(self.samplers[domain], self.train[domain], strict=True):
            indices = sampler.indices(step, 0)
            drawn.append((split.rows[indices], split.labels[indices]))
        features, labels = (torch.stack(column) for column in zip(*drawn, strict=True))
        self.samples += labels.shape[1]
        return features, labels

    def _head(self, domain: str) -> str:
        """The name of the head that serves a domain."""
        own = self.leader.module.head(domain)
        return next(name for name, head in self.leader.module.heads.items() if head is own)

    def _count(self, domain: str, losses: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Keep a step's losses `(S, R)`, logits `(S, R, B, K)` and labels `(S, B, ...)` for the training metrics."""
        self.held[domain].append((losses * labels.shape[1], logits, labels))
        if len(self.held[domain]) == HELD_STEPS:
            self._count_held(domain)

    def _count_held(self, domain: str) -> None:
        """Let the training metrics of every job see its batches, as many at a time as when it trains alone."""
        if not self.held[domain]:
            return
        losses, logits, labels = (list(column) for column in zip(*self.held[domain], strict=True))
        self.held[domain] = []
        task, ranks = self.leader.module.tasks[domain], self.leader.module.train_metrics[domain].ranks
        samples, targets, totals = torch.cat(logits, dim=2), torch.cat(labels, dim=1), torch.stack(losses).sum(0)
        predictions = of_samples(task.predictions, samples)
        scores = of_samples(task.scores, samples) if ranks else None
        for (s, r), job, _ in self._each():
            own = None if scores is None else scores[s, r]
            job.module.train_metrics[domain].count(totals[s, r], predictions[s, r], targets[s], own)

    # Validation, and what is logged

    @torch.no_grad()
    def validate(self, epoch: int) -> None:
        """Let every module see the validation samples; log what it finds, and keep the weights that are best so far."""
        with self.precision.forward_context():
            for domain in self.val:
                self._validate_domain(domain)
        for (stream, place), job, fit in self._each():
            values = logged(job.module.validation_values())
            fit.rows.append(LoggedRow(epoch, self.step, values))
            self.fine[stream, place] &= all(math.isfinite(v) for name, v in values.items() if name.endswith("/loss"))
            fit.validated = of_validation(values)
            monitor, higher = job.rule.monitor(job.module.tasks), job.rule.higher_is_better(job.module.tasks)
            if monitor is None or not job.rule.may_choose(epoch):
                continue
            value, best = values[monitor], fit.best
            if best is None or rank(value, higher) > rank(best.value, higher):
                fit.best = Best(value, epoch, self.step, self.heads.of_job(stream, place), fit.validated)

    def keep_last(self) -> None:
        """Keep the weights that a job ends with where its rule follows nothing."""
        for (stream, place), job, fit in self._each():
            if job.rule.monitor(job.module.tasks) is None:
                fit.best = Best(math.nan, self.epochs - 1, self.step, self.heads.of_job(stream, place), fit.validated)

    def _validate_domain(self, domain: str) -> None:
        rows, labels = self.val[domain].rows, self.val[domain].labels
        task, head = self.leader.module.tasks[domain], self._head(domain)
        waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        for _, indices in EvalBatches(len(rows), self.leader.data.eval_batch_size):
            features, targets = rows[indices], labels[indices]
            logits = self.heads.logits(head, features, by_stream=False)
            losses = evaluation_losses(task.plain_loss, logits, targets)
            smoothed = evaluation_losses(task.loss, logits, targets) if task.smooths_labels else None
            for (stream, place), job, _ in self._each():
                own = None if smoothed is None else smoothed[stream, place]
                total = losses[stream, place] * len(indices)
                job.module.add_losses(domain, total, len(indices), own, len(indices))
            waiting.append((features, logits, targets))
            if sum(one.numel() for _, one, _ in waiting) >= HELD:
                self._count_validated(domain, waiting)
                waiting = []
        if waiting:
            self._count_validated(domain, waiting)

    def _count_validated(self, domain: str, waiting: Sequence[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Let every job's metrics see batches of features `(B, D)`, logits `(S, R, B, K)` and labels `(B, ...)`."""
        columns, task = list(zip(*waiting, strict=True)), self.leader.module.tasks[domain]
        features, labels, logits = torch.cat(columns[0]), torch.cat(columns[2]), torch.cat(columns[1], dim=2)
        predictions, scores = of_samples(task.predictions, logits), of_samples(task.scores, logits)
        targets = task.targets(labels)
        for (s, r), job, _ in self._each():
            job.module.add_compared(domain, predictions[s, r], targets, scores[s, r])
            job.module.add_to_rule(domain, features, logits[s, r])

    def log_epoch(self, epoch: int) -> None:
        """Log every job's training values of an epoch."""
        for domain in self.train_domains:
            self._count_held(domain)
        progress, factors = min(1.0, self.step / max(1, self.total)), self.factors[..., self.step - 1]
        for (place, job, fit), rate in zip(self._each(), self.logged_rates, strict=True):
            values = logged(job.module.training_values(progress, rate * float(factors[place])))
            fit.rows.append(LoggedRow(epoch, self.step, values))

    def _each(self) -> Iterator[tuple[tuple[int, int], Experiment, StackedFit]]:
        """Every job with its place in the stack and its fit."""
        places = [(s, r) for s in range(self.shape[0]) for r in range(self.shape[1])]
        return zip(places, self.jobs, self.fits, strict=True)


def of_samples(function: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    """What a task makes of each sample's logits `(S, R, B, K)`, of all jobs at once."""
    return function(logits.flatten(0, 2)).unflatten(0, logits.shape[:3])
