"""The report of a sweep: the answer, what could make it wrong, tables and pictures."""

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from graft.report import across, baselines, checks, figures, race_page, scaling
from graft.report.answer import answers, count, shown
from graft.report.cross_validation import configuration, num_tested, out_of_fold, pooled
from graft.report.export import Table
from graft.report.figures import Picture
from graft.report.kept import target_predictions
from graft.report.page import Page, Section
from graft.report.ranks import rank_intervals
from graft.report.statistics import Calibration, Estimate, calibration, calibration_interval
from graft.report.study import Arm, Comparison, Setting, Study
from graft.report.summary import (
    BASELINES_NOTE,
    TRIED_FIRST,
    count_cell,
    interval_text,
    labels_cell,
    number_cell,
    repeats_cell,
    with_ensembles,
)
from graft.report.temperature import temperature_cell, temperature_of, tempered
from graft.runs.record import TestSplit, split_of
from graft.runs.roles import role
from graft.runs.sweeps import Job, Row

CALIBRATED = 8  # arms whose calibration is shown


def page(study: Study) -> Page:
    """The page of a sweep, or of several that are read as one."""
    names = ", ".join(folder.name for folder in study.folders)
    pictures, saved = scaling.of_labels(study)
    sections = [Section("Labels", pictures=pictures, lines=saved)] if pictures else []
    if table := across.table(study):
        sections.append(Section(table.title, [table]))
    if race := race_page.race_of(study.folders):
        sections.append(race_page.section(race))
    sections += [section for setting in study.settings for section in sections_of(study, setting)]
    if study.rows and study.finished:
        sections.append(Section("Every configuration", [configurations(study)]))
    seeds = sorted({results["seeds"]["train"] for results in study.finished if results.get("seeds")})
    footer = f"{count(len(study.jobs), 'job')}, seeds {', '.join(map(str, seeds))}." if seeds else ""
    title = f"{study.finished[0].get('name', 'sweep')}: {names}" if study.finished else names
    found = [race_page.answer(race, study.finished[0]["score"])] if race else answers(study)
    return Page(title, found, checks.findings(study), len(checks.CHECKS), sections, footer)


def sections_of(study: Study, setting: Setting) -> Iterator[Section]:
    """What is shown of a setting."""
    place = f" ({setting.name})" if setting.name else ""
    calibrated = {arm.name: found for arm in setting.arms[:CALIBRATED] if (found := confidences(arm)) is not None}
    scaled = {arm.name: one for arm in setting.arms[:CALIBRATED] if (one := scaled_confidences(arm)) is not None}
    drawn = (
        figures.gains(study, setting),
        figures.heat_map(study, setting),
        figures.learning_curves(study, setting),
        figures.forgetting(study, setting),
        scaling.of_alpha(study, setting),
    )
    pictures = [picture for picture in drawn if picture]
    yield Section(
        f"Strategies{place}", [own(setting, study, strategies(study, setting))], named(study, setting, pictures)
    )
    if arm_of_folds(setting):
        yield Section(f"Folds{place}", [own(setting, study, one) for one in fold_tables(study, setting)])
    if beside := beside_strategies(setting):
        yield Section(f"Baselines{place}", [own(setting, study, beside)])
    if calibrated:
        bins = {name: calibration(*found) for name, found in calibrated.items()}
        picture = figures.reliability(bins, figures.colors_of(study))
        yield Section(
            f"Calibration{place}",
            [own(setting, study, calibrations(calibrated, scaled, bins))],
            named(study, setting, [picture]),
        )


