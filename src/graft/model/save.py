"""What a run keeps for later use: its model, which predicts by itself, and its test predictions."""

import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch
import torch.distributed as dist
from filelock import FileLock
from torch import Tensor

from graft.build import plain
from graft.config.types import Count
from graft.data.boxes import Boxes
from graft.data.samples import names_of
from graft.data.slices import slice_values
from graft.data.target_texts import TargetTexts
from graft.experiment import Experiment
from graft.files import write_whole, written_whole
from graft.heads.base import arguments_of
from graft.model import folder as folders
from graft.model import predictions as kept
from graft.model.folder import Description
from graft.model.neighbours import Neighbours
from graft.model.neighbours import write as write_neighbours
from graft.model.predictions import TestPredictions, predictions_of, words_of
from graft.network import constructor_arguments
from graft.packages import versions_of
from graft.report.temperature import is_at_end, temperature_of
from graft.runs.checkpoints import drop_all
from graft.runs.folder import BEST_LOCK, BEST_MODEL, MODEL, PREDICTIONS, RunFolder
from graft.training.lightning import is_rank_zero

HASHED = 12  # characters of a name's hash
LOSS = "val/target/loss"


class SaveSettings(TypedDict):
    """The keys of `save`."""

    model: Literal["always", "best", "none"]
    checkpoints: Literal["always", "best"]
    predictions: bool
    neighbours: bool
    ledger: Count | None
    redact: Sequence[Literal["paths", "names"]]


def keep_model(
    experiment: Experiment, results: Mapping[str, Any], neighbours: Neighbours | None = None, *, in_sweep: bool
) -> None:
    """Write the tested network into the run folder where `save.model` asks for it; only the main process does.

    Of a sweep's jobs `best` keeps the one that validates best: a better one's model takes its place.
    """
    policy = experiment.config["save"]["model"]
    if policy == "none" or not is_rank_zero():
        return
    if policy == "always" or not in_sweep:
        save_model(experiment, results, neighbours)
        return
    sweep = experiment.folder.parent
    monitor, value, mode = validated(results)
    with FileLock(sweep / BEST_LOCK):
        best = read_best(sweep)
        before, own = best.get(monitor), experiment.folder.name
        other = before["job"] if before and before["job"] != own else None  # its own: this job was killed before
        if other and not is_better(value, best[monitor]["value"], mode):
            return
        save_model(experiment, results, neighbours)
        if other:
            remove_model(sweep / other)
            if experiment.config["save"].get("checkpoints") == "best":
                drop_all(sweep / other)
        best[monitor] = {"job": own, "value": value, "mode": mode}  # last: a job that is killed does all of it again
        write_whole(sweep / BEST_MODEL, json.dumps(best, indent=1))


def keep_checkpoints(experiment: Experiment) -> None:
    """Leave a sweep's finished job its checkpoints under `save.checkpoints=best` only where its model is kept."""
    folder = experiment.folder
    if experiment.config["save"].get("checkpoints") != "best":  # not in configs of before
        return
    with FileLock(folder.parent / BEST_LOCK):
        if folder.name not in {best["job"] for best in read_best(folder.parent).values()}:
            drop_all(folder)


def validated(results: Mapping[str, Any]) -> tuple[str, float, str]:
    """(metric, value, max or min) that jobs are compared by: what the selection followed, else the validation loss.

    Under selection=budget validation compares nothing: of jobs without folds the first one is kept.
    """
    selection = results["selection"]
    if selection["monitor"] is not None and selection["value"] is not None:
        return selection["monitor"], selection["value"], selection["mode"]
    if selection["rule"] == "budget":
        return "no folds", 0.0, "max"
    return LOSS, results["metrics"].get(LOSS, math.inf), "min"


def is_better(value: float, than: float, mode: str) -> bool:
    """Whether a job's value is above (mode max) or below (min) the best one's so far."""
    return value > than if mode == "max" else value < than


