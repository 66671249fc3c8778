"""What a federation cannot be meant with."""

from collections.abc import Iterator, Mapping
from typing import Any

from graft.config.conflicts.names import Names, mixing_keys, several_processes
from graft.config.conflicts.stream import is_stream
from graft.config.facts import attribute
from graft.config.text import shown
from graft.federate import LOOPBACK

# Keys beside a federation, with what they have to be and why another value cannot be.
NEEDED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "tune": ((None,), "a range test is of one network in one place"),
    "soup": ((None,), "a soup trains nothing"),
    "data.target_setting": (("supervised",), "clients learn from labels"),
    "data.label_sets": (("closed",), "clients and server have the same classes"),
    "data.balance": (("none",), "how often classes are is counted over all clients"),
    "data.bucket_by_length": ((False, None), "lengths are sorted over all clients"),
    "data.epoch": (("target",), "an epoch is a round; federated.local_epochs or local_steps say how long it is"),
    "training.accumulate_batches": ((1,), "gradients of two clients would add up"),
    "training.compile": ((False,), "weights are put into the network in turn"),
    "training.wise_ft_alphas": ((None,), "weights between two networks are validated in one place"),
    "training.on_nonfinite": (("stop",), "federated.on_bad_client says what becomes of such a client"),
    "head.grow": ((None, False), "clients have no samples of old classes"),
    "save.ledger": ((None,), "its scores look at one network in one place"),
    "save.neighbours": ((False,), "the model would hold features of the clients' samples"),
}


def federated_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """A federation beside what needs all samples in one place, or one network in all steps."""
    settings = config["federated"]
    if not settings:
        return
    name = f"federated={names['federated']}"
    yield from partition_contradictions(settings)
    for key, (allowed, why) in NEEDED.items():
        value = value_at(config, key)
        if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed):
            yield f"`{name}` with `{key}={shown(value)}`: {why}; use {key}={shown(allowed[0])}"
    if config["data"]["batch_size"] == "auto":
        yield f"`{name}` with `data.batch_size=auto`: clients take batches of one size; give the number"
    if several_processes(config["trainer"]):
        yield f"`{name}` with several processes: clients take turns in one; use trainer=cpu or gpu, trainer.devices=1"
    if config["averaging"]:
        yield f"`{name}` with `averaging={names['averaging']}`: it would average over clients' steps; use none"
    if config["compress"]:
        yield f"`{name}` with `compress={names['compress']}`: a mean of compressed networks is none; use none"
    if names.says("selection", "holds_out", False):
        yield f"`{name}` with `selection={names['selection']}`: it divides all labels in folds; use target_val or last"
    alpha, end = config["objective"].get("alpha", 1), config["objective"].get("alpha_end")
    if alpha != 0 or end not in (None, 0):
        yield f"`{name}` with `objective.alpha={shown(alpha)}`: clients have no source; use objective.alpha=0"
    if config["backbone"]["weights"] == "target":
        yield f"`{name}` with `backbone.weights=target`: it would see all clients' inputs; use source or a file"
    for term, one in (config.get("term") or {}).items():
        if one and not attribute(one.get("_target_", ""), "federates", False):
            yield f"`{name}` with `term={term}`: it keeps something between steps, which are of several clients"
    for says, why in (
        ("closed_fit", "it fits all features at once"),
        ("trains_nothing", "no client has anything to send"),
        ("matches_flops", "it sets an epoch's length"),
    ):
        if names.says("strategy", says, False):
            yield f"`{name}` with `strategy={names['strategy']}`: {why}; use strategy=full or frozen"
    if (kind := names.says("task", "label_kind", "classes")) in ("boxes", "texts"):
        yield f"`{name}` with `task={names['task']}`: clients' scores of {kind} are not counted; use another task"
    if is_stream(config["data"].get("target")):
        yield f"`{name}` with a stream as `data.target`: samples are divided among clients first; use data=image_folder"
    if "parts" in config["backbone"]:
        yield f"`{name}` with `backbone={names['backbone']}`: its parts are not divided among clients; use another"
    if not attribute(settings["_target_"], "trains_at_clients", True):
        yield from one_round_contradictions(config, names, name)


