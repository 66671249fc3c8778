"""The part of a run's page that needs its network and data again: change, features, neighbours, attributions."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from graft.report.export import Table
from graft.report.features import features_pictures
from graft.report.figures import GAIN, UNCLEAR, Picture, draw
from graft.report.page import Section
from graft.report.samples import Sample

ROUNDING = 1e-9  # below which nothing has changed
SHORT = 22  # characters of a stage's name in a figure


def sections(found: Mapping[str, Any]) -> Iterator[Section]:
    """What is shown of `graft.inspection.findings.inspected`."""
    if found["neighbours"]:
        line = (
            "The test samples that are most surely wrong, each above the training samples with the most similar "
            "features (cosine). Neighbours of the predicted class that look like the sample point to a label or a lack "
            "of data, those that do not to the features."
        )
        yield Section("Nearest training samples", samples=[*map(sample, found["neighbours"])], lines=[line])
    yield from change_section(found)
    yield from attribution_section(found)


def sample(values: Mapping[str, Any]) -> Sample:
    """A sample as it was kept."""
    near = [sample(one) for one in values.get("near", ())]
    return Sample(**{**values, "near": near})


# Features


def change_section(found: Mapping[str, Any]) -> Iterator[Section]:
    """How far training moved the network, stage by stage, and its features before and after."""
    lines = [f"Nothing is said of the network before training: {found['missing']}."] if found["missing"] else []
    tables, pictures = [], []
    if found["change"]:
        tables, pictures = [change_table(found)], [change_bars(found["change"], found["begin"])]
    if "source" not in found["domains"]:  # else beside what else is shown of both domains
        pictures += features_pictures(found)
    if "t-SNE" not in {one["method"] for one in found["projections"]}:
        lines.append("t-SNE is drawn too where openTSNE is installed: pip install openTSNE")
    yield Section("What training changed", tables, pictures, lines=lines)


def change_table(found: Mapping[str, Any]) -> Table:
    """A line for each stage."""
    rows = []
    for one in found["change"]:
        distance, shared, tensors = one["moved"] or (None, "", "")
        cells = ["" if number is None else f"{number:.4f}" for number in (distance, one["cka"])]
        rows.append([one["stage"], f"{shared} of {tensors}" if one["moved"] else "", *cells])
    caption = (
        "Distance: ||after - before|| / ||before|| of a stage's parameters; before, they came from "
        f"{found['begin']}. CKA: linear centred kernel alignment of what a stage puts out (mean over places) for "
        f"{found['samples']:,} test samples, 1 where nothing changed but rotation and scale (Kornblith et al., 2019)."
    )
    header = ["stage", "tensors compared", "distance", "CKA"]
    return Table("change", "Distance from the beginning", caption, header, rows)


def change_bars(change: Sequence[Mapping[str, Any]], begin: str) -> Picture:
    """Distance and 1 - CKA of each stage as bars."""
    names = [one["stage"] if len(one["stage"]) <= SHORT else "…" + one["stage"][1 - SHORT :] for one in change]
    places = np.arange(len(change))

    def plot(weights: Axes, outputs: Axes) -> None:
        moved = [one["moved"][0] if one["moved"] else 0.0 for one in change]
        turned = [0.0 if one["cka"] is None else 1 - one["cka"] for one in change]
        for axes, values, color in ((weights, moved, UNCLEAR), (outputs, turned, GAIN)):
            axes.barh(places, values, color=color)
            axes.set_xlim(0, 1.05 * max(values) if max(values) > ROUNDING else 1.0)
        weights.set_yticks(places, names)
        outputs.set_yticks(places, [""] * len(names))
        for axes, title in ((weights, "weights: relative distance"), (outputs, "features: 1 - CKA")):
            axes.invert_yaxis()
            axes.set_xlabel(title)
            axes.tick_params(axis="y", length=0)

    caption = f"How far each stage moved from where it began ({begin}), from the input to the features."
    return draw("change", "Change by stage", caption, 6.4, 1.1 + 0.3 * len(change), plot, panels=2)


# Attribution


def attribution_section(found: Mapping[str, Any]) -> Iterator[Section]:
    """What predictions rest on, each picture with the numbers that say whether to believe it, or withheld."""
    title = "What predictions rest on"
    if found["unexplained"]:
        yield Section(title, lines=[found["unexplained"]])
    elif not found["content"]:
        yield Section(title, lines=["Samples are not shown: save.redact hides them."])
    elif found["attributions"]:
        entries = found["attributions"]
        withheld = sum(bool(one["withheld"]) for one in entries)
        lines = [
            "Blue speaks for the predicted class, orange against it. A picture is shown where removing what it marks "
            "takes more of the prediction away than removing as much at random (deletion area below random's), and "
            "where it does not stay the same under random weights (rank correlation at most .5).",
            *([f"Withheld: {withheld} of {len(entries)}, see the table."] if withheld else []),
        ]
        yield Section(title, [judged(entries)], samples=[explained(one) for one in entries], lines=lines)


def judged(entries: Sequence[Mapping[str, Any]]) -> Table:
    """The numbers of each attribution."""
    levels = list(entries[0]["similarity"])
    header = ["sample", "method", "shown", "deletion area", "random order", *(f"random: {name}" for name in levels)]
    rows = [
        [
            one["sample"]["name"],
            one["method"],
            "withheld" if one["withheld"] else "yes",
            *(f"{one[name]:.3f}" for name in ("area", "chance")),
            *(f"{one['similarity'][name]:+.2f}" for name in levels),
        ]
        for one in entries
    ]
    caption = (
        "Deletion area: mean of the predicted class's probability while cells, tokens or columns are replaced by the "
        "baseline, the most important first (pixel flipping); of numbers, what is left of the way to the baseline's "
        "prediction. Random: rank correlation with the attribution of the network whose weights are in random order, "
        "from the head on (Adebayo et al., 2018)."
    )
    return Table("attribution", "Whether to believe them", caption, header, rows, numbers=3)


def explained(one: Mapping[str, Any]) -> Sample:
    """A sample under its attribution, or with why that is withheld."""
    values = {**one["sample"]}
    said = f"{values['note']}; {one['method']}" if values["note"] else one["method"]
    if one["withheld"]:
        return Sample(**{**values, "note": f"{said} withheld: {one['withheld']}", "image": None})
    same = [*one["similarity"].values()][-1]
    numbers = f"deletion area {one['area']:.2f} (random {one['chance']:.2f}), random weights {same:+.2f}"
    values["note"] = f"{said}: {numbers}"
    if one["marks"]:
        values |= {"text": None, "marks": [tuple(pair) for pair in one["marks"]]}
    return Sample(**values | ({"image": one["image"]} if one["image"] else {}))
