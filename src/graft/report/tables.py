"""The tables printed before and after training; plain text away from a terminal."""

import math
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from graft.cli.help import description
from graft.cli.program import program
from graft.errors import listed
from graft.locations import CONF
from graft.report import growth
from graft.report.baselines import baselines_in
from graft.report.federated import federated_lines
from graft.runs import record
from graft.runs.folder import MODEL

PIPE_WIDTH = 160  # columns away from a terminal, so that names are not cut
NAMES_SHOWN = 5


def print_setup(summary: Mapping[str, Any]) -> None:
    """Print what is about to be trained: `data`, `weights` and `parameters` as in results.json."""
    console = _console()
    _blank_line(console)
    console.print(data_table(summary["data"]))
    for line in data_lines(summary["data"]):
        console.print(line)
    console.print(labels_line(summary))
    for domain, values in summary["data"].items():
        report = values.get("report")
        for line in (*values.get("notes", ()), *([report["sentence"]] if report else [])):
            console.print(f"{domain}: {line}")
    _blank_line(console)
    console.print(weights_line(summary["weights"], summary.get("ignored_weights")))
    _blank_line(console)
    console.print(parameters_table(summary["parameters"]))
    console.print(trained_line(summary["parameters"]))
    console.print(f"precision: {summary['precision']}, {summary['threads']} CPU threads")
    if len(summary["phases"]) > 1:
        _blank_line(console)
        console.print(phases_table(summary["phases"]))
    if summary["note"]:
        print(summary["note"])
    if summary["settings"]:
        print("set by the strategy: " + " ".join(f"{key}={value}" for key, value in summary["settings"].items()))
    for line in tuning_lines(summary):
        print(line)
    _blank_line(console)


def print_results(results: Mapping[str, Any], run_dir: Path) -> None:
    """Print the test metrics, what they cost and, as the very last line, the run folder."""
    console = _console()
    _blank_line(console)
    console.print(metrics_table(results.get("metrics", {})))
    if grown := results.get("growth"):
        _blank_line(console)
        console.print(growth_table(grown))
        console.print(growth_line(grown))
    elif results.get("metrics", {}).get("forgetting") is not None:
        console.print("forgetting: what the source's main metric lost since pretraining, measured with the same head")
    if results.get("soup"):
        _blank_line(console)
        console.print(soup_table(results["soup"]))
        _blank_line(console)
    selection = selection_line(results.get("selection"))
    for line in (
        selection,
        race_line(results),
        labels_line(results),
        *choice_lines(results),
        baseline_line(results),
        *prior_lines(results),
        *rejection_lines(results),
        *fusion_lines(results),
        *seen_unseen_lines(results),
        *nonfinite_lines(results),
        *skipped_lines(results),
        cost_line(results),
    ):
        if line:
            console.print(line)
    if os.path.isdir(run_dir / MODEL):  # which is no error for a name that is too long
        print(f"predict with it: graft predict run={shlex.quote(str(run_dir))} input=<file or folder>")
    print(run_dir, flush=True)


def skipped_lines(results: Mapping[str, Any]) -> list[str]:
    """Of data that are read as a stream, how many training samples were left out, and the first of them."""
    found = (results.get("skipped_in_training") or {}).items()
    return [
        f"{domain}: {len(bad):,} training samples were left out ("
        f"{listed([f'{place}: {why}' for place, why in bad.items()], separator='; ')})"
        for domain, bad in found
    ]


def print_suggestions(results: Mapping[str, Any], run_dir: Path) -> None:
    """Print what a learning-rate range test suggests, the command to go on with and, last, the run folder."""
    found = results["tuning"]["lr"]
    console = _console()
    table = _table("learning rate", "")
    for name, rate in found["suggestions"].items():
        table.add_row(name, f"{rate:g}", "optimizer.lr=auto takes this" if name == found["suggestion"] else "")
    console.print(table)
    print(f"picture: {run_dir / 'lr_find.png'}")
    print(f"train with it: {command_with(results['overrides'], found['value'])}")
    print(run_dir, flush=True)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> None:
    """Print cells under a header, of which the first `words` columns are no numbers."""
    console, table = _console(), _table(*header)
    for column in table.columns[:words]:
        column.justify = "left"
    for row in rows:
        table.add_row(*row)
    console.print(table)


def command_with(overrides: Sequence[str], rate: float) -> str:
    """The command that trains at a rate what these overrides have tuned."""
    kept = [override for override in overrides if override.lstrip("+").split("=")[0] not in ("tune", "optimizer.lr")]
    return f"{program()} {shlex.join([*kept, f'optimizer.lr={rate:g}'])}"


