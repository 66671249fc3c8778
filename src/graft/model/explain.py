"""Why a model predicts as it does, sample by sample: attributions, judged as those of a report are."""

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from graft.errors import first_line
from graft.inputs.base import Inputs, one_of
from graft.inspection.attribution import methods
from graft.inspection.faithfulness import ALL, Verdict, deletion_area, random_area, randomised, rank_correlation
from graft.inspection.overlay import overlay_png
from graft.inspection.subject import Question, Subject, subject_of

if TYPE_CHECKING:
    from graft.model.model import Model

NO_CAPTUM = "An explanation needs captum, which is not installed: pip install captum"
UNKNOWN = (RuntimeError, NotImplementedError, StopIteration)  # what a user's network may raise


@dataclass(frozen=True)
class Explanation:
    """What a prediction rests on: a `picture` (PNG), or `weights` of tokens or columns, -1 (against it) to 1 (for it).

    `withheld` says why neither is shown; it is empty where one is. An attribution is shown where it passes the
    checks of a report: removing what it marks takes more away than chance, and random weights change it.
    """

    method: str
    withheld: str = ""
    picture: bytes | None = None
    weights: tuple[tuple[str, float], ...] | None = None


class Explainer:
    """Explains predictions of a model on the CPU."""

    def __init__(self, model: "Model") -> None:
        self.model = model if model.device.type == "cpu" else copy.deepcopy(model).to("cpu")
        *_, (_, self.random_backbone, self.random_head) = randomised(self.model)

    def __call__(self, inputs: Inputs) -> tuple[Explanation, ...]:
        """An explanation of each sample of inputs `(B, ...)` as the network takes them."""
        inputs = inputs.to("cpu")
        return tuple(self.explain(one_of(inputs, index)) for index in range(len(inputs)))

    def explain(self, inputs: Inputs) -> Explanation:
        """The attribution of one sample `(1, ...)` that marks best what its prediction rests on."""
        model = self.model
        try:
            subject = subject_of(model, inputs)
            with torch.no_grad():
                logits = [subject.logits(model.backbone, model.head, x) for x in (subject.values, subject.baseline)]
            question = Question.of(model.task, *logits)
            chance = random_area(subject, question, model)
            found = [self.judged(subject, question, chance, *one) for one in methods(model.backbone, subject).items()]
        except UNKNOWN as error:
            return Explanation("none", f"no attribution of this network: {first_line(error)}")
        return min(found, key=lambda pair: (bool(pair[1].withheld), pair[0]))[1]

    def judged(
        self, subject: Subject, question: Question, chance: float, name: str, method: Any
    ) -> tuple[float, Explanation]:
        """A method's deletion area, and its attribution unless that is withheld."""
        attribution = method(subject, question, self.model.backbone, self.model.head)
        area = deletion_area(subject, question, self.model, attribution.argsort(descending=True, stable=True))
        random = method(subject, question, self.random_backbone, self.random_head)
        withheld = Verdict(area, chance, {ALL: rank_correlation(attribution.numpy(), random.numpy())}).withheld
        if withheld:
            return area, Explanation(name, withheld)
        if subject.names:
            shares = (attribution / attribution.abs().max().clamp(min=1e-12)).tolist()
            return area, Explanation(name, weights=tuple(zip(subject.names, shares, strict=True)))
        upwards = self.model.description.modality == "audio" and subject.values.ndim == 4
        return area, Explanation(name, picture=overlay_png(subject, attribution, upwards=upwards))
