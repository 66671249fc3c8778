"""The one LightningModule: a shared backbone, heads for the domains, the objective, and a strategy's phases."""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import Metric, MetricCollection

from graft.backbones.base import Backbone
from graft.backbones.outputs import Maps, Tokens, features_of
from graft.backbones.split_backbone import SplitBackbone
from graft.cache.rows import Rows
from graft.compress.base import COMPRESSION, Compression
from graft.data.samples import seed_of
from graft.errors import GraftError
from graft.heads.base import SHARED, bottleneck_of, classifier_of, has_bottleneck, seen_by, takes_local, takes_maps
from graft.inputs.base import Batch, DomainBatch, Inputs, join
from graft.objectives.base import Objective
from graft.selection.base import SelectionRule, of_validation
from graft.selection.candidate import Candidate
from graft.selection.last import Last
from graft.strategies.base import Phase, Strategy, frozen_modules
from graft.tasks.base import Task
from graft.tasks.metrics import Mean, TrainingMetrics
from graft.terms.base import Term, TrainStep, Update
from graft.training.batch_transforms import BatchTransform, ProgressiveResizing
from graft.training.lightning import epochs_of, holds_all_weights
from graft.training.normalization import add_source_statistics, source_statistics
from graft.training.optim import build_optimizer, by_block, is_norm_or_bias, match_layout, parameter_groups, parts
from graft.training.schedules import AveragingWindow, Pace, Plateau, Point, hold
from graft.training.source_encoder import has_source_encoder, source_encoder
from graft.training.updates import check_strategy, further_step

MakeBatches = Callable[[], Iterator[tuple[Tensor, Inputs]]]


