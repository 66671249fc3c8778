"""The one place where a config becomes objects."""

import inspect
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from graft import registry
from graft.errors import GraftError


def build(settings: Any, **keywords: Any) -> Any:
    """The object that `_target_` names, called with the other keys and `keywords`; nested ones are built before it.

    Every `_target_` at any depth is looked up in the registry before the first object is made. Raises GraftError for
    one that is not there, and for keys that it does not take.
    """
    settings = plain(settings)
    found = {}
    for key, target in registry.target_keys(settings):
        if not key.endswith(registry.TARGET):
            raise GraftError(f"`{key}`: a part takes no {', '.join(registry.HYDRAS_OWN)}")
        found[target] = registry.resolve(target)

    def made(value: Any, **more: Any) -> Any:
        if isinstance(value, list):
            return [made(one) for one in value]
        if not isinstance(value, Mapping):
            return value
        arguments = {name: made(one) for name, one in value.items() if name != registry.TARGET} | more
        return call(found[value[registry.TARGET]], arguments) if registry.TARGET in value else arguments

    return made(settings, **keywords)


def call(part: Any, arguments: Mapping[str, Any]) -> Any:
    """Call a class or function by keyword. Raises GraftError where the arguments do not fit."""
    try:
        inspect.signature(part).bind(**arguments)
    except TypeError as error:
        raise GraftError(f"{part.__module__}.{part.__name__}: {error}") from None
    except ValueError:  # a class written in C says no signature
        pass
    return part(**arguments)


def plain(config: Any) -> Any:
    """The same in plain containers, references resolved; other values as they are."""
    if OmegaConf.is_config(config):
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    if isinstance(config, Mapping):
        return {name: plain(value) for name, value in config.items()}
    return [plain(value) for value in config] if isinstance(config, list | tuple) else config
