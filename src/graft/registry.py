"""What a `_target_` may name: Graft's own parts, torch's optimizers, Lightning's, and packages that the user allows.

Importing a module runs its code. So a name is judged as text first, is imported after that, and what it led to has to
be defined where the name says: `torch.optim.optimizer.torch.load` and its like are aliases of something else.
"""

import difflib
import functools
import importlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from types import FunctionType
from typing import Any

from graft.errors import GraftError
from graft.locations import CONF

TARGET = "_target_"
# What Hydra's instantiate would take beside a target; Graft calls parts by keyword arguments alone.
HYDRAS_OWN = ("_args_", "_partial_", "_convert_", "_recursive_", "_isolate_", "_execution_whitelist_")
OPTIMIZERS = (
    *("ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "LBFGS", "Muon"),
    *("NAdam", "RAdam", "RMSprop", "Rprop", "SGD", "SparseAdam"),
)
CALLBACKS = (
    *("DeviceStatsMonitor", "EarlyStopping", "GradientAccumulationScheduler", "LearningRateMonitor", "ModelSummary"),
    *("RichModelSummary", "RichProgressBar", "StochasticWeightAveraging", "Timer", "TQDMProgressBar"),
)
LOGGERS = ("CSVLogger", "CometLogger", "MLFlowLogger", "TensorBoardLogger")
ENTRY_POINTS = "graft.parts"  # an installed package that names one of its modules here is allowed
# Packages that read pickles, open files or run programs for whoever calls them: never parts, as the standard library.
NEVER = frozenset({*sys.stdlib_module_names, "__main__", "__mp_main__"}) | {
    *("_pytest", "cloudpickle", "dill", "fsspec", "graft", "hydra", "hydra_plugins", "joblib", "lightning", "numpy"),
    *("omegaconf", "pandas", "pip", "pkg_resources", "pytest", "pytorch_lightning", "scipy", "setuptools", "sklearn"),
    *("submitit", "torch", "wandb", "yaml"),
}
NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
WHAT = "Graft's parts (those in conf/), torch.optim's optimizers, and Lightning's callbacks and loggers"

_trusted: frozenset[str] = frozenset()  # packages that this process's run allows


def trust(packages: Sequence[str]) -> None:
    """Let `_target_` name classes of these packages (the config's `allow`) from now on, and of no others.

    Raises GraftError for a package that is never a part.
    """
    global _trusted
    if wrong := list(wrong_packages(packages)):
        raise GraftError("\n".join(wrong))
    _trusted = frozenset(packages)


def trusted() -> tuple[str, ...]:
    """The packages that this process's run allows."""
    return tuple(sorted(_trusted))


def resolve(target: Any) -> Callable[..., Any]:
    """The class or function of a dotted name. Raises GraftError for one not in the registry, before importing it."""
    if reason := refusal(target, _trusted):
        raise GraftError(f"`{TARGET}: {target}`: {reason}")
    # One library under two names, whose classes do not know each other: Graft's Trainer is of the first.
    module, _, name = re.sub(r"^lightning\.pytorch\.", "pytorch_lightning.", target).rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise GraftError(f"`{TARGET}: {target}` cannot be imported: {error}") from error
    home = getattr(found, "__module__", None) or ""
    if not isinstance(found, type | FunctionType) or not f"{home}.".startswith(f"{module}."):
        raise GraftError(f"`{TARGET}: {target}`: it is no class or function that {module} defines")
    return found


def target_keys(config: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every `_target_`, and of every word of Hydra's beside one, at any depth."""
    if isinstance(config, Mapping):
        for name, value in config.items():
            if name == TARGET or name in HYDRAS_OWN:
                yield f"{key}{name}", value
            else:
                yield from target_keys(value, f"{key}{name}.")
    elif isinstance(config, list | tuple):
        for place, value in enumerate(config):
            yield from target_keys(value, f"{key}{place}.")


def problems(config: Mapping[str, Any], packages: Iterable[str]) -> Iterator[str]:
    """Every `_target_` of a config that may not be built with these packages allowed; nothing is imported."""
    allowed = frozenset(packages) - NEVER
    for key, value in target_keys(config):
        if not key.endswith(TARGET):
            yield f"`{key}`: Graft gives parts their keys by name and takes no {', '.join(HYDRAS_OWN)}"
        elif reason := refusal(value, allowed):
            yield f"`{key}={value}`: {reason}"


def wrong_packages(packages: Any) -> Iterator[str]:
    """What in `allow` is no package of parts."""
    if not isinstance(packages, list | tuple):
        yield f"`allow={packages}`: must be a list of packages, such as [mypkg]"
        return
    for package in packages:
        if not isinstance(package, str) or not NAME.fullmatch(f"{package}.part") or "." in package:
            yield f"`allow=[{package}]`: must be the name of a package of your own, such as mypkg"
        elif package in NEVER:
            yield f"`allow=[{package}]`: never allowed, its functions can run anything; name a package of your own"


def refusal(target: Any, packages: frozenset[str]) -> str | None:
    """Why a `_target_` is not built, None where it is."""
    if not isinstance(target, str):
        return f"must be the dotted name of a class or function: {WHAT}"
    if target in known_targets():
        return None
    package = target.partition(".")[0]
    own = NAME.fullmatch(target) and package not in NEVER
    if own and (package in packages or package in installed_packages()):
        return None
    advice = f". Where the package {package} is yours: allow=[{package}]" if own else ""
    return f"is none of {WHAT}{closest(target)}{advice}"


def closest(target: str) -> str:
    """` (did you mean ...?)` with the known target spelt alike, else the one of the same last name."""
    known = sorted(known_targets())
    last = target.rpartition(".")[2]
    same = [name for name in known if name.rpartition(".")[2] == last]
    close = difflib.get_close_matches(target[:100], known, n=1, cutoff=0.8) or same
    return f" (did you mean {close[0]}?)" if close else ""


@functools.cache
def known_targets() -> frozenset[str]:
    """Names that need no `allow`: what the files in conf/ name of Graft, and the lists above."""
    text = "\n".join(path.read_text() for path in CONF.rglob("*.yaml") if path.parent != CONF / "hydra")
    own = re.findall(rf"^\s*{TARGET}: *(graft(?:\.\w+)+) *(?:#.*)?$", text, flags=re.MULTILINE)
    optimizers = [f"torch.optim.{name}" for name in OPTIMIZERS]
    lightning = [
        f"{library}.{kind}.{name}"
        for library in ("pytorch_lightning", "lightning.pytorch")
        for kind, names in (("callbacks", CALLBACKS), ("loggers", LOGGERS))
        for name in names
    ]
    return frozenset([*own, *optimizers, *lightning])


@functools.cache
def installed_packages() -> frozenset[str]:
    """Packages of installed distributions that say they hold parts for Graft."""
    return frozenset(point.module.partition(".")[0] for point in entry_points(group=ENTRY_POINTS)) - NEVER
