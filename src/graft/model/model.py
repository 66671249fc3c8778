"""A trained network that predicts from its folder alone."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from graft import registry
from graft.backbones.base import Backbone
from graft.backbones.contract import wrap
from graft.backbones.outputs import features_of
from graft.build import build
from graft.compress.structure import resize
from graft.data.boxes import Boxes
from graft.data.readers.boxes import size_of
from graft.data.readers.images import ImageFiles
from graft.data.samples import Split
from graft.data.target_texts import TargetTexts
from graft.errors import GraftError
from graft.heads.base import context_for, new_head, seen_by
from graft.inputs.base import Inputs
from graft.inputs.image.boxes import BoxTransform
from graft.inspection.attribution import has_captum
from graft.model import folder as folders
from graft.model import neighbours
from graft.model.explain import NO_CAPTUM, Explainer, Explanation
from graft.model.folder import Description
from graft.model.inputs import samples_of
from graft.model.neighbours import Neighbours
from graft.model.place import folder_of
from graft.model.predictions import Predictions, predictions_of
from graft.model.unusual import is_unusual
from graft.report.temperature import tempered
from graft.tasks.base import Task

AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}  # precisions of the Trainer
BATCH_SIZE = 256


class Model:
    """A run's network, in eval mode, with everything that it takes to read inputs and to say what comes out."""

    def __init__(
        self, description: Description, backbone: Backbone, head: nn.Module, task: Task, neighbours_file: Path
    ) -> None:
        self.description = description
        self.backbone = backbone
        self.head = head
        self.task = task
        self.neighbours_file = neighbours_file  # is not there where the run did not keep them

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Class names; None where numbers are predicted."""
        return None if self.description.classes is None else tuple(self.description.classes)

    @property
    def metrics(self) -> Mapping[str, float]:
        """What the run measured, `<stage>/<domain>/<metric>`."""
        return self.description.metrics

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.backbone.parameters()).device

    def to(self, device: Any) -> "Model":
        """Move the weights."""
        self.__dict__.pop("explainer", None)  # it stays on the CPU
        self.backbone.to(device)
        self.head.to(device)
        return self

    @cached_property
    def neighbours(self) -> Neighbours | None:
        """Features of the training samples, where the run kept them."""
        return neighbours.read(self.neighbours_file) if self.neighbours_file.is_file() else None

    @cached_property
    def explainer(self) -> Explainer:
        """What explains predictions."""
        return Explainer(self)

    def predict(
        self,
        inputs: Any,
        *,
        explain: bool = False,
        nearest: int = 0,
        batch_size: int = BATCH_SIZE,
        sample_rate: int | None = None,
    ) -> Predictions:
        """A prediction for each input, as the run's own test made it.

        Images: paths, bytes of files, PIL images, arrays `(H, W, C)`, tensors `(C, H, W)`. Texts. Recordings: paths,
        bytes of files, waveforms with `sample_rate` in samples a second, or pairs of the two. Tables: a file, a data
        frame, columns by name, or records. Sequences `(L, D)`. Several modalities: as a table, with paths or bytes of
        files in the columns of images and recordings. One alone is a list of one. `nearest` is a number of training
        samples. Raises GraftError for what cannot be read, and for neighbours that the run did not keep.
        """
        self.check_can(explain=explain, nearest=nearest)
        if self.predicts_boxes:
            return self._boxes(inputs, batch_size)
        if self.predicts_texts:
            return self._texts(inputs, batch_size)
        explainer = self.explainer if explain else None
        logits: list[Tensor] = []
        features: list[Tensor] = []
        explanations: list[Explanation] = []
        for batch in self.batches(inputs, batch_size, sample_rate):
            with torch.inference_mode(), self._autocast():
                seen = seen_by(self.head, self.backbone, batch)
                logits.append(self.head(seen).float().cpu())
            if self.neighbours is not None:
                features.append(features_of(seen).float().cpu())
            if explainer:
                explanations += explainer(batch)
        if not logits:
            raise GraftError("There is nothing to predict on: the inputs are empty.")
        found = self._judged(torch.cat(logits), torch.cat(features) if features else None, nearest)
        return replace(found, explanations=tuple(explanations)) if explainer else found

    def check_can(self, *, explain: bool = False, nearest: int = 0) -> None:
        """Raise GraftError where the model cannot explain here, or keeps no features of its training samples."""
        if (self.predicts_boxes or self.predicts_texts) and (explain or nearest):
            what = "boxes" if self.predicts_boxes else "texts"
            raise GraftError(
                f"This model predicts {what}, which are neither explained nor compared with training samples."
            )
        if explain and not has_captum():
            raise GraftError(NO_CAPTUM)
        if nearest and self.neighbours is None:
            raise GraftError(
                f"nearest={nearest}: this model keeps no features of its training samples "
                f"({self.neighbours_file} is not there). Train with save.neighbours=true."
            )

    @property
    def modalities(self) -> tuple[str, ...]:
        """What an input is of; of a fusion its parts, in their order."""
        return tuple(self.backbone.parts) or (self.description.modality,)

    @property
    def predicts_boxes(self) -> bool:
        """Whether a prediction is a list of boxes."""
        return self.task.label_kind == "boxes"

    @property
    def predicts_texts(self) -> bool:
        """Whether a prediction is a text."""
        return self.task.label_kind == "texts"

    def _texts(self, inputs: Any, batch_size: int) -> Predictions:
        """A text for each input."""
        found: list[Any] = []
        for batch in self.batches(inputs, batch_size, None):
            with torch.inference_mode(), self._autocast():
                found.append(self.task.predictions(self.logits(batch)))
        if not found:
            raise GraftError("There is nothing to predict on: the inputs are empty.")
        return predictions_of(self.task, TargetTexts.join(found), None)

    def _boxes(self, inputs: Any, batch_size: int) -> Predictions:
        """Boxes of each image in pixels of the image as it is, of those that score enough the best first."""
        samples: Any = samples_of(self.description.modality, inputs, self.description.reading)
        transform = self.transform()
        prepared = transform.prepare(Split(samples, None, ""), None)
        found = []
        for indices in torch.arange(len(samples)).split(batch_size):
            resized = prepared[indices]
            whole = Boxes.none([whole_size(samples, i) for i in indices.tolist()], [one.shape[-2:] for one in resized])
            batch = self.as_weights(transform.collate(resized).to(self.device))
            with torch.inference_mode(), self._autocast():
                predicted: Any = self.task.predictions(self.logits(batch, whole.sizes))
            found.append(predicted.cpu().float().restored(like=whole))
        if not found:
            raise GraftError("There is nothing to predict on: the inputs are empty.")
        return predictions_of(self.task, Boxes.join(found), self.classes)

    def transform(self) -> Any:
        """What makes inputs as the network takes them."""
        spec: Any = self.backbone.input_spec
        return BoxTransform(spec) if self.predicts_boxes else spec.transform()

    def _judged(self, logits: Tensor, features: Tensor | None, nearest: int) -> Predictions:
        """Predictions of logits `(N, K)`, with how sure, how unusual and how near to training samples each is."""
        found = predictions_of(self.task, self.task.predictions(logits), self.classes)
        confidence = None
        if found.probabilities is not None and self.task.label_kind == "classes":
            temperature = self.description.temperature
            scaled = found.probabilities if temperature is None else tempered(found.probabilities, temperature)
            confidence = scaled.max(axis=1)
        energy = self.task.energy(logits)
        scores = {} if energy is None else {"energy": energy.numpy()}
        near = None
        if features is not None and self.neighbours is not None:
            scores["distance"] = self.neighbours.distances(features).numpy()
            near = tuple(self.neighbours.nearest(features, nearest)) if nearest else None
        limits = (self.description.unusual or {}).get("thresholds", {})
        unusual = is_unusual(scores, limits)
        return replace(found, confidence=confidence, scores=scores, unusual=unusual, nearest=near)

    def features(self, inputs: Any, *, batch_size: int = BATCH_SIZE, sample_rate: int | None = None) -> Tensor:
        """The backbone's features `(N, D)` of the inputs of `predict`."""
        found = []
        for batch in self.batches(inputs, batch_size, sample_rate):
            with torch.inference_mode(), self._autocast():
                found.append(self.backbone(batch).float().cpu())
        return torch.cat(found)

    def logits(self, batch: Inputs, sizes: Tensor | None = None) -> Tensor:
        """What the head says `(B, K)` of inputs as the network takes them; `sizes` as in `seen_by`."""
        return self.head(seen_by(self.head, self.backbone, batch, sizes))

    def batches(self, inputs: Any, batch_size: int, sample_rate: int | None) -> Iterator[Inputs]:
        """The inputs as the network takes them, on its device."""
        spec: Any = self.backbone.input_spec
        options: dict[str, Any] = {"columns": spec.columns} if self.description.modality == "table" else {}
        if self.description.modality == "audio":
            options["sample_rate"] = sample_rate
        if self.description.modality == "multimodal":
            options["columns"] = columns_of(spec)
        samples = samples_of(self.description.modality, inputs, self.description.reading, **options)
        if not len(samples):
            return
        transform = self.transform()
        prepared = transform.prepare(Split(samples, None, ""), None)
        for indices in torch.arange(len(samples)).split(batch_size):
            yield self.as_weights(transform.collate(prepared[indices]).to(self.device))

    def as_weights(self, inputs: Inputs) -> Inputs:
        """Inputs in the type of the weights, for runs in double or half precision throughout."""
        dtype = next(self.backbone.parameters()).dtype
        if isinstance(inputs, Tensor):
            return inputs.to(dtype) if inputs.is_floating_point() else inputs
        tensors = inputs.tensors.items()
        return type(inputs)({name: one.to(dtype) if one.is_floating_point() else one for name, one in tensors})

    def _autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision, where the run computed with it."""
        dtype = AUTOCAST.get(self.description.precision)
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)

    def __repr__(self) -> str:
        what = f"{len(self.classes)} classes" if self.classes else "a number"
        what = f"boxes of {what}" if self.predicts_boxes else "text" if self.predicts_texts else what
        return f"Model({self.description.name}: {self.backbone.name}, {self.description.modality} to {what})"


def columns_of(spec: Any) -> Any:
    """The columns of a network that takes a table, alone or as one of its parts; None for one that takes none."""
    return getattr(getattr(spec, "parts", {}).get("table", spec), "columns", None)


def whole_size(images: Any, index: int) -> tuple[int, int]:
    """Height and width of an image before anything is done to it; a file may be decoded at a part of its size."""
    size = size_of(images.files[index]) if isinstance(images, ImageFiles) else None
    return size or tuple(images[index].shape[-2:])


def load(place: Path, allow: Sequence[str] = ()) -> Model:
    """The model of a run's folder, of its `model` folder, or of a file in that; of a sweep's folder the best job's.

    `allow` names packages whose code the network may need. Raises GraftError where there is no model, or one that
    cannot be built here.
    """
    folder = folder_of(place)
    description = folders.read(folder)
    if missing := sorted({*description.allow} - {*allow}):
        raise GraftError(
            f"{folder}: this network is built by code of {', '.join(missing)}, which comes from outside of Graft. If "
            f"you trust it: load_run(..., allow={missing})"
        )
    registry.trust(allow)
    arguments = folders.arguments_in(folder, description.files)
    network = build(folders.with_arguments(description.backbone, arguments))
    backbone: Backbone = wrap(network, **description.wrapped) if description.wrapped else network
    if description.strategy is not None:
        build(description.strategy).prepare(backbone)
    if description.resized:
        resize(backbone, description.resized)
    sizes = ("feature_size", "num_outputs")
    classes = None if description.classes is None else tuple(description.classes)
    settings = {name: value for name, value in description.head.items() if name not in sizes}
    head = new_head(settings, context_for(settings, backbone, description.head["num_outputs"], classes))
    task: Task = build(description.task)
    task.see_backbone(backbone)
    task.load_state_dict(description.task_state)
    parts = folders.network_of(backbone, head).to(getattr(torch, dtype_name(description)))
    load_weights(parts, folder / folders.WEIGHTS)
    parts.eval().requires_grad_(False)
    return Model(description, backbone, head, task, folder / folders.NEIGHBOURS)


def dtype_name(description: Description) -> str:
    """The type of the weights. Raises GraftError for one that no run has."""
    allowed = ("float32", "float64", "float16", "bfloat16")
    if description.dtype not in allowed:
        raise GraftError(f"{folders.DESCRIPTION}: `dtype={description.dtype}` must be one of {', '.join(allowed)}.")
    return description.dtype


def load_weights(network: nn.Module, file: Path) -> None:
    """Put a file's weights into a network of exactly these names and shapes; GraftError where it is another."""
    from safetensors import SafetensorError

    try:
        network.load_state_dict(folders.read_weights(file), strict=True)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise GraftError(
            f"{file} cannot be read: {error}. Take the whole folder from a copy, or train again."
        ) from None
    except RuntimeError as error:
        raise GraftError(
            f"{file} holds other weights than {folders.DESCRIPTION} beside it describes, with the versions of packages "
            f"that are installed here: {str(error).splitlines()[-1].strip()}"
        ) from None
