"""Everything that is looked at in a finished run, as plain values that are kept beside its report."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graft.backbones.split_backbone import FEATURES
from graft.data.samples import names_of
from graft.data.slices import check_slices, slice_values
from graft.errors import GraftError, first_line
from graft.heads.base import bottleneck_of, has_bottleneck, seen_by
from graft.inputs.base import Inputs, one_of
from graft.inspection.activations import activations
from graft.inspection.attribution import ADVICE, has_captum, methods
from graft.inspection.change import linear_cka, relative_distance
from graft.inspection.content import content_of_sample, row_of
from graft.inspection.domain_distance import domain_distance
from graft.inspection.faithfulness import Verdict, deletion_area, random_area, randomised, rank_correlation
from graft.inspection.neighbours import nearest, surely_right, surely_wrong
from graft.inspection.opened import Opened, open_run
from graft.inspection.overlay import is_spectrogram, overlay
from graft.inspection.projection import has_tsne, principal, tsne
from graft.inspection.subject import Question, Subject, subjects_of
from graft.model.model import Model, load
from graft.model.predictions import words_of
from graft.model.save import hashed, numbered
from graft.report.samples import losses_of, worst_rows

TEST_SAMPLES, SOURCE_SAMPLES, TRAIN_SAMPLES = 1000, 500, 10_000  # at most, whose features are looked at
WRONG, NEAR = 6, 3
EXPLAINED = 3  # wrong, and as many right samples
TOKENS, COLUMNS = 40, 10  # of a sample that are marked


def inspected(
    folder: Path,
    results: Mapping[str, Any],
    found: Mapping[str, Any] | None,
    *,
    allow: Sequence[str],
    slices: Sequence[str],
    content: bool,
) -> dict[str, Any]:
    """Change, projections, neighbours and attributions of a run.

    `found` are its test predictions; `content` says whether samples may be shown. Raises GraftError where the run's
    data or model cannot be opened, or a slice is not there.
    """
    with torch.random.fork_rng(devices=()):
        model = load(folder, allow)
        check_can_be_looked_into(model)
        opened = open_run(folder, results, allow, model)
        check_slices(slices, opened.data.domains["target"])
        values = slice_values(slices, opened.data.domains["target"])
        chosen = [] if found is None else found["index"]
        rows = found if found and content else None
        return {
            "slices": {name: [shown_as(one[index], content) for index in chosen] for name, one in values.items()},
            **features_of(opened, named=content),
            "before": correct_before(opened, found),
            "contents": contents(opened, rows) if rows else {},
            "neighbours": neighbours(opened, rows) if rows else [],
            **explained(opened, rows),
            "content": content,
        }


def check_can_be_looked_into(model: Model) -> None:
    """GraftError for a network whose predictions these looks do not know."""
    known = {"predicts boxes": model.predicts_boxes, "writes texts": model.predicts_texts}
    if what := next((one for one, applies in known.items() if applies), None):
        raise GraftError(f"a network that {what} is not looked into.")


def shown_as(value: Any, content: bool) -> Any:
    """A sample's value of a slice, of a text its hash where content is hidden."""
    return hashed(value) if isinstance(value, str) and not content else value


# Features


def features_of(opened: Opened, *, named: bool) -> dict[str, Any]:
    """How far each stage moved, and the features before and after in the plane; `missing` says why there is none.

    Classes are numbered unless they may be `named`.
    """
    limited, indices = opened.limited("target", "test", TEST_SAMPLES)
    sides = {"after": opened.model.backbone} | ({"before": opened.before} if opened.before is not None else {})
    target = {when: activations(one, limited.data, "target", "test") for when, one in sides.items()}
    features = {"target": {when: found[FEATURES] for when, found in target.items()}}
    labels = {"target": labels_of(opened, "target", indices, named=named)}
    if opened.has_source:
        other, drawn = opened.limited("source", "test", SOURCE_SAMPLES)
        features["source"] = {
            when: activations(one, other.data, "source", "test")[FEATURES] for when, one in sides.items()
        }
        labels["source"] = labels_of(opened, "source", drawn, named=named)
    seen = {domain: embedded(opened, one) for domain, one in features.items()}
    both: dict[str, np.ndarray] = {
        when: torch.cat([one[when] for one in seen.values()]).numpy() for when in ("before", "after") if when in sides
    }
    return {
        "begin": opened.begin,
        "missing": opened.missing,
        "samples": len(indices),
        "change": change(opened, target) if opened.before is not None else [],
        "bottleneck": embeds(opened),
        "projections": projections(both),
        "labels": labels,
        "domains": [domain for domain, one in seen.items() for _ in one["after"]],
        "distances": distances(seen),
    }


def embeds(opened: Opened) -> bool:
    """Whether a bottleneck puts out what alignment acts on, of both domains the same."""
    return has_bottleneck(opened.model.head) and (opened.shared_head or not opened.has_source)


