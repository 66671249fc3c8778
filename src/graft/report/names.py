"""What pages and pictures call configurations: as short as tells them apart. Tables hold the whole overrides."""

import re
from collections.abc import Mapping, Sequence

from graft.runs.sweeps import Row

DEFAULT = "default"  # what gives no value to keys that others vary
PARTS = 2  # of a path that are shown, or more where these are not enough
WIDTH = 28  # characters of a line in a picture


def whole_name(overrides: Mapping[str, str], keys: Sequence[str]) -> str:
    """`key=value` of some keys."""
    return " ".join(f"{key}={overrides[key]}" for key in keys if key in overrides)


def short_names(rows: Sequence[Row], keys: Sequence[str]) -> dict[str, str]:
    """By its whole name what a row is called among the others; no two have the same."""
    given = {whole_name(row.overrides, keys): row.overrides for row in rows}
    kept = telling_keys([*given.values()], keys)
    values = {key: short_values([one[key] for one in given.values() if key in one]) for key in kept}
    found = {}
    for whole, overrides in given.items():
        shown = {key: values[key][overrides[key]] for key in kept if key in overrides}
        if list(shown) == kept and len(kept) == 1 and speaks_for_itself(kept[0], shown[kept[0]]):
            found[whole] = f"no {kept[0]}" if shown[kept[0]] == "[]" else shown[kept[0]].strip("[]")
        else:
            found[whole] = whole_name(shown, kept) or DEFAULT * (len(given) > 1)
    return found if len({*found.values()}) == len(found) else {whole: whole or DEFAULT for whole in found}


def telling_keys(given: Sequence[Mapping[str, str]], keys: Sequence[str]) -> list[str]:
    """The fewest keys that still tell overrides apart; options of groups rather than single values."""

    def told_apart(some: Sequence[str]) -> int:
        return len({tuple(one.get(key) for key in some) for one in given})

    kept, all_told = list(keys), told_apart(keys)
    for key in sorted(reversed(keys), key=lambda one: "." not in one):
        if told_apart(others := [one for one in kept if one != key]) == all_told:
            kept = others
    return kept


def speaks_for_itself(key: str, value: str) -> bool:
    """Whether a value needs no key beside it: a group's option, and of other keys no number, null, true or false."""
    return "." not in key or not re.fullmatch(r"(null|true|false|\[\]|[-+.\d][-+.\de]*)", value, re.IGNORECASE)


def short_values(values: Sequence[str]) -> dict[str, str]:
    """Values of a key without Hydra's quotes and escapes, and of paths the last parts that tell them apart."""
    plain = {value: re.sub(r"\\(\W)", r"\1", value).strip("'\"") for value in values}
    longest = max((text.count("/") for text in plain.values()), default=0) + 1
    for parts in range(PARTS, longest + 1):
        ends = {value: end_of(text, parts) for value, text in plain.items()}
        begins = {value: end if end.count("/") < PARTS else f"{end.split('/')[0]}/…" for value, end in ends.items()}
        for shown in (begins, ends):
            if len({*shown.values()}) == len({*plain.values()}):
                return shown
    return plain


def end_of(path: str, parts: int) -> str:
    """The last parts of a path, all of a shorter one."""
    return "/".join(path.rstrip("/").split("/")[-parts:])


def wrapped(name: str, width: int = WIDTH) -> str:
    """A name over lines, broken at spaces, and within longer words after what joins their parts."""
    lines = [""]
    for word in name.split(" "):
        pieces = [word] if len(word) <= width else re.findall(r".+?(?:[=/_.,-]+|$)", word)
        for place, piece in enumerate(pieces):
            joined = lines[-1] + (" " * (place == 0 and lines[-1] != "")) + piece
            if lines[-1] and len(joined) > width:
                lines.append(piece)
            else:
                lines[-1] = joined
    return "\n".join(lines)