def federate_contradictions(config: Mapping[str, Any], names: Names) -> Iterator[str]:
    """A federation over a network: what does not go over one, and what would be open to everybody."""
    settings, federated = config.get("federate"), config["federated"]
    if not settings:
        if federated and federated["partition"] == "own":
            yield "`federated.partition=own`: clients on other machines have samples of their own; use graft federate"
        return
    role = attribute(settings["_target_"], "role", "")
    name = f"federate={role}"
    if not federated:
        yield f"`{name}` with `federated=none`: it trains with no one; use federated=fedavg or fedprox"
        return
    method, partition = f"federated={names['federated']}", federated["partition"]
    says = federated["_target_"]
    if not attribute(says, "trains_at_clients", True) or not attribute(says, "has_server", True):
        yield f"`{name}` with `{method}`: only weights go over the network; use federated=fedavg or fedprox"
    if attribute(says, "keeps_parts", False):
        yield f"`{name}` with `{method}`: the server cannot validate what stays with clients; use fedavg or fedprox"
    for key in ("drop_out", "corrupt"):
        if federated[key]:
            yield f"`{name}` with `federated.{key}={shown(federated[key])}`: machines fail by themselves; use 0"
    if role == "server":
        given = [settings[key] for key in ("certificate", "key", "ca")]
        if any(given) != all(given):
            yield f"`{name}` with a part of `federate.certificate`, `federate.key` and `federate.ca`: give all three"
        if settings["host"] not in LOOPBACK and not all(given):
            yield (
                f"`federate.host={settings['host']}` without `federate.certificate`, `federate.key` and `federate.ca`: "
                "weights would be in the clear; give them, or keep 127.0.0.1 and let clients come through ssh -L"
            )
        return
    if config["resume"]:
        yield f"`{name}` with `resume={shown(config['resume'])}`: the server goes on, clients join anew; use null"
    if partition == "own" and settings["number"] is not None:
        yield f"`federate.number={settings['number']}` with `federated.partition=own`: all are its own; use null"
    if partition != "own" and settings["number"] is None:
        yield f"`federate.number=null` with `federated.partition={partition}`: say whose share it has, from 0"
    if settings["address"].rpartition(":")[0].strip("[]") not in LOOPBACK and not settings["ca"]:
        yield (
            f"`federate.address={settings['address']}` without `federate.ca`: weights would be in the clear; give the "
            "file, or come through ssh -L and use 127.0.0.1"
        )


def partition_contradictions(settings: Mapping[str, Any]) -> Iterator[str]:
    """Keys of a federation itself."""
    partition, clients, column = settings["partition"], settings["clients"], settings["column"]
    if partition in ("column", "sources"):
        if clients is not None:
            yield f"`federated.partition={partition}` with `federated.clients={clients}`: values say how many; use null"
    elif clients is None:
        yield f"`federated.partition={partition}` with `federated.clients=null`: give the number of clients"
    if (partition == "column") != (column is not None):
        yield (
            f"`federated.partition={partition}` with `federated.column={shown(column)}`: a column goes with "
            "partition=column, and with nothing else"
        )
    epochs, steps = settings["local_epochs"], settings["local_steps"]
    if (epochs is None) == (steps is None):
        yield (
            f"`federated.local_epochs={shown(epochs)}` with `federated.local_steps={shown(steps)}`: give one of "
            "the two, and null for the other"
        )


def one_round_contradictions(config: Mapping[str, Any], names: Names, name: str) -> Iterator[str]:
    """What mixtures of frozen features cannot be meant with."""
    if names.says("strategy", "trains_backbone", True) or config["strategy"].get("train_bn") is True:
        yield f"`{name}` with `strategy={names['strategy']}`: it sends frozen features; use strategy=frozen"
    if config["data"]["augment"] != "none":
        yield f"`{name}` with `data.augment={config['data']['augment']}`: features are of samples as they are; use none"
    if mixing := mixing_keys(config):
        yield f"`{name}` with `{mixing}`: there are no inputs to mix; use null"
    if not config["cache"]["features"]:
        yield f"`{name}` with `cache.features=false`: the server trains on features; use cache.features=true"
    if names.says("task", "name", "multiclass") not in ("multiclass", "binary"):
        yield f"`{name}` with `task={names['task']}`: a mixture is of a class; use task=multiclass"
    if names.says("head", "takes", "features") == "local":
        yield f"`{name}` with `head={names['head']}`: it pools by itself; use head=linear or mlp"
    for key, default in (("local_steps", None), ("server_momentum", 0)):
        if config["federated"][key] != default:
            yield f"`{name}` with `federated.{key}={shown(config['federated'][key])}`: no client takes a step"


def value_at(config: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key; None where it is not there."""
    found: Any = config
    for name in key.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found
