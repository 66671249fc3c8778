"""What the options of a group are: their keys, defaults, what each may hold and what its comment says.

Read from the config files and the sources that they name, for `train.py --help <group>`.
"""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from graft.config.facts import Fields, rule_at
from graft.config.sources import NotThereError, UnreadableError
from graft.config.types import Rule
from graft.config.values import HYDRA, SCHEMA, UNANNOTATED, fields_of, further_arguments

PREFIXES = {"data/domain": "data.target", "train": ""}  # where a group's keys stand, if not under its name

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times faster, where there is one
WIDEST = 44  # a column; what is longer sticks out


@dataclass(frozen=True)
class Key:
    """A key as its file writes it."""

    text: str  # of the value
    comment: str


def describe(group: str, option: str, folders: Sequence[Path]) -> Iterator[str]:
    """A line for each key of an option: `key=default`, what it may hold, and what its comment says."""
    others, rows = describe_rows(group, option, folders)
    widths = [min(WIDEST, max((len(row[column]) for row in rows), default=0)) for column in (0, 1)]
    for other in others:
        yield f"    with {other}"
    for written, may, comment in rows:
        text = f"    {written:{widths[0]}}  {may:{widths[1]}}"
        yield (f"{text}  # {comment}" if comment else text).rstrip()


def describe_rows(group: str, option: str, folders: Sequence[Path]) -> tuple[list[str], list[tuple[str, str, str]]]:
    """The choices in other groups that an option makes, and (`key=default`, what it may hold, comment) of each key."""
    keys: dict[str, Key] = {}
    content: dict[str, Any] = {}
    others = read(group, option, folders, keys, content)
    return others, [*rows_of("", content, rule_at(SCHEMA), keys)]


def read(group: str, option: str, folders: Sequence[Path], keys: dict[str, Key], content: dict[str, Any]) -> list[str]:
    """Put an option's keys into `keys` and its values into `content`, over those of the options that it builds on.

    Returns the choices in other groups that its defaults list makes.
    """
    file = next(path for folder in folders if (path := folder / group / f"{option}.yaml").is_file())
    text = file.read_text()
    node = yaml.compose(text, LOADER)
    if not isinstance(node, yaml.MappingNode):
        return []
    package = re.search(r"^# @package (\S+)", text, flags=re.MULTILINE)
    prefix = package[1].replace("_global_", "") if package else PREFIXES.get(group, group.replace("/", "."))
    others = []
    for key, value in node.value:
        if key.value == "defaults":
            for entry in yaml.load(text, LOADER)["defaults"]:
                if isinstance(entry, str) and entry != "_self_":
                    others += read(group, entry, folders, keys, content)
                elif isinstance(entry, dict):
                    others += [choice(*one) for one in entry.items() if one[1] is not None]
        else:
            take(f"{prefix}.{key.value}".lstrip("."), key, value, text, keys, content)
    return others


def choice(group: str, option: Any) -> str:
    """An entry of a defaults list as one would type it: `override /rates@_global_.rates: x` is `rates=x`."""
    name, _, place = group.removeprefix("override ").removeprefix("/").partition("@")
    place = place.removeprefix("_global_.")
    return f"{name}={option}" if place in ("", name) else f"{name}@{place}={option}"


def take(dotted: str, key: yaml.Node, value: yaml.Node, text: str, keys: dict[str, Key], content: dict) -> None:
    """Put one key of a file, and what is inside of it, into `keys` and `content`."""
    nested = isinstance(value, yaml.MappingNode) and bool(value.value)
    end = key.end_mark.index if nested else value.end_mark.index
    comment = re.match(r"[^\n]*?# *([^\n]*)", text[end:])
    keys[dotted] = Key("" if nested else text[value.start_mark.index : end].strip(), comment[1] if comment else "")
    if nested:
        for inner, inner_value in value.value:
            take(f"{dotted}.{inner.value}", inner, inner_value, text, keys, content)
        return
    *above, name = dotted.split(".")
    holder = content
    for part in above:
        holder[part] = holder.get(part) or {}
        holder = holder[part]
    holder[name] = yaml.load(text[value.start_mark.index : end], LOADER)


def rows_of(
    prefix: str, content: Mapping[str, Any], rule: Rule | None, keys: Mapping[str, Key]
) -> Iterator[tuple[str, str, str]]:
    """(`key=default`, what it may hold, comment) of every key, and of arguments that no file names."""
    try:
        fields = fields_of(content, rule or Rule())
    except (UnreadableError, NotThereError) as error:
        fields = Fields(unread=str(error))
    for name, value in content.items():
        key = f"{prefix}{name}"
        taken = fields.known.get(name) if fields else None
        if isinstance(value, Mapping) and value:
            yield from rows_of(f"{key}.", value, taken.rule if taken else None, keys)
        elif name not in HYDRA:
            known = fields if taken or "_target_" in content else None
            yield f"{key}={keys[key].text}", allowed(taken.rule if taken else None, known, name), keys[key].comment
        if "_target_" in content and fields and taken and taken.is_annotated("Arguments"):
            yield from unnamed(f"{key}.", value or {}, further_arguments(content, fields))
    if "_target_" in content and fields:
        yield from unnamed(prefix, content, fields)


def unnamed(prefix: str, content: Mapping[str, Any], fields: Fields) -> Iterator[tuple[str, str, str]]:
    """Arguments that no file names: as one would add them."""
    for name, taken in fields.known.items():
        if name not in content and name not in fields.own and not taken.given:
            default = "???" if taken.default is None else shortly(taken.default)
            yield f"+{prefix}{name}={default}", allowed(taken.rule, fields, name), ""
    if fields.unread:
        yield f"+{prefix}...", f"not checked: {fields.unread}", ""


def allowed(rule: Rule | None, fields: Fields | None, name: str) -> str:
    """What a key may hold, or why nothing checks it."""
    if rule is not None:
        return rule.words()
    if fields is None:
        return ""
    if name in fields.known:
        return f"not checked: {UNANNOTATED}"
    return f"not checked: {fields.unread}" if fields.unread else "no such argument"


def shortly(default: ast.expr) -> str:
    """A default in the source as one would type it."""
    text = ast.unparse(default)
    return {"None": "null", "True": "true", "False": "false", "()": "[]"}.get(text, text.strip("'"))
