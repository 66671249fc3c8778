"""Feature maps of a backbone's stages, recorded while it runs."""

from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from graft.backbones.outputs import first_of, kept_outputs
from graft.errors import GraftError

FORWARDS_A_STEP = 2  # source and target, where they do not run as one batch


class MapRecorder:
    """Keeps what chosen modules of a backbone put out in its last forwards, with their graph.

    The modules are hooked only while the backbone runs, so one that is replaced later, a deep copy of the backbone,
    and gradient checkpointing, which runs modules again in the backward pass, are no special cases.
    """

    def __init__(
        self, backbone: nn.Module, modules: Sequence[str], training_only: bool, key: str = "term.delta.layers"
    ) -> None:
        """`key` is the config's that chose the modules."""
        self.modules = tuple(modules)
        self.key = key
        self.training_only = training_only  # not in validation and not without gradients
        self._forwards: deque[tuple[int, dict[str, Tensor]]] = deque(maxlen=FORWARDS_A_STEP)
        self._hooks = ExitStack()
        backbone.register_forward_pre_hook(self._begin)
        backbone.register_forward_hook(self._end, always_call=True)

    def _begin(self, backbone: nn.Module, inputs: tuple[Tensor]) -> None:
        if self.training_only and not (backbone.training and torch.is_grad_enabled()):
            return
        self._forwards.append((len(inputs[0]), self._hooks.enter_context(kept_outputs(backbone, self.modules))))

    def _end(self, backbone: nn.Module, inputs: Any, output: Any) -> None:
        self._hooks.close()

    def read(self, samples: int) -> list[Tensor]:
        """Each module's output for the last `samples` samples, in the order in which they ran; then forgets all.

        Of several values it is the first. Raises GraftError for a module that did not run or put out no tensor.
        """
        forwards: list[dict[str, Tensor]] = []
        while self._forwards and samples > 0:
            size, outputs = self._forwards.pop()
            forwards.insert(0, outputs)
            samples -= size
        self._forwards.clear()
        if samples != 0:
            raise RuntimeError("The recorded maps are not those of this step's samples: did the backbone run in it?")
        found = []
        for name in self.modules:
            maps = [first_of(outputs.get(name)) for outputs in forwards]
            if not all(isinstance(one, Tensor) for one in maps):
                raise GraftError(f"The backbone's {name} puts out no map. Name other stages in {self.key}.")
            found.append(torch.cat(maps))
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles begin without maps, which are parts of a graph."""
        return {**self.__dict__, "_forwards": deque(maxlen=FORWARDS_A_STEP), "_hooks": ExitStack()}
