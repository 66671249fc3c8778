"""The model card: README.md beside a run's model, from its record and what the model's folder holds.

A line stands there only where the run knows its fact; of what matters and is not known the card says so.
"""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

from filelock import FileLock
from jinja2 import Environment, PackageLoader

from graft.errors import listed
from graft.files import write_whole
from graft.model import folder as folders
from graft.model.folder import Description
from graft.packages import PREFIX
from graft.report import baselines, checks, growth, study
from graft.report.kept import sampling_interval, target_predictions
from graft.report.summary import within_bounds
from graft.report.temperature import is_at_end, temperature_of
from graft.runs import record
from graft.runs.folder import BEST_LOCK, BEST_MODEL, MODEL
from graft.runs.sweeps import Job, split_override
from graft.weights.files import HERE

TEMPLATE = "card.md.jinja"
CLASSES_SHOWN = 20
WHAT = {
    "image": ("images", "photo.jpg", '["photo.jpg"]'),
    "audio": ("recordings", "clip.wav", '["clip.wav"]'),
    "text": ("texts", "texts.txt", '["a text"]'),
    "table": ("rows of a table", "rows.csv", '"rows.csv"'),
    "multimodal": ("samples of several modalities", "samples.csv", '"samples.csv"'),
    "sequence": ("sequences of vectors", "sequences.npz", "sequences"),
}  # of a modality: what its inputs are called, an input on the command line, one in Python


def write(run: Path) -> None:
    """Write the card of a run's model, where there is one: of a sweep's job a better one may take its place."""
    if not (run / MODEL / folders.DESCRIPTION).is_file():
        return
    with FileLock(run.parent / BEST_LOCK) if (run.parent / BEST_MODEL).is_file() else nullcontext():
        if (run / MODEL / folders.DESCRIPTION).is_file():
            write_whole(run / MODEL / folders.CARD, card(run))


