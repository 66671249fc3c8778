"""What server and clients have to have in common, so that one network can be trained at all of them."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from graft.config.text import leaves
from graft.data.module import TransferDataModule
from graft.errors import GraftError
from graft.federated.messages import Message

GROUPS = (
    *("seed", "bn", "task", "backbone", "head", "objective", "strategy", "rates", "term", "optimizer", "scheduler"),
    *("training", "federated"),
)
OF_DATA = ("batch_size", "image_size", "clip_seconds", "sample_rate", "text_length", "normalize", "augment", "epoch")
OWN = ("training.threads",)  # of a machine


def agreed(config: Mapping[str, Any], data: TransferDataModule) -> dict[str, Any]:
    """The keys that have to be equal, as text, the classes in their order, and how samples become inputs."""
    chosen: dict[str, Any] = {group: config.get(group) for group in GROUPS}
    chosen["data"] = {key: config["data"][key] for key in OF_DATA if key in config["data"]}
    keys = {key: json.dumps(value, default=str) for key, value in leaves(chosen) if key not in OWN}
    target, classes = data.domains["target"], data.classes("target")
    columns = target.backbone_arguments.get("columns")
    read = {"columns": columns and columns.to_json(), "reading": json.dumps(dict(target.reading), default=str)}
    return {"config": keys, "classes": None if classes is None else [str(one) for one in classes], **read}


def check_agreement(server: Mapping[str, Any], config: Mapping[str, Any], data: TransferDataModule) -> None:
    """GraftError where a client's config, classes or columns are others than the server's."""
    own = agreed(config, data)
    if found := [*differences(server["config"], own["config"])]:
        raise GraftError("Not the server's configuration: " + "; ".join(found[:5]) + ". Start with the same keys.")
    if server["classes"] != own["classes"]:
        raise GraftError(
            f"The server's classes are {server['classes']}, here they are {own['classes']}. Every machine needs the "
            "same ones in the same order: name them in data.target_classes, or give each a sample of every class."
        )
    for key in ("columns", "reading"):
        if server[key] != own[key]:
            raise GraftError(
                f"The server reads samples in another way than this machine (their {key} differ): numbers are scaled "
                "by the training samples of each machine, so that the same number would be another one at each. Data "
                "that are scaled so need a common federated.partition; images, recordings and texts do not."
            )


def differences(server: Mapping[str, str], own: Mapping[str, str]) -> Iterator[str]:
    """What is set otherwise."""
    for key in {**server, **own}:
        if server.get(key) != own.get(key):
            yield f"{key} is {server.get(key, 'not set')} there and {own.get(key, 'not set')} here"


def check_network(network: Message, own: Message) -> None:
    """GraftError where the server's network has other tensors than this machine's, or another vocabulary."""
    names = [name for name in {**network, **own} if shape(network, name) != shape(own, name)]
    if names:
        raise GraftError(
            f"The server's network is another one: {len(names)} tensors differ, {names[0]} first. It follows from the "
            "data too, such as their classes and vocabulary: these have to be the same."
        )
    for name, value in own.items():  # whole numbers say what inputs mean, and are not trained
        counts = name.endswith("num_batches_tracked")
        if not value.is_floating_point() and not counts and not torch.equal(value.cpu(), network[name]):
            raise GraftError(
                f"{name} is not the server's: the vocabulary is made of each machine's own texts. Use a backbone with "
                "a tokenizer (backbone.tokenizer), or a pretrained one."
            )


def shape(tensors: Message, name: str) -> torch.Size | None:
    """Shape of a named tensor, None where there is none."""
    return tensors[name].shape if name in tensors else None


def state_of(task: Any) -> dict[str, Any]:
    """What a task has taken from the server's labels, such as their mean."""
    return {"task": task.state_dict()}
