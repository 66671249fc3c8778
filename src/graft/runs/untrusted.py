"""Files of a run folder, which may be somebody else's: read as plain data, nothing in them runs or is resolved."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from graft import registry
from graft.errors import GraftError

NEXT = (
    "If the classes are your own, allow their package: allow=[<package>]. Else delete the folder that the file is in, "
    "and run its job again."
)


class PlainLoader(yaml.SafeLoader):
    """YAML without tags for Python objects, and without aliases: a few lines of those stand for gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """The next node; an alias is an error."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has aliases (*name)")
        return super().compose_node(parent, index)


def read_yaml(path: Path) -> Any:
    """A YAML file's content in plain containers. Raises GraftError that names the file where it cannot be read."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), PlainLoader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GraftError(
            f"{path} cannot be read: {first}. Graft did not write it so; take it from where it is whole, or delete it."
        ) from None


def read_overrides(path: Path) -> list[str]:
    """The command-line overrides that a run folder notes, as text."""
    lines = read_yaml(path)
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise GraftError(f"{path} is no list of overrides. Take it from where it is whole, or delete its folder.")
    return lines


def read_config(path: Path, allow: Sequence[str]) -> dict[str, Any]:
    """A run folder's config, which builds nothing but Graft's parts and those of packages that *this* run allows.

    Raises GraftError with the file and every key in which it would: Graft writes configs resolved, so that a reference
    (`${...}`) in one is not its own.
    """
    content = read_yaml(path)
    if not isinstance(content, Mapping):
        raise GraftError(f"{path} is no config of a run.")
    wrong = list(registry.problems(content, allow))
    wrong += [f"`{key}={value}`: a reference, which is not resolved" for key, value in references(content)]
    if wrong:
        raise GraftError("\n".join([f"{path} is not used:", *(f"  - {line}" for line in wrong), NEXT]))
    return dict(content)


def references(content: Any, key: str = "") -> list[tuple[str, str]]:
    """(dotted key, text) of every `${` in keys and values, at any depth."""
    if isinstance(content, Mapping):
        named = [(f"{key}{name}", str(name)) for name in content if "${" in str(name)]
        return named + [pair for name, value in content.items() for pair in references(value, f"{key}{name}.")]
    if isinstance(content, list):
        return [pair for place, value in enumerate(content) for pair in references(value, f"{key}{place}.")]
    return [(key.rstrip("."), content)] if isinstance(content, str) and "${" in content else []