def strategies(study: Study, setting: Setting) -> Table:
    """A line for each arm, the best by validation first: score, gain, cost."""
    keys = [key for key in study.varied if role(key) == "tuned"]
    compared = {one.arm.name: one for one in setting.comparisons}
    finished = setting.arms[0].best.finished[0]
    monitor = (finished.get("selection") or {}).get("monitor") or "val"
    metric = finished["score"]["metric"]
    unit = setting.arms[0].best.unit
    header = [
        *("strategy", *keys, in_words(monitor), in_words(metric), "95 % interval", "place", f"{unit}s", "test samples"),
        f"gain over {setting.reference_name}",
        *("Holm p", "forgetting", "labels used", "trainable", "target steps", "FLOPs", "fit", "overrides"),
    ]
    places = rank_intervals(setting)
    rows = [strategy_row(study, arm, keys, compared.get(arm.name), places.get(arm.name)) for arm in setting.arms]
    over = "new seeds and new test samples where predictions were kept, else over seeds alone"
    caption = (
        "The configuration of each strategy that validation chose, in that order. The score's interval is over "
        f"{over if unit == 'seed' else f'{unit}s, with seeds averaged'}. Place: what simultaneous 95 % intervals of "
        f"all pairs leave open. A gain is paired by {unit}, and its interval is simultaneous over all comparisons. "
        "Labels used: to train + to choose. FLOPs: of training, with pretraining's, where they are known."
    )
    return Table("strategies", "Chosen configurations", caption, header, rows, numbers=1 + len(keys)).without_empty()


def arm_of_folds(setting: Setting) -> Arm | None:
    """The arm whose folds are shown: what each fold chose, or the best by validation; None without folds."""
    arm = setting.procedure or setting.arms[0]
    return arm if arm.best.unit == "fold" else None


def fold_tables(study: Study, setting: Setting) -> Iterator[Table]:
    """The scores over all out-of-fold predictions of each arm, and every fold of the one that the page is about."""
    procedure = setting.procedure if len(setting.arms) > 1 else None  # else it is the only arm
    arms = {arm.name: arm for arm in (*setting.arms, procedure) if arm}
    found = {name: pooled(arm.best) for name, arm in arms.items()}
    metrics = list(dict.fromkeys(metric for values in found.values() for metric in values))
    if metrics:
        rows = [
            [name, str(num_tested(arms[name].best)), *(number_cell(values.get(metric)) for metric in metrics)]
            for name, values in found.items()
            if values
        ]
        caption = (
            "One score over the predictions of all folds together, each sample predicted once in a repeat by a model "
            "that did not see it; means over repeats and seeds. A ranking such as AUROC also feels where the models of "
            "the folds differ in level, so that it can lie below the mean over folds."
        )
        yield Table("out_of_fold", "Out-of-fold predictions", caption, ["strategy", "samples", *metrics], rows)
    arm = arm_of_folds(setting)
    assert arm is not None
    folds: dict[TestSplit, list[Job]] = {}
    for job in arm.best.jobs:
        if job.results and "score" in job.results:
            folds.setdefault(split_of(job.results), []).append(job)
    rows = [fold_row(study, split, jobs) for split, jobs in folds.items()]
    caption = "Each fold's own configuration, validation and test score; means over seeds."
    header = ["split and fold", "configuration", "test samples", "validation", f"test {study.metric}"]
    yield Table("folds", f"Folds of {arm.name}", caption, header, rows, numbers=2).without_empty()


def fold_row(study: Study, split: TestSplit, jobs: list[Job]) -> list[str]:
    """A fold's cells."""
    row = Row(jobs[0].overrides, jobs)
    report = row.finished[0]["data"]["target"].get("report") or {}
    return [
        f"split {split}" + "".join(f", {part}" for part in report.get("split", "").split("; ")[0].split(", ")[1:]),
        configuration(row, study.varied),
        count_cell(row.numbers("data", "target", "test")),
        number_cell(row.mean("selection", "value")),
        number_cell(row.mean("score", "value")),
    ]


def beside_strategies(setting: Setting) -> Table | None:
    """A line for each baseline, the best by validation first; None without any."""
    header, *rows = baselines.table([arm.best for arm in setting.arms], ())
    return Table("baselines", TRIED_FIRST, BASELINES_NOTE, header, rows, numbers=2) if rows else None


