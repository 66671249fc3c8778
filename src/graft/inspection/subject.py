"""One sample as attribution sees it: what can be interpolated to a baseline, in units that are removed as one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from graft.backbones.base import Backbone
from graft.backbones.split_backbone import replaced_forward
from graft.backbones.tabular import ColumnSum, ColumnTokens
from graft.heads.base import seen_by
from graft.inputs.base import Fields, Inputs
from graft.inputs.columns import MISSING
from graft.inputs.fusion import PRESENT, inputs_of, named
from graft.tasks.base import Task

if TYPE_CHECKING:  # a model explains by means of this
    from graft.model.model import Model

CELLS = 14  # of an image or a spectrogram, a side
SEGMENTS = 50  # of a waveform


@dataclass(frozen=True)
class Place:
    """Where in a network a subject's inputs go: to all of it, or to a `part` of a fusion, whose other inputs stay.

    These are its `rest`, `(1, ...)` by name.
    """

    part: str = ""
    rest: Mapping[str, Tensor] = field(default_factory=dict)

    def backbone(self, whole: Backbone) -> Backbone:
        """What takes the inputs."""
        return whole.parts[self.part] if self.part else whole

    def inputs(self, own: Inputs) -> Inputs:
        """Those of the whole network `(B, ...)`."""
        if not self.part:
            return own
        return Fields(expanded(self.rest, len(own)) | named(self.part, own))


def expanded(tensors: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
    """One sample's tensors `(1, ...)` so many times."""
    return {name: one.expand(number, *one.shape[1:]) for name, one in tensors.items()}


@dataclass(frozen=True)
class Subject:
    """`values` `(1, ...)` are the input, or vectors of its tokens or columns; `logits` are a network's of `(B, ...)`.

    `units` `(...)` numbers the unit of each value; `baseline` `(1, ...)` is what stands for an absent one.
    """

    values: Tensor
    baseline: Tensor
    units: Tensor
    count: int
    logits: Callable[[Backbone, nn.Module, Tensor], Tensor]
    names: tuple[str, ...] = ()  # of the units, where they have some
    place: Place = Place()

    def by_unit(self, attribution: Tensor) -> Tensor:
        """Sums `(count,)` of an attribution `(1, ...)` over the values of each unit, in float64."""
        values = attribution.detach().double().flatten()
        return torch.zeros(self.count, dtype=torch.float64).index_add(0, self.units.flatten(), values)

    def without(self, removed: Tensor) -> Tensor:
        """The values `(M, ...)` with the baseline where units are removed, booleans `(M, count)`."""
        return torch.where(removed[:, self.units], self.baseline, self.values)


def subjects_of(model: "Model", inputs: Any) -> dict[str, Subject]:
    """A sample's inputs `(1, ...)`, as the network takes them, as subjects: by part, those that a fusion's sample has.

    Of a network of one modality there is one, under an empty name.
    """
    if not model.backbone.parts:
        return {"": subject_of(model.backbone, inputs, Place())}
    found, there = {}, inputs[PRESENT][0].tolist()
    for (name, part), is_there in zip(model.backbone.parts.items(), there, strict=True):
        if is_there:
            own = inputs_of(name, inputs)
            mine = named(name, own)
            rest = {key: one for key, one in inputs.tensors.items() if key not in mine}
            found[name] = subject_of(part, own, Place(name, rest))
    return found


def subject_of(backbone: Backbone, inputs: Any, place: Place) -> Subject:
    """A sample's inputs `(1, ...)` as a subject; the backbone is what takes them, at its place in the network."""
    if not isinstance(inputs, Fields):
        return of_tensor(inputs, lambda x: x, place)
    if "input_ids" in inputs.tensors:
        return of_tokens(backbone, inputs, place)
    if "codes" in inputs.tensors:
        return of_columns(backbone, inputs, place)
    if "lengths" in inputs.tensors:  # of a waveform, or of the sound behind a spectrogram
        (name,) = inputs.tensors.keys() - {"lengths"}
        lengths = inputs["lengths"]
        return of_tensor(inputs[name], lambda x: Fields({name: x, "lengths": lengths.expand(len(x))}), place)
    values, mask = inputs["values"], inputs["mask"]
    steps = int(mask.sum())
    subject = of_tensor(
        values[:, :steps], lambda x: Fields({"values": x, "mask": mask[:, :steps].expand(len(x), -1)}), place
    )
    units = torch.arange(steps)[:, None].expand(subject.units.shape)
    return replace(subject, units=units, count=steps)


