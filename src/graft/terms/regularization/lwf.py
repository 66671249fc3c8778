"""Learning without Forgetting: what the old head says about the new data shall stay (Li and Hoiem, ECCV 2016)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from graft.config.types import NonNegative, Positive
from graft.errors import GraftError
from graft.terms.base import Term, TermContext, TrainStep
from graft.terms.requirements import trainable_pretrained_head


def distillation(logits: Tensor, old_logits: Tensor, temperature: float) -> Tensor:
    """Mean over samples of KL(old || new) between softmaxes at `temperature`; both logits `(B, K)`.

    The paper writes the cross entropy: the old logits' entropy more, with the same gradient. There is no factor T^2.
    """
    new, old = (F.log_softmax(logits / temperature, dim=-1) for logits in (logits, old_logits))
    return F.kl_div(new, old, reduction="batchmean", log_target=True)


class LwF(Term):
    """Distils the pretrained net's own outputs into the trained features through a copy of its head, which trains too.

    Where the target's head is the pretrained one with new classes behind the old (head.grow), no copy trains: the old
    outputs of that head are held, as all classes are told apart by one softmax (Masana et al., TPAMI 2022).
    Raises GraftError where the pretrained weights come without their head.
    """

    needs_pretrained = True

    def __init__(self, weight: NonNegative = 4.0, temperature: Positive = 3.0) -> None:
        super().__init__()
        if temperature <= 0:
            raise GraftError(f"term.lwf.temperature={temperature} must be above 0; the paper's is 2, the usual one 3.")
        self.weight = weight
        self.temperature = temperature

    def prepare(self, context: TermContext) -> None:
        """Keep the pretrained net, and start the head that trains from its own."""
        self.old_outputs = context.old_outputs
        if self.old_outputs is None:
            self.classifier = trainable_pretrained_head(context, "lwf")
        self.teacher = context.teacher

    def forward(self, step: TrainStep) -> Tensor:
        """How far the outputs over the old classes have moved on this step's samples, in nats."""
        if self.old_outputs is None:
            logits = self.classifier(step.all_taken_by(self.classifier))
        else:
            logits = torch.cat([*step.logits.values()])[:, : self.old_outputs]
        return distillation(logits, self.teacher.logits(step.all_inputs), self.temperature)
