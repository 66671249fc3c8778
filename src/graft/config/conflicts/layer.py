"""What a layer of the backbone that the run itself chooses cannot be meant with."""

from collections.abc import Iterator, Mapping
from typing import Any

from graft.config.conflicts.names import Names
from graft.config.text import shown
from graft.weights.files import HERE


def layer_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """Weights that are not there when the layer is chosen, and a strategy without any."""
    if config["backbone"].get("layer") != "auto":
        return
    weights, key = config["backbone"]["weights"], "`backbone.layer=auto`"
    if weights in (None, *HERE):
        yield (
            f"{key} with `backbone.weights={shown(weights)}`: the layer is chosen by what pretrained features tell "
            "before anything is trained; give weights that are there (pip:<package>, pretrained, a file), or the number"
        )
    elif not names.says("strategy", "pretrained", True):
        yield (
            f"{key} with `strategy={names['strategy']}`: random layers have nothing to choose by; give the number that "
            "a pretrained run has found (tuning.layer in its results.json)"
        )