def tuning_lines(summary: Mapping[str, Any]) -> list[str]:
    """A line for each number that was looked for, and where it comes from."""
    tuning, lines = summary.get("tuning") or {}, []
    if layer := tuning.get("layer"):
        scores = " ".join(f"{one['value']:.3f}" for one in layer["tried"])
        lines.append(
            f"layer: {layer['value']} of {len(layer['tried'])}, by a linear probe on {layer['samples']:,} validation "
            f"samples of the {layer['domain']} ({scores})"
        )
    if size := tuning.get("batch_size"):
        why = "as in the checkpoint" if "resumed" in size else f"largest power of two that fits, up to {size['limit']}"
        lines.append(f"batch size: {size['value']}, {why}")
    if rate := tuning.get("lr"):
        why = "as in the checkpoint"
        if "default" in rate:
            why = f"the default of {rate['default']}"
        elif "resumed" not in rate:
            phase = f" in phase {rate['phase']}" if len(summary["phases"]) > 1 else ""
            why = f"{rate['suggestion']} of the range test{phase}, see lr_find.png"
        lines.append(f"learning rate: {rate['value']:g}, {why}")
    return lines


def data_table(domains: Mapping[str, Mapping[str, Any]]) -> Table:
    """A row for each domain: its sizes in samples, its labels, and the label budget with the pool it draws from."""
    table = _table("data", "name", "classes", "train", "val", "test", "labels", "budget")
    for domain, values in domains.items():
        labels = values.get("labels") or {}
        table.add_row(
            domain,
            values["name"],
            str(len(values["classes"])) if values["classes"] is not None else "",
            *(f"{values[split]:,}" for split in ("train", "val", "test")),
            " + ".join(f"{labels[split]:,} {split}" for split in ("train", "val") if split in labels),
            budget(values),
        )
    return table


