"""The encoder of any Hugging Face network that encodes and decodes (T5, BART) as a backbone, and its decoder."""

import copy
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from graft.backbones.huggingface import HuggingFaceBackbone, imported_transformers, loaded
from graft.config.types import Count
from graft.errors import GraftError


class HuggingFaceSeq2SeqBackbone(HuggingFaceBackbone):
    """An encoder whose features are the mean of its tokens; its decoder becomes head=pretrained_decoder.

    Stages are the embeddings and each layer of the encoder. The decoder has a copy of the embeddings that both share.
    """

    _decoder: nn.Module | None  # with its own weights, once they are loaded; no part of the backbone

    def __init__(
        self, name: str, max_length: Count | None = 128, pooling: Literal["mean", "cls", "last"] = "mean"
    ) -> None:
        self._build(name, max_length, pooling)
        object.__setattr__(self, "_decoder", None)

    def check_config(self, name: str, config: Any) -> None:
        """Raise GraftError for a model of another kind."""
        known = imported_transformers().models.auto.modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
        if config.model_type not in known:
            raise GraftError(
                f"backbone.name={name}: {config.model_type} is no network that encodes and decodes texts. Choose one "
                "(T5, BART), or backbone=bert for an encoder."
            )

    def new_network(self, config: Any) -> Any:
        """The encoder of a config, with random weights."""
        return model_of(config).get_encoder()

    def new_decoder(self) -> nn.Module:
        """The whole network without its encoder: with its own weights where the encoder has them, else random ones."""
        return copy.deepcopy(self._decoder) if self._decoder is not None else without_encoder(model_of(self.config))

    def own_weights(self) -> tuple[str, dict[str, Tensor]]:
        """The encoder's weights that lie beside the config; the decoder's are kept for `new_decoder`."""
        model = loaded(imported_transformers().AutoModelForSeq2SeqLM, self.name, self._source).float()
        tensors = {name: value.clone() for name, value in model.get_encoder().state_dict().items()}
        object.__setattr__(self, "_decoder", without_encoder(model))
        return self.name, tensors

    @property
    def config(self) -> Any:
        """That of both halves."""
        return self._config


def model_of(config: Any) -> Any:
    """Both halves, with random weights."""
    return imported_transformers().AutoModelForSeq2SeqLM.from_config(config, trust_remote_code=False)


def without_encoder(model: Any) -> nn.Module:
    """A network whose encoder is gone, so that it runs on what an encoder gives; the embeddings stay."""
    encoder = model.get_encoder()
    owners: Mapping[str, nn.Module] = dict(model.named_modules())
    path = next(name for name, module in owners.items() if module is encoder)
    parent, _, leaf = path.rpartition(".")
    setattr(owners[parent], leaf, nn.Identity())
    return model
