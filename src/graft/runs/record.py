"""The record of a run, `results.json`: its schema, reading and writing it."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

from graft.errors import GraftError
from graft.files import write_whole
from graft.runs.folder import RESULTS

FORMAT = 1  # of the record; a record without it is of an older Graft
FINISHED, FAILED, INTERRUPTED, DIVERGED, PRUNED = "done", "failed", "interrupted", "diverged", "pruned"  # of `status`


TestSplit = int | str | None  # seed of a split, and the fold where there is one


class RunRecord(TypedDict, total=False):
    """What `results.json` holds; a run that did not come to its end lacks some of it. Times are in seconds."""

    format: int
    status: str  # one of the words above
    message: str  # why training diverged, or was pruned
    name: str
    overrides: list[str]
    data: dict[str, Any]  # by domain: sizes, classes, labels, fingerprint, notes, report, trained_on
    labels: dict[str, int]  # of the target, each once: training, and choosing the checkpoint
    weights: dict[str, Any] | None  # where they came from, how many tensors matched, `pretraining` of the run itself
    ignored_weights: str | None  # backbone.weights under a strategy that starts from random numbers
    parameters: dict[str, Any]  # total, trainable, groups
    phases: list[dict[str, Any]]  # epochs, stages, trainable, lr_factor, flops_per_epoch
    terms: list[str]  # names of what is added to the objective
    settings: dict[str, Any]  # keys that the strategy set from the data
    tuning: dict[str, Any]  # what was found in the place of `auto`
    note: str
    averaging: str
    compression: dict[str, Any] | None  # kind, note, and what it did to the network
    federated: dict[str, Any]  # method, metric; by client samples, score; fairness, bytes, rounds, whose model is kept
    precision: str
    threads: int
    evaluation: dict[str, Any] | None  # of cross-validation: evaluation, fold from 0, folds
    seeds: dict[str, int | None]
    git: dict[str, Any]
    versions: dict[str, str]
    selection: dict[str, Any]  # rule, monitor, mode, value, epoch, oracle; of budget note, folds, as_recipe
    metrics: dict[str, float]  # `<stage>/<domain>/<metric>`
    score: dict[str, Any]  # the main metric on the target's test split
    baselines: dict[str, dict[str, Any]]  # by key: title, fitted_on, chosen, labels, metrics, seconds, priors, note
    confusion: dict[str, Any]
    temperature: dict[str, Any] | None  # value, labels that it was fitted on, val_loss and val_loss_after
    unusual: dict[str, Any] | None  # accepted share of validation samples, their number, thresholds by score
    soup: dict[str, Any]
    swad: dict[str, Any]  # monitor, steps in the mean, window, losses of the validations
    wise_ft: dict[str, Any]
    growth: dict[str, Any]  # of head.grow: run, classes, of which the first `old`; of each samples, before, after
    fusion: dict[str, Any]  # parts, and with backbone.method=gated the mean gate of each on the test samples
    seen_unseen: dict[str, Any]  # of names: classes, samples; plain, calibrated (constant, labels), area of the curve
    retrieval: dict[str, Any]  # of captions, by domain: samples, texts; recall by direction and k, and that of chance
    rejection: dict[str, Any]  # of an open set: by, threshold, fraction of the source's validation samples
    nonfinite: dict[str, Any] | None
    time: dict[str, float | None]  # total_s, pretrain_s, folds_s, fit_s, train_s and validation_s of it, test_s
    probe: dict[str, Any]  # of strategy=probe: monitor, penalty, what each one tried reads, names in the fit
    tip_adapter: dict[str, Any]  # of the strategy: monitor, chosen alpha and beta, samples, what each pair reads
    stacked: dict[str, Any]  # jobs that trained together, this one among them, and fit_s of all; fit_s above is a share
    cost: dict[str, Any]  # target_steps; flops: pretraining, target, total (None: not known); matches_flops
    skipped_in_training: dict[str, dict[str, str]]  # of streams, by domain: samples left out (of one process), and why
    samples_per_s: float | None
    peak_memory_mb: float | None
    race: dict[str, Any]  # of the winner of one: candidates, jobs, rungs, cpu_s, and full_sweep_s of all candidates
    feature_cache: dict[str, Any]
    recalibrated_bn: int  # validations before which BatchNorm's statistics were computed again
    compile: dict[str, Any] | None
    wandb: dict[str, Any] | None
    recording: dict[str, str]  # by the loggers' keys, why one stopped recording


def write(results: Mapping[str, Any], folder: Path) -> None:
    """Write a run's record; numbers that are not finite become null, which JSON has."""
    write_whole(folder / RESULTS, json.dumps(finite(results), indent=2) + "\n")


def read(folder: Path) -> RunRecord:
    """A run's record. Raises GraftError for one that cannot be read or that a newer Graft wrote."""
    file = folder / RESULTS
    try:
        results = json.loads(file.read_text())
        if not isinstance(results, dict):
            raise ValueError("it is no record of a run")
        if not isinstance(results.get("format", 0), int):
            raise ValueError(f"its format is {results['format']!r}")
    except (OSError, ValueError, RecursionError) as error:
        raise GraftError(
            f"{file} cannot be read: {error}. Delete the folder and run the job again, or take the file from a copy."
        ) from None
    if results.get("format", 0) > FORMAT:
        raise GraftError(f"{file} is of a newer Graft (format {results['format']}, this one reads {FORMAT}).")
    return cast(RunRecord, results)


def is_older(results: Mapping[str, Any]) -> bool:
    """Whether an older Graft wrote the record: its config names parts where they were then."""
    return results.get("format", 0) < FORMAT


def value_of(results: Mapping[str, Any]) -> float | None:
    """What the selection rule followed, of the selected checkpoint; None where nothing was."""
    return results.get("selection", {}).get("value")


def labels_of(results: Mapping[str, Any]) -> tuple[int, int]:
    """Labels of the target that train, and others that choose the checkpoint.

    The record of an older Graft has the sizes of its splits only.
    """
    split = results.get("data", {}).get("target", {}).get("labels", {})
    labels = results.get("labels") or {"training": split.get("train", 0), "choosing": split.get("val", 0)}
    return labels["training"], labels["choosing"]


def labels_used(results: Mapping[str, Any]) -> str:
    """The same as text, such as `20 + 297`; empty where there are none."""
    training, choosing = labels_of(results)
    return f"{training:,} + {choosing:,}" if training + choosing else ""


def split_of(results: Mapping[str, Any]) -> TestSplit:
    """Which split or fold a run was tested on: jobs with the same one have the same test samples."""
    split, evaluation = results.get("seeds", {}).get("split"), results.get("evaluation")
    return f"{split}, fold {evaluation['fold']}" if evaluation else split


def unit_of(finished: Sequence[Mapping[str, Any]], splits: int) -> str:
    """What an interval is over: seeds on one split, else folds or splits."""
    if splits < 2:
        return "seed"
    return "fold" if finished and finished[0].get("evaluation") else "split"


def finite(value: Any) -> Any:
    """The same structure with NaN and infinities as None."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
