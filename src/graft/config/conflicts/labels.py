"""What labels, classes and tables cannot be meant with."""

from collections.abc import Iterator, Mapping
from typing import Any

from graft.config.conflicts.names import Names, mixing_keys
from graft.config.facts import attribute
from graft.config.text import shown


def label_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """Labels of another kind than the task predicts."""
    needed = {
        "numbers": "numbers need task=regression",
        "multilabel": "several labels need task=multilabel",
        "boxes": "boxes need task=detection head=fcos or retinanet",
        "texts": "texts to write need task=seq2seq head=gru_decoder or transformer_decoder",
    }
    for side, group in (("target", "task"), ("source", "source_task" if config["source_task"] else "task")):
        kind = (config["data"][side] or {}).get("label_kind")
        takes = names.says(group, "label_kind", "classes")
        if kind in needed and kind != takes:
            yield f"`data.{side}.label_kind={kind}` with `{group}={names[group]}`: {needed[kind]}"
        elif kind not in (None, takes):
            key = f"data.{side}.label_kind"
            hints = {
                "boxes": "boxes: use data=detection, or data/domain@data.target=voc, coco or rendered_cells",
                "texts": f"texts to write: use data/domain@data.{side}=text_to_text, or {key}=texts",
            }
            yield f"`{group}={names[group]}` with `{key}={kind}`: it needs {hints.get(takes, f'{key}={takes}')}"
        elif kind is not None and kind not in (
            known := attribute((config["data"][side] or {}).get("_target_", ""), "label_kinds", (kind,))
        ):
            yield f"`data.{side}.label_kind={kind}`: these data have {' or '.join(known)}"
    data = config["data"]
    if data.get("target_setting") == "semi":
        if data["labels_per_class"] is None:
            yield "`data.target_setting=semi` with `data.labels_per_class=null`: say how many labels a class there are"
        if mixing := mixing_keys(config):
            yield f"`data.target_setting=semi` with `{mixing}`: unlabelled samples cannot be mixed; leave one out"
        if names.says("selection", "holds_out", False):
            yield (
                f"`data.target_setting=semi` with `selection={names['selection']}`: folds hold out labelled samples "
                "alone; use another rule"
            )
    elif data.get("unlabelled_batch_size") is not None:
        yield "`data.unlabelled_batch_size` without `data.target_setting=semi`: set data.unlabelled_batch_size=null"
    kinds = {(data[side] or {}).get("label_kind", "classes") for side in ("target", "source")}
    unweighted = {"numbers", "boxes", "texts"} & kinds
    if (data["balance"] == "sampler" and kinds != {"classes"}) or (data["balance"] == "weights" and unweighted):
        yield f"`data.balance={data['balance']}` with labels that are not one class a sample: use data.balance=none"
    if data["labels_per_class"] is not None and (data["target"] or {}).get("label_kind", "classes") != "classes":
        yield "`data.labels_per_class` with labels that are not one class a sample: set data.labels_per_class=null"


def label_set_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """Classes that one side lacks, with a task or labels that do not suit them."""
    data, task = config["data"], names["task"]
    sets, rejects = data.get("label_sets", "closed"), names.says("task", "rejects", False)
    if rejects and sets != "open":
        yield f"`task={task}` with `data.label_sets={sets}`: no sample is unknown; use data.label_sets=open"
    if data.get("source_classes") is not None and data.get("source") is None:
        yield "`data.source_classes` without source data: leave it out, or choose some (data/domain@data.source=...)"
    if sets == "closed":
        return
    key = f"`data.label_sets={sets}`"
    if data.get("source") is None:
        yield f"{key} without source data: it compares the two sides' classes; use data.label_sets=closed"
    if config["source_task"] is not None:
        yield f"{key} with `source_task`: both sides need one task; leave source_task out"
    if sets == "open" and not rejects:
        yield f"{key} with `task={task}`: it never says unknown; use task=open_set"
    if sets == "open" and data.get("target_setting") != "unsupervised":
        yield (
            f"{key} with `data.target_setting={data.get('target_setting')}`: nothing can learn from labels of unknown "
            "classes; use data.target_setting=unsupervised"
        )
    if sets == "partial" and names.says("task", "name", "multiclass") != "multiclass":
        yield f"{key} with `task={task}`: the target lacks some of several classes; use task=multiclass"


