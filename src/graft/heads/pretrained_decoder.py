"""The decoder of a Hugging Face network whose encoder is the backbone."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graft.errors import GraftError
from graft.heads.base import HeadContext
from graft.heads.decoding import BEGIN, END, PADDING, RereadingDecoder, State

FIRST = 3  # ids of our own before those of the tokenizer, see graft.tasks.target_tokens
NEVER = -1e4  # logit of an id that no text has


class PretrainedDecoder(RereadingDecoder):
    """Goes on from the decoder's own weights where the backbone has its own (backbone.weights=pretrained).

    It writes the tokens of the backbone's tokenizer.
    """

    needs_input_vocabulary = True

    def __init__(self, context: HeadContext) -> None:
        super().__init__()
        if context.new_decoder is None:
            raise GraftError(
                "head=pretrained_decoder: this backbone has no decoder. Use backbone=seq2seq, or head=gru_decoder."
            )
        self.model: Any = context.new_decoder().train()  # what the library opens is in eval mode
        self.tokens: int = context.num_outputs - FIRST
        config: Any = self.model.config
        start = config.decoder_start_token_id
        own = {
            "pad_token_id": config.pad_token_id,
            "decoder_start_token_id": start,
            "eos_token_id": config.eos_token_id,
        }
        if missing := [name for name, value in own.items() if value is None]:
            raise GraftError(f"head=pretrained_decoder: the model's config.json has no {missing[0]}. Add it.")
        self.own: list[int] = [own["pad_token_id"], start, own["eos_token_id"]]  # for PADDING, BEGIN, END

    def logits(self, ids: Tensor, state: State) -> Tensor:
        """Logits `(M, T, V)` of our ids."""
        from transformers.modeling_outputs import BaseModelOutput

        theirs = torch.where(ids >= FIRST, ids - FIRST, torch.tensor(self.own, device=ids.device)[ids.clamp(max=END)])
        logits = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=state["memory"]),
            attention_mask=state["mask"],
            decoder_input_ids=theirs,
            use_cache=False,
        ).logits
        end: int = self.own[END]
        ours = F.pad(logits[..., : self.tokens], (FIRST, 0), value=NEVER)
        place = torch.arange(ours.shape[-1], device=ids.device)
        # Their end is our END, and no token besides.
        ours = torch.where(place == END, logits[..., end : end + 1], ours)
        never = (place == end + FIRST) | (place == PADDING) | (place == BEGIN)
        return ours.masked_fill(never, NEVER)
