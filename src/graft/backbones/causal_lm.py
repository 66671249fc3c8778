"""Any Hugging Face language model that reads from left to right (GPT-2, Llama, Qwen) as a backbone."""

import inspect
from typing import Any

from torch import Tensor

from graft.backbones.huggingface import HuggingFaceBackbone, imported_transformers
from graft.backbones.text import last_pooled
from graft.config.types import Count
from graft.errors import GraftError
from graft.inputs.base import Fields


class CausalLMBackbone(HuggingFaceBackbone):
    """A causal language model without its head; features are those of a text's last token, which alone saw all others.

    Stages are the embeddings and each layer. Texts may be padded on either side.
    """

    def __init__(self, name: str, max_length: Count | None = 128) -> None:
        self._build(name, max_length, "last")

    def check_config(self, name: str, config: Any) -> None:
        """Raise GraftError for a model of another kind."""
        causal = imported_transformers().models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        if config.is_encoder_decoder or config.model_type not in causal:
            use = "backbone=seq2seq" if config.is_encoder_decoder else "backbone=bert"
            raise GraftError(
                f"backbone.name={name}: {config.model_type} is no causal language model. Choose one, or {use}."
            )

    def forward(self, x: Fields) -> Tensor:
        """Features `(B, D)` of `input_ids` and `attention_mask` `(B, L)`."""
        mask = x["attention_mask"]
        given: dict[str, Any] = {"input_ids": x["input_ids"], "attention_mask": mask, "use_cache": False}
        if "position_ids" in inspect.signature(self.network.forward).parameters:
            given["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)  # counted from a text's own first token
        return last_pooled(self.network(**given).last_hidden_state, mask)
