"""What training data that are read as a stream cannot be meant with: whatever needs all samples at hand."""

from collections.abc import Iterator, Mapping
from typing import Any

from graft.config.conflicts.names import Names
from graft.config.facts import attribute
from graft.config.text import shown


def is_stream(domain: Mapping[str, Any] | None) -> bool:
    """Whether a domain's class says that its training samples are a stream."""
    return bool(domain) and attribute((domain or {}).get("_target_", ""), "streams", False) is True


def stream_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """Keys that need all training samples at hand, or to know all labels beforehand."""
    data, selection = config["data"], names["selection"]
    streams = [side for side in ("target", "source") if is_stream(data.get(side))]
    several = [side for side in ("target", "source") if is_stream((data.get(side) or {}).get("domain"))]
    yield from (f"`data.{side}` makes one of several streams: give one folder of shards instead" for side in several)
    for side in streams:
        given = {
            "data.balance": (data["balance"], "none"),
            "data.bucket_by_length": (data.get("bucket_by_length", False), False),
            "data.label_sets": (data.get("label_sets", "closed"), "closed"),
            f"data.{side}_classes": (data.get(f"{side}_classes"), None),
            "cache.augmented_views": (config["cache"]["augmented_views"], 0),
        }
        if side == "target":
            given |= {
                "data.labels_per_class": (data["labels_per_class"], None),
                "data.refit": (data.get("refit", False), False),
                "data.evaluation": (data.get("evaluation"), None),
                "head.grow": (config["head"].get("grow", False), False),
                "save.neighbours": (config["save"]["neighbours"], False),
            }
        for key, (value, off) in given.items():
            if value != off:
                yield f"`{key}={shown(value)}` with a stream as `data.{side}`: {WHY}; use {key}={shown(off)}"
        if config["baselines"] not in ("auto", "none"):
            yield f"`baselines` by name with a stream as `data.{side}`: they fit on {SAMPLES}; use baselines=auto"
    if "target" not in streams:
        return
    where = "with a stream as `data.target`"
    if data.get("target_setting") == "semi":
        yield f"`data.target_setting=semi` {where}: {WHY}; use supervised, or unsupervised with source data"
    if names.says("strategy", "closed_fit", False):
        yield f"`strategy={names['strategy']}` {where}: it solves on features of {SAMPLES}; use strategy=frozen"
    if names.says("selection", "holds_out", False):
        yield f"`selection={selection}` {where}: it holds out some of {SAMPLES}; use selection=target_val"
    if config["backbone"]["weights"] == "target" and names.says("strategy", "pretrained", True):
        yield f"`backbone.weights=target` {where}: pretraining reads a source; give the shards as data.source"


SAMPLES = "all training samples"
WHY = f"it needs {SAMPLES} at hand, and a stream is read once an epoch"
