"""Which baselines suit some data: methods, what they see, and the domains whose labels they learn from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from graft.backbones.base import Backbone
from graft.backbones.split_backbone import weights_hash
from graft.baselines.alignment import ALIGNERS, AlignerName
from graft.baselines.label_shift import ESTIMATORS, EstimatorName
from graft.baselines.representations import (
    BagOfWords,
    FrozenFeatures,
    OfField,
    Pixels,
    RawColumns,
    Representation,
    SharedColumns,
    SideBySide,
    StepSummaries,
    TreeColumns,
)
from graft.baselines.texts import TextName, text_names
from graft.cache.disk import DiskCache
from graft.data.boxes import Boxes
from graft.data.module import TransferDataModule
from graft.data.stream import Stream
from graft.data.target_texts import TargetTexts
from graft.errors import GraftError
from graft.inputs.columns import Columns

LabelledName = Literal["majority", "linear", "neighbours", "boosting", "source_only", "pooled"]
BaselineName = LabelledName | AlignerName | EstimatorName | TextName | Literal["importance_weighted"]

TARGET, SOURCE, POOLED = ("target",), ("source",), ("source", "target")
WHOSE = {TARGET: "", SOURCE: ", source only", POOLED: ", source and target"}
METHODS = {
    "majority": ("majority class", "median of the training labels"),
    "linear": ("logistic regression", "ridge regression"),
    "neighbours": ("nearest neighbours", "nearest neighbours"),
    "boosting": ("gradient boosting", "gradient boosting"),
}
# Logistic regression on the source's labels that sees the target's training inputs too.
ADAPTATIONS = {
    "aligned_z": "aligned by z-scores",
    "aligned_coral": "aligned by CORAL",
    "aligned_subspace": "aligned by subspaces",
    "aligned_ot": "aligned by optimal transport",
    "label_shift_bbse": "label shift by BBSE",
    "label_shift_mlls": "label shift by MLLS",
    "importance_weighted": "importance-weighted",
}


@dataclass(frozen=True)
class Planned:
    """A baseline: its method, what that sees (None: nothing), whose labels it learns from, and how it adapts."""

    method: str  # a key of METHODS
    representation: Representation | None
    domains: tuple[str, ...] = TARGET
    adaptation: str | None = None  # a key of ADAPTATIONS

    @property
    def key(self) -> str:
        """Its name in results.json: linear_words_pooled, aligned_coral_features."""
        seen = self.representation.name if self.representation and self.method != "boosting" else ""
        if self.adaptation:
            return f"{self.adaptation}_{seen}"
        whose = {TARGET: "", SOURCE: "source_only", POOLED: "pooled"}[self.domains]
        return "_".join(word for word in (self.method, seen, whose) if word)

    def title(self, numbers: bool) -> str:
        """Its name for people, of classes or of numbers."""
        on = f" on {self.representation.title}" if self.representation else ""
        how = f", {ADAPTATIONS[self.adaptation]}" if self.adaptation else ""
        return METHODS[self.method][numbers] + on + WHOSE[self.domains] + how


def chosen_names(
    wanted: Sequence[str] | str, data: TransferDataModule, *, same_task: bool = True, pretrained: bool = True
) -> list[str]:
    """The names of a config's word or list that suit the data; `same_task`: the source's labels mean the same.

    `auto` takes those that adapt to unlabelled inputs only where the target has no labels. `pretrained`: there are
    features to see. None suits an open set, of which a baseline rejects nothing. Raises GraftError
    for one that is asked for by name and does not suit the data.
    """
    if wanted == "none":
        return []
    if isinstance(data.domains["target"].test.labels, Boxes):
        if wanted == "auto":
            return []
        raise GraftError("baselines: none of them predicts boxes. Set baselines=auto.")
    if isinstance(data.domains["target"].test.labels, TargetTexts):
        return text_names(wanted)
    if data.label_sets == "open":
        if wanted == "auto":
            return []
        raise GraftError("baselines: none of them rejects what data.label_sets=open has unknown. Set baselines=auto.")
    if streams := [one.train for one in data.domains.values() if isinstance(one.train, Stream)]:
        if wanted == "auto":
            return []
        raise streams[0].refusal("baselines")
    labelled = data.domains["target"].train.labels is not None
    source = data.domains["source"].train.labels if same_task and data.same_classes else None
    shared = source is not None and data.classes("target") is not None
    needs: dict[str, tuple[bool, str]] = dict.fromkeys(get_args(LabelledName), (labelled, "labels of the target"))
    needs["boosting"] = (labelled and boosted(data) is not None, "a table with one label a row")
    needs |= dict.fromkeys(get_args(TextName), (False, "texts as labels (task=seq2seq)"))
    needs["source_only"] = (shared, "a source with labels and the target's classes")
    needs["pooled"] = (shared and labelled, "labels of the target, and a source with the same classes")
    if shared and source is not None:
        needs |= adapting(data, one_label=source.ndim == 1, pretrained=pretrained)
    else:
        needs |= dict.fromkeys(ADAPTATIONS, needs["source_only"])
    if wanted == "auto":
        return [name for name, (there, _) in needs.items() if there and not (labelled and name in ADAPTATIONS)]
    for name in wanted:
        there, what = needs[name]
        if not there:
            raise GraftError(f"baselines: {name} needs {what}. Leave it out, or set baselines=auto for all that suit.")
    return list(dict.fromkeys(wanted))


def adapting(data: TransferDataModule, *, one_label: bool, pretrained: bool) -> dict[str, tuple[bool, str]]:
    """Whether each of ADAPTATIONS suits a labelled source with the target's classes, and what it needs."""
    table = data.modality == "table"
    if table and not shared_columns(data).all:
        return dict.fromkeys(ADAPTATIONS, (False, "columns that both tables have"))
    dense = pretrained or data.modality in ("table", "image", "sequence")
    aligners = dict.fromkeys(ALIGNERS, (dense, "a table, images, sequences or a pretrained backbone"))
    estimators = dict.fromkeys(ESTIMATORS, (one_label, "one label a sample"))
    return {**aligners, **estimators, "importance_weighted": (table, "two tables")}


