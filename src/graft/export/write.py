"""The way of an export: trace, write beside the place, compare on samples, and only then move it there."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from graft.errors import GraftError
from graft.export import huggingface, int8, onnx_file, tokenizer, torch_file, weights_file
from graft.export.deployed import Deployed
from graft.export.metadata import metadata_of
from graft.export.samples import CALIBRATION, CHECKED, Batch, batches_of, made_up, score, score_of_run, splits_of
from graft.export.trace import traced
from graft.model.model import load
from graft.model.place import folder_of

Format = Literal["onnx", "torch_export", "safetensors", "huggingface"]
ENDINGS = {"onnx": ".onnx", "torch_export": ".pt2", "safetensors": ".safetensors", "huggingface": "_huggingface"}
TOLERANCE = 1e-4  # of probabilities; of numbers, relative to the largest one
MB = 1e6


@dataclass(frozen=True)
class Exported:
    """What was written, and what is said of it."""

    file: Path
    lines: list[str]


def export(place: Path, form: Format, to: Path | None, kind: int8.Kind | None, allow: Sequence[str]) -> Exported:
    """Write a run's network in a format. Raises GraftError, and leaves nothing, where that fails or answers differ."""
    folder = folder_of(place)
    model = load(folder, allow)
    deployed = Deployed(model)
    if form == "huggingface":
        huggingface.check(deployed, model.description)
    suffix = ("_int8" if kind else "") + ENDINGS[form]
    to = to or Path(f"{model.description.name}{suffix}")
    if to.is_dir() or (form == "huggingface" and to.exists()):
        raise GraftError(f"to={to}: that is there already. Name what is to be written: to=<path>{ENDINGS[form]}")
    splits, reason = splits_of(folder, allow)
    if kind and not splits:
        raise GraftError(f"int8={kind}: {reason}, so that there is no sample to calibrate or to test on.")
    metadata = metadata_of(model, deployed) | {"score": score_of_run(folder.parent)}
    checked = batches_of(deployed, splits["test"], CHECKED, answered=True) if splits else made_up(deployed)
    samples = f"{sum(len(batch.expected) for batch in checked if batch.expected is not None)} "
    samples += "test samples" if splits else f"made-up samples ({reason})"

    to.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".graft.", dir=to.parent))
    try:
        file = work / to.name
        outputs = written(form, deployed, file, metadata, checked)
        difference = largest_difference(checked, outputs)
        if not difference <= TOLERANCE:
            raise GraftError(
                f"format={form}: what was written answers otherwise than the run's network, by {difference:.2g} on "
                f"{samples} ({TOLERANCE:g} is allowed). Nothing was kept. Take another format: format=safetensors"
            )
        metadata["checked"] = {"samples": samples, "difference": difference}
        lines = [f"the same on {samples}: they differ by {difference:.1e} at most"]
        if kind:
            file, line = quantised(deployed, splits, file, kind, metadata)
            lines.append(line)
        if form == "onnx":
            onnx_file.add_metadata(file, metadata)
            tokenizer.write(deployed.backbone, file)
        lines.insert(0, f"{to}: {size_of(file) / MB:.2f} MB")
        for path in work.iterdir():
            path.replace(to.parent / path.name)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Exported(to, lines)


def written(
    form: Format, deployed: Deployed, file: Path, metadata: dict[str, Any], checked: Sequence[Batch]
) -> list[np.ndarray]:
    """Write in a format and give what it answers once it is read again."""
    if form == "safetensors":
        weights_file.write(deployed, file, metadata)
        return weights_file.run(file, deployed, checked)
    if form == "huggingface":
        huggingface.write(deployed, file, metadata)
        return huggingface.run(file, deployed, checked)
    program = traced(deployed)
    if form == "torch_export":
        torch_file.write(program, file, metadata)
        tokenizer.write(deployed.backbone, file)
        return torch_file.run(file, checked)
    onnx_file.write(program, deployed, file)
    return onnx_file.run(file, checked)


def largest_difference(batches: Sequence[Batch], outputs: Sequence[np.ndarray]) -> float:
    """Between what was expected and what came, relative where numbers are above 1; NaN where a value is none."""
    pairs = [(batch.expected, found) for batch, found in zip(batches, outputs, strict=True)]
    return max(
        float(np.max(np.abs(found - expected) / np.maximum(np.abs(expected), 1), initial=0))
        for expected, found in pairs
        if expected is not None
    )


def quantised(
    deployed: Deployed, splits: dict[str, Any], file: Path, kind: int8.Kind, metadata: dict[str, Any]
) -> tuple[Path, str]:
    """The file in 8 bits in the place of the one with floats, and what that did to size and score."""
    calibration = batches_of(deployed, splits["val"], CALIBRATION) if kind == "static" else []
    small = file.with_name(f"int8.{file.name}")
    int8.quantise(file, small, kind, calibration)
    test = batches_of(deployed, splits["test"])
    both = [onnx_file.run(one, test) for one in (file, small)]
    before, after = (score(deployed, test, outputs) for outputs in both)
    sizes = [one.stat().st_size for one in (file, small)]
    small.replace(file)
    metadata |= {"score": after, "int8": {"kind": kind, "before": before, "sizes": sizes}}
    line = f"int8 ({kind}): {sizes[0] / MB:.2f} -> {sizes[1] / MB:.2f} MB ({sizes[1] / sizes[0]:.0%})"
    if before and after:
        line += f", {before['metric']} {shown(before)} -> {shown(after)} of {after['n']:,} test samples"
    if deployed.task.name == "multiclass":
        same = np.mean(np.concatenate([a.argmax(-1) == b.argmax(-1) for a, b in zip(*both, strict=True)]))
        line += f", the same class for {same:.1%}"
    return file, line


def shown(score: dict[str, Any]) -> str:
    """A score with its interval."""
    interval = "" if score["interval"] is None else " [{:.3f}, {:.3f}]".format(*score["interval"])
    return f"{score['value']:.4f}{interval}"


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    return path.stat().st_size if path.is_file() else sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