def of_tensor(values: Tensor, fields_of: Callable[[Tensor], Inputs], place: Place) -> Subject:
    """Images, spectrograms and waveforms: cells or segments, against zero, the mean of what the network expects."""

    def logits(backbone: Backbone, head: nn.Module, x: Tensor) -> Tensor:
        return head(seen_by(head, backbone, place.inputs(fields_of(x))))

    if values.ndim == 2:
        parts = min(SEGMENTS, values.shape[1])
        units, count = torch.arange(values.shape[1]) * parts // values.shape[1], parts
    else:
        height, width = values.shape[-2:]
        down, across = (torch.arange(side) * min(CELLS, side) // side for side in (height, width))
        count = min(CELLS, height) * min(CELLS, width)
        units = (down[:, None] * min(CELLS, width) + across).expand(values.shape[1:])
    return Subject(values, torch.zeros_like(values), units, count, logits, place=place)


def of_tokens(backbone: Backbone, inputs: Fields, place: Place) -> Subject:
    """A text's tokens, by their vectors, against the vector of padding."""
    length = int(inputs["attention_mask"].sum())
    ids, mask = inputs["input_ids"][:, :length], inputs["attention_mask"][:, :length]
    tokenizer: Any = backbone.input_spec.tokenizer  # type: ignore[attr-defined]  # a text backbone's
    embedding = embedding_of(backbone)
    vectors, padding = embedding(ids).detach(), embedding(torch.full_like(ids, tokenizer.padding)).detach()

    def logits(backbone: Backbone, head: nn.Module, x: Tensor) -> Tensor:
        fields = Fields({"input_ids": ids.expand(len(x), -1), "attention_mask": mask.expand(len(x), -1)})
        with replaced_forward(embedding_of(place.backbone(backbone)), lambda *_: x):
            return head(seen_by(head, backbone, place.inputs(fields)))

    units = torch.arange(length)[:, None].expand(vectors.shape[1:])
    names = tuple(words_of(tokenizer, ids[0].tolist()))
    return Subject(vectors, padding, units, length, logits, names, place)


def embedding_of(backbone: Backbone) -> nn.Module:
    """The module that gives tokens their vectors."""
    network: Any = backbone.network
    if hasattr(network, "get_input_embeddings"):
        return network.get_input_embeddings()
    return next(module for module in network.modules() if isinstance(module, nn.Embedding))


def words_of(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Tokens as text."""
    if hasattr(tokenizer, "tokenizer"):
        return tokenizer.tokenizer.convert_ids_to_tokens([*ids])
    first = tokenizer.size - len(tokenizer.words)
    return [tokenizer.words[one - first] if one >= first else "⟨unknown⟩" for one in ids]


def of_columns(backbone: Backbone, inputs: Fields, place: Place) -> Subject:
    """A table's columns, by the vectors that they become, against the mean of numbers and missing categories."""
    zero = torch.zeros_like(inputs["numbers"])
    absent = Fields({"numbers": zero, "missing": zero, "codes": torch.full_like(inputs["codes"], MISSING)})
    module = column_tokens(backbone)
    vectors, baseline = (ColumnTokens.forward(module, one).detach() for one in (inputs, absent))

    def logits(backbone: Backbone, head: nn.Module, x: Tensor) -> Tensor:
        own = column_tokens(place.backbone(backbone))
        summed = x.sum(1) + own.bias if isinstance(own, ColumnSum) else x
        with replaced_forward(own, lambda _: summed):
            return head(seen_by(head, backbone, place.inputs(Fields(expanded(inputs.tensors, len(x))))))

    columns = backbone.input_spec.columns  # type: ignore[attr-defined]  # a table backbone's
    names = tuple(column.name for column in (*columns.numeric, *columns.categorical))
    units = torch.arange(len(names))[:, None].expand(vectors.shape[1:])
    return Subject(vectors, baseline, units, len(names), logits, names, place)


def column_tokens(backbone: Backbone) -> ColumnTokens:
    """The module that makes vectors of columns."""
    return next(module for module in backbone.modules() if isinstance(module, ColumnTokens))


@dataclass(frozen=True)
class Question:
    """What is asked of a network on a sample: why the output at `place`, with the sign of a single output's class."""

    task: Task
    place: int
    sign: float
    value: float  # of a number's prediction, standardised
    distance: float  # from that to the baseline's

    @classmethod
    def of(cls, task: Task, logits: Tensor, baseline: Tensor) -> "Question":
        """Why the network decides as it does, by its logits `(1, K)` of the sample and of the baseline."""
        place, sign = int(logits[0].argmax()), 1.0
        if logits.shape[1] == 1 and task.label_kind == "classes":
            sign = 1.0 if float(logits[0, 0]) > 0 else -1.0
        value = float(logits[0, place])
        return cls(task, place, sign, value, abs(float(baseline[0, place]) - value))

    def score(self, logits: Tensor) -> Tensor:
        """What is attributed, `(B,)`: the logit of the predicted class, or the number."""
        return self.sign * logits[:, self.place]

    def support(self, logits: Tensor) -> Tensor:
        """How much of the prediction is left, `(B,)`: the predicted class's probability.

        Of a number 1 where it is as predicted, 0 from the distance of the baseline's on.
        """
        if self.task.label_kind == "numbers":
            return 1 - ((logits[:, 0] - self.value).abs() / max(self.distance, 1e-12)).clamp(max=1)
        probabilities = self.task.probabilities(self.task.predictions(logits))
        assert probabilities is not None  # there are classes
        return probabilities[:, self.place if logits.shape[1] > 1 else int(self.sign > 0)]