def in_words(metric: str) -> str:
    """`val/target/acc` as a heading that can be broken: the target, whose scores these are, is not named."""
    return metric.replace("val", "validation", 1).replace("/target", "").replace("/", " ")


def strategy_row(
    study: Study, arm: Arm, keys: list[str], one: Comparison | None, place: tuple[int, int] | None
) -> list[str]:
    """An arm's cells."""
    best = arm.best
    trainable, fit = best.mean("parameters", "trainable"), best.mean("time", "fit_s")
    mean, forgotten = best.mean("score", "value"), best.mean("metrics", "forgetting")
    steps, flops = best.mean("cost", "target_steps"), best.mean("cost", "flops", "total")
    return [
        arm.name,
        *(best.overrides.get(key, "") for key in keys),
        number_cell(best.mean("selection", "value")),
        "" if mean is None else f"{mean:.4f}",
        estimate_text(study, arm.estimate()[0], f"{best.unit}s"),
        "" if place is None else " to ".join(map(str, dict.fromkeys(place))),
        repeats_cell(best),
        count_cell(best.numbers("data", "target", "test")),
        "" if one is None else gain_text(study, one),
        "" if one is None or one.p is None else f"{one.p:.2g}",
        "" if forgotten is None else f"{forgotten:+.4f}",
        labels_cell(best),
        "" if trainable is None else f"{trainable:,.0f}",
        "" if steps is None else f"{steps:,.0f}",
        "" if flops is None else f"{flops:.2g}",
        "" if fit is None else f"{fit:.1f} s",
        arm.overrides if arm.overrides.rpartition("=")[2] != arm.name else "",
    ]


def gain_text(study: Study, one: Comparison) -> str:
    """A gain with its simultaneous interval, where there is one."""
    interval = "" if one.interval is None else " [{}, {}]".format(*(shown(study, end) for end in one.interval))
    return shown(study, one.estimate.mean, sign=True) + interval


def configurations(study: Study) -> Table:
    """A line for each row of the sweep."""
    repeats = "seeds" if all(row.unit == "seed" for row in study.rows) else "repeats"
    header = [*study.varied, "validation", "test mean", "test deviation", repeats, "labels used", "failed", "diverged"]
    header.append("fit")
    rows = [configuration_row(row, study.varied) for row in with_ensembles(study.jobs, study.rows)]
    over = "seeds" if repeats == "seeds" else "jobs"
    caption = f"All that was tried, best by validation first; the deviation is over {over} (n - 1)."
    return Table("configurations", "All of them", caption, header, rows, numbers=len(study.varied)).without_empty()


def configuration_row(row: Row, keys: list[str]) -> list[str]:
    """A row's cells."""
    scores, fit = row.scores, row.mean("time", "fit_s")
    return [
        *(row.overrides.get(key, "") for key in keys),
        number_cell(row.mean("selection", "value")),
        number_cell(statistics.fmean(scores) if scores else None),
        number_cell(statistics.stdev(scores) if len(scores) > 1 else None),
        repeats_cell(row),
        labels_cell(row),
        str(len(row.failed) or ""),
        str(len(row.diverged) or ""),
        "" if fit is None else f"{fit:.1f} s",
    ]


def confidences(arm: Arm) -> tuple[np.ndarray, np.ndarray] | None:
    """Probability of the predicted class and whether it is right, `(seeds, m)` each; None without classes.

    The samples are those of all folds where there are some.
    """
    found = [[confidence_of(target_predictions(job.path)) for job in jobs] for jobs in runs_of(arm)]
    parts = [np.concatenate([one for one in folds if one], axis=1) for folds in found if all(folds)]
    if not parts or len({part.shape for part in parts}) > 1:
        return None
    return np.stack([one for one, _ in parts]), np.stack([one for _, one in parts])


