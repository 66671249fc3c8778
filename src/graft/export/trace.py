"""The graph of a deployed network, for any number of samples."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from graft.errors import GraftError, first_line
from graft.export.deployed import Deployed
from graft.export.preprocessing import SHORTEST
from graft.export.quiet import quiet


def traced(deployed: Deployed) -> torch.export.ExportedProgram:
    """The graph, dynamic in samples, in the length of texts and sequences, and in the sides of images with boxes.

    Raises GraftError where it cannot be traced.
    """
    any_size = torch.export.Dim.DYNAMIC  # an error where tracing fixes it, within the bounds that it finds
    shapes = tuple(
        {place: any_size for place, size in enumerate(one.shape) if isinstance(size, str)} for one in deployed.inputs
    )
    try:
        with quiet(), loops_kept():
            return torch.export.export(deployed, deployed.preprocessing.example(SHORTEST), dynamic_shapes=(shapes,))
    except Exception as error:  # whatever a user's own backbone does that no graph can hold
        raise GraftError(
            f"{deployed.backbone.name}: torch.export cannot trace this network ({type(error).__name__}: "
            f"{first_line(error)}). Take the weights instead: format=safetensors"
        ) from error


@contextmanager
def loops_kept() -> Iterator[None]:
    """LSTM and GRU as loops: unrolled, as torch traces them by itself, they would take sequences of one length only."""
    try:
        from torch.export._patches import (
            register_gru_while_loop_decomposition,
            register_lstm_while_loop_decomposition,
        )
    except ImportError:  # of an older torch, whose tracing names the length that it cannot keep open
        yield
        return
    with ExitStack() as stack:
        for register in (register_lstm_while_loop_decomposition, register_gru_while_loop_decomposition):
            stack.enter_context(register())
        yield
