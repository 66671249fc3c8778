"""Backbone and heads as a config asks for them, made for the data."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from graft.backbones.base import Backbone
from graft.backbones.checkpointing import checkpoint_gradients
from graft.backbones.contract import check_backbone, plain_arguments, wrap
from graft.build import build
from graft.data.module import TransferDataModule
from graft.errors import GraftError
from graft.heads.base import SHARED, arguments_of, context_for, new_head
from graft.heads.class_names import ClassNamesHead
from graft.objectives.base import Objective
from graft.tasks.base import Task
from graft.weights.files import MULTIMODAL, OF_RUN, PARTS

# What backbones that keep what they have to were built of, in this process: a sweep's jobs build the same one again and
# again, and the check runs its network, 0.3 s of a processor for an EfficientNet.
CHECKED: set[str] = set()


def build_backbone(config: Mapping[str, Any], data: TransferDataModule) -> Backbone:
    """The backbone with random weights, made for the data where the config says `auto`.

    Pretraining is checkpointed like the training itself: that changes what it costs and not what it computes.
    Raises GraftError where the backbone takes another modality than the data have.
    """
    check_fields(config["backbone"], data)
    arguments = constructor_arguments(config["backbone"], data.backbone_arguments, data.modality)
    backbone = build(arguments)
    if not isinstance(backbone, Backbone):
        backbone = wrapped(backbone, config, data)
    if backbone.modality != data.modality:
        raise GraftError(
            f"backbone.name={backbone.name} takes {backbone.modality} inputs, but the target holds {data.modality} "
            "data. Choose a backbone for them: backbone=<option>, see `python train.py --help`."
        )
    if (described := repr((arguments, backbone.input_spec))) not in CHECKED:
        check_backbone(backbone)
        CHECKED.add(described)
    if config["training"]["gradient_checkpointing"]:
        checkpoint_gradients(backbone)
    return backbone.to(memory_format=torch.channels_last) if config["training"]["channels_last"] else backbone


def check_fields(settings: Mapping[str, Any], data: TransferDataModule) -> None:
    """Raise GraftError for a fusion on data of one modality, and for parts of which the data hold nothing."""
    parts = [name for name, part in settings.get(PARTS, {}).items() if part is not None]
    if parts and data.modality != MULTIMODAL:
        raise GraftError(
            f"backbone.parts: a fusion takes samples of several modalities, but the target holds {data.modality} data. "
            "Choose such data, data=multimodal, or a backbone for these: backbone=<option>."
        )
    if missing := [name for name in parts if name not in data.backbone_arguments]:
        there = ", ".join(data.backbone_arguments)
        raise GraftError(
            f"backbone.parts.{missing[0]}: the target has no {missing[0]}, only {there}. Name its column, "
            f"data.target.{missing[0]}=<column>, or leave the part out: backbone.parts.{missing[0]}=null"
        )


def constructor_arguments(
    settings: Mapping[str, Any], of_data: Mapping[str, Any], modality: str, key: str = "backbone"
) -> dict[str, Any]:
    """The keys of `backbone` that its constructor takes, and those of its parts, with what the data say for `auto`.

    `of_data` are the data module's `backbone_arguments`, by modality where it holds several.
    """
    arguments = {name: value for name, value in settings.items() if name not in (*OF_RUN, PARTS)}
    left_open = [name for name, value in arguments.items() if isinstance(value, str) and value == "auto"]
    if unknown := [name for name in left_open if name not in of_data]:
        raise GraftError(
            f"{key}.{unknown[0]}=auto: the target holds {modality} data, which do not determine it. "
            "Choose a backbone for them: backbone=<option>, see `python train.py --help`."
        )
    arguments |= {name: of_data[name] for name in left_open}
    if (parts := settings.get(PARTS)) is not None:
        there = {name: part for name, part in parts.items() if part is not None}
        arguments[PARTS] = {
            name: constructor_arguments(part, of_data.get(name, {}), name, f"{key}.{PARTS}.{name}")
            for name, part in there.items()
        }
        arguments["part_weights"] = {name: part.get("weights") for name, part in there.items()}
    return arguments


def wrapped(network: object, config: Mapping[str, Any], data: TransferDataModule) -> Backbone:
    """A plain network of the user's as a backbone for the data's images; GraftError where it can be none."""
    target, channels = config["backbone"]["_target_"], data.channels
    if not isinstance(network, nn.Module):
        raise GraftError(f"backbone: {target} gives a {type(network).__name__}, and no torch.nn.Module.")
    if channels is None:
        raise GraftError(
            f"backbone: {target} gives a plain torch.nn.Module, which can be a backbone for images only, but the "
            f"target holds {data.modality} data. Make it a subclass of graft.backbones.base.Backbone; see "
            "docs/extend/backbone.md."
        )
    size = config["data"]["image_size"] or data.image_side()
    return wrap(network, **plain_arguments(config["backbone"], size, channels))


def build_heads(
    config: Mapping[str, Any],
    data: TransferDataModule,
    backbone: Backbone,
    tasks: Mapping[str, Task],
    objective: Objective,
) -> dict[str, nn.Module]:
    """One head `shared` by domains with the same classes, else one for each; a fixed head is never shared."""
    sharing = config["head"]["sharing"]
    if sharing == "auto":
        same_head = data.same_classes and not config["source_head"]
        sharing = "shared" if same_head and not objective.fixed_heads else "separate"
    if sharing == "shared" and objective.fixed_heads:
        raise GraftError(
            f"head.sharing=shared: this objective keeps the {objective.fixed_heads[0]} head fixed and trains the "
            "other. Use head.sharing=separate."
        )
    if sharing == "shared" and "source" in data.domains and not data.same_classes:
        classes = {domain: data.domains[domain].classes for domain in ("source", "target")}
        raise GraftError(
            f"head.sharing=shared needs the same classes on both sides, but the source has {classes['source']} "
            f"and the target {classes['target']}. Use head.sharing=separate, or data.label_sets=partial or open where "
            "one side lacks some of the other's."
        )
    names = {SHARED: "target"} if sharing == "shared" and "source" in data.domains else {d: d for d in tasks}
    heads = {
        name: build_head(config, backbone, data.num_outputs(domain, tasks[domain]), data.classes(domain), domain)
        for name, domain in names.items()
    }
    check_names(heads)
    return heads


def check_names(heads: Mapping[str, nn.Module]) -> None:
    """GraftError for a name in `head.names` that no side has a class of."""
    named = [head for head in heads.values() if isinstance(head, ClassNamesHead)]
    known = {name for head in named for name in head.classes}
    if unknown := [name for head in named for name in head.names if name not in known]:
        raise GraftError(
            f"head.names: there is no class {unknown[0]!r}. The classes are {', '.join(named[-1].classes[:20])}"
            f"{', ...' if len(named[-1].classes) > 20 else ''}."
        )


def head_settings(config: Mapping[str, Any], domain: str) -> Mapping[str, Any]:
    """The keys of a domain's head: the source may have another kind."""
    return (domain == "source" and config.get("source_head")) or config["head"]


def build_head(
    config: Mapping[str, Any],
    backbone: Backbone,
    num_outputs: int,
    class_names: tuple[str, ...] | None,
    domain: str = "target",
) -> nn.Module:
    """A new head of a domain on the backbone's features."""
    settings = arguments_of(head_settings(config, domain))
    head = new_head(settings, context_for(settings, backbone, num_outputs, class_names))
    if isinstance(head, ClassNamesHead):
        head.ask_tower()
    return head