def card(run: Path) -> str:
    """The card as Markdown."""
    results, model = record.read(run), run / MODEL
    description = folders.read(model)
    inputs, example, argument = WHAT[description.modality]
    environment = Environment(loader=PackageLoader("graft.report", "."), trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(TEMPLATE).render(
        name=description.name,
        summary=summary(description, inputs),
        example=example,
        argument=argument,
        fields=list(fields(description)),
        input=f"The network takes {description.input}; inputs are read as the run read its own.",
        data=list(data_lines(results, description)),
        results=list(result_rows(run, results)),
        reading=list(reading_lines(results)),
        checks=list(check_lines(run, results)),
        limits=list(limit_lines(results, description, model)),
        weights=list(weight_lines(results)),
        privacy=list(privacy_lines(model)),
        made=list(made_lines(results)),
    )


def summary(description: Description, inputs: str) -> str:
    """What the model does, in a sentence."""
    backbone = description.backbone.get("name") or description.backbone["_target_"].rsplit(".", 1)[-1]
    classes = description.classes
    if description.task["_target_"].endswith("Seq2Seq"):
        return f"Writes a text for {inputs}, with `{backbone}` as its backbone."
    if classes is None:
        return f"Predicts a number for {inputs}, with `{backbone}` as its backbone."
    if description.task["_target_"].endswith("Detection"):
        return f"Predicts boxes of {len(classes)} classes in {inputs}, with `{backbone}` as its backbone."
    kind = "any of" if description.task["_target_"].endswith("Multilabel") else "one of"
    return f"Predicts {kind} {len(classes)} classes for {inputs}, with `{backbone}` as its backbone."


def fields(description: Description) -> Iterator[str]:
    """What predictions hold, as lines of Python."""
    if description.task["_target_"].endswith("Detection"):
        yield "found.labels  # of each image a list of boxes: class, box (x0, y0, x1, y1 in pixels), score"
        return
    if description.task["_target_"].endswith("Seq2Seq"):
        yield "found.labels  # a text for each input"
        return
    yield "found.labels  # " + ("numbers" if description.classes is None else "class names")
    if description.classes is not None:
        yield "found.probabilities  # of every class"
    if description.unusual:
        yield "found.unusual  # whether an input is unlike the training data"


def data_lines(results: Mapping[str, Any], description: Description) -> Iterator[str]:
    """What was learned from."""
    for domain, one in results["data"].items():
        sizes = ", ".join(f"{one[split]:,} {split}" for split in ("train", "val", "test"))
        trained = "" if one.get("trained_on", True) else "; nothing was learned from it"
        yield f"{domain}: {one['name']}, {sizes}{trained}"
        if one.get("report"):
            yield f"{domain}: {one['report']['sentence']}"
        for note in one["notes"]:
            yield f"{domain}: {note}"
    training, choosing = record.labels_of(results)
    yield f"labels of the target used: {training:,} to train, {choosing:,} more to choose the checkpoint"
    if description.classes is not None:
        yield f"classes: {listed([f'`{name}`' for name in description.classes], CLASSES_SHOWN)}"
    if grown := results.get("growth"):
        yield (
            f"the first {grown['old']} of the classes come from the run {Path(grown['run']).name}, whose head got the "
            "others; what that run learned from is in its own card"
        )


def result_rows(run: Path, results: Mapping[str, Any]) -> Iterator[list[str]]:
    """Each test metric with its interval, where there is one, and the number of test samples."""
    found = target_predictions(run)
    for name, value in results["metrics"].items():
        if not name.startswith("test/") or value is None:  # forgetting is of no split
            continue
        _, domain, *rest = name.split("/")
        if domain == "grown":  # of the test samples of all sides
            size = growth.samples_of(results["growth"], rest[0])
            yield [domain, rest[0], f"{value:.4g}", "not computed", f"{size:,}"]
            continue
        data = results["data"].get(domain.split("_")[0], {})  # test/target_blur/acc is of the target too
        if not (domain.startswith("target") or data.get("trained_on")):
            continue
        metric = "/".join(rest)
        interval = sampling_interval(metric, found) if found and domain == "target" else None
        shown = "not computed" if interval is None else "{:.4g} to {:.4g}".format(*within_bounds(metric, interval))
        size = len(found["label"]) if found and domain == "target" else data["test"]
        yield [domain, metric, f"{value:.4g}", shown, f"{size:,}"]


def reading_lines(results: Mapping[str, Any]) -> Iterator[str]:
    """How to read the numbers: what chose them, and what stands beside them."""
    yield "An interval is the sampling error of the test split, over its samples; this is one seed."
    selection = results["selection"]
    epoch = "" if selection.get("epoch") is None else f", epoch {selection['epoch'] + 1}"
    yield f"checkpoint chosen by `{selection['rule']}`{epoch}"
    if found := results.get("federated"):
        yield (
            f"trained by {len(found['clients'])} clients (`federated={found['method']}`), whose samples stayed with "
            f"them; these weights are {found['model']}"
        )
    if note := (results.get("compression") or {}).get("note"):
        yield f"compressed in training (`{results['compression']['kind']}`): {note}"
    for one in baselines.baselines_in([results]):
        yield f"baseline, {one.title} ({one.fitted_on}): {one.test:.4g}"


def check_lines(run: Path, results: Mapping[str, Any]) -> Iterator[str]:
    """What the report's checks say of the run."""
    job = Job(run.name, dict(map(split_override, results.get("overrides", []))), results, path=run)
    found = checks.findings(study.of_jobs([run], [job]))
    for one in found:
        yield f"{one.severity}: {one.sentence} ({one.docs})"
    if not found:
        yield f"none of {len(checks.CHECKS)} checks has something to say"


def limit_lines(results: Mapping[str, Any], description: Description, model: Path) -> Iterator[str]:
    """What the model's numbers do not hold for."""
    yield "Tested on data like those above; nothing is known of others."
    if description.task["_target_"].endswith("Detection"):
        yield "A score is no probability: it orders boxes, and is not calibrated."
        return
    if description.task["_target_"].endswith("Seq2Seq"):
        yield "A text may say what the input does not: ROUGE counts common words, and does not check what is true."
        return
    if description.classes is not None:
        yield "An input of no class gets one all the same."
    if description.temperature is not None:
        labels = results["temperature"]["labels"]
        fitted = f"the temperature {description.temperature:.3g}, fitted on {labels:,} labels of validation"
        yield f"`confidence` is calibrated by {fitted}."
    elif (value := temperature_of(results)) is not None and is_at_end(value):
        yield "`confidence` is not calibrated: validation has too few mistakes to learn from."
    elif description.classes is not None:
        yield "`confidence`, where there is one, is not calibrated."
    if limits := description.unusual:
        scores = [name for name in limits["thresholds"] if name != "distance" or (model / folders.NEIGHBOURS).is_file()]
        yield (
            f"`unusual` is above the value that {100 * limits['accepted']:.0f} % of {limits['samples']:,} validation "
            f"samples do not exceed, of {' or else '.join(sorted(scores))}; how many strange inputs it misses was not "
            "tested."
        )
    else:
        yield "Inputs unlike the training data are not recognised."


def weight_lines(results: Mapping[str, Any]) -> Iterator[str]:
    """Where the weights came from, and under which licence."""
    weights = results.get("weights")
    if not weights:
        yield "The network was trained from random numbers."
        return
    yield f"began with: {weights['source']}, {weights['matched']:,} of {weights['total']:,} tensors"
    if (learned := weights.get("pretraining")) and not learned["labels"]:
        yield f"pretrained without labels: {', '.join(learned['terms'])} on {learned['samples']:,} inputs"
    if weights.get("warning"):
        yield str(weights["warning"])
    yield licence_of(weights["source"])


def licence_of(source: str) -> str:
    """The licence of pretrained weights as far as it is known here."""
    for domain in HERE:
        if source.startswith(f"{domain} ("):
            return f"licence: that of the {domain} data above, from which the weights were learned here"
    if source.startswith(PREFIX):
        package = source.removeprefix(PREFIX).partition("/")[0]
        if found := package_licence(package):
            return f"licence: {found}, as the package {package} states it"
    return "licence: not known to Graft; look it up where the weights come from before you pass the model on"


def package_licence(package: str) -> str | None:
    """The licence that an installed package states; None without one."""
    try:
        found = metadata(package)
    except PackageNotFoundError:
        return None
    stated = [*found.get_all("License-Expression", []), *found.get_all("License", [])]
    stated += [one.rsplit(" :: ", 1)[-1] for one in found.get_all("Classifier", []) if one.startswith("License ::")]
    stated = [one.partition("\n")[0] for one in stated]  # of a whole licence its first line
    return next((one for one in stated if one and one != "UNKNOWN"), None)


def privacy_lines(model: Path) -> Iterator[str]:
    """What of the training data is in the model's folder."""
    sizes = {name: (model.parent / name).stat().st_size for name in folders.names_in(model)}
    total = sum(size for name, size in sizes.items() if name != f"{MODEL}/{folders.CARD}")
    yield f"{total / 1e6:,.2f} MB in {len(sizes) - (f'{MODEL}/{folders.CARD}' in sizes)} files; no training sample"
    kept = sizes.get(f"{MODEL}/{folders.NEIGHBOURS}")
    if kept is None:
        yield "no features of training samples"
    else:
        yield (
            f"`{folders.NEIGHBOURS}` ({kept / 1e6:,.2f} MB) holds a feature vector, the name and the label of every "
            "training sample: it tells whether a sample was trained on, and features can give away what is in it. "
            "Remove the file before you give the model away; all but the nearest samples still works."
        )
    for name, what in (("columns.json", "categories, means and deviations"), ("vocabulary.json", "words")):
        if f"{MODEL}/{name}" in sizes:
            yield f"`{name}` holds {what} of the training data"


def made_lines(results: Mapping[str, Any]) -> Iterator[str]:
    """Seeds, code and versions."""
    seeds = {name: seed for name, seed in results["seeds"].items() if seed is not None}
    yield "seeds: " + ", ".join(f"{name} {seed}" for name, seed in seeds.items())
    if commit := (results.get("git") or {}).get("commit"):
        yield f"code: commit {commit}" + (", with uncommitted changes" if results["git"]["dirty"] else "")
    yield "versions: " + ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    if total := (results.get("time") or {}).get("total_s"):
        yield f"took {total:,.0f} s"
