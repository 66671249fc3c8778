"""Every value of a config against what the constructor, or the code, that takes it says it may be."""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from graft.config.facts import Field, Fields, arguments, rule_at
from graft.config.renamed import new_name
from graft.config.sources import NotThereError, UnreadableError
from graft.config.text import shown, suggestion
from graft.config.types import SINGULAR, Kind, Rule, is_a

SCHEMA = "graft.config.schema.Config"
HYDRA = ("_target_", "_convert_", "_partial_", "_recursive_")  # keys that are Hydra's own
UNANNOTATED = "its constructor does not say what it may be"


@dataclass
class Findings:
    """What is wrong with a config's keys, and what cannot be checked."""

    defaults: Mapping[str, Any]  # dotted key -> value in the chosen files
    known: set[str] = field(default_factory=set)  # every dotted key that something takes
    unknown: list[str] = field(default_factory=list)
    given: list[str] = field(default_factory=list)  # keys of what the run itself gives
    wrong: list[tuple[str, str]] = field(default_factory=list)  # (dotted key, message)
    unchecked: dict[str, str] = field(default_factory=dict)  # dotted key -> why

    def unknown_keys(self, own: Container[str]) -> Iterator[str]:
        """Messages about keys that nothing takes, of those that are no references to others."""
        for key in self.unknown:
            if key.partition("[")[0] in own:
                yield new_name(key) or f"`{key}`: there is no such key{suggestion(key, self.known)}"
        for key in self.given:
            yield f"`{key}`: the run itself gives this argument; leave the key out"


def look(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> Findings:
    """Go through a whole config."""
    found = Findings(defaults)
    look_at_mapping("", config, rule_at(SCHEMA), found)
    return found


def look_at(key: str, value: Any, rule: Rule | None, found: Findings) -> None:
    """Judge the value of a key, and go on inside of it."""
    if value == "???":
        return  # handled separately: it has to be given
    if problem := wrong_value(key, value, rule, found):
        found.wrong.append((key, problem))
    elif isinstance(value, Mapping):
        look_at_mapping(key, value, rule or Rule(), found)
    elif isinstance(value, list):
        for place, one in enumerate(value):
            if isinstance(one, Mapping):
                look_at_mapping(f"{key}[{place}]", one, Rule(), found)


def wrong_value(key: str, value: Any, rule: Rule | None, found: Findings) -> str | None:
    """The message about a value that its rule does not allow; where there is no rule the default's type decides."""
    if rule is not None:
        if rule.accepts(value):
            return None
        return f"`{key}={shown(value)}`: must be {rule.words()}{rule.closest(value)}"
    default = found.defaults.get(key)
    if isinstance(default, Mapping) or isinstance(value, Mapping):
        return None
    if default is None or default == "???":
        found.unchecked[key] = UNANNOTATED
        return None
    if value is None or not is_a(value, type(default)):
        return f"`{key}={shown(value)}`: must be {SINGULAR[type(default)]}, as in the default {shown(default)}"
    return None


def look_at_mapping(key: str, value: Mapping[str, Any], rule: Rule, found: Findings) -> None:
    """Judge the keys of a mapping: arguments of its `_target_`, keys that code reads beside them, or free names."""
    try:
        fields = fields_of(value, rule)
    except NotThereError as error:
        found.wrong.append((key, f"`{key}._target_={value['_target_']}`: {error}"))
        return
    except UnreadableError as error:
        fields = Fields(unread=str(error))
        found.unchecked[f"{key}._target_"] = str(error)
    items = next((kind.items for kind in rule.kinds if kind.type is dict and kind.items), None)
    prefix = f"{key}." if key else ""
    if fields is None:  # a mapping of free names
        for name, one in value.items():
            look_at(f"{prefix}{name}", one, items or FREE, found)
        return
    groups = {name for name, one in value.items() if isinstance(one, Mapping)}
    found.known |= {f"{prefix}{name}" for name, one in fields.known.items() if not one.given and name not in groups}
    for name, one in value.items():
        if name not in HYDRA:
            look_at_key(f"{prefix}{name}", one, fields.known.get(name), fields.unread, items, found)
    for name in missing(fields, value):
        found.wrong.append((key, f"`{prefix}{name}` has to be given: {value['_target_']} needs it"))
    for name, one in fields.known.items():
        if one.is_annotated("Arguments") and isinstance(value.get(name), Mapping):
            look_at_arguments(f"{prefix}{name}", value, value[name], fields, found)


FREE = Rule(null=True, kinds=(Kind(object),))


def look_at_key(key: str, value: Any, taken: Field | None, unread: str, items: Rule | None, found: Findings) -> None:
    """Judge one key of a mapping whose keys are known, but for free names and for what is `unread`."""
    if taken is not None and taken.given:
        found.given.append(key)
    elif taken is not None:
        look_at(key, value, taken.rule, found)
    elif unread:
        found.unchecked.setdefault(f"{key.rpartition('.')[0]}._target_", unread)
    elif items is not None:
        look_at(key, value, items, found)
    else:
        found.unknown.append(key)


def look_at_arguments(
    key: str, holder: Mapping[str, Any], options: Mapping[str, Any], fields: Fields, found: Findings
) -> None:
    """Judge a mapping of further arguments of the `_target_` beside it."""
    further = further_arguments(holder, fields)
    found.known |= {f"{key}.{name}" for name in further.known}
    for name, one in options.items():
        look_at_key(f"{key}.{name}", one, further.known.get(name), further.unread, None, found)


def further_arguments(holder: Mapping[str, Any], fields: Fields) -> Fields:
    """The arguments of a mapping's `_target_` that are no keys beside it."""
    try:
        taken = arguments(holder["_target_"])
    except (KeyError, NotThereError, UnreadableError) as error:
        return Fields(unread=str(error))
    return Fields({name: one for name, one in taken.known.items() if name not in fields.own}, taken.unread)


def fields_of(value: Mapping[str, Any], rule: Rule) -> Fields | None:
    """The keys that a mapping may have; None where they are free."""
    keys = next((kind.fields for kind in rule.kinds if kind.fields is not None), None)
    if not isinstance(value.get("_target_"), str):
        return keys
    taken = arguments(value["_target_"])
    if keys is None:
        return taken
    if any(one.is_annotated("Arguments") for one in keys.known.values()):
        return Fields(keys.known, own=tuple(keys.known))  # the arguments are inside of that key
    return Fields({**taken.known, **keys.known}, taken.unread, own=tuple(keys.known))


def missing(fields: Fields, value: Mapping[str, Any]) -> list[str]:
    """Arguments that a `_target_` needs and neither the config nor the run gives."""
    if "_target_" not in value or value.get("_partial_"):
        return []
    own = [one for name, one in fields.known.items() if name not in fields.own]
    return [one.name for one in own if one.required and not one.given and one.name not in value]
