"""What a term is: an addition to the objective that sees one training step."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from graft.backbones.base import Backbone
from graft.backbones.outputs import Tokens, features_of
from graft.cache.once import TrainingSamples
from graft.data.samples import DomainData
from graft.errors import GraftError
from graft.heads.base import bottleneck_of, has_bottleneck, seen_by, taken_by, takes_local
from graft.inputs.base import Batch, DomainBatch, Inputs, InputSpec, join
from graft.objectives.base import Objective
from graft.tasks.base import Task


@dataclass
class TrainStep:
    """One training step as terms see it; every mapping goes from a domain to what it holds, in the same order."""

    batch: Batch  # labels are soft ones (B, K) after mixup, and None where unlabelled
    seen: Mapping[str, Tensor | Tokens]  # by heads: features, or tokens where heads pool by themselves
    logits: Mapping[str, Tensor]  # (B, K)
    progress: float  # fraction of the optimizer steps that are done
    embedded: Mapping[str, Tensor | Tokens] = field(default_factory=dict)  # what classifiers take

    @cached_property
    def features(self) -> dict[str, Tensor]:
        """The backbone's features `(B, D)`, also where heads pool by themselves."""
        return {domain: features_of(seen) for domain, seen in self.seen.items()}

    @cached_property
    def embeddings(self) -> dict[str, Tensor]:
        """What alignment acts on: the output `(B, E)` of the head's bottleneck, without one the features `(B, D)`."""
        return {domain: features_of(embedded) for domain, embedded in (self.embedded or self.seen).items()}

    def taken_by(self, head: nn.Module, domain: str) -> Tensor | Tokens:
        """What a head of the term's own takes."""
        return taken_by(head, self.seen[domain])

    def all_taken_by(self, head: nn.Module) -> Tensor | Tokens:
        """The same of every domain as one batch, in the order of `all_features`."""
        if not takes_local(head):
            return self.all_features
        return Tokens.join([seen for seen in self.seen.values() if isinstance(seen, Tokens)])

    @cached_property
    def all_inputs(self) -> Inputs:
        """Inputs of every domain as one batch, in the order of `all_features`."""
        return join(list(self.inputs.values()))

    @property
    def inputs(self) -> dict[str, Inputs]:
        """Inputs `(B, ...)`."""
        return {domain: one.inputs for domain, one in self.batch.items()}

    @property
    def labels(self) -> dict[str, Tensor | None]:
        """Labels `(B,)`, or soft ones `(B, K)` after mixup; None where unlabelled."""
        return {domain: one.labels for domain, one in self.batch.items()}

    @cached_property
    def all_features(self) -> Tensor:
        """Features of every domain as one batch `(B, D)`."""
        return torch.cat(list(self.features.values()))


@dataclass(frozen=True)
class Update:
    """A further optimizer step on the same batch, after the objective's own: `loss` moves `parts` and nothing else.

    `loss` takes the step as the weights are then: features and logits are computed again for each of `repeat` steps,
    without gradient for the backbone where no part is of it. `parts` are those of `graft.training.optim.parts`, such as
    `head/shared`, or what begins their names: `backbone`, `head`, `term`. One whose parts are all frozen is left out.
    """

    loss: Callable[[TrainStep], Tensor]
    parts: tuple[str, ...]
    repeat: int = 1

    def takes(self, part: str) -> bool:
        """Whether it moves a part."""
        return any(part == own or part.startswith(f"{own}/") for own in self.parts)

    @property
    def moves_backbone(self) -> bool:
        """Whether a part is of the backbone."""
        return any(part.partition("/")[0] == "backbone" for part in self.parts)

    def check(self, term: str, known: Sequence[str]) -> None:
        """GraftError where one of its parts is none of the `known`."""
        for own in self.parts:
            if not any(part == own or part.startswith(f"{own}/") for part in known):
                raise GraftError(f"term.{term}: an update moves part {own!r}, but the parts are {', '.join(known)}.")


class Teacher:
    """A frozen copy of the pretrained backbone in eval mode; no part of any state dict.

    Terms that share it share its forward pass: what it made of the batch it saw last is kept.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = copy.deepcopy(backbone).requires_grad_(False).eval()
        self._last: tuple[Inputs, Tensor | Tokens] | None = None

    @torch.no_grad()
    def seen(self, inputs: Inputs) -> Tensor | Tokens:
        """Pretrained features `(B, D)`, with tokens where the pretrained head pools by itself."""
        if self._last is None or self._last[0] is not inputs:
            self.backbone.to(inputs.device)
            head = self.backbone.pretrained_head
            self._last = (inputs, self.backbone(inputs) if head is None else seen_by(head, self.backbone, inputs))
        return self._last[1]

    def features(self, inputs: Inputs) -> Tensor:
        """Pretrained features `(B, D)`."""
        return features_of(self.seen(inputs))

    @torch.no_grad()
    def logits(self, inputs: Inputs) -> Tensor:
        """The pretrained head's logits `(B, K_source)`; only where it has one."""
        assert self.backbone.pretrained_head is not None
        return self.backbone.pretrained_head(self.seen(inputs))


