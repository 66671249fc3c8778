"""Knowledge distillation: a small network learns from a large one that is trained (Hinton, Vinyals and Dean, 2015).

Beside its outputs the teacher may give features, as FitNets' hints do (Romero et al., ICLR 2015), and where it is
active (Zagoruyko and Komodakis, ICLR 2017).
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from annotated_types import MinLen

from graft.compress.base import Compression, CompressionContext
from graft.compress.distillation import Distillation
from graft.compress.teacher import RunTeacher
from graft.config.types import Fraction, NonNegative, Positive
from graft.errors import GraftError, listed
from graft.terms.base import Term

FINGERPRINT = "teacher_fingerprint"  # in the state of a checkpoint and in the results


class Distill(Compression):
    """Loss `(1 - weight) objective + weight T^2 KL`, and what else is matched with the teacher on target samples.

    `teacher` is the folder of a run, a sweep or a model. Raises GraftError where there is none.
    """

    domains = ("target",)

    def __init__(
        self,
        teacher: str,
        match: Annotated[Sequence[Literal["logits", "features", "attention"]], MinLen(1)] = ("logits",),
        temperature: Positive = 4.0,
        weight: Fraction = 0.9,
        feature_weight: NonNegative = 1.0,
        attention_weight: NonNegative = 10.0,
    ) -> None:
        super().__init__()
        self.teacher = RunTeacher(teacher)
        self.temperature = temperature
        known: dict[str, float] = {"logits": weight, "features": feature_weight, "attention": attention_weight}
        self.weights: dict[str, float] = {name: known[name] for name in match}

    def terms(self) -> dict[str, Term]:
        """What the teacher adds to the objective."""
        return {"distill": Distillation(self.teacher, self.temperature, self.weights)}

    def prepare(self, context: CompressionContext, saved: Mapping[str, Any] | None) -> None:
        """GraftError where the run that goes on had another teacher."""
        if saved and saved.get(FINGERPRINT) != self.teacher.fingerprint:
            raise GraftError(
                f"compress.teacher={self.teacher.place}: its weights are not those that the checkpoint was taught by. "
                "Give the folder of that teacher, or train in a new folder."
            )

    def state(self) -> dict[str, Any]:
        """By whom the network is taught."""
        return {FINGERPRINT: self.teacher.fingerprint}

    def results(self) -> dict[str, Any]:
        """The teacher, and what of it is matched with which weight."""
        run, name = self.teacher.model.description.name, self.teacher.backbone.name
        parameters = self.teacher.num_parameters
        return {
            "kind": "distill",
            "note": f"taught {listed([*self.weights])} by the run {run} ({name}, {parameters:,} parameters)",
            "teacher": self.teacher.place,
            FINGERPRINT: self.teacher.fingerprint,
            "teacher_backbone": name,
            "teacher_parameters": parameters,
            "temperature": self.temperature,
            "match": self.weights,
        }
