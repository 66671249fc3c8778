"""LoRA: a low-rank update beside the frozen weights (Hu et al., ICLR 2022)."""

from collections.abc import Mapping, Sequence
from typing import Any

from graft.config.types import Count, FractionBelowOne, Positive
from graft.strategies.peft import AUTO, PeftStrategy


class LoRA(PeftStrategy):
    """Trains `alpha / r * B A` with A `(r, inputs)` and B `(outputs, r)`, zero at first, on the layers it adapts.

    `dora` learns the weights' magnitude apart from their direction (Liu et al., ICML 2024).
    """

    def __init__(
        self,
        r: Count = 8,
        alpha: Positive = 16,
        dropout: FractionBelowOne = 0.0,
        dora: bool = False,
        options: Mapping[str, Any] | None = None,
        target_modules: str | Sequence[str] = AUTO,
        train_bn: bool | None = None,
    ) -> None:
        own = {"r": r, "lora_alpha": alpha, "lora_dropout": dropout, "use_dora": dora}
        super().__init__("lora", {**own, **(options or {})}, target_modules, train_bn)