def planned(
    names: Sequence[str], data: TransferDataModule, backbone: Backbone | None, cache: DiskCache
) -> Iterator[Planned]:
    """The baselines of some names: each method on everything that it can see; `backbone` is given if pretrained."""
    seen, trees = [*representations(data, backbone, cache)] if names else [], boosted(data)
    for name in names:
        if name == "majority":
            yield Planned(name, None)
        elif name in ("linear", "neighbours"):
            yield from (Planned(name, one) for one in seen)
        elif name == "source_only":
            yield from (Planned("linear", one, SOURCE) for one in seen)
        elif name == "pooled":
            yield from (Planned("linear", one, POOLED) for one in seen)
        elif name in ADAPTATIONS:
            compared = [SharedColumns(shared_columns(data))] if data.modality == "table" else seen
            fitting = [one for one in compared if not (name in ALIGNERS and one.sparse)]
            yield from (Planned("linear", one, SOURCE, name) for one in fitting)
        if trees and name in ("boosting", "pooled"):
            yield Planned("boosting", trees, TARGET if name == "boosting" else POOLED)


def shared_columns(data: TransferDataModule) -> Columns:
    """The target's columns that the source's table has too."""
    source, target = (data.domains[domain].backbone_arguments["columns"] for domain in ("source", "target"))
    known = {column.key for column in source.all}
    return Columns([column for column in target.all if column.key in known])


def boosted(data: TransferDataModule) -> TreeColumns | None:
    """What boosting sees of tables with one label a row."""
    labels = data.domains["target"].test.labels
    if data.modality != "table" or labels is None or labels.ndim != 1:
        return None
    return TreeColumns(data.domains["target"].backbone_arguments["columns"])


def representations(data: TransferDataModule, backbone: Backbone | None, cache: DiskCache) -> Iterator[Representation]:
    """What can be seen of the samples: what they are, and features where a backbone is pretrained."""
    target = data.domains["target"]
    if data.modality == "multimodal":  # without frozen features: a fusion that did not train is random
        yield from representations_of_fields(target.backbone_arguments)
        return
    if data.modality == "table":
        yield RawColumns(target.backbone_arguments["columns"])
        return
    if data.modality == "text":
        yield BagOfWords()
    if data.modality == "sequence":
        yield StepSummaries()
    if backbone is not None:
        yield FrozenFeatures(backbone, weights_hash(backbone, frozenset()), data, cache)
    elif data.modality == "image":
        first: Any = target.train.inputs[0]
        yield Pixels(data.channels or first.shape[0], (first.shape[-2], first.shape[-1]), data.decoded)


def representations_of_fields(arguments: Mapping[str, Mapping[str, Any]]) -> Iterator[Representation]:
    """Words of samples with a text, columns of those with a table, and both side by side."""
    found: list[Representation] = []
    if "text" in arguments:
        found.append(OfField("text", BagOfWords()))
    if "table" in arguments:
        found.append(OfField("table", RawColumns(arguments["table"]["columns"])))
    yield from found
    if len(found) > 1:
        yield SideBySide(found)
