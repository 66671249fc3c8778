"""A run's network as it is deployed: from raw arrays to probabilities, with preprocessing and calibration inside."""

from torch import Tensor, nn

from graft.errors import GraftError
from graft.export.preprocessing import Input, preprocessing_of
from graft.heads.base import seen_by
from graft.heads.dense import DenseOutputs
from graft.inputs.base import Inputs
from graft.model.model import Model


class Deployed(nn.Module):
    """Raw arrays to probabilities `(B, K)` after calibration, or to numbers `(B,)`; in full precision on the CPU.

    Of a network that predicts boxes: every candidate box of an image and its score for each class `(B, A, 4 + K)`.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        if model.predicts_texts:
            raise GraftError(
                "This run writes texts, which are neither exported nor measured yet. Its model/ folder predicts with "
                "graft predict or graft.load_run, and its weights are model/weights.safetensors."
            )
        self.preprocessing = preprocessing_of(model)
        self.transform = model.transform()
        self.backbone = model.backbone.float().cpu()
        self.head = model.head.float().cpu()
        self.task = model.task
        self.temperature = model.description.temperature or 1.0
        self.eval().requires_grad_(False)

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The arrays that it takes, in their order."""
        return self.preprocessing.inputs

    @property
    def output(self) -> str:
        """What the array that it gives is called."""
        return {"numbers": "value", "boxes": "candidates"}.get(self.task.label_kind, "probabilities")

    def forward(self, *raw: Tensor) -> Tensor:
        """Probabilities, numbers, or candidates."""
        return self.answers(self.preprocessing(*raw))

    def answers(self, inputs: Inputs) -> Tensor:
        """The same of inputs as the network takes them."""
        logits = self.head(seen_by(self.head, self.backbone, inputs))
        return logits.candidates() if isinstance(logits, DenseOutputs) else self.calibrated(logits)

    def calibrated(self, logits: Tensor) -> Tensor:
        """What logits say once they are divided by the temperature."""
        values = self.task.predictions(logits / self.temperature)
        probabilities = self.task.probabilities(values)
        return values if probabilities is None else probabilities
