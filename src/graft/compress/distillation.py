"""What distillation adds to the objective: the student's outputs, features and attention shall be the teacher's."""

from collections.abc import Callable, Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from graft.backbones.base import Backbone
from graft.cache.once import TrainingSamples
from graft.compress.attention import attention_distance, energy, paired
from graft.compress.soft_targets import LOSSES, in_words_of
from graft.compress.teacher import RunTeacher, Taught
from graft.data.views import TEACHER
from graft.errors import GraftError, listed
from graft.inputs.base import DomainBatch, Fields, Inputs
from graft.inputs.columns import Columns
from graft.tasks.metrics import Mean
from graft.terms.base import Term, TermContext, TrainStep
from graft.terms.regularization.feature_distillation import feature_distance
from graft.terms.regularization.maps import MapRecorder

MASK = "attention_mask"  # of texts, 1 where a token counts
STANDARDISED = 1e-4  # relative difference from which on a column's mean or deviation is another one


class Distillation(Term):
    """`weights` of what is matched, `logits`, `features` or `attention`, times their distances on target samples.

    With logits the objective keeps `1 - weights["logits"]` of itself. A linear map from the student's features to the
    teacher's is learned where their sizes differ. Where a sample's inputs never change the teacher sees each once.
    """

    domains = ("target",)
    weight = 1.0  # of the term; its parts have their own
    loss: Callable[[Tensor, Tensor, float], Tensor]  # of logits, the teacher's in the student's words, and temperature
    translate: Callable[[Tensor], Tensor]  # the teacher's logits into these

    def __init__(self, teacher: RunTeacher, temperature: float, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.teacher = teacher
        self.temperature = temperature
        self.weights = dict(weights)
        self.objective_weight = 1 - self.weights.get("logits", 0.0)
        self.teaches_head = "logits" in self.weights
        # A ModuleDict does not tell the type of what it holds.
        self.means = cast(Mapping[str, Mean], nn.ModuleDict({name: Mean() for name in self.weights}))
        self.regressor: nn.Module = nn.Identity()
        self.pairs: list[tuple[str, str]] = []  # stages of student and teacher
        self.kept: Taught | None = None  # of all training samples, on the CPU

    def choose_inputs(self, backbone: Backbone, fixed: bool) -> None:
        """A view of its own for a teacher that takes other inputs, and no inputs at all where it has seen them.

        Raises GraftError for a teacher of another modality, and for maps or tokens that cannot be compared.
        """
        self.check_modality(backbone)
        if "attention" in self.weights:
            self.pairs = pairs_of(backbone, self.teacher.backbone)
        spec = self.teacher.backbone.input_spec
        once = fixed and "attention" not in self.weights
        self.needs_inputs = not once
        if not once and repr(spec) != repr(backbone.input_spec):
            self.views, self.teacher_spec = (TEACHER,), spec

    def check_modality(self, backbone: Backbone) -> None:
        """GraftError for a teacher of other inputs."""
        name, theirs = self.teacher.model.description.name, self.teacher.backbone
        if theirs.modality != backbone.modality:
            raise GraftError(
                f"compress.teacher={self.teacher.place}: {name} takes {theirs.modality} inputs, and the student "
                f"{backbone.modality}. Give a run on {backbone.modality} data."
            )

    def check(self, context: TermContext) -> None:
        """GraftError for a teacher that predicts something else, or reads its inputs in other units."""
        self.check_task(context)
        check_units(self.teacher, context)

    def check_task(self, context: TermContext) -> None:
        """GraftError for a teacher of another task, or without one of the student's classes."""
        place, own, theirs = self.teacher.place, context.task, self.teacher.model.task
        assert own is not None
        if own.name != theirs.name or own.name not in LOSSES:
            raise GraftError(
                f"compress.teacher={place}: it was trained with task={theirs.name}, and this run has task={own.name}. "
                f"Both have to be the same, one of {', '.join(LOSSES)}."
            )
        known, wanted = self.teacher.model.classes or (), context.classes or ()
        if missing := [name for name in wanted if name not in known]:
            raise GraftError(
                f"compress.teacher={place}: it does not know {listed(missing)}. Its classes are {listed(known)}; they "
                "must contain those of the target, in any order."
            )

    def prepare(self, context: TermContext) -> None:
        """Learn to see the student's maps, and let the teacher look at samples that never change."""
        assert context.task is not None
        model = self.teacher.model
        self.loss = LOSSES[context.task.name]
        self.translate = in_words_of(context.task, context.classes, model.task, model.classes)
        sizes = context.backbone.feature_size, self.teacher.backbone.feature_size
        if "features" in self.weights and sizes[0] != sizes[1]:
            with torch.random.fork_rng(devices=()):
                self.regressor = nn.Linear(*sizes).to(next(context.backbone.parameters()))
        if self.pairs:
            modules = [context.backbone.output_module(stage) for stage, _ in self.pairs]
            self._maps = MapRecorder(context.backbone, modules, training_only=True, key="compress.match")
        if not self.needs_inputs and context.fixed_samples is not None:
            self.kept = seen_once(self.teacher, context.fixed_samples, "features" in self.weights)

    def forward(self, step: TrainStep) -> Tensor:
        """The weighted sum of the distances on the step's target samples."""
        one, logits = step.batch["target"], step.logits["target"]
        taught = self.taught(one, logits)
        found: dict[str, Tensor] = {}
        if "logits" in self.weights:
            found["logits"] = self.loss(logits, self.translate(taught.logits).to(logits.dtype), self.temperature)
        if "features" in self.weights:
            own = self.regressor(step.features["target"])
            found["features"] = feature_distance(own, taught.features.to(own.dtype), normalize=True)
        if "attention" in self.weights:
            found["attention"] = self.attention(step, taught)
        for name, value in found.items():
            self.means[name].update(value.detach(), 1)
        return torch.stack([self.weights[name] * value for name, value in found.items()]).sum()

    def taught(self, batch: DomainBatch, logits: Tensor) -> Taught:
        """What the teacher says of a batch, now or before training."""
        if self.kept is None:
            return self.teacher(batch.views.get(TEACHER, batch.inputs), [stage for _, stage in self.pairs])
        assert batch.indices is not None
        rows = batch.indices.cpu()
        return Taught(self.kept.logits[rows].to(logits.device), self.kept.features[rows].to(logits.device), {})

    def attention(self, step: TrainStep, taught: Taught) -> Tensor:
        """Mean over pairs of stages of the distance between the places where both are active."""
        sizes = {domain: len(batch) for domain, batch in step.batch.items()}
        maps = self._maps.read(sum(sizes.values()))
        place = [*sizes].index("target")
        mask, modality = mask_of(step.batch["target"].inputs), self.teacher.backbone.modality
        distances = []
        for one, (_, stage) in zip(maps, self.pairs, strict=True):
            student, teacher = (energy(each, modality) for each in (one, taught.maps[stage].to(one)))
            student = student.split([*sizes.values()])[place]
            if student.ndim == 2:  # beside a source of longer texts there is padding behind all of the target's
                student = student[:, : teacher.shape[1]]
            distances.append(attention_distance(student, teacher, mask))
        return torch.stack(distances).mean()

    def metrics(self) -> Mapping[str, Metric]:
        """Each distance without its weight."""
        return dict(self.means.items())


def mask_of(inputs: Inputs) -> Tensor | None:
    """Which tokens `(B, L)` of texts count; None for inputs of one length."""
    return inputs[MASK] if isinstance(inputs, Fields) and MASK in inputs.tensors else None


def pairs_of(student: Backbone, teacher: Backbone) -> list[tuple[str, str]]:
    """Stages of both whose attention is compared, from input to output; GraftError where none can be."""
    advice = "Leave attention out of compress.match, such as compress.match=[logits,features]."
    found = [stages_with_maps(one) for one in (student, teacher)]
    kinds = [{maps.ndim for maps in own.values()} for own in found]
    if kinds[0] != kinds[1] or len(kinds[0]) != 1:
        raise GraftError(
            f"compress.match=[attention] compares maps with maps and tokens with tokens, but {student.name} and "
            f"{teacher.name} do not both put out the one or the other. {advice}"
        )
    tokens = kinds[0] == {3}
    shapes = {maps.shape[1] for own in found for maps in own.values()}
    if tokens and (len(shapes) > 1 or repr(student.input_spec) != repr(teacher.input_spec)):
        raise GraftError(
            f"compress.match=[attention] compares tokens one by one, and {student.name} and {teacher.name} have "
            f"others: both need the same tokenizer, length and size of inputs. {advice}"
        )
    return paired([*found[0]], [*found[1]])


def stages_with_maps(backbone: Backbone) -> dict[str, Tensor]:
    """What stages put out that has places, for one example; GraftError for a backbone without."""
    training = backbone.training
    with torch.no_grad():
        outputs = backbone.eval().local(backbone.example_inputs(1))
    backbone.train(training)
    return {stage: maps for stage, maps in outputs.items() if maps.ndim in (3, 4)}


def check_units(teacher: RunTeacher, context: TermContext) -> None:
    """GraftError for a teacher of numbers that were standardised by other samples, as its inputs would be other ones.

    Tables and sequences are: their readers standardise them for all networks of a run alike.
    """
    own, theirs = context.backbone.input_spec, teacher.backbone.input_spec
    advice = "Train the teacher on the same data and splits (data.split_seed)."
    what = f"compress.teacher={teacher.place}"
    if teacher.backbone.modality == "sequence":
        for name in ("mean", "scale"):
            if not same(context.reading.get(name, ()), teacher.model.description.reading.get(name, ())):
                raise GraftError(f"{what}: it takes sequences in other units, fitted on other samples. {advice}")
    if teacher.backbone.modality == "table":
        columns: Columns = own.columns  # type: ignore[attr-defined]  # a TableSpec, as the modality says
        known = {column.key: column for column in columns.all}
        for column in theirs.columns.all:  # type: ignore[attr-defined]
            if column.key not in known:
                raise GraftError(f"{what}: it takes a column `{column.name}` that the target lacks. {advice}")
            mine = known[column.key]
            if not same((mine.mean, mine.std), (column.mean, column.std)):
                raise GraftError(f"{what}: it takes `{column.name}` in other units, fitted on other rows. {advice}")


def same(own: Iterable[float], theirs: Iterable[float]) -> bool:
    """Whether numbers agree, but for rounding."""
    own, theirs = [*own], [*theirs]
    return len(own) == len(theirs) and all(
        abs(one - other) <= STANDARDISED * max(abs(one), abs(other), 1e-12)
        for one, other in zip(own, theirs, strict=True)
    )


def seen_once(teacher: RunTeacher, samples: TrainingSamples, with_features: bool) -> Taught:
    """What the teacher says of all training samples, in the order of their indices, on the CPU."""

    def network(inputs: Inputs) -> dict[str, Tensor]:
        taught = teacher(inputs)
        features = taught.features if with_features else taught.features[:, :0]
        return {"logits": taught.logits, "features": features}

    sizes = [teacher.model.description.head["num_outputs"], with_features * teacher.backbone.feature_size]
    parts = {
        "teacher": teacher.fingerprint,
        "network": repr(teacher.backbone),
        "features": with_features,
        "code": [teacher, teacher.backbone, teacher.model.head],
    }
    found = samples.seen_by(network, teacher.backbone.input_spec, sum(sizes), parts)
    return Taught(found["logits"], found["features"], {})