def detection_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """A head of boxes without their task, or the other way round; and what does not go with boxes."""
    needs = names.says("task", "takes_maps", False)
    for head in ("head", *(["source_head"] if config["source_head"] else [])):
        if needs != (names.says(head, "takes", "features") == "maps"):
            use = f"{head}=fcos or {head}=retinanet" if needs else "task=detection data=detection, or another head"
            use = use.replace("source_head=", "+head@source_head=")
            yield f"`task={names['task']}` with `{head}={names[head]}`: boxes come from a head of maps; use {use}"
    if not needs:
        return
    data, training, save = config["data"], config["training"], config["save"]
    for side in ("target", "source"):
        domain = data[side] or {}
        kinds = attribute(domain.get("_target_", ""), "label_kinds", ("boxes",))
        if domain.get("label_kind") is None and "boxes" not in kinds:
            options = "voc, coco or rendered_cells"
            yield f"`task={names['task']}`: data.{side} has no boxes; use data/domain@data.{side}={options}"
    if data.get("source") is not None and config["source_task"] is not None:
        yield f"`task={names['task']}` with `source_task`: both sides have boxes; leave source_task out"
    augments = ("none", "light", "crop")
    for key, augment in (("data", data["augment"]), ("pretrain", config["pretrain"]["augment"])):
        if augment not in augments:
            yield f"`{key}.augment={augment}` with `task={names['task']}`: use one of {', '.join(augments)}"
    for key, value, off in (
        ("data.test_shifts", data["test_shifts"], []),
        ("data.target_setting", data["target_setting"], "supervised"),
        ("data.target_classes", data["target_classes"], None),
        ("data.source_classes", data["source_classes"], None),
        ("training.progressive_resizing.initial_scale", training["progressive_resizing"]["initial_scale"], None),
        ("cache.augmented_views", config["cache"]["augmented_views"], 0),
        ("save.neighbours", save["neighbours"], False),
    ):
        if value != off:
            yield f"`{key}={shown(value)}` with `task={names['task']}`: it is not for boxes; use {key}={shown(off)}"
    for key, terms in (("term", config.get("term")), ("pretrain.term", config["pretrain"].get("term"))):
        for term in terms or {}:
            yield (
                f"`{key}={term}` with `task={names['task']}`: terms compare features or classes of samples; leave it "
                "out"
            )
    if names.says("selection", "name", "") not in ("target_val", "last"):
        yield judges_classes(names)


def judges_classes(names: Names) -> str:
    """That a selection rule is for classes."""
    return (
        f"`selection={names['selection']}` with `task={names['task']}`: it judges classes of samples; use "
        "selection=target_val or selection=last"
    )


def writing_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """A head that writes without its task, or the other way round; and what does not go with written texts."""
    data, save = config["data"], config["save"]
    if data.get("source") is None and config["source_head"] is not None:
        yield "`source_head` without source data: leave it out, or choose some (data/domain@data.source=...)"
    sides = [("task", "head", "target")]
    if data.get("source") is not None:
        own = {group: f"source_{group}" if config[f"source_{group}"] else group for group in ("task", "head")}
        sides.append((own["task"], own["head"], "source"))
    for task, head, side in sides:
        needs, gives = names.says(task, "writes", False), names.says(head, "writes", False)
        if needs != gives:
            use = "a decoder" if needs else "another head"
            options = "gru_decoder or transformer_decoder" if needs else "linear, mlp or attention"
            at = f"+head@source_head={options}" if side == "source" else f"head={options}"
            yield f"`{task}={names[task]}` with `{head}={names[head]}`: the {side} needs {use}; use {at}"
    if not names.says("task", "writes", False):
        return
    if data.get("source") is not None and config["source_task"] is None:
        yield (
            f"`task={names['task']}` with source data of the same task: each side has words of its own; give the "
            "source another task (+task@source_task=multiclass +head@source_head=linear), or set data.source=null"
        )
    for key, value, off in (
        ("data.target_setting", data["target_setting"], "supervised"),
        ("data.target_classes", data["target_classes"], None),
        ("head.weights", config["head"].get("weights"), None),
        ("save.neighbours", save["neighbours"], False),
        ("save.ledger", save["ledger"], None),
    ):
        if value != off:
            yield f"`{key}={shown(value)}` with `task={names['task']}`: it is not for texts; use {key}={shown(off)}"
    if names.says("head", "needs_input_vocabulary", False):
        for key, value in (("vocabulary", "input"), ("label_smoothing", 0)):
            if config["task"].get(key) != value:
                given = f"task.{key}={shown(config['task'].get(key))}"
                yield f"`head={names['head']}` with `{given}`: it writes its own tokens alone; use task.{key}={value}"
    for term in config.get("term") or {}:
        yield f"`term={term}` with `task={names['task']}`: terms compare features or classes of samples; leave it out"
    if names.says("selection", "name", "") not in ("target_val", "last"):
        yield judges_classes(names)


def table_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """A table and what is not for one: backbones and options of images."""
    data, training = config["data"], config["training"]
    is_table = attribute(data["target"].get("_target_", ""), "modality", "image") == "table"
    if not is_table:
        if "columns" in config["backbone"]:
            yield "`backbone` takes tables, and `data.target` is none: use another backbone, or data=table"
        return
    if "columns" not in config["backbone"]:
        yield "`data.target` is a table, and this backbone takes none: use backbone=mlp or backbone=ft_transformer"
    for key, value, off in (
        ("data.augment", data["augment"], "none"),
        ("data.test_shifts", data["test_shifts"], []),
        ("training.mixup_alpha", training["mixup_alpha"], None),
        ("training.cutmix_alpha", training["cutmix_alpha"], None),
        ("training.progressive_resizing.initial_scale", training["progressive_resizing"]["initial_scale"], None),
    ):
        if value != off:
            yield f"`{key}={shown(value)}` with a table: it is for images; use {key}={shown(off)}"
