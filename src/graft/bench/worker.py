"""A network in a process of its own, which answers to batches as often as it is asked: own memory, threads, caches."""

import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from graft.memory import peak_process_memory

LENGTH = 32  # tokens of a text, or steps of a sequence
SIDE = 256  # pixels of an image with boxes
BATCHES = (1, 32)


def serve(connection: Connection, place: Path, threads: int, allow: Sequence[str]) -> None:
    """Open a run's model or an exported file; then seconds of some calls with a batch, or the peak memory in MB.

    What goes wrong is sent as text.
    """
    try:
        inputs, call = opened(place, threads, allow)
        batches = {size: example(inputs, size) for size in BATCHES}
        connection.send("ready")
        while (request := connection.recv()) is not None:
            if request == "memory":
                peak = peak_process_memory()
                connection.send(None if peak is None else peak / 1e6)
                continue
            size, calls = request
            call(batches[size])  # others computed since the last call, and this one finds its weights in no cache
            connection.send([seconds(lambda: call(batches[size])) for _ in range(calls)])  # noqa: B023
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")


def opened(place: Path, threads: int, allow: Sequence[str]) -> tuple[list[dict[str, Any]], Callable[[Any], object]]:
    """The inputs of a network, and what computes its answer to arrays by name. Only what a format needs is imported."""
    if place.suffix == ".onnx":
        from graft.export.session import metadata_of, session

        network = session(place, threads)
        inputs = metadata_of(network)["inputs"]
        return inputs, lambda arrays: network.run(None, arrays)
    import torch

    torch.set_num_threads(threads)
    module: Any
    if place.suffix == ".pt2":
        from graft.export.torch_file import read

        module, metadata = read(place)
        inputs = metadata["inputs"]
    else:
        from graft.export.deployed import Deployed
        from graft.model.model import load

        module = Deployed(load(place, allow))
        inputs = [{"name": one.name, "type": one.dtype, "shape": one.shape} for one in module.inputs]

    @torch.inference_mode()
    def call(arrays: Mapping[str, np.ndarray]) -> object:
        return module(*(torch.from_numpy(arrays[one["name"]]) for one in inputs))

    return inputs, call


def example(inputs: Sequence[Mapping[str, Any]], samples: int) -> dict[str, np.ndarray]:
    """Arrays of a batch: noise, and whole numbers that every network knows, such as token 1."""
    random, sizes = np.random.default_rng(0), {"batch": samples, "length": LENGTH, "height": SIDE, "width": SIDE}
    found: dict[str, np.ndarray] = {}
    for one in inputs:
        shape = [sizes.get(size, size) for size in one["shape"]]
        if one["type"] == "uint8":
            found[one["name"]] = random.integers(0, 256, shape, dtype=np.uint8)
        elif one["type"] == "int64":
            own = one["name"].rpartition(".")[2]  # without the part of a fusion
            found[one["name"]] = np.full(shape, {"lengths": LENGTH, "size": SIDE}.get(own, 1))
        elif one["type"] == "bool":
            found[one["name"]] = np.ones(shape, dtype=bool)
        else:
            found[one["name"]] = random.normal(size=shape).astype(one["type"])
    return found


def seconds(work: Callable[[], object]) -> float:
    """Wall time of a call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