def read_best(sweep: Path) -> dict[str, Any]:
    """By metric, the job of a sweep whose model is kept; empty where none is."""
    file = sweep / BEST_MODEL
    return json.loads(file.read_text()) if file.is_file() else {}


def save_model(experiment: Experiment, results: Mapping[str, Any], neighbours: Neighbours | None) -> None:
    """Write the network that was tested into the run folder's `model/`, and features of its training samples."""
    run = RunFolder(experiment.folder)
    folder = experiment.folder / MODEL
    remove_model(experiment.folder)
    folder.mkdir(exist_ok=True)
    backbone, head = experiment.module.backbone, experiment.module.head("target")
    description = describe(experiment, results, backbone.save_files(folder))
    own = (folders.WEIGHTS, folders.DESCRIPTION, folders.CARD, *([folders.NEIGHBOURS] if neighbours else []))
    run.add([*folders.names_in(folder), *(f"{MODEL}/{name}" for name in own)])
    if neighbours:
        write_neighbours(folder / folders.NEIGHBOURS, neighbours)
    folders.write(folder, description, folders.network_of(backbone, head))


def remove_model(run_folder: Path) -> None:
    """Remove a run's model, where there is one."""
    run = RunFolder(run_folder)
    for name in folders.names_in(run_folder / MODEL):
        run.remove(name)


def describe(experiment: Experiment, results: Mapping[str, Any], files: Mapping[str, str]) -> Description:
    """What the network is, and how to read what it predicts on; `files` are arguments of its backbone."""
    config, data, module = experiment.config, experiment.data, experiment.module
    target, backbone, task = data.domains["target"], module.backbone, module.tasks["target"]
    settings = without_files(config["backbone"], files)
    arguments = constructor_arguments(settings, without_texts(data.backbone_arguments), target.modality)
    arguments.pop("part_weights", None)  # where the weights came from; they are in the model
    head = arguments_of(config["head"])
    stays = experiment.added & {name for name, _ in backbone.named_parameters()}
    reading = {"channels": target.channels} if target.modality == "image" else {}
    temperature = temperature_of(results)
    return Description(
        name=config["name"],
        modality=target.modality,
        backbone=plain(arguments),
        files=files,
        head=head | {"feature_size": backbone.feature_size, "num_outputs": data.num_outputs("target", task)},
        strategy=config["strategy"] if stays else None,
        task=config["task"],
        task_state=task.state_dict(),
        classes=None if (classes := data.classes("target")) is None else list(classes),
        input=str(backbone.input_spec),
        reading=reading | dict(target.reading),
        precision=str(config["trainer"]["precision"]),
        dtype=str(next(backbone.parameters()).dtype).removeprefix("torch."),
        data={"name": target.name, "fingerprint": target.fingerprint},
        metrics=results["metrics"],
        selection=results["selection"],
        allow=list(config["allow"]),
        versions=versions_of(folders.PACKAGES),
        wrapped=backbone.wrapped,
        temperature=None if temperature is None or is_at_end(temperature) else temperature,
        unusual=results.get("unusual"),
        resized=module.compression.resized() or None,
    )


def without_files(settings: Mapping[str, Any], files: Mapping[str, str]) -> dict[str, Any]:
    """The keys of a backbone and its parts without those that files stand for, `parts.table.columns` and the like."""
    kept: dict[str, Any] = {}
    for name, value in settings.items():
        if name in files:
            continue
        inner = {key.removeprefix(f"{name}."): file for key, file in files.items() if key.startswith(f"{name}.")}
        kept[name] = without_files(value, inner) if inner and isinstance(value, Mapping) else value
    return kept


