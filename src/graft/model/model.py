"""A trained network that predicts from its folder alone."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from graft import registry
from graft.backbones.base import Backbone
from graft.backbones.contract import wrap
from graft.build import build
from graft.data.samples import Split
from graft.errors import GraftError
from graft.files import user_path
from graft.heads.base import context_for, new_head, seen_by
from graft.inputs.base import Inputs
from graft.model import folder as folders
from graft.model.folder import Description
from graft.model.inputs import samples_of
from graft.model.predictions import Predictions, predictions_of
from graft.runs.folder import BEST_MODEL, MODEL
from graft.tasks.base import Task

AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}  # precisions of the Trainer
BATCH_SIZE = 256


class Model:
    """A run's network, in eval mode, with everything that it takes to read inputs and to say what comes out."""

    def __init__(self, description: Description, backbone: Backbone, head: nn.Module, task: Task) -> None:
        self.description = description
        self.backbone = backbone
        self.head = head
        self.task = task

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
        self.backbone.to(device)
        self.head.to(device)
        return self

    def predict(self, inputs: Any, *, batch_size: int = BATCH_SIZE, sample_rate: int | None = None) -> Predictions:
        """A prediction for each input, as the run's own test made it.

        Images: paths, PIL images, arrays `(H, W, C)`, tensors `(C, H, W)`. Texts. Recordings: paths, waveforms with
        `sample_rate` in samples a second, or pairs of the two. Tables: a file, a data frame, columns by name, or
        records. Sequences `(L, D)`. One alone is a list of one. Raises GraftError for what cannot be read.
        """
        outputs = self.outputs(inputs, batch_size, sample_rate, self.logits)
        values = [self.task.predictions(logits.float()) for logits in outputs]
        if not values:
            raise GraftError("There is nothing to predict on: the inputs are empty.")
        return predictions_of(self.task, torch.cat(values), self.classes)

    def features(self, inputs: Any, *, batch_size: int = BATCH_SIZE, sample_rate: int | None = None) -> Tensor:
        """The backbone's features `(N, D)` of the inputs of `predict`."""
        outputs = self.outputs(inputs, batch_size, sample_rate, self.backbone)
        return torch.cat([features.float() for features in outputs])

    def logits(self, batch: Inputs) -> Tensor:
        """What the head says `(B, K)` of inputs as the network takes them."""
        return self.head(seen_by(self.head, self.backbone, batch))

    @torch.inference_mode()
    def outputs(
        self, inputs: Any, batch_size: int, sample_rate: int | None, compute: Callable[[Inputs], Tensor]
    ) -> Iterator[Tensor]:
        """What is computed `(B, ...)` on the CPU, batch by batch in the inputs' order."""
        for batch in self.batches(inputs, batch_size, sample_rate):
            with self._autocast():
                values = compute(batch)
            yield values.cpu()

    def batches(self, inputs: Any, batch_size: int, sample_rate: int | None) -> Iterator[Inputs]:
        """The inputs as the network takes them, on its device."""
        spec: Any = self.backbone.input_spec
        options: dict[str, Any] = {"columns": spec.columns} if self.description.modality == "table" else {}
        if self.description.modality == "audio":
            options["sample_rate"] = sample_rate
        samples = samples_of(self.description.modality, inputs, self.description.reading, **options)
        if not len(samples):
            return
        transform = spec.transform()
        prepared = transform.prepare(Split(samples, None, ""), None)
        for indices in torch.arange(len(samples)).split(batch_size):
            yield self._as_weights(transform.collate(prepared[indices]).to(self.device))

    def _as_weights(self, inputs: Inputs) -> Inputs:
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
        return f"Model({self.description.name}: {self.backbone.name}, {self.description.modality} to {what})"


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
    network = build(description.backbone, **folders.arguments_in(folder, description.files))
    backbone: Backbone = wrap(network, **description.wrapped) if description.wrapped else network
    if description.strategy is not None:
        build(description.strategy).prepare(backbone)
    sizes = ("feature_size", "num_outputs")
    classes = None if description.classes is None else tuple(description.classes)
    settings = {name: value for name, value in description.head.items() if name not in sizes}
    head = new_head(settings, context_for(settings, backbone, description.head["num_outputs"], classes))
    task: Task = build(description.task)
    task.load_state_dict(description.task_state)
    parts = folders.network_of(backbone, head).to(getattr(torch, dtype_name(description)))
    load_weights(parts, folder / folders.WEIGHTS)
    parts.eval().requires_grad_(False)
    return Model(description, backbone, head, task)


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


def folder_of(place: Path) -> Path:
    """The model folder that a path stands for."""
    place = user_path(place)
    for folder in (place, place / MODEL, place.parent, best_of(place)):
        if folder is not None and (folder / folders.DESCRIPTION).is_file():
            return folder
    if not place.exists():
        raise GraftError(
            f"{place}: there is no such folder. Give a run's folder, such as logs/<name>/runs/<time>_<id>."
        )
    raise GraftError(
        f"{place}: no model is kept there. A run keeps one with save.model=always (in a sweep, best keeps that "
        "of the best job alone); its checkpoints can be used in a further run: backbone.weights=<file>"
    )


def best_of(sweep: Path) -> Path | None:
    """The model folder that a sweep keeps, None without one. GraftError where jobs followed different metrics."""
    file = sweep / BEST_MODEL
    if not file.is_file():
        return None
    jobs = {metric: one["job"] for metric, one in json.loads(file.read_text()).items()}
    if len(jobs) > 1:
        found = ", ".join(f"{sweep / job} ({metric})" for metric, job in jobs.items())
        raise GraftError(f"{sweep}: its jobs followed different metrics, so there are several best ones: {found}.")
    return sweep / Path(next(iter(jobs.values()))).name / MODEL