@torch.no_grad()
def embedded(opened: Opened, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What classifiers take of features `(N, D)` before and after: a bottleneck's output `(N, E)`, or the features."""
    if not embeds(opened):
        return {**features}
    heads = {"before": opened.head_before, "after": opened.model.head}
    return {when: copy.deepcopy(bottleneck_of(heads[when])).double()(one) for when, one in features.items()}


def distances(seen: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, int]]:
    """The domains' distance before and after; empty without a source."""
    if "source" not in seen:
        return {}
    sides = [when for when in ("before", "after") if when in seen["target"]]
    found = {when: domain_distance(seen["source"][when], seen["target"][when]) for when in sides}
    return {when: asdict(one) for when, one in found.items() if one}


def labels_of(opened: Opened, domain: str, indices: Tensor, *, named: bool) -> list[str]:
    """Classes of test samples for people, numbered unless they may be named; none where these are not the target's."""
    labels, classes = opened.split(domain, "test").labels, opened.model.classes
    if labels is None or labels.ndim > 1 or opened.data.domains[domain].classes != classes:
        return []
    shown = classes if named else numbered(classes)
    return words(labels[indices], shown and opened.model.task.named(shown))


@torch.no_grad()
def correct_before(opened: Opened, found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Whether the network was right on each tested sample when it began, in the order of its predictions `found`.

    None where its classifier had not learned the target's classes; None for a sample that is not among those drawn.
    """
    labels = opened.split("target", "test").labels
    if not opened.classifier or opened.before is None or not found or labels is None or labels.is_floating_point():
        return None
    drawn, indices = opened.limited("target", "test", TRAIN_SAMPLES)
    task = opened.model.task
    right: dict[int, bool] = {}
    for batch in drawn.data.plain_batches("target", "test"):
        logits = opened.head_before(seen_by(opened.head_before, opened.before, batch.inputs))
        assert batch.indices is not None  # as loaders give it
        places = indices[batch.indices]
        hits = task.decide(task.predictions(logits)) == labels[places]
        right |= dict(zip(places.tolist(), hits.tolist(), strict=True))
    return {"model": opened.classifier, "correct": [right.get(index) for index in found["index"]]}


def change(opened: Opened, target: Mapping[str, Mapping[str, Tensor]]) -> list[dict[str, Any]]:
    """By stage the distance of its weights from where they began, and the similarity of what it puts out."""
    rows = []
    assert opened.before is not None
    for name in [*(stage.name for stage in opened.before.stages), FEATURES]:
        moved = None
        if name != FEATURES:
            moved = relative_distance(opened.before, opened.model.backbone, name)
        both = [target[when][name] for when in ("before", "after") if name in target[when]]
        cka = linear_cka(*both) if len(both) == 2 else None
        rows.append({"stage": name, "moved": moved, "cka": cka})
    return rows


def projections(features: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Points `(N, 2)` of features before and after, by method."""
    found = []
    for when, one in features.items():
        points, share = principal(one)
        found.append({"method": "PCA", "when": when, "points": points.round(4).tolist(), "share": share})
    if has_tsne():
        found += [
            {"method": "t-SNE", "when": when, "points": tsne(one).round(4).tolist(), "share": None}
            for when, one in features.items()
        ]
    return found


# Samples


def neighbours(opened: Opened, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The most surely wrong test samples, each with the training samples that have the most similar features."""
    rows = surely_wrong(found, WRONG)
    if not rows:
        return []
    backbone = opened.model.backbone
    asked, _ = opened.chosen("target", "test", torch.tensor([found["index"][row] for row in rows]))
    there, drawn = opened.limited("target", "train", TRAIN_SAMPLES)
    queries = activations(backbone, asked.data, "target", "test")[FEATURES]
    similarity, places = nearest(queries, activations(backbone, there.data, "target", "train")[FEATURES], NEAR)
    domain, train = opened.data.domains["target"], opened.split("target", "train")
    shown = []
    for row, values, near in zip(rows, similarity.tolist(), drawn[places].tolist(), strict=True):
        labels = ["unlabelled"] * len(near)
        if train.labels is not None:
            labels = words(train.labels[near], domain.classes and opened.model.task.named(domain.classes))
        near_samples = [
            {"name": name, "label": label, "note": f"similarity {value:.2f}", **content_of_sample(domain, train, place)}
            for name, label, value, place in zip(names_of(train, torch.tensor(near)), labels, values, near, strict=True)
        ]
        shown.append({**tested(opened, found, row), "near": near_samples})
    return shown


def contents(opened: Opened, found: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """By row what the test samples with the largest losses are."""
    losses, domain = losses_of(found), opened.data.domains["target"]
    rows = [] if losses is None else worst_rows(losses)
    return {str(row): content_of_sample(domain, domain.test, found["index"][row]) for row in rows}


def tested(opened: Opened, found: Mapping[str, Any], row: int) -> dict[str, Any]:
    """A test sample with its label, what was predicted, and how sure that was."""
    sure = f"probability {max(found['probabilities'][row]):.2f}" if found["classes"] is not None else ""
    domain, test = opened.data.domains["target"], opened.split("target", "test")
    shown = {name: word(found[name][row]) for name in ("label", "prediction")}
    return {"name": found["sample"][row], **shown, "note": sure, **content_of_sample(domain, test, found["index"][row])}


def words(labels: Tensor, classes: Sequence[str] | None) -> list[str]:
    """Labels `(N,)` or `(N, K)` for people."""
    return [word(one) for one in words_of(labels, classes)]


def word(label: Any) -> str:
    """A label for people."""
    if isinstance(label, tuple | list):
        return ", ".join(map(str, label)) or "none"
    return f"{label:.4g}" if isinstance(label, float) else str(label)


# Attribution


def explained(opened: Opened, found: Mapping[str, Any] | None) -> dict[str, Any]:
    """Attributions of test samples; `unexplained` says why there are none."""
    if not has_captum():
        return {"attributions": [], "unexplained": ADVICE}
    if not found:
        return {"attributions": [], "unexplained": ""}
    try:
        return {"attributions": attributions(opened, found), "unexplained": ""}
    except (
        RuntimeError,
        NotImplementedError,
        StopIteration,
    ) as error:  # in a user's network
        return {"attributions": [], "unexplained": f"No attribution of this network: {first_line(error)}"}


def attributions(opened: Opened, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Attributions of the surest wrong and right test samples with the numbers that judge them."""
    rows = [*surely_wrong(found, EXPLAINED), *surely_right(found, EXPLAINED)]
    rows = list(dict.fromkeys(rows))
    model = opened.model
    inputs = inputs_of(opened, [found["index"][row] for row in rows])
    asked = [(row, *one) for row, own in zip(rows, inputs, strict=True) for one in subjects_of(model, own).items()]
    entries: list[dict[str, Any]] = []
    for row, part, subject in asked:
        with torch.no_grad():
            logits = [subject.logits(model.backbone, model.head, x) for x in (subject.values, subject.baseline)]
        question = Question.of(model.task, *logits)
        chance = random_area(subject, question, model)
        for name, method in methods(model.backbone, subject).items():
            found_here = method(subject, question, model.backbone, model.head)
            area = deletion_area(subject, question, model, found_here.argsort(descending=True, stable=True))
            own = {"subject": subject, "question": question, "apply": method, "attribution": found_here}
            said = f"{part}: {name}" if part else name
            entries.append({"row": row, "method": said, "area": area, "chance": chance, "similarity": {}, **own})
    for what, backbone, head in randomised(model):
        for one in entries:
            again = one["apply"](one["subject"], one["question"], backbone, head)
            one["similarity"][what] = rank_correlation(one["attribution"].numpy(), again.numpy())
    return [shown_attribution(opened, found, one) for one in entries]


def shown_attribution(opened: Opened, found: Mapping[str, Any], one: Mapping[str, Any]) -> dict[str, Any]:
    """An attribution with its numbers, and its picture or marked words unless it is withheld."""
    verdict = Verdict(one["area"], one["chance"], one["similarity"])
    sample = tested(opened, found, one["row"])
    numbers = {"method": one["method"], "area": verdict.area, "chance": verdict.random_area}
    entry = {"sample": sample, **numbers, "similarity": dict(verdict.similarity), "withheld": verdict.withheld}
    if verdict.withheld:
        return entry
    subject, attribution = one["subject"], one["attribution"]
    return entry | {
        "image": overlay(subject, attribution, upwards=is_spectrogram(opened.model.backbone, subject)),
        "marks": marks(opened, found, one["row"], subject, attribution),
    }


def marks(
    opened: Opened, found: Mapping[str, Any], row: int, subject: Subject, attribution: Tensor
) -> list[tuple[str, float]]:
    """Words with their share of the largest attribution, -1 to 1; of a table's columns the largest ones first."""
    if not subject.names:
        return []
    shares = (attribution / attribution.abs().max().clamp(min=1e-12)).tolist()
    names = list(subject.names)
    if "table" not in (opened.data.modality, subject.place.part):
        return [*zip(names, shares, strict=True)][:TOKENS]
    values = dict(row_of(opened.split("target", "test"), found["index"][row]))
    columns = [(f"{name}: {values.get(name, '')}", share) for name, share in zip(names, shares, strict=True)]
    return sorted(columns, key=lambda pair: -abs(pair[1]))[:COLUMNS]


def inputs_of(opened: Opened, indices: Sequence[int]) -> list[Inputs]:
    """Test samples as the network takes them, `(1, ...)` each."""
    asked, _ = opened.chosen("target", "test", torch.tensor([*indices]))
    batches = [(batch.indices, batch.inputs) for batch in asked.data.plain_batches("target", "test")]
    by_place = {
        place: one_of(inputs, number)
        for places, inputs in batches
        for number, place in enumerate([] if places is None else places.tolist())
    }
    return [by_place[place] for place in range(len(indices))]