def data_lines(domains: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What the words of the data table mean, and what data sets that come with Graft are."""
    for values in domains.values():
        file = CONF / "data" / "domain" / f"{values['name']}.yaml"
        if file.is_file():
            yield f"{values['name']}: {description(file)}"
    yield "labels: how many there are to train and to validate on; budget: those to train on, of all"


def labels_line(results: Mapping[str, Any]) -> str:
    """How many labels of the target train, and how many others choose."""
    used = record.labels_used(results)
    return f"labels used: {used} (to train + to choose)" if used else ""


def budget(domain: Mapping[str, Any]) -> str:
    """How many training labels a domain may use: none, all, or a number for each class out of a pool."""
    if not domain.get("trained_on", True):
        return "not used"
    if domain.get("labels", {}).get("train") == 0:
        return "unlabelled"
    per_class = domain.get("labels_per_class")
    return "all" if per_class is None else f"{per_class} a class of {domain['pool']:,}"


def weights_line(weights: Mapping[str, Any] | None, ignored: str | None = None) -> str:
    """Where the backbone's weights come from, how many tensors matched and which did not; `ignored` are not loaded."""
    if weights is None:
        why = f" (backbone.weights={ignored} is not used by this strategy)" if ignored else ""
        return f"weights: none, the backbone starts from random numbers{why}"
    line = f"weights: {weights['source']}, {weights['matched']} of {weights['total']} tensors matched"
    if (learned := weights.get("pretraining")) and not learned["labels"]:
        terms, samples = ", ".join(learned["terms"]), f"{learned['samples']:,} inputs without labels"
        line += f"\n  {terms} for {learned['epochs']:,} epochs on {samples}"
    for key, meaning in (("adapted", "adapted"), ("missing", "left random"), ("unexpected", "not used")):
        names = weights.get(key) or []
        if names:
            more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
            line += f"\n  {len(names)} {meaning}: {', '.join(names[:NAMES_SHOWN])}{more}"
    return line


def parameters_table(parameters: Mapping[str, Any]) -> Table:
    """A row for each group of parameters: how many of them are trained at which learning rate."""
    table = _table("parameters", "count", "trained", "learning rate")
    for group in parameters["groups"]:
        rate = "" if group["lr"] is None else f"{group['lr']:.3g}"
        table.add_row(group["name"], f"{group['parameters']:,}", f"{group['trainable']:,}", rate)
    return table


def phases_table(phases: Sequence[Mapping[str, Any]]) -> Table:
    """A row for each phase: its epochs from 1, the backbone's stages that are in training mode, trained parameters."""
    table = _table("phase", "epochs", "stages", "trained", "rate")
    for number, phase in enumerate(phases, start=1):
        first, last = (epoch + 1 for epoch in phase["epochs"])
        stages = phase["stages"]
        names = "head only" if not stages else stages[0] if len(stages) == 1 else f"{stages[0]} to {stages[-1]}"
        table.add_row(str(number), f"{first} to {last}", names, f"{phase['trainable']:,}", f"x {phase['lr_factor']:g}")
    return table


def trained_line(parameters: Mapping[str, Any]) -> str:
    """How much of the network trains."""
    trainable, total = parameters["trainable"], parameters["total"]
    return f"trained: {trainable:,} of {total:,} parameters ({100 * trainable / max(total, 1):.3g} %)"


def metrics_table(metrics: Mapping[str, float | None]) -> Table:
    """Test metrics, a column for each domain, and what belongs to no domain below."""
    tests = {tuple(name.split("/")[1:]): value for name, value in metrics.items() if name.startswith("test/")}
    domains = sorted(dict.fromkeys(key[0] for key in tests), key=lambda domain: domain != "target")
    table = _table("test", *domains)
    for metric in dict.fromkeys(key[1] for key in tests):
        table.add_row(metric, *(_cell(tests.get((domain, metric))) for domain in domains))
    if metrics.get("forgetting") is not None:
        column = domains.index("source") if "source" in domains else 0
        table.add_row("forgetting", *([""] * column), _cell(metrics["forgetting"]))
    return table


def growth_table(grown: Mapping[str, Any]) -> Table:
    """A row for each class of a head that has grown: the share of its test samples that is right, before and after."""
    table = _table("class", "old or new", "test samples", "before", "after", "forgotten")
    for row in growth.rows(grown):
        table.add_row(row.name, row.kind, f"{row.samples:,}", *map(_cell, (row.before, row.after, row.forgotten)))
    return table


def growth_line(grown: Mapping[str, Any]) -> str:
    """What the words of the table of classes mean, and what is missing without samples of old classes."""
    if not any(grown["samples"][: grown["old"]]):
        return "no test sample of an old class: their data as data.source show what is forgotten (docs/new_classes.md)"
    return growth.MEANING


def selection_line(selection: Mapping[str, Any] | None) -> str:
    """Which checkpoint was tested and why."""
    if not selection:
        return ""
    line = f"checkpoint: {selection['rule']}"
    if selection["rule"].startswith("none,"):
        return line
    if selection.get("epoch") is not None:
        line += f", epoch {selection['epoch'] + 1}"
    if selection.get("monitor") and selection.get("value") is not None:
        extreme = "lowest" if selection.get("mode") == "min" else "highest"
        which = (
            f"{selection['monitor']}, the mean of folds,"
            if "folds" in selection
            else f"the {extreme} {selection['monitor']}"
        )
        line += f", {which} {_cell(selection['value'])}"
    return line + (", oracle: it used labels of an unlabelled target" if selection.get("oracle") else "")


def race_line(results: Mapping[str, Any]) -> str:
    """Among how many configurations a race chose this one, and what that took; empty outside of one."""
    if not (race := results.get("race")):
        return ""
    return (
        f"race: chosen by validation among {race['candidates']} configurations in {race['jobs']} jobs, "
        f"{race['cpu_s']:.0f} s of CPU"
    )


def choice_lines(results: Mapping[str, Any]) -> Iterator[str]:
    """How labels were held out; what else was chosen than the epoch: how far to go from pretrained weights, a soup."""
    if note := (results.get("selection") or {}).get("note"):
        yield f"budget: {note}; the validation split chooses nothing"
    if probe := results.get("probe"):
        tried = ", ".join(f"{_cell(one['value'])} at {one['penalty']:g}" for one in probe["tried"])
        names = (
            f", {probe['names']:,} names of weight {probe['name_weight']:g} as samples" if probe.get("names") else ""
        )
        yield f"probe: penalty {probe['penalty']:g}{names}, {probe['monitor']} {tried}"
    yield from federated_lines(results.get("federated"))
    if found := results.get("tip_adapter"):
        yield (
            f"tip_adapter: alpha {found['alpha']:g} and beta {found['beta']:g} of {len(found['tried'])} pairs, "
            f"{found['monitor']} {_cell(found['value'])}, {found['samples']:,} samples kept"
        )
    if note := (results.get("compression") or {}).get("note"):
        yield f"compress={results['compression']['kind']}: {note}"
    if wise_ft := results.get("wise_ft"):
        tried = ", ".join(f"{_cell(one['value'])} at {one['alpha']:g}" for one in wise_ft["tried"])
        yield f"wise_ft: alpha {wise_ft['alpha']:g} of pretrained (0) to tuned (1), {wise_ft['monitor']} {tried}"
    if swad := results.get("swad"):
        window, number = swad["window"], len(swad["losses"])
        span = f"{window['first'] + 1} to {window['last'] + 1}" if window else f"{number} alone, as no window began,"
        yield f"swad: the mean of {swad['steps']:,} steps, validations {span} of {number}, by {swad['monitor']}"
    if soup := results.get("soup"):
        members = len(soup["members"] if soup["chosen"] == "greedy" else soup["ingredients"])
        yield f"soup: {soup['chosen']}, the mean of {members} of {len(soup['ingredients'])} networks"
        if soup["label_subsets"] > 1:
            yield f"labels: its jobs drew {soup['label_subsets']} different subsets, so it saw more than each of them"


def baseline_line(results: Mapping[str, Any]) -> str:
    """The best baseline by validation beside the run's score; empty without baselines."""
    if not (found := baselines_in([results])):
        return ""
    best, score = found[0], results["score"]
    line = f"best baseline by validation: {best.title} ({best.fitted_on}), test {score['metric'].rsplit('/', 1)[-1]}"
    as_good = score["value"] is not None and best.reaches(score["value"], score["higher_is_better"])
    return f"{line} {_cell(best.test)}, {'no worse than' if as_good else 'short of'} this run's {_cell(score['value'])}"


def prior_lines(results: Mapping[str, Any]) -> Iterator[str]:
    """Where label shift is estimated: that the target's class shares are not those of the source."""
    for entry in (results.get("baselines") or {}).values():
        if note := entry.get("note"):
            yield f"{entry['title']}: {note}"


def rejection_lines(results: Mapping[str, Any]) -> Iterator[str]:
    """Of an open set, from where on a sample counts as unknown."""
    if found := results.get("rejection"):
        what = "largest probability" if found["by"] == "probability" else "negative entropy"
        yield (
            f"unknown: samples whose {what} is below {found['threshold']:.4g}, as {100 * found['fraction']:g} % of the "
            "source's validation samples are"
        )


def fusion_lines(results: Mapping[str, Any]) -> Iterator[str]:
    """Of a fusion with gates, how much of each modality goes into its features."""
    if gates := (results.get("fusion") or {}).get("gates"):
        shares = ", ".join(f"{name} {share:.2f}" for name, share in gates.items())
        yield f"gates: {shares} (mean over test samples and dimensions)"


def seen_unseen_lines(results: Mapping[str, Any]) -> Iterator[str]:
    """Of names without a sample, among how many they were told apart, and what calibration took."""
    if found := results.get("seen_unseen"):
        classes, calibrated = found["classes"], found["calibrated"]
        yield (
            f"zero_shot: means over classes, among the names of {classes['seen']:,} seen and {classes['unseen']:,} "
            "unseen classes together; area: under unseen over seen, for all constants"
        )
        yield (
            f"calibrated: {_cell(calibrated['seen'])} seen, {_cell(calibrated['unseen'])} unseen, with "
            f"{calibrated['constant']:.4g} off the cosines of seen classes, which {calibrated['labels']:,} labels of "
            "the target's validation split chose"
        )


def nonfinite_lines(results: Mapping[str, Any]) -> Iterator[str]:
    """That training met values that are not finite, and which losses of the table are not."""
    if met := results.get("nonfinite"):
        then = f"{met['skipped_steps']} optimizer steps left out" if met["policy"] == "skip" else "training went on"
        yield f"NOT FINITE: {then}; at first {met['first']['message'].splitlines()[0]}"
    tested = {k: v for k, v in results.get("metrics", {}).items() if k.startswith("test/") and k.endswith("/loss")}
    if bad := [name for name, value in tested.items() if value is not None and not math.isfinite(value)]:
        yield f"NOT FINITE: {', '.join(bad)}: look at the samples of that split, or train at a lower rate"


def soup_table(soup: Mapping[str, Any]) -> Table:
    """Validation of the soups and of every ingredient, the best first, and which of them the greedy one kept."""
    table = _table("soup", soup["monitor"], "in greedy")
    table.add_row("greedy", _cell(soup["greedy"]), str(len(soup["members"])))
    if "uniform" in soup:  # of a sweep
        table.add_row("uniform", _cell(soup["uniform"]), "")
    for name, value in soup["ingredients"].items():
        table.add_row(name, _cell(value), "x" if name in soup["members"] else "")
    return table


def cost_line(results: Mapping[str, Any]) -> str:
    """Seconds, speed and memory, as far as they were measured."""
    seconds = results.get("time") or {}
    parts = [
        f"{name} {seconds[f'{name}_s']:.1f} s"
        for name in ("pretrain", "folds", "fit", "test")
        if seconds.get(f"{name}_s")
    ]
    if results.get("samples_per_s"):
        parts.append(f"{results['samples_per_s']:,.0f} samples/s")
    if results.get("peak_memory_mb"):
        parts.append(f"peak memory {results['peak_memory_mb']:,.0f} MiB")
    return f"cost: {', '.join(parts)}" if parts else ""


def _console() -> Console:
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(width=width, markup=False, emoji=False, highlight=False, soft_wrap=True)


def _blank_line(console: Console) -> None:
    if not console.is_terminal:  # there, tables bring their own
        console.print()


def _table(title: str, *columns: str) -> Table:
    table = Table(box=box.SIMPLE if sys.stdout.isatty() else None, pad_edge=False, header_style="bold")
    table.add_column(title, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