def runs_of(arm: Arm) -> list[list[Job]]:
    """The jobs that together test each sample once: all folds of a repeat and seed, or one job."""
    return out_of_fold(arm.best) or [[job] for job in arm.jobs.values()]


def confidence_of(found: Mapping[str, Any] | None) -> tuple[np.ndarray, np.ndarray] | None:
    """Of a run: `(m,)` each; None where there are no classes, or several for a sample."""
    if not found or not found.get("classes") or not found["label"] or isinstance(found["label"][0], list):
        return None
    pairs = zip(found["label"], found["prediction"], strict=True)
    correct = np.array([label == predicted for label, predicted in pairs], dtype=float)
    return np.array(found["probabilities"], dtype=float).max(axis=1), correct


def scaled_confidences(arm: Arm) -> tuple[np.ndarray, list[float]] | None:
    """As `confidences`, each run's by its own temperature, and those; None where a run has none."""
    parts, temperatures = [], []
    for jobs in runs_of(arm):
        folds = []
        for job in jobs:
            found, value = target_predictions(job.path), temperature_of(job.results or {})
            if found is None or value is None or confidence_of(found) is None:
                return None
            folds.append(tempered(found["probabilities"], value).max(axis=1))
            temperatures.append(value)
        parts.append(np.concatenate(folds))
    return (np.stack(parts), temperatures) if len({len(part) for part in parts}) == 1 else None


def calibrations(
    found: Mapping[str, tuple[np.ndarray, np.ndarray]],
    scaled: Mapping[str, tuple[np.ndarray, list[float]]],
    bins: Mapping[str, Calibration],
) -> Table:
    """Calibration error of each arm with its interval, as the networks are and scaled by their temperatures."""
    rows = []
    for name, (confidence, correct) in found.items():
        cells = [f"{bins[name].error:.3f}", "{:.3f} to {:.3f}".format(*calibration_interval(confidence, correct))]
        after = ["", "", ""]
        if name in scaled:
            values, temperatures = scaled[name]
            interval = "{:.3f} to {:.3f}".format(*calibration_interval(values, correct))
            after = [temperature_cell(temperatures), f"{calibration(values, correct).error:.3f}", interval]
        rows.append([name, *cells, *after, f"{confidence.mean():.3f}", f"{correct.mean():.3f}"])
    interval = "95 % over test samples"
    scaling = ("temperature", "ECE scaled", f"{interval}, scaled")
    header = ["strategy", "ECE", interval, *scaling, "mean probability", "accuracy"]
    caption = (
        "Expected calibration error in ten bins of equally many test samples, all seeds together. It leans upwards: "
        "chance alone moves a bin's accuracy. Scaled: logits divided by the temperature that each run fitted on its "
        "validation labels (mean over seeds); nothing was fitted on test."
    )
    return Table("calibration", "Calibration error", caption, header, rows).without_empty()


def estimate_text(study: Study, one: Estimate, unit: str = "seeds") -> str:
    """An estimate's interval for people."""
    low, high = one.interval() if one.error > 0 else (one.mean, one.mean)
    return "" if one.n < 2 else interval_text(one.n, one.mean, (high - low) / 2, study.in_points, unit)


def own(setting: Setting, study: Study, table: Table) -> Table:
    """The table under a name of its setting, where there are several."""
    return (
        table
        if len(study.settings) == 1
        else Table(**{**vars(table), "name": f"{table.name}_{number(study, setting)}"})
    )


def named(study: Study, setting: Setting, pictures: list[Picture]) -> list[Picture]:
    """The pictures under names of their setting, where there are several."""
    if len(study.settings) == 1:
        return pictures
    return [Picture(**{**vars(one), "name": f"{one.name}_{number(study, setting)}"}) for one in pictures]


def number(study: Study, setting: Setting) -> int:
    """A setting's place among the others, from 1."""
    return study.settings.index(setting) + 1
