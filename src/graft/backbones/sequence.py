"""LSTM and GRU encoders of sequences of vectors."""

import torch

from graft.backbones.base import Backbone, Stage
from graft.backbones.recurrent import Cell, Pooling, RecurrentNetwork
from graft.config.types import Auto, Count, FractionBelowOne
from graft.errors import GraftError
from graft.inputs.base import Fields
from graft.inputs.sequence import SequenceSpec

EXAMPLE_LENGTH = 8  # steps of an example


class SequenceBackbone(Backbone):
    """`Fields` of values `(B, L, D)` and a mask `(B, L)` to features `(B, F)`; each layer is a stage."""

    modality = "sequence"
    recurrent = True

    def __init__(
        self,
        name: Cell,
        input_size: Auto | Count = "auto",
        hidden_size: Count = 64,
        layers: Count = 2,
        bidirectional: bool = True,
        dropout: FractionBelowOne = 0.1,
        pooling: Pooling = "last",
    ) -> None:
        """`input_size` is the number D of values of a step."""
        if not isinstance(input_size, int):
            raise GraftError(f"backbone.input_size={input_size}: there are no sequences. Use a number of values.")
        network = RecurrentNetwork(
            name, input_size, hidden_size, layers, bidirectional=bidirectional, dropout=dropout, pooling=pooling
        )
        stages = [Stage(f"layers.{number}", (f"network.layers.{number}",)) for number in range(layers)]
        super().__init__(name, network, feature_size=network.feature_size, stages=stages)
        self.input_size = input_size

    def forward(self, x: Fields) -> torch.Tensor:
        """Features `(B, F)`."""
        return self.network(x["values"], x["mask"])

    @property
    def input_spec(self) -> SequenceSpec:
        """The size of a step."""
        return SequenceSpec(self.input_size)

    def example_inputs(self, samples: int = 2) -> Fields:
        """Random sequences without padding, always the same ones."""
        random = torch.Generator().manual_seed(0)
        values = torch.randn(samples, EXAMPLE_LENGTH, self.input_size, generator=random)
        like = next(self.parameters())
        mask = torch.ones(samples, EXAMPLE_LENGTH, dtype=torch.int64, device=like.device)
        return Fields({"values": values.to(like), "mask": mask})
