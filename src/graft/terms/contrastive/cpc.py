"""CPC: what has been read of a sequence tells its next steps from those of others (van den Oord et al., 2018)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.backbones.recurrent import RecurrentLayer
from graft.config.types import Count, NonNegative
from graft.errors import GraftError
from graft.inputs.base import Fields
from graft.terms.base import Term, TermContext, TrainStep
from graft.terms.pretext.two_views import Side
from graft.terms.processes import gathered, gathered_to_learn, padded_to_longest
from graft.terms.requirements import check_several


def contrast_of_steps(predictions: Tensor, steps: Tensor, mask: Tensor) -> Tensor:
    """InfoNCE of predictions `(B, L, P)` of steps `(B, L, P)`: the own step among those of the batch at its place.

    The mean over places where the mask `(B, L)` is 1; a step where it is 0 is no sequence's and no negative either.
    """
    similarities = torch.einsum("blp,clp->lbc", predictions, steps)
    real = mask.bool().T
    similarities = similarities.masked_fill(~real[:, None, :], -torch.inf)[real]
    own = torch.arange(len(steps), device=steps.device).expand_as(real)[real]
    return F.cross_entropy(similarities, own, reduction="sum") / max(1, len(own))


class CPC(Term):
    """The mean contrast over the next `horizon` steps; no label is looked at.

    The backbone's states are the contexts, a linear layer of what its first layer reads encodes steps, and a linear
    layer for each distance predicts them; all are left behind after training. Several processes contrast the sequences
    of all. Raises GraftError for a backbone that is not recurrent or reads backwards too, and for batches of one
    sequence.
    """

    modalities = ("sequence", "text", "audio")
    needs_forwards = True
    needs_outputs = False

    def __init__(
        self,
        weight: NonNegative = 1.0,
        domain: Side = "source",
        horizon: Count = 3,
        projection_size: Count = 64,
    ) -> None:
        super().__init__()
        self.weight = weight
        self.domains = (domain,)
        self.horizon = horizon
        self.projection_size = projection_size

    def check(self, context: TermContext) -> None:
        """GraftError where the backbone does not read step by step."""
        layers = layers_of(context.backbone)
        if not layers or any(layer.backwards is not None for layer in layers):
            raise GraftError(
                f"term.cpc predicts what comes, and {context.backbone.name} does not read step by step. Use an LSTM or "
                "a GRU with backbone.bidirectional=false."
            )

    def prepare(self, context: TermContext) -> None:
        """Make the layers."""
        self.check(context)
        first, last = (layers_of(context.backbone)[index].forwards for index in (0, -1))
        self.encode = nn.Linear(first.input_size, self.projection_size)
        self.predict = nn.ModuleList(nn.Linear(last.hidden_size, self.projection_size) for _ in range(self.horizon))
        self._backbone = (context.backbone,)  # in a tuple, so that it is no part of this module

    def forward(self, step: TrainStep) -> Tensor:
        """The loss of the step's sequences, over the distances at which there is a step."""
        inputs = step.inputs[self.domains[0]]
        read, states = self.read_and_states(inputs)
        mask = gathered(padded_to_longest(mask_of(inputs, read)))
        read, states = (gathered_to_learn(padded_to_longest(part)) for part in (read, states))
        check_several([read], "cpc")
        steps = self.encode(read)
        losses = [
            contrast_of_steps(predict(states[:, :-distance]), steps[:, distance:], mask[:, distance:])
            for distance, predict in enumerate(self.predict, start=1)
            if distance < states.shape[1]
        ]
        return torch.stack(losses).mean() if losses else 0 * states.sum()

    def read_and_states(self, inputs: Tensor | Fields) -> tuple[Tensor, Tensor]:
        """What the first layer reads `(B, L, D)`, and the last one's states `(B, L, H)`."""
        (backbone,) = self._backbone
        layers = layers_of(backbone)
        found: dict[str, Tensor] = {}
        handles = [
            layers[0].register_forward_pre_hook(lambda _layer, given: found.update(read=given[0])),
            layers[-1].register_forward_hook(lambda _layer, _given, output: found.update(states=output)),
        ]
        try:
            backbone(inputs)
        finally:
            for handle in handles:
                handle.remove()
        return found["read"], found["states"]


def layers_of(backbone: nn.Module) -> list[RecurrentLayer]:
    """The recurrent layers, from input to output."""
    return [module for module in backbone.modules() if isinstance(module, RecurrentLayer)]


def mask_of(inputs: Tensor | Fields, read: Tensor) -> Tensor:
    """1 `(B, L)` where a step belongs to its sequence; all do where inputs have one length."""
    if isinstance(inputs, Fields):
        return inputs["mask" if "mask" in inputs.tensors else "attention_mask"]
    return read.new_ones(read.shape[:2])
