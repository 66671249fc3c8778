"""The report of one run: its score, confusions, the samples it is most wrong about, curves and calibration."""

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from graft.cli.program import program
from graft.errors import GraftError
from graft.model.predictions import SLICE
from graft.report import (
    adaptation,
    baselines,
    boxes,
    checks,
    figures,
    growth,
    inspected,
    samples,
    study,
    temperature,
    written,
)
from graft.report.answer import Answer
from graft.report.export import Table
from graft.report.kept import sampling_interval, target_predictions
from graft.report.page import Page, Section
from graft.report.plots import read_series
from graft.report.slices import scores_by_slice
from graft.report.statistics import calibration, calibration_interval
from graft.report.summary import TRIED_FIRST, is_fraction, number_cell, within_bounds
from graft.report.sweep_page import confidence_of, in_words
from graft.runs import record
from graft.runs.folder import CONFIG, INSPECTION, METRICS, try_read_yaml
from graft.runs.sweeps import Job, split_override

PAIRS = 10  # of classes that are confused most


def page(folder: Path, inspection: Mapping[str, Any] | None = None) -> Page:
    """The page of a finished run; GraftError for one without a test score.

    `inspection` is what `graft.inspection.findings` has of it, or only why there is nothing, as `failed`.
    """
    results = record.read(folder)
    if "score" not in results:
        raise GraftError(f"graft report {folder}: the run has no test score. See: graft show {folder}")
    found = target_predictions(folder)
    if found and inspection:
        found = {**found, **{f"{SLICE}{name}": values for name, values in inspection.get("slices", {}).items()}}
    shown = (inspection or {}).get("contents", {})
    sections = [one for one in sections_of(folder, results, found, shown) if one.tables or one.pictures or one.samples]
    kept = {}
    if "source" in results["data"]:
        both = adaptation.section(folder, results, found, inspection or {})
        sections += [both] if both.tables or both.pictures or both.lines else []
    if inspection and "failed" in inspection:
        sections.append(Section("Network and data", lines=[inspection["failed"]]))
    elif inspection:
        sections += inspected.sections(inspection)
        kept = {INSPECTION: json.dumps(inspection).encode()}
    title = f"{results.get('name', 'run')}: {folder.name}"
    seconds = (results.get("time") or {}).get("total_s")
    footer = f"Seed {results['seeds']['train']}" if results.get("seeds") else ""
    footer += f", {seconds:,.0f} s." if seconds else ""
    job = Job(folder.name, dict(map(split_override, results.get("overrides", []))), results, path=folder)
    looked = checks.findings(study.of_jobs([folder], [job]))
    return Page(title, [answer(results, found)], looked, len(checks.CHECKS), sections, footer, kept)


def answer(results: Mapping[str, Any], found: Mapping[str, Any] | None) -> Answer:
    """The run's score with the sampling error of its test set; that one run says nothing of transfer."""
    name, value = results["score"]["metric"].rsplit("/", 1)[-1], results["score"]["value"]
    fraction = is_fraction(results)

    def shown(number: float) -> str:
        return f"{100 * number:.1f} %" if fraction else f"{number:.4g}"

    if value is None:
        return Answer("missing", f"The test {name} is not a number.", [])
    samples_tested = results["data"]["target"]["test"]
    bounds = sampling_interval(name, found) if found else None
    interval = "" if bounds is None else " [{}, {}]".format(*map(shown, within_bounds(name, bounds)))
    selection = results.get("selection") or {}
    epoch = "" if selection.get("epoch") is None else f", epoch {selection['epoch'] + 1}"
    chosen = f"checkpoint by {selection['rule']}{epoch}" if selection.get("rule") else "the last epoch"
    better = baselines.does_as_well([results], "the run", value, shown)
    line = f"{better} " if better else ""
    line += f"Test {name} {shown(value)}{interval} on {samples_tested:,} test samples: one seed, {chosen}"
    alone = ["The 95 % interval is the sampling error of the test set alone, not the spread over seeds."]
    return Answer(
        "unclear",
        line,
        [
            *(alone if interval else []),
            f"Labels of the target used: {record.labels_used(results)} (to train + to choose).",
            next_step(results),
        ],
    )


def next_step(results: Mapping[str, Any]) -> str:
    """What would tell whether transfer helps."""
    if study.is_from_scratch(results):
        return "This run is from scratch: a sweep that has pretrained weights or a source too can tell if they help."
    if results.get("growth"):
        return "This run goes on with a finished run's classes: below is what each class lost and won."
    overrides = results.get("overrides", [])
    if not overrides:  # not from a command line
        return "One run cannot tell whether transfer helps; a sweep with strategy=scratch and several seeds can."
    words = [word for word in overrides if not word.startswith(("strategy=", "strategy.", "seed="))]
    own = [word.partition("=")[2] for word in overrides if word.startswith("strategy=")] or ["full"]
    command = shlex.join([*words, f"strategy=scratch,{own[-1]}", "seed=0,1,2,3,4"])
    return f"One run cannot tell whether transfer helps; a sweep can: {program()} -m {command}"


