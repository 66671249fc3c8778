"""Numbers as people write them: decimal commas, thousands separators, percent signs and currencies."""

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from graft.data.readers.numbers import number as number_in
from graft.data.readers.table import Table, plain_numbers, texts

SHARE = 0.9  # a column is one of numbers where so many of its values are; the others are mistakes then
UNIT = r"[$\N{EURO SIGN}\N{POUND SIGN}\N{YEN SIGN}%]|\b[A-Z]{3}\b"
SPACES = " \N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}'\N{RIGHT SINGLE QUOTATION MARK}"


def pattern(decimal: str) -> re.Pattern[str]:
    """What a number looks like with this decimal sign."""
    thousands = f"[{SPACES}{',' if decimal == '.' else '.'}]"
    whole = rf"[1-9]\d{{0,2}}(?:{thousands}\d{{3}})+|\d+"
    return re.compile(
        rf"(?P<sign>[-+]?)(?P<before>{UNIT})?\s*(?P<inner>[-+]?)(?P<whole>{whole})?"
        rf"(?:{re.escape(decimal)}(?P<part>\d*))?(?P<power>[eE][-+]?\d+)?\s*(?P<after>{UNIT})?"
    )


PATTERNS = {decimal: pattern(decimal) for decimal in (".", ",")}


@dataclass(frozen=True)
class Numeral:
    """A number as text, as Python reads it, and the unit beside it."""

    number: str
    unit: str


def numeral(text: str | None, decimal: str) -> Numeral | None:
    """What a text says with this decimal sign; None where it is no number."""
    found = PATTERNS[decimal].fullmatch(text.strip().replace("\N{MINUS SIGN}", "-")) if text else None
    if not found or not (found["whole"] or found["part"]) or (found["sign"] and found["inner"]):
        return None
    if found["before"] and found["after"]:
        return None
    whole = re.sub(r"\D", "", found["whole"] or "0")
    sign = found["sign"] or found["inner"]
    part = f".{found['part']}" if found["part"] else ""
    return Numeral(f"{sign}{whole}{part}{found['power'] or ''}", found["before"] or found["after"] or "")


def share_of_numerals(values: np.ndarray, decimal: str) -> float:
    """Share of a column's known texts that are numbers with this decimal sign, all in one unit."""
    counts = Counter(values.tolist())  # texts occur again and again
    del counts[None]
    found = {value: number.unit for value in counts if (number := numeral(value, decimal))}
    return sum(map(counts.__getitem__, found)) / counts.total() if len({*found.values()}) == 1 else 0.0


def decimal_sign(table: Table) -> str:
    """The decimal sign of a table: a comma where columns read as numbers only so, and none only with a point."""
    if table.points:
        return "."
    comma = False
    for values in table.columns.values():
        if values.dtype != object:
            continue
        if plain_numbers(known := values[values != None]) is not None:  # noqa: E711 (by element)
            if "." in "".join(known):
                return "."
            continue
        with_comma, with_point = share_of_numerals(values, ","), share_of_numerals(values, ".")
        if with_point >= SHARE and with_point > with_comma:
            return "."
        comma |= with_comma >= SHARE and with_comma > with_point
    return "," if comma else "."


def read_numerals(table: Table, decimal: str, skip: Collection[str] = ()) -> tuple[Table, dict[str, str]]:
    """The table with plain numbers in the columns that hold them in another form, and by column an example of that."""
    columns, examples = dict(table.columns), {}
    for name, values in table.columns.items():
        if values.dtype != object or name in skip:
            continue
        if decimal == "." and plain_numbers(values[values != None]) is not None:  # noqa: E711 (by element)
            continue
        if share_of_numerals(values, decimal) < SHARE:
            continue
        plain = {value: plainly(value, decimal) for value in dict.fromkeys(values)}
        changed = next((value for value, number in plain.items() if value != number), None)
        if changed is not None:
            columns[name] = texts([plain[value] for value in values])
            examples[name] = f"{changed!r} as {plain[changed]}"
    return replace(table, columns=columns), examples


def plainly(text: str | None, decimal: str) -> str | None:
    """A number as Python reads it; what is none, or is plain already, as it stands."""
    if text is None or re.fullmatch(r"[-+]?\d+", text) or (decimal == "." and not np.isnan(number_in(text))):
        return text
    found = numeral(text, decimal)
    return found.number if found else text
