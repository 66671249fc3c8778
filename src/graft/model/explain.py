"""Why a model predicts as it does, sample by sample: attributions, judged as those of a report are."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import torch

from graft.backbones.fusion import Fusion
from graft.errors import first_line
from graft.inputs.base import Inputs, one_of
from graft.inspection.attribution import methods
from graft.inspection.faithfulness import ALL, Verdict, deletion_area, random_area, randomised, rank_correlation
from graft.inspection.overlay import is_spectrogram, overlay_png
from graft.inspection.subject import Question, Subject, subjects_of

if TYPE_CHECKING:
    from graft.model.model import Model

NO_CAPTUM = "An explanation needs captum, which is not installed: pip install captum"
UNKNOWN = (RuntimeError, NotImplementedError, StopIteration)  # what a user's network may raise


@dataclass(frozen=True)
class Explanation:
    """What a prediction rests on: a `picture` (PNG), or `weights` of tokens or columns, -1 (against it) to 1 (for it).

    Of a fusion there is an explanation in `parts` for each modality that the sample has, the others held as they are;
    `left` says there how much of the predicted class's probability is left where that modality counts as missing.
    `withheld` says why neither is shown; it is empty where one is. An attribution is shown where it passes the
    checks of a report: removing what it marks takes more away than chance, and random weights change it.
    """

    method: str
    withheld: str = ""
    picture: bytes | None = None
    weights: tuple[tuple[str, float], ...] | None = None
    parts: Mapping[str, "Explanation"] = field(default_factory=dict)
    left: float | None = None


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
        """Why one sample `(1, ...)` is predicted so: of a fusion, by its parts."""
        try:
            subjects = subjects_of(self.model, inputs)
            if "" in subjects:
                return self.best(subjects[""])
            found = {name: self.best(subject) for name, subject in subjects.items()}
            left = self.left_without(inputs, [*found])
        except UNKNOWN as error:
            return Explanation("none", f"no attribution of this network: {first_line(error)}")
        return Explanation("by part", parts={name: replace(one, left=left[name]) for name, one in found.items()})

    def best(self, subject: Subject) -> Explanation:
        """The attribution that marks best what the prediction rests on."""
        model = self.model
        with torch.no_grad():
            logits = [subject.logits(model.backbone, model.head, x) for x in (subject.values, subject.baseline)]
        question = Question.of(model.task, *logits)
        chance = random_area(subject, question, model)
        found = [self.judged(subject, question, chance, *one) for one in methods(model.backbone, subject).items()]
        return min(found, key=lambda pair: (bool(pair[1].withheld), pair[0]))[1]

    @torch.no_grad()
    def left_without(self, inputs: Inputs, parts: Sequence[str]) -> dict[str, float | None]:
        """By part how much of the predicted class's probability is left where it counts as missing.

        None of a number, and of a sample that has no other part: training never saw one that has nothing.
        """
        model, backbone = self.model, cast(Fusion, self.model.backbone)
        if model.task.label_kind == "numbers" or len(parts) < 2:
            return dict.fromkeys(parts)
        whole = model.logits(inputs)
        question = Question.of(model.task, whole, whole)
        left: dict[str, float | None] = {}
        for part in parts:
            with backbone.removed(part):
                left[part] = float(question.support(model.logits(inputs))[0] / question.support(whole)[0])
        return left

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
        picture = overlay_png(subject, attribution, upwards=is_spectrogram(self.model.backbone, subject))
        return area, Explanation(name, picture=picture)