def sections_of(
    folder: Path,
    results: Mapping[str, Any],
    found: Mapping[str, Any] | None,
    contents: Mapping[str, Mapping[str, str]],
) -> Iterator[Section]:
    """What is shown of a run; `contents` has samples by their row in its predictions."""
    yield Section("Scores", [metrics(results)])
    if results.get("baselines"):
        yield Section("Baselines", [beside(results)])
    if results.get("growth"):
        yield Section("Old and new classes", [old_and_new(results["growth"])])
    confusion = (results.get("confusion") or {}).get("test/target")
    if confusion:
        matrix, classes = confusion["matrix"], confusion["classes"]
        yield Section("Confusions", [confused(matrix, classes)], [figures.confusion(matrix, classes)])
    if found and (table := scores_by_slice(found, results["score"]["metric"].rsplit("/", 1)[-1])):
        yield Section("Scores by class and slice", [table])
    if found and written.are_in(found):
        yield written.section(found, content=may_show(folder), contents=contents)
    elif found and boxes.are_in(found):
        yield boxes.section(found, content=may_show(folder))
    elif found:
        yield Section("Largest losses", samples=samples.worst(found, content=may_show(folder), contents=contents))
    file = folder / METRICS
    series = read_series(file) if file.is_file() else {}
    drawn = [figures.run_curves(series, name) for name in ("loss", results["score"]["metric"].rsplit("/", 1)[-1])]
    yield Section("Training", pictures=[one for one in drawn if one])
    if found and (values := confidence_of(found)) is not None:
        yield calibration_section(found, values, results)


def calibration_section(
    found: Mapping[str, Any], values: tuple[np.ndarray, np.ndarray], results: Mapping[str, Any]
) -> Section:
    """Calibration on test samples as the network is and, where a temperature was fitted on validation, scaled by it."""
    confidence, correct = values
    confidences = {"as it is": confidence}
    caption = "Expected calibration error in ten bins of equally many test samples; it leans upwards."
    if scale := results.get("temperature"):
        confidences["scaled"] = temperature.tempered(found["probabilities"], scale["value"]).max(axis=1)
        caption += (
            f" Scaled: logits divided by {temperature.temperature_cell([scale['value']])}, the temperature with the "
            f"smallest loss on the {scale['labels']:,} labels of the validation split ({scale['val_loss']:.3f} before, "
            f"{scale['val_loss_after']:.3f} after); no test label was used, and predicted classes stay the same."
        )
    bins = {name: calibration(one, correct) for name, one in confidences.items()}
    rows = []
    for name, one in confidences.items():
        low, high = calibration_interval(one, correct)
        means = (f"{one.mean():.3f}", f"{correct.mean():.3f}")
        rows.append([name, f"{bins[name].error:.3f}", f"{low:.3f} to {high:.3f}", *means])
    header = ["probabilities", "ECE", "95 % over test samples", "mean probability", "accuracy"]
    picture = figures.reliability(bins, dict(zip(bins, figures.COLORS, strict=False)))
    return Section("Calibration", [Table("calibration", "Calibration error", caption, header, rows)], [picture])


def may_show(folder: Path) -> bool:
    """Whether samples themselves may be on the page: not where the run hid names, or does not say."""
    config = try_read_yaml(folder / CONFIG)
    return isinstance(config, Mapping) and not (config.get("save") or {}).get("redact")


def metrics(results: Mapping[str, Any]) -> Table:
    """Test metrics by domain."""
    tests = {name: value for name, value in results["metrics"].items() if name.startswith("test/")}
    rows = []
    for name, value in tests.items():
        _, domain, metric = name.split("/", 2)
        rows.append([domain, metric, number_cell(value)])
    header = ["domain", "metric", "test"]
    caption = "Of the checkpoint that was chosen."
    return Table("metrics", "Test metrics", caption, header, rows, numbers=2)


def old_and_new(grown: Mapping[str, Any]) -> Table:
    """Each class of a head that has grown, before and after."""
    rows = [
        [one.name, one.kind, f"{one.samples:,}", *map(number_cell, (one.before, one.after, one.forgotten))]
        for one in growth.rows(grown)
    ]
    header = ["class", "old or new", "test samples", "before", "after", "forgotten"]
    return Table("classes", "Accuracy of each class", f"{growth.MEANING}.", header, rows, numbers=2)


def beside(results: Mapping[str, Any]) -> Table:
    """Every baseline's scores and what was chosen in it, the best by validation first."""
    entries = [results["baselines"][one.key] for one in baselines.baselines_in([results])]
    val = results["score"]["metric"].replace("test/", "val/", 1)
    names = [val, *dict.fromkeys(name for entry in entries for name in entry["metrics"] if name.startswith("test/"))]
    rows = [
        [
            entry["title"],
            *(number_cell(entry["metrics"].get(name)) for name in names),
            *(f"{entry['seconds']:.1f} s", entry["fitted_on"], entry["chosen"]),
        ]
        for entry in entries
    ]
    header = ["baseline", *map(in_words, names), "time", "fitted on", "chosen"]
    return Table("baselines", TRIED_FIRST, "On the same splits and labels, the best by validation first.", header, rows)


def confused(matrix: list[list[float]], classes: list[str]) -> Table:
    """The pairs of classes that are confused most."""
    counts = np.array(matrix, dtype=float)
    totals = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:PAIRS]
    rows = []
    for place in order.tolist():
        true, predicted = divmod(place, len(classes))
        if counts[true, predicted]:
            share = f"{100 * counts[true, predicted] / totals[true]:.0f} %"
            rows.append([str(classes[true]), str(classes[predicted]), f"{counts[true, predicted]:g}", share])
    header = ["true", "predicted", "samples", "of the true class"]
    return Table("confused", "Most confused pairs", "Test samples of the target.", header, rows, numbers=2)