def step_seed(seed: int, epoch: int, step: int, rank: int = 0) -> int:
    """Seed of everything random inside one training step, such as dropout."""
    return seed_of(seed, "step", epoch, step, rank)


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed the CPU and the device; torch.manual_seed looks at every kind of device there is, 0.3 ms each time."""
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


class TransferModule(pl.LightningModule):
    """Adapts a backbone to the target, with the source beside it or not.

    `heads` holds one head `shared`, or `source` and `target`. The backbone is one that `strategy.prepare` has seen, and
    `terms` are those that `Term.prepare` has. Everything random in a step is drawn from
    (seed, epoch, step), so that a resumed run draws what the uninterrupted one drew.
    """

    def __init__(
        self,
        backbone: Backbone,
        heads: Mapping[str, nn.Module],
        tasks: Mapping[str, Task],
        num_outputs: Mapping[str, int],
        objective: Objective,
        strategy: Strategy,
        rates: Any,
        schedule: Any,
        optimizer: Mapping[str, Any],
        terms: Mapping[str, Term] | None = None,
        window: AveragingWindow | None = None,
        batch_transforms: Sequence[BatchTransform] = (),
        rule: SelectionRule | None = None,
        bn: str = "joint",
        class_weights: Mapping[str, Tensor | None] | None = None,
        seed: int = 0,
        config: Mapping[str, Any] | None = None,
        compression: Compression | None = None,
        weight_clip: float | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleDict(heads)
        self.terms = cast(Mapping[str, Term], nn.ModuleDict(terms or {}))
        self.tasks = dict(tasks)
        self.batch_transforms = tuple(batch_transforms)
        self.objective = objective
        self.strategy = strategy
        self.rates = rates
        self.schedule = schedule
        self.optimizer_config = dict(optimizer)
        self.window = window
        self.rule = rule or Last()
        self.rule_metric = self.rule.metric()
        self.bn = bn
        self.class_weights = dict(class_weights or {})
        self.seed = seed
        self.config = config
        self.compression = compression or Compression()
        self.weight_clip = weight_clip
        self.fixed_progress: float | None = None
        self.pace: Pace | None = None  # of a federation's rounds, see graft.federated.rounds
        self.turn: Literal["its own", "of others", "none"] = "its own"  # of a federation over a network: who trains now
        self.step_losses: dict[str, Tensor] = {}  # of the last training step, by domain and term
        self.leave_out_nonfinite = False  # of the training metrics, which waits for the device in every step
        self.cut: SplitBackbone | None = None  # in this phase, see graft.callbacks.frozen_features
        # Beside it, what keeps activations `(N, ...)` at the cut of inputs that are made of the target's validation
        # split: from what else they depend on, N, and what makes their batches of indices and inputs; None: too large.
        self.kept: Callable[[Mapping[str, Any], int, MakeBatches], Rows | None] | None = None
        self.confusion: dict[str, Tensor] = {}
        # Of the last test, by domain: indices (B,) and predictions (B, ...) of each batch, as metrics take them.
        self.test_predictions: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self.gates: dict[str, float] = {}  # and of a gated fusion by modality, see graft.training.modalities
        self._accumulated: list[Batch] = []  # of the coming optimizer step, where a term has updates
        self._phases: list[Phase] = []
        self._applied: Phase | None = None  # what trains now
        self._frozen: list[nn.Module] = []
        self._learning: dict[str, list[nn.Parameter]] = {}  # in this phase, by part: finding it takes time
        self._clipped: list[Tensor] = []  # of them what `weight_clip` acts on
        self.start_source_statistics()
        trained = objective.domains()
        # A ModuleDict does not tell the type of what it holds.
        self.train_metrics = cast(
            Mapping[str, TrainingMetrics],
            nn.ModuleDict({d: TrainingMetrics(tasks[d], num_outputs[d]) for d in trained}),
        )
        self.term_values = cast(Mapping[str, Mean], nn.ModuleDict({name: Mean() for name in self.terms}))
        self.eval_losses = cast(Mapping[str, Mean], nn.ModuleDict({domain: Mean() for domain in tasks}))
        self.smoothed_losses = cast(Mapping[str, Mean], nn.ModuleDict({domain: Mean() for domain in tasks}))
        self.eval_metrics = cast(
            Mapping[str, MetricCollection],
            nn.ModuleDict({d: task.metrics(num_outputs[d]) for d, task in tasks.items()}),
        )
        self.test_metrics = cast(
            Mapping[str, MetricCollection],
            nn.ModuleDict({d: task.test_metrics(num_outputs[d]) for d, task in tasks.items()}),
        )

    def start_source_statistics(self) -> None:
        """Begin the source's BatchNorm statistics at what the backbone has now, where domains have their own."""
        if self.bn == "domain_specific":
            add_source_statistics(self.backbone)

    # What the model computes

    def head(self, domain: str) -> nn.Module:
        """The head that serves a domain."""
        return self.heads[SHARED] if SHARED in self.heads else self.heads[domain]

    def forward(self, inputs: Inputs, domain: str = "target") -> Tensor:
        """Predictions `(B, K)` for inputs of one domain."""
        return self.head(domain)(self.features(DomainBatch(inputs), domain))

    def features(self, batch: DomainBatch, domain: str) -> Any:
        """Features `(B, D)` of one domain's batch, with its own BatchNorm statistics where it has some.

        Tokens or Maps, here and below, where heads pool by themselves.
        """
        if self.cut is not None:
            return self.cut.rest(self.activations(batch))
        if domain == "source" and (self.bn == "domain_specific" or has_source_encoder(self.backbone)):
            with source_statistics(self.backbone), source_encoder(self.backbone):
                return seen_by(self.head(domain), self.backbone, batch.inputs, batch.sizes)
        return seen_by(self.head(domain), self.backbone, batch.inputs, batch.sizes)

    def domain_features(self, batch: Batch) -> dict[str, Any]:
        """Features of every domain in the batch; `bn=joint` runs them forward as one batch.

        Domains whose heads take different things, features and tokens, or that have encoders of their own, go
        forward one by one.
        """
        alike = len({getattr(self.head(domain), "takes", "features") for domain in batch}) == 1
        if self.bn == "joint" and len(batch) > 1 and alike and not has_source_encoder(self.backbone):
            if self.cut is None:
                inputs = join([one.inputs for one in batch.values()])
                sizes = [one.sizes for one in batch.values() if one.sizes is not None]
                features: Any = seen_by(self.head("target"), self.backbone, inputs, torch.cat(sizes) if sizes else None)
            else:
                kept: list[Any] = [self.activations(one) for one in batch.values()]
                whole: Any = Maps.join(kept) if isinstance(kept[0], Maps) else torch.cat(kept)
                features = self.cut.rest(whole)
            return dict(zip(batch, features.split([len(one) for one in batch.values()]), strict=True))
        return {domain: self.features(one, domain) for domain, one in batch.items()}

    def activations(self, batch: DomainBatch) -> Any:
        """What comes out of the backbone at its cut: stored, or computed now."""
        if batch.stored is not None:
            return batch.stored
        assert self.cut is not None
        return self.cut.trunk(batch.inputs if batch.sizes is None else (batch.inputs, batch.sizes))

    @property
    def can_cut(self) -> bool:
        """Whether a step needs no more of the backbone's frozen part than what comes out of it."""
        return (
            self.bn != "domain_specific"
            and not has_source_encoder(self.backbone)
            and not self.compression.changes_network_in_training
            and not any(takes_local(head) and not takes_maps(head) for head in self.heads.values())
            and not any(term.needs_inputs or term.views for term in self.terms.values())
            and not any(isinstance(transform, ProgressiveResizing) for transform in self.batch_transforms)
        )

    @property
    def needs_outputs(self) -> bool:
        """Whether a training step needs features and outputs of its batch."""
        return bool(self.train_metrics) or any(term.needs_outputs for term in self.terms.values())

    def domain_outputs(self, batch: Batch) -> dict[str, Tensor]:
        """Predictions of every domain in the batch."""
        return self.logits_of(self.embeddings_of(self.domain_features(batch)))

    def embeddings_of(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """Every domain's output of its head's bottleneck; without one what the head takes.

        With `bn=joint` a shared head's bottleneck takes all domains as one batch.
        """
        if self.bn == "joint" and len(features) > 1 and SHARED in self.heads and has_bottleneck(self.heads[SHARED]):
            embedded = bottleneck_of(self.heads[SHARED])(torch.cat([*features.values()]))
            return dict(zip(features, embedded.split([len(one) for one in features.values()]), strict=True))
        return {domain: bottleneck_of(self.head(domain))(values) for domain, values in features.items()}

    def logits_of(self, embedded: Mapping[str, Any]) -> dict[str, Tensor]:
        """Predictions of every domain from its embeddings."""
        return {domain: classifier_of(self.head(domain))(values) for domain, values in embedded.items()}

    def domain_losses(self, batch: Batch, logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean loss of every domain that has labels and a weight in the objective."""
        return {
            domain: self.domain_loss(domain, logits[domain], one.labels)
            for domain, one in batch.items()
            if one.labels is not None and domain in self.train_metrics
        }

    def domain_loss(self, domain: str, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of the samples of a domain that have labels, the first ones: logits `(B, K)`, labels `(N,)`."""
        task, weights = self.tasks[domain], self.weights_of_classes(domain, logits)
        return task.training_loss(logits[: len(labels)], labels, weights)

    def weights_of_classes(self, domain: str, logits: Tensor) -> Tensor | None:
        """Loss weights `(K,)` of a domain's classes, where `data.balance=weights` asks for them."""
        weights = self.class_weights.get(domain)
        return None if weights is None else weights.to(logits)

    # Training

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """The objective on a batch of the target, the source or both, and the terms; None where others train."""
        if self.turn == "of others":
            return None
        for transform in self.batch_transforms:
            batch = transform(batch, self.current_epoch)
        if any(term.updates() for term in self.terms.values()):
            self._accumulated.append(batch)
        features = self.domain_features(batch) if self.needs_outputs else {}
        embedded = self.embeddings_of(features)
        logits = self.logits_of(embedded)
        losses = self.domain_losses(batch, logits)
        terms = self.term_losses(batch, features, logits, embedded)
        weighted = sum((self.terms[name].weight * value for name, value in terms.items()), start=0.0)
        share = math.prod(term.objective_weight for term in self.terms.values())
        loss = share * self.objective(losses, self.progress) + weighted
        self.step_losses = {name: value.detach() for name, value in losses.items()}
        self.step_losses |= {f"term {name}": value.detach() for name, value in terms.items()}
        if not self.leave_out_nonfinite or bool(loss.isfinite()):
            for domain, value in losses.items():
                labels = batch[domain].labels
                assert labels is not None  # it has a loss
                self.train_metrics[domain].add(value, logits[domain][: len(labels)], labels)
            for name, value in terms.items():
                self.term_values[name].update(value.detach(), 1)
        return loss

    def term_losses(
        self,
        batch: Batch,
        features: Mapping[str, Tensor | Tokens],
        logits: Mapping[str, Tensor],
        embedded: Mapping[str, Any],
    ) -> dict[str, Tensor]:
        """The value of every term that has one in this step, without its weight."""
        if not self.terms:
            return {}
        step = TrainStep(batch, features, logits, self.progress, embedded)
        values = {name: term(step) for name, term in self.terms.items()}
        return {name: value for name, value in values.items() if value is not None}

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """The objective's step, then the terms' own on its batches, then what terms and compression do after a step."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        for term in self.terms.values():
            for update in term.updates():
                if parameters := self.parameters_of(update):
                    losses = [functools.partial(self.update_loss, update, batch) for batch in self._accumulated]
                    for _ in range(update.repeat):
                        further_step(self.trainer, self._optimizer, parameters, losses)
        self._accumulated = []
        done = self.global_step + 1  # Lightning counts it when this method is done
        self.clip_weights()
        for term in self.terms.values():
            term.after_step(done)
        self.compression.after_step(done, min(1.0, done / max(1, self._total_steps)))

    def clip_weights(self) -> None:
        """Keep the matrices and kernels that learn in [-c, c], where `training.weight_clip` says what c is."""
        if self.weight_clip is not None and self._clipped:
            torch._foreach_clamp_min_(self._clipped, -self.weight_clip)
            torch._foreach_clamp_max_(self._clipped, self.weight_clip)

    def backward(self, loss: Tensor, *args: Any, inputs: Sequence[nn.Parameter] | None = None, **kwargs: Any) -> None:
        """Add gradients to everything, or to the `inputs` of a term's update alone."""
        if inputs is None:
            super().backward(loss, *args, **kwargs)
            return
        # Not loss.backward(inputs=...): its hooks let DistributedDataParallel expect these parameters in the next step.
        for parameter, gradient in zip(inputs, torch.autograd.grad(loss, inputs, allow_unused=True), strict=True):
            if gradient is not None:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)  # with its strides, which fused steps rely on
                parameter.grad += gradient

    def update_loss(self, update: Update, batch: Batch) -> Tensor:
        """Loss of a term's update on a batch, with the weights as they are now."""
        with torch.set_grad_enabled(update.moves_backbone):
            features = self.domain_features(batch)
        embedded = self.embeddings_of(features)
        return update.loss(TrainStep(batch, features, self.logits_of(embedded), self.progress, embedded))

    def parameters_of(self, update: Update) -> list[nn.Parameter]:
        """Parameters of an update's parts that train in this phase."""
        return [parameter for part, members in self._learning.items() if update.takes(part) for parameter in members]

    def check_updates(self) -> None:
        """GraftError for updates of parts that are not there, or that the trainer's strategy cannot take."""
        known = list(parts(self.backbone, self.heads, self.terms))
        for name, term in self.terms.items():
            for update in term.updates():
                check_strategy(self.trainer, name)
                update.check(name, known)

    @property
    def progress(self) -> float:
        """Fraction of the optimizer steps that are done, or what is fixed for a trial (see graft.training.tuning)."""
        if self.fixed_progress is not None:
            return self.fixed_progress
        return min(1.0, self.schedule_step / max(1, self._total_steps))

    @property
    def schedule_step(self) -> int:
        """The coming step of the schedule: as many as are done, or what a federation says."""
        return self.global_step if self.pace is None else self.pace.step

    def configure_model(self) -> None:
        """Let a strategy of the Trainer that shards weights do so (graft.training.sharding)."""
        if shard := getattr(self.trainer.strategy, "shard", None):
            shard(self)

    def configure_optimizers(self) -> Any:
        """One optimizer over every part that trains in some phase; phases and schedules set rates step by step."""
        self._phases = self.phases(epochs_of(self.trainer))
        settings, groups = self.optimizer_config, self.optimizer_groups(self._phases)
        self._settings = [(group["base_lr"], group["weight_decay"]) for group in groups]
        # Lightning refuses to clip before a fused step of mixed precision: float16 gradients are still scaled then.
        clips = self.trainer.precision.endswith("-mixed") and self.trainer.gradient_clip_val
        fused = holds_all_weights(self.trainer) and not clips  # torch has not every fused step for shards
        optimizer = build_optimizer(settings["_target_"], groups, settings["lr"], settings["options"], fused)
        if isinstance(self.schedule, Plateau):
            mode: Literal["min", "max"] = "max" if self.rule.higher_is_better(self.tasks) else "min"
            scheduler, monitor = self.schedule.scheduler(optimizer, mode), self.rule.monitor(self.tasks)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": monitor}}
        return optimizer

    def optimizer_groups(self, phases: Sequence[Phase]) -> list[dict[str, Any]]:
        """What trains in some phase, in groups with their full rate and their weight decay."""
        trained = {part: members for part, members in self.trained_members(phases).items() if members}
        by_part, multipliers = self.with_multipliers(trained)
        settings = self.optimizer_config
        return parameter_groups(
            by_part, multipliers, settings["lr"], settings["weight_decay"], settings["decay_norms_and_biases"]
        )

    def with_multipliers(
        self, by_part: Mapping[str, list[tuple[str, nn.Parameter]]]
    ) -> tuple[Mapping[str, list[tuple[str, nn.Parameter]]], dict[str, float]]:
        """The parts, which rates by block divide, and the learning rate of those of the backbone over the head's."""
        if getattr(self.rates, "unit", "stage") == "block":
            pieces, depths = by_block(by_part, self.backbone.block_depths())
            return pieces, {piece: self.rates.of_block(depth) for piece, depth in depths.items()}
        rates = self.rates.multipliers([stage.name for stage in self.backbone.stages])
        rates |= dict.fromkeys(self.backbone.new_stages, 1.0)  # as new as the head
        return by_part, {f"backbone/{stage}": rate for stage, rate in rates.items()}

    def trained_heads(self) -> list[str]:
        """Heads that may move: the only one, or those of the objective's domains and those that a term teaches.

        Of them not those that the objective fixes.
        """
        if len(self.heads) == 1:
            return [*self.heads]
        taught = [domain for term in self.terms.values() if term.teaches_head for domain in term.taught_heads]
        domains = dict.fromkeys((*self.objective.domains(), *taught))
        return [name for name in domains if name not in self.objective.fixed_heads]

    @property
    def head_is_taught(self) -> bool:
        """Whether a term trains the target's head by itself."""
        return any(term.teaches_head for term in self.terms.values())

    def phases(self, epochs: int) -> list[Phase]:
        """The strategy's phases; GraftError where the schedule or the average's last epochs do not suit them."""
        phases = self.strategy.phases(epochs, self.backbone)
        if isinstance(self.schedule, Plateau) and (sum(p.restarts for p in phases) > 1 or phases[0].schedule):
            raise GraftError(
                "scheduler=plateau follows one run of the metric, but this strategy's phases have schedules of their "
                "own. Use scheduler=cosine or another strategy."
            )
        if self.window:
            self.window.check(phases)
        return phases

    def backbone_trains(self, epochs: int) -> bool:
        """Whether anything of the backbone trains or behaves as in training in some phase."""
        return any(phase.parameters or phase.stages for phase in self.phases(epochs))

    def schedule_table(self, phases: Sequence[Phase], total: int) -> list[Point] | None:
        """Rate and momentum for all `total` optimizer steps; a phase that restarts begins a schedule, others go on."""
        epochs = sum(phase.epochs for phase in phases)
        ends = [round(total * done / epochs) for done in itertools.accumulate(phase.epochs for phase in phases)]
        starts = [number for number, phase in enumerate(phases) if number == 0 or phase.restarts]
        table: list[Point] = []
        for start, next_start in zip(starts, [*starts[1:], len(phases)], strict=True):
            schedule = phases[start].schedule or self.schedule
            begin = len(table)
            points = schedule.table(max(1, ends[next_start - 1] - begin))
            if points is None:
                return None
            if self.window and self.window.factor is not None:
                window_begin = round(total * self.window.first_epoch / epochs)
                points = hold(points, window_begin - begin, self.window.factor)
            for phase, end in list(zip(phases, ends, strict=True))[start:next_start]:
                for point in points[len(table) - begin : end - begin]:
                    table.append(point._replace(factor=point.factor * phase.lr_factor))
        return table

    def phase(self, epoch: int) -> Phase:
        """The strategy's phase that an epoch belongs to."""
        ends = itertools.accumulate(phase.epochs for phase in self._phases)
        return next(p for p, end in zip(self._phases, ends, strict=True) if epoch < end)

    def earlier_phases(self, phase: Phase) -> list[Phase]:
        """The phases before one of them."""
        return self._phases[: next(i for i, p in enumerate(self._phases) if p is phase)]

    def later_phases(self, phase: Phase) -> list[Phase]:
        """The phases after one of them."""
        return self._phases[len(self.earlier_phases(phase)) + 1 :]

    def on_train_start(self) -> None:
        """Make the schedule, and freeze and unfreeze also for a run that resumes inside an epoch.

        The schedule needs the number of steps, and asking Lightning for it any earlier sets up the loaders before
        their position is restored, so that a resumed run would begin its epoch again.
        """
        self.check_updates()
        self._accumulated = []
        self._total_steps = self.pace.total if self.pace else self.trainer.estimated_stepping_batches
        self._table = self.schedule_table(self._phases, int(self._total_steps))
        for group, (rate, decay) in zip(self.trainer.optimizers[0].param_groups, self._settings, strict=True):
            group["base_lr"], group["weight_decay"] = rate, decay  # this run's, also where a checkpoint had others
        match_layout(self.trainer.optimizers[0])
        self.on_train_epoch_start()

    def on_train_epoch_start(self) -> None:
        """Compress further where it is time, and freeze and unfreeze where a phase begins or parameters are others."""
        phase = self.phase(min(self.current_epoch, epochs_of(self.trainer) - 1))
        if self.compression.begin_epoch(self.current_epoch):
            self.renew_groups(self.trainer.optimizers[0])
            self._applied = None
        if phase is not self._applied:
            self.apply_phase(phase)
        else:
            self.train(self.training)

    def renew_groups(self, optimizer: Optimizer) -> None:
        """Let the optimizer step on parameters that took the place of others, of which it has no momentum yet."""
        groups = self.optimizer_groups(self._phases)
        for group, new in zip(optimizer.param_groups, groups, strict=True):
            group["params"] = new["params"]
        present = {parameter for group in groups for parameter in group["params"]}
        for parameter in [one for one in optimizer.state if one not in present]:
            del optimizer.state[parameter]

    def apply_phase(self, phase: Phase) -> None:
        """Let the phase's parameters and the trained heads learn; everything else is frozen and in eval mode."""
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(name in phase.parameters)
        self._frozen = frozen_modules(self.backbone, phase)
        trained_heads = self.trained_heads() if phase.heads else []
        for name, head in self.heads.items():
            head.requires_grad_(name in trained_heads)
            if name not in trained_heads:
                self._frozen += head.modules()
            elif not phase.classifiers:
                self._frozen += classifier_of(head).requires_grad_(False).modules()
        by_part = parts(self.backbone, self.heads, self.terms)
        self._learning = {part: [p for _, p in named if p.requires_grad] for part, named in by_part.items()}
        self._clipped = [
            parameter.detach()
            for part, named in by_part.items()
            for name, parameter in named
            if parameter.requires_grad and not part.startswith("term/") and not is_norm_or_bias(name, parameter)
        ]
        self._applied = phase
        self.train(self.training)

    def train(self, mode: bool = True) -> "TransferModule":
        """Set training mode, except that frozen parts stay in eval: BatchNorm statistics and dropout too."""
        super().train(mode)
        for module in self._frozen:
            module.training = False  # not eval(): a BatchNorm that trains may be inside
        return self

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> int | None:
        """Seed the step and set its learning rate and momentum; -1 leaves the rest of the epoch out."""
        if self.turn == "none":
            return -1
        seed_generators(step_seed(self.seed, self.current_epoch, batch_idx, self.global_rank), self.device)
        if self._table is not None:
            self.set_rates(self._optimizer, self._table)
        return None

    @property
    def _optimizer(self) -> Optimizer:
        return cast(Optimizer, self.optimizers(use_pl_optimizer=False))  # there is one

    def set_rates(self, optimizer: Optimizer, table: Sequence[Point]) -> None:
        """Learning rate and, where the schedule cycles it, momentum of the coming step."""
        point = table[min(self.schedule_step, len(table) - 1)]
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * point.factor
            if point.momentum is not None and "momentum" in group:
                group["momentum"] = point.momentum
            if point.momentum is not None and "betas" in group:
                group["betas"] = (point.momentum, group["betas"][1])

    def on_train_epoch_end(self) -> None:
        """Log the epoch's training losses and scores, the objective's weights and the head's rate."""
        values = self.training_values(self.progress, self._optimizer.param_groups[-1]["lr"])
        self.log_dict(values, sync_dist=True)
        self.step_plateau()

    def training_values(self, progress: float, rate: float) -> dict[str, Tensor | float]:
        """What an epoch of training is logged as, by name; the next epoch begins with nothing collected."""
        values: dict[str, Tensor | float] = {}
        for domain, metrics in self.train_metrics.items() if self.turn == "its own" else ():
            values |= {f"train/{domain}/{name}": value for name, value in metrics.compute().items()}
            metrics.reset()
        for name, mean in self.term_values.items():
            if mean.update_called:
                values[f"train/term/{name}"] = mean.compute()
            mean.reset()
            for metric_name, metric in self.terms[name].metrics().items():
                if metric.update_called:
                    values[f"train/term/{name}_{metric_name}"] = metric.compute()
                metric.reset()
        weights = self.objective.weights(progress)
        return values | {
            "objective/source_weight": weights["source"],
            "objective/target_weight": weights["target"],
            "lr": rate,
        }

    def step_plateau(self) -> None:
        """Let scheduler=plateau see the epoch's metric before the epoch's checkpoint, which holds its state."""
        scheduler, monitor = self.lr_schedulers(), self.rule.monitor(self.tasks)
        if isinstance(scheduler, ReduceLROnPlateau) and monitor in self.trainer.callback_metrics:
            scheduler.step(self.trainer.callback_metrics[monitor])

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Nothing: Lightning would step a plateau after the epoch's checkpoint, so that a resumed run lacked it."""

    # Validation and test

    def on_validation_start(self) -> None:
        """Choose from which certainty on a sample is known, where some are not, of the weights that are validated."""
        self.compression.before_validation()
        self.choose_threshold()

    def choose_threshold(self) -> None:
        """Let the target's task see what the network makes of the source's validation samples, where it may reject."""
        task = self.tasks.get("target")  # pretraining has the source alone
        if task is not None and task.rejects:
            task.choose_threshold(task.predictions(Candidate(self, self.trainer).rows("source").logits.float()))

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Collect validation metrics; what alignment acts on `(B, E)` by domain, for callbacks."""
        return {domain: embedded for domain, (*_, embedded) in self._evaluate(batch, for_rule=True).items()}

    def on_test_start(self) -> None:
        """Begin with no predictions, and with a threshold of the weights that are tested."""
        self.test_predictions = {}
        self.choose_threshold()

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Collect test metrics and predictions."""
        for domain, (predictions, targets, scores, _) in self._evaluate(batch, for_rule=False).items():
            if (indices := batch[domain].indices) is not None:
                self.test_predictions.setdefault(domain, []).append((indices, predictions.float().cpu()))
            if self.test_metrics[domain]:
                self.test_metrics[domain].update(predictions, targets, scores=scores)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, tuple[Any, ...]]:
        """By domain, on the CPU, indices `(B,)`, predictions `(B, ...)`, logits `(B, K)` and features `(B, D)`.

        Logits are None of boxes and texts, of which a head says more than a tensor holds; features are None where the
        head takes tokens of a pass that has none. No metric is touched.
        """
        found: dict[str, tuple[Any, ...]] = {}
        for domain, one in batch.items():
            seen = self.features(one, domain)
            outputs = self.head(domain)(seen)
            predictions = self.tasks[domain].predictions(outputs)
            logits = outputs if isinstance(outputs, Tensor) else None
            features = seen if isinstance(seen, Tensor) else seen.features
            values = (None if value is None else value.float().cpu() for value in (predictions, logits, features))
            found[domain] = (one.indices, *values)
        return found

    def _evaluate(self, batch: Batch, *, for_rule: bool) -> dict[str, tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Count a batch's loss and metrics in; predictions, targets, scores and embeddings of every domain."""
        results = {}
        for domain, one in batch.items():
            assert one.labels is not None  # evaluation always has them
            task, features = self.tasks[domain], self.features(one, domain)
            embedded = bottleneck_of(self.head(domain))(features)
            logits = classifier_of(self.head(domain))(embedded)
            smoothed = task.loss(logits, one.labels) if task.smooths_labels else None
            self.add_losses(domain, *task.summed_loss(logits, one.labels), smoothed, len(one))
            results[domain] = (*self.add_predictions(domain, logits, one.labels), features_of(embedded))
            if for_rule:
                self.add_to_rule(domain, features, logits)
        return results

    def add_losses(
        self, domain: str, total: Tensor, counted: Tensor | int, smoothed: Tensor | None, samples: int
    ) -> None:
        """Count a batch's losses in: the plain one summed over the samples that have one, the smoothed one's mean."""
        self.eval_losses[domain].update(total, counted)
        if smoothed is not None:
            self.smoothed_losses[domain].update(smoothed * samples, samples)

    def add_predictions(self, domain: str, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Count samples into the metrics by their logits `(B, K)`; their predictions, targets and scores."""
        found = self.tasks[domain].compared(logits, labels)
        self.add_compared(domain, *found)
        return found

    def add_compared(self, domain: str, predictions: Tensor, targets: Tensor, scores: Tensor) -> None:
        """Count samples into the metrics."""
        self.eval_metrics[domain].update(predictions, targets, scores=scores)

    def add_to_rule(self, domain: str, features: Tensor | Tokens, logits: Tensor) -> None:
        """Let the selection rule's own metric see samples of its domains, where it has one."""
        if self.rule_metric is not None and domain in self.rule.domains:
            self.rule_metric.update(domain, features_of(features), logits)

    def on_validation_epoch_end(self) -> None:
        """Log `val/<domain>/<metric>`, and the selection rule's own metric."""
        self.log_dict(self.validation_values(), sync_dist=True)
        if self.rule.has_score:
            self.log(f"selection/{self.rule.name}", self.rule.score(Candidate(self, self.trainer)), sync_dist=True)
        if (known := self.rule.value_at(self.current_epoch)) is not None:
            self.log(f"selection/{self.rule.name}", known, sync_dist=True)

    def validation_values(self) -> dict[str, Tensor]:
        """What a validation is logged as, by name; the next one begins with nothing collected."""
        values = self._collected("val")
        if self.rule_metric is not None and self.rule_metric.update_called:
            values[f"selection/{self.rule.name}"] = self.rule_metric.compute()
            self.rule_metric.reset()
        return values

    def on_test_epoch_end(self) -> None:
        """Log `test/<domain>/<metric>` and keep the confusion matrices."""
        self.log_dict(self.test_values(), sync_dist=True)

    def test_values(self) -> dict[str, Tensor]:
        """What a test is logged as, by name; the next one begins with nothing collected."""
        return self._collected("test")

    def _collected(self, stage: str) -> dict[str, Tensor]:
        # compute() synchronises the processes, so sync_dist changes no value; Lightning only wants it declared.
        found: dict[str, Tensor] = {}
        for domain, loss in self.eval_losses.items():
            if not loss.update_called:
                continue
            values = {"loss": loss.compute(), **self.eval_metrics[domain].compute()}
            collections: list[Metric | MetricCollection] = [loss, self.eval_metrics[domain]]
            if (smoothed := self.smoothed_losses[domain]).update_called:
                values["loss_smoothed"] = smoothed.compute()
                collections.append(smoothed)
            if stage == "test" and self.test_metrics[domain]:
                values |= self.test_metrics[domain].compute()
                collections.append(self.test_metrics[domain])
            for metric in collections:
                metric.reset()
            confusion = values.pop("confusion", None)
            if confusion is not None:
                self.confusion[f"{stage}/{domain}"] = confusion.cpu()
            found |= {f"{stage}/{domain}/{name}": value for name, value in values.items()}
        return found

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep config and validation metrics in the checkpoint, as plain containers for weights_only loading."""
        checkpoint["config"] = self.config
        checkpoint[COMPRESSION] = self.compression.state()
        checkpoint["metrics"] = of_validation(self.trainer.callback_metrics)

    def trained_members(self, phases: Sequence[Phase]) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Every part with those of its named parameters that train in some phase."""
        names = frozenset().union(*(phase.parameters for phase in phases))
        heads = self.trained_heads() if any(phase.heads for phase in phases) else []
        classifiers = heads if any(phase.heads and phase.classifiers for phase in phases) else []
        members = {}
        for part, parameters in parts(self.backbone, self.heads, self.terms).items():
            kind, _, name = part.partition("/")
            if kind == "backbone":
                members[part] = [(key, p) for key, p in parameters if key in names]
            else:
                trains = kind == "term" or name in (classifiers if kind == "head" else heads)
                members[part] = parameters if trains else []
        return members

    def parameter_table(self, epochs: int) -> list[dict[str, Any]]:
        """Parameters, how many of them train, and learning rate of every part, for printing."""
        trained, _ = self.with_multipliers(self.trained_members(self.phases(epochs)))
        by_part, multipliers = self.with_multipliers(parts(self.backbone, self.heads, self.terms))
        rows = []
        for part, members in by_part.items():
            count = sum(p.numel() for _, p in trained.get(part, ()))
            rows.append(
                {
                    "name": part,
                    "parameters": sum(p.numel() for _, p in members),
                    "trainable": count,
                    "lr": self.optimizer_config["lr"] * multipliers.get(part, 1.0) if count else None,
                }
            )
        return rows

    def phase_table(self, epochs: int) -> list[dict[str, Any]]:
        """First and last epoch (from 0), stages, trainable parameters and rate factor of every phase, for printing."""
        rows, start = [], 0
        for phase in self.phases(epochs):
            trained = self.trained_members([phase])
            rows.append(
                {
                    "epochs": [start, start + phase.epochs - 1],
                    "stages": list(phase.stages),
                    "trainable": sum(p.numel() for members in trained.values() for _, p in members),
                    "lr_factor": phase.lr_factor,
                }
            )
            start += phase.epochs
        return rows
