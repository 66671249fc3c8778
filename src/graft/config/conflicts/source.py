"""What source data and pretraining cannot be meant with."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from graft.config.conflicts.names import Names, wants_labels, without_labels
from graft.config.facts import attribute
from graft.config.text import shown
from graft.data.domain_names import wrong_names
from graft.weights.files import HERE, shares_embedding

WITHOUT_LABELS = "pretrain=simclr, vicreg or byol for images and recordings, scarf for tables, mlm for texts"


def source_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """What needs source data where there are none."""
    data = config["data"]
    if data.get("source") is not None:
        return
    if config["backbone"]["weights"] == "source" and names.says("strategy", "pretrained", True):
        yield (
            "`backbone.weights=source` without source data: choose some (data/domain@data.source=...), "
            "or other weights (backbone.weights=imagenet, null, ...)"
        )
    if "source" in names.says("selection", "domains", ()):
        yield f"`selection={names['selection']}` without source data: use selection=target_val or selection=last"
    if config["report"]["proxy_a_distance"] is True:
        yield "`report.proxy_a_distance=true` without source data: use report.proxy_a_distance=auto"
    if data.get("epoch") == "source":
        yield "`data.epoch=source` without source data: use data.epoch=target"


def pretrain_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """Pretraining in the run itself that has nothing to learn from, or terms that are not for the data."""
    weights, settings = config["backbone"]["weights"], config["pretrain"]
    if weights not in HERE or not names.says("strategy", "pretrained", True):
        return
    terms = settings.get("term") or {}
    labelled = settings["objective"].get("alpha", 1) is not None
    if weights == "target" and labelled:
        yield (
            f"`backbone.weights=target` with {pretraining_of(names)}: the target's own labels are for the run; learn "
            f"from its inputs alone ({WITHOUT_LABELS}), or use backbone.weights=source"
        )
    elif not labelled and not terms:
        yield (
            f"`pretrain.objective.alpha=null` without a term: nothing gives a loss; use {WITHOUT_LABELS}, or "
            "pretrain.objective.alpha=1"
        )
    for name, one in terms.items():
        yield from of_data_and_backbone(f"pretrain.term.{name}", one or {}, config, names)
        if (one or {}).get("domain", "source") != "source":
            yield f"`pretrain.term.{name}.domain=target`: pretraining's own data are its source; use domain=source"
        if weights == "target" and attribute((one or {}).get("_target_", ""), "teaches_head", False):
            yield (
                f"`pretrain.term.{name}` with `backbone.weights=target`: it teaches the source's head; "
                "give its pairs as source data (backbone.weights=source data/domain@data.source=...)"
            )


def unlabelled_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """A target without labels, and what cannot be meant with a source without them."""
    data, objective, pretrain = config["data"], config["objective"], config["pretrain"]
    if without_labels(data["target"]):
        yield (
            "`data.target.label=null`: a target is tested by its labels; name their column, and "
            "data.target_setting=unsupervised trains without them"
        )
    if not without_labels(data.get("source")):
        return
    key, texts = "`data.source.label=null`", "text=<column>"
    if "alpha" not in objective or (objective["alpha"] or 0) > 0 or (objective.get("alpha_end") or 0) > 0:
        yield f"{key} with an objective that weighs the source's loss: use objective.alpha=0, or null with a term"
    pretrains = config["backbone"]["weights"] == "source" and names.says("strategy", "pretrained", True)
    if pretrains and pretrain["objective"].get("alpha", 1) is not None:
        yield (
            f"{key} with {pretraining_of(names)}, which learns labels: use pretrain=clip pretrain.term.clip.{texts}, "
            f"or {WITHOUT_LABELS}"
        )
    for place, terms in (("term", config.get("term")), ("pretrain.term", pretrain.get("term") if pretrains else None)):
        for name, one in (terms or {}).items():
            if (one or {}).get("domain", "source") == "source" and wants_labels(one or {}, "needs_source_labels"):
                instead = attribute((one or {}).get("_target_", ""), "instead_of_labels", "")
                use = f"name a column of texts ({place}.{name}.{instead}=<column>)" if instead else "leave it out"
                yield f"{key} with `{place}.{name}`: it learns from the source's labels; {use}"
    if "source" in names.says("selection", "domains", ()):
        yield f"{key} with `selection={names['selection']}`: use selection=target_val or last"
    for other, value, off in (
        ("source_task", config["source_task"] and names["source_task"], None),
        ("data.source.classes", data["source"].get("classes"), None),
        ("data.source_classes", data.get("source_classes"), None),
        ("data.label_sets", data.get("label_sets", "closed"), "closed"),
        ("save.ledger", config["save"]["ledger"], None),
    ):
        if value != off:
            yield f"{key} with `{other}={shown(value)}`: it is about the source's classes; use {other}={shown(off)}"


def sharing_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """An embedding that is taken over or shared alone, and what needs the encoder too."""
    if not shares_embedding(config["backbone"]):
        return
    key, weights, objective = "`backbone.share=embedding`", config["backbone"]["weights"], config["objective"]
    joint = config["data"].get("source") is not None and (
        "alpha" not in objective or (objective["alpha"] or 0) > 0 or (objective.get("alpha_end") or 0) > 0
    )
    taken = weights is not None and names.says("strategy", "pretrained", True)
    if not taken and not joint:
        yield (
            f"{key} with `backbone.weights={shown(weights)}` and `strategy={names['strategy']}`: there is no embedding "
            "to take over, and no source that trains beside the target to share one with; give weights "
            "(backbone.weights=<run folder>, source), or objective.alpha above 0 with source data"
        )
    if weights in HERE and taken and joint:
        yield (
            f"{key} with `backbone.weights={weights}` and a source that trains beside the target: pretraining gives "
            "one encoder for both; use objective.alpha=0, or backbone.weights=null"
        )
    if not names.says("strategy", "trains_backbone", True):
        yield f"{key} with `strategy={names['strategy']}`: the encoder is random and would stay so; use strategy=full"
    if config["head"].get("weights") is not None:
        yield f"{key} with `head.weights={config['head']['weights']}`: that head is for its own encoder's features"
    if config.get("term"):
        yield f"{key} with `term=[{','.join(config['term'])}]`: terms look at one backbone; leave them out"


def pretraining_of(names: Names) -> str:
    """How pretraining was chosen, as one would type it."""
    return f"`pretrain={names.choices.get('pretrain') or 'default'}`"


def of_data_and_backbone(key: str, term: Mapping[str, Any], config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """A term that is not for such data, or not for such a backbone."""
    says = functools.partial(attribute, term.get("_target_", ""))
    if says("needs_names", False) and not names.says("head", "names_classes", False):
        yield (
            f"`{key}` with `head={names['head']}`: it compares samples with the names of their classes; use "
            "head=class_names"
        )
    modality, suited = modality_of(config["data"]["target"]), says("modalities", ())
    if suited and modality not in suited:
        yield f"`{key}` with {modality} data: it is for {' and '.join(suited)} data; choose another, or leave it out"
    elif says("needs_forwards", False):
        if not names.says("backbone", "recurrent", False):
            yield (
                f"`{key}` with `backbone={names['backbone']}`: it needs an LSTM or a GRU, which reads step by step: "
                "backbone=lstm_sequence, gru_sequence, lstm or gru"
            )
        elif config["backbone"].get("bidirectional"):
            yield f"`{key}` with `backbone.bidirectional=true`: it predicts what comes; set it to false"


def modality_of(domain: Mapping[str, Any]) -> str:
    """Of a domain's samples, as its class says; of one that is made of several that of the domains inside."""
    while isinstance(inner := domain.get("domain"), Mapping):
        domain = inner
    return attribute(domain.get("_target_", ""), "modality", "image")


def domain_contradictions(data: Mapping[str, Any]) -> Iterator[str]:
    """Names of domains that are not there, or on both sides."""
    if "target_domain" in data:
        yield from wrong_names(data["root"], data["sources"], data["target_domain"])