@dataclass
class TermContext:
    """What a term can ask for before training; nothing here is in a checkpoint."""

    backbone: Backbone  # the one that trains, with its pretrained weights
    heads: Mapping[str, nn.Module]
    target_head: nn.Module
    pretrained_head: nn.Module | None  # of the pretrained net (features to its classes), None where it has none
    pretrained: bool  # False: the backbone starts from random weights, so there is nothing to stay near to
    num_classes: int | None  # of the target; None where it has none
    samples: Callable[[], Iterable[DomainBatch]]  # target training batches without augmentation
    # Validation samples of what `pretrained_head` predicts; None where the pretraining's data are not here
    source_samples: Callable[[], Iterable[DomainBatch]] | None
    # Number `(N,)` of the source that each of the source's training samples is of; None where there is one source
    sources: Tensor | None = None
    # The source's mean loss of logits (B, K) and labels (B,), as the objective has it; None without source data
    source_loss: Callable[[Tensor, Tensor], Tensor] | None = None
    added_parameters: frozenset[str] = frozenset()  # names in the backbone of what the strategy added: not pretrained
    task: Task | None = None  # of the target
    classes: tuple[str, ...] | None = None  # of the target; None where it has none
    reading: Mapping[str, Any] = field(default_factory=dict)  # of the target, see DomainData
    domains: Mapping[str, DomainData] = field(default_factory=dict)  # what was read of each side that has data
    key: str = "term"  # where the config holds the terms, for messages: `pretrain.term` in pretraining
    fixed_samples: TrainingSamples | None = None  # of the target; None where augmentation or mixing changes them
    # How many outputs of the target's head, the first ones, are those of `pretrained_head` (head.grow); None: none
    old_outputs: int | None = None

    @cached_property
    def teacher(self) -> Teacher:
        """The frozen pretrained backbone, one for all terms."""
        return Teacher(self.backbone)

    @cached_property
    def embedding_size(self) -> int:
        """E of `TrainStep.embeddings`."""
        if not has_bottleneck(self.target_head):
            return self.backbone.feature_size
        bottleneck = copy.deepcopy(bottleneck_of(self.target_head)).eval()
        features = next(bottleneck.parameters()).new_zeros(1, self.backbone.feature_size)
        with torch.no_grad():
            return bottleneck(features).shape[1]


class Term(nn.Module):
    """An addition to the objective: `weight * term(step)`.

    Its own parameters train with the heads' rate; buffers are in checkpoints, so that a resumed run has them.
    """

    weight: float
    needs_pretrained = False  # refused where the backbone starts from random weights
    needs_labels = False  # refused where the target is unlabelled
    needs_source_labels = False  # refused where the source has none
    instead_of_labels = ""  # its key that, where it is set, names what stands for the labels that it needs
    needs_hard_labels = False  # refused with MixUp and CutMix, whose samples have several classes
    needs_multiclass = False  # refused with other tasks
    needs_linear_head = False
    federates = False  # True: keeps nothing from one step to the next, so that steps may be of several clients
    needs_names = False  # refused where the head's rows are not the classes' names
    needs_several_sources = False  # refused where the source is one domain
    needs_domain_statistics = False  # refused without bn=domain_specific
    replaces_batchnorm = False  # by layers that cannot be synchronised over processes
    aligns = False  # True: moves embeddings and nothing else, so that it is refused where none can move
    needs_inputs = True  # False: looks at features, outputs and weights alone, so that inputs need not be there
    needs_outputs = True  # False: runs the network itself, so that features and outputs need not be there
    needs_forwards = False  # refused with backbones other than recurrent ones that read forwards alone
    modalities: tuple[str, ...] = ()  # of the data that it is for; empty: all
    domains: tuple[str, ...] = ()  # that it needs in every batch, also where the objective gives them no weight
    views: tuple[str, ...] = ()  # of its domains' samples, in `step.batch[domain].views` (see graft.data.views)
    teacher_spec: InputSpec | None = None  # the form of the `teacher` view, where it asks for that
    objective_weight = 1.0  # what the objective's own loss is multiplied by beside the term
    text: str | None = None  # column of its domain's samples whose texts it learns from
    teaches_head = False  # trains the target's head by itself, so that no labels have to
    taught_heads: tuple[str, ...] = ("target",)  # whose heads, where it does

    def choose_inputs(self, backbone: Backbone, fixed: bool) -> None:
        """Decide on `views` and `needs_inputs` by what the backbone takes; `fixed`: a sample's inputs never change."""

    def check(self, context: TermContext) -> None:
        """Raise GraftError for what the term cannot work with: before pretraining, whose weights are not there yet."""

    def prepare(self, context: TermContext) -> None:
        """Look at the pretrained network and the data once, before training and before a resumed state is loaded."""

    def forward(self, step: TrainStep) -> Tensor | None:
        """The value, a scalar; None for a term that acts by what it changed in `prepare`."""
        raise NotImplementedError

    def updates(self) -> Sequence[Update]:
        """Further optimizer steps on the batch, in their order; asked for at every step."""
        return ()

    def metrics(self) -> Mapping[str, Metric]:
        """What is logged each epoch beside the value, by name: `train/term/<term>_<name>`."""
        return {}

    def after_step(self, step: int) -> None:
        """Called after each optimizer step, and what updates follow it; `step` is its number, from 1."""


def trained_domains(objective: Objective, terms: Mapping[str, Term]) -> tuple[str, ...]:
    """Domains that are drawn from: those that the objective gives weight, and those that terms need."""
    needed = {*objective.domains(), *(domain for term in terms.values() for domain in term.domains)}
    return tuple(domain for domain in ("source", "target") if domain in needed)
