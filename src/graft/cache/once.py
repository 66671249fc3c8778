"""What a network that stays as it is makes of training samples whose inputs never change: seen once, for all runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graft.cache.disk import DiskCache, NoRoom
from graft.cache.key import cache_key, code_used, numerics
from graft.data.module import TransferDataModule
from graft.inputs.base import Inputs, InputSpec
from graft.notes import say_once

OUTPUTS = "outputs.pt"
Network = Callable[[Inputs], Mapping[str, Tensor]]  # inputs (B, ...) to values (B, ...) by name


@dataclass(frozen=True)
class TrainingSamples:
    """The target's training samples, none of which is augmented or mixed."""

    data: TransferDataModule
    cache: DiskCache
    device: torch.device  # on which networks run

    def seen_by(self, network: Network, spec: InputSpec, values: int, parts: Mapping[str, Any]) -> dict[str, Tensor]:
        """What a network of inputs of a `spec` puts out, `(N, ...)` in the split's order on the CPU.

        `values` are the numbers that it gives a sample; `parts` all that decides them, by what it is: plain values,
        and under `code` the objects whose code it is.
        """
        split = self.data.domains["target"].train
        depends_on = {
            **parts,
            "samples": split.fingerprint,
            "input": repr(spec),
            "batch": self.data.eval_batch_size,  # rounding differs with it
            "device": self.device.type,
            "numerics": numerics(),
            "code": code_used(__name__, *parts["code"], *self.data.parts("target")),
        }

        def make(folder: Path) -> None:
            torch.save(self._computed(network, spec), folder / OUTPUTS)

        def read(folder: Path) -> dict[str, Tensor]:
            return torch.load(folder / OUTPUTS, map_location="cpu", weights_only=True)

        try:
            return self.cache.get(cache_key(depends_on), lambda: 4 * values * len(split), make, read)
        except (NoRoom, OSError) as error:
            say_once(f"What the teacher says is computed again in every run, because it cannot be kept: {error}.")
            return self._computed(network, spec)

    def _computed(self, network: Network, spec: InputSpec) -> dict[str, Tensor]:
        """The outputs of all batches, which come in any order."""
        indices: list[Tensor] = []
        found: dict[str, list[Tensor]] = {}
        for batch in self.data.plain_batches("target", "train", spec=spec):
            assert batch.indices is not None
            indices.append(batch.indices)
            for name, values in network(batch.inputs.to(self.device)).items():
                found.setdefault(name, []).append(values.cpu())
        order = torch.cat(indices).argsort()
        return {name: torch.cat(values)[order] for name, values in found.items()}
