"""What an objective and its terms cannot be meant with."""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from graft.config.conflicts.names import Names, mixing_keys, several_processes, wants_labels, without_target_loss
from graft.config.conflicts.source import of_data_and_backbone
from graft.config.facts import attribute
from graft.errors import GraftError
from graft.model.place import folder_of, task_of


def objective_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """An objective that weighs losses which are not there."""
    objective, data = config["objective"], config["data"]
    source, labeled = data.get("source"), data.get("target_setting") != "unsupervised"
    if "alpha" in objective:
        alphas = [alpha for alpha in (objective["alpha"], objective["alpha_end"]) if alpha is not None]
        if source is None and any(alphas):
            yield (
                f"`objective.alpha={' to '.join(map(str, alphas))}` without source data: "
                "use objective.alpha=0 or choose source data (data/domain@data.source=...)"
            )
        draws = [one or {} for one in (*(config.get("term") or {}).values(), config["compress"])]
        if not alphas and not any(attribute(one.get("_target_", ""), "domains", ()) for one in draws):
            yield (
                "`objective.alpha=null` without a term that draws from a domain: nothing gives a loss; add one, such "
                "as term=[mean_teacher], or give alpha a number"
            )
        if not labeled and any(alpha != 1 for alpha in alphas):
            yield (
                f"`data.target_setting=unsupervised` with `objective.alpha={' to '.join(map(str, alphas))}`: "
                "an unlabelled target has no loss; use objective.alpha=1"
            )
        return
    name = names["objective"]
    if source is None:
        yield f"`objective={name}` without source data: use objective=alpha or choose data/domain@data.source=..."
    if not labeled:
        yield f"`data.target_setting=unsupervised` with `objective={name}`: use objective=alpha objective.alpha=1"


def term_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """Terms without what their classes say that they need."""
    labeled, weights = config["data"].get("target_setting") != "unsupervised", config["backbone"]["weights"]
    scratch = not names.says("strategy", "pretrained", True)
    semi = config["data"].get("target_setting") == "semi"
    for term, settings in (config.get("term") or {}).items():
        says = functools.partial(attribute, (settings or {}).get("_target_", ""))
        if says("needs_pretrained", False) and (scratch or weights is None):
            reason = f"strategy={names['strategy']}" if scratch else "backbone.weights=null"
            yield f"`term={term}` with `{reason}`: it keeps to pretrained weights, and there are none; leave it out"
        labels = wants_labels(settings or {})
        if labels and not labeled:
            yield f"`term={term}` with `data.target_setting=unsupervised`: it needs the target's labels; leave it out"
        elif labels and semi:
            yield (
                f"`term={term}` with `data.target_setting=semi`: it needs every target sample's label; leave it out, "
                "or use data.target_setting=supervised"
            )
        elif labels and not says("teaches_head", False) and (alpha := without_target_loss(config["objective"])):
            yield f"`term={term}` with `{alpha}`: it learns from the target's labels; use objective.alpha below 1"
        yield from of_data_and_backbone(f"term={term}", settings or {}, config, names)
        if says("needs_multiclass", False) and names.says("task", "name", "multiclass") != "multiclass":
            yield f"`term={term}` with `task={names['task']}`: it compares class probabilities; use task=multiclass"
        if says("needs_linear_head", False) and not names.says("head", "linear_in_features", False):
            yield f"`term={term}` with `head={names['head']}`: it needs one vector a class; use head=linear"
        if says("needs_hard_labels", False) and (mixing := mixing_keys(config)):
            yield f"`{mixing}` with `term={term}`: it needs one class a sample; leave one of the two out"
        if says("views", ()) and (mixing := mixing_keys(config)):
            yield f"`{mixing}` with `term={term}`: its views are of unmixed samples; leave one of the two out"
        if "source" in says("domains", ()) and config["data"].get("source") is None:
            yield (
                f"`term={term}` without source data: it trains on them; choose some (data/domain@data.source=...), or "
                "leave the term out"
            )
        if says("needs_several_sources", False) and one_source(config["data"].get("source")):
            yield (
                f"`term={term}` with one source: it compares several; name two or more, such as data=domains "
                "data.sources=[photo,cartoon], or leave the term out"
            )
        if says("aligns", False) and not embeddings_train(config, names):
            yield (
                f"`term={term}` with `strategy={names['strategy']} head={names['head']}`: nothing that it could move "
                "trains; use head=bottleneck, or a strategy that trains the backbone"
            )
        weighted = config["data"]["balance"] == "weights"
        if says("needs_several_sources", False) and weighted and several_processes(config["trainer"]):
            yield (
                f"`term={term}` with `data.balance=weights` and several processes: they add up sources' losses by "
                "samples, not by weights; use data.balance=sampler or one process (trainer=gpu, trainer=cpu)"
            )
        if says("needs_domain_statistics", False) and config["bn"] != "domain_specific":
            yield f"`bn={config['bn']}` with `term={term}`: it adapts one domain's statistics; use bn=domain_specific"
        if says("replaces_batchnorm", False) and config["trainer"].get("sync_batchnorm"):
            yield f"`term={term}` with `trainer.sync_batchnorm=true`: synchronising replaces its layers"


def teacher_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """A teacher that is not there, or of another task, and what cannot be learned from one."""
    compress, training = config["compress"], config["training"]
    if compress.get("teacher") is None:
        return
    try:
        folder = folder_of(Path(compress["teacher"]))
    except GraftError as error:
        yield f"`compress.teacher`: {error}"
        return
    theirs = attribute(task_of(folder), "name", "")
    if theirs and theirs != (own := names.says("task", "name", theirs)):
        yield (
            f"`compress.teacher={compress['teacher']}` with `task={names['task']}`: it was trained for task={theirs}; "
            f"give a teacher of task={own}, or use task={theirs}"
        )
    if training["progressive_resizing"]["initial_scale"] is not None:
        yield (
            f"`training.progressive_resizing.initial_scale={training['progressive_resizing']['initial_scale']}` with "
            f"`compress={names['compress']}`: a teacher takes images of its own size; set it to null"
        )
    matched = [one for one in compress["match"] if one != "logits"]
    if (
        matched
        and not names.says("strategy", "trains_backbone", True)
        and config["strategy"].get("train_bn") is not True
    ):
        yield (
            f"`compress.match=[{','.join(compress['match'])}]` with `strategy={names['strategy']}`: {matched[0]} "
            "come from the backbone, which does not train; use compress.match=[logits] or another strategy"
        )


def one_source(source: Mapping[str, Any] | None) -> bool:
    """Whether source data are of one domain, as far as the config says."""
    return source is not None and ("names" not in source or len(source["names"] or ()) == 1)


def embeddings_train(config: Mapping[str, Any], names: Names) -> bool:
    """Whether anything that makes the vectors which terms align trains: the backbone, or the head's bottleneck."""
    backbone = names.says("strategy", "trains_backbone", True) or config["strategy"].get("train_bn") is True
    return backbone or names.says("head", "has_bottleneck", False)