def without_texts(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What data say to a backbone without the training texts, which are in no model."""
    return {
        name: "auto" if name == "texts" else without_texts(value) if isinstance(value, Mapping) else value
        for name, value in arguments.items()
    }


def save_predictions(experiment: Experiment) -> None:
    """Write what the network said of every test sample into the run folder; every process takes part."""
    predicted = experiment.module.test_predictions
    found = {domain: gathered(predicted.get(domain, [])) for domain in experiment.data.test_domains}
    if not is_rank_zero():
        return
    redact = experiment.config["save"]["redact"]
    domains = []
    for domain, parts in found.items():
        if parts:
            indices, values = in_order(parts)
            domains.append(test_predictions(experiment, domain, indices, values, redact))
    with written_whole(experiment.folder / PREDICTIONS) as file:
        kept.write(file, domains)


def gathered(parts: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """What all processes have."""
    if not (dist.is_available() and dist.is_initialized()):
        return [*parts]
    everywhere: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everywhere, [*parts])
    return [one for own in everywhere for one in own]


def in_order(parts: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Indices `(N,)` in their order and the values `(N, ...)` beside them in some batches, each sample once."""
    joined: list[Any] = [
        type(one[0]).join(one) if isinstance(one[0], Boxes | TargetTexts) else torch.cat(one)
        for one in zip(*parts, strict=True)
    ]
    order = joined[0].argsort(stable=True)
    indices = joined[0][order]
    first = torch.ones(len(indices), dtype=torch.bool)
    first[1:] = indices[1:] != indices[:-1]
    return tuple(one[order][first] for one in joined)


def test_predictions(
    experiment: Experiment, domain: str, indices: Tensor, values: Tensor, redact: Sequence[str]
) -> TestPredictions:
    """A domain's predictions in the words of its data, of which `redact` says what is hidden."""
    data, task = experiment.data.domains[domain], experiment.module.tasks[domain]
    labels = data.test.labels
    assert labels is not None  # a test split always has them
    classes = data.classes
    if "names" in redact and classes is not None:
        classes = tuple(numbered(classes) or ())
    samples = names_of(data.test, indices)
    samples = [hashed(name) for name in samples] if "paths" in redact else samples
    slices = slice_values(experiment.config["report"]["slices"], data) if domain == "target" else {}
    slices = {name: [values[index] for index in indices.tolist()] for name, values in slices.items()}
    if redact:
        slices = {name: [hashed(one) if isinstance(one, str) else one for one in v] for name, v in slices.items()}
    groups = None if data.test.groups is None else data.test.groups[indices].tolist()
    return TestPredictions(
        domain,
        indices,
        samples,
        words_of(labels[indices], classes and task.named(classes)),
        predictions_of(task, values, classes),
        slices,
        groups,
    )


def hashed(name: str) -> str:
    """The same short hash for the same name."""
    return hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:HASHED]


def redacted(results: Mapping[str, Any], redact: Sequence[str]) -> dict[str, Any]:
    """A run's results without what is to stay hidden: what samples are called, and names of classes."""
    found = dict(results)
    if "names" in redact:
        found["data"] = {domain: one | {"classes": numbered(one["classes"])} for domain, one in found["data"].items()}
        confusion = found.get("confusion", {})
        found["confusion"] = {name: one | {"classes": numbered(one["classes"])} for name, one in confusion.items()}
        if growth := found.get("growth"):
            found["growth"] = growth | {"classes": numbered(growth["classes"])}
    if "paths" in redact:
        reports = [one["report"] for one in found["data"].values() if one["report"]]
        skipped = {one["sample"] for report in reports for one in report["skipped"]}
        blamed = (found.get("nonfinite") or {}).get("samples", {})
        found = without(found, skipped | {name for names in blamed.values() for name in names})
    return found


def numbered(classes: Sequence[str] | None) -> list[str] | None:
    """Names that say nothing."""
    return None if classes is None else [f"class {number}" for number in range(len(classes))]


def without(value: Any, names: Collection[str]) -> Any:
    """The same structure with hashes in the place of names, wherever a text holds one."""
    if isinstance(value, Mapping):
        return {key: without(one, names) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without(one, names) for one in value]
    if isinstance(value, str):
        for name in names:
            value = value.replace(name, hashed(name))
    return value
