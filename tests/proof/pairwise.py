"""Cells of a design in which every allowed pair of values of two factors is met, far fewer than all combinations."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations

Cell = dict[str, str]
Pair = frozenset[tuple[str, str]]
CANDIDATES = 12  # cells of which the one with the most new pairs is taken


def allowed_pairs(factors: Mapping[str, Sequence[str]], clash: Callable[[Pair], bool]) -> set[Pair]:
    """Every pair of values of two factors, but those that clash."""
    pairs = {
        frozenset({(first, one), (second, other)})
        for first, second in combinations(factors, 2)
        for one in factors[first]
        for other in factors[second]
    }
    return {pair for pair in pairs if not clash(pair)}


def pairs_of(cell: Cell) -> set[Pair]:
    """The pairs that a cell meets."""
    return {frozenset(pair) for pair in combinations(cell.items(), 2)}


def design(factors: Mapping[str, Sequence[str]], clash: Callable[[Pair], bool], seed: int = 0) -> Iterator[Cell]:
    """Cells, greedily: each meets as many pairs that none before it met as a few random tries find. It has no end."""
    allowed = allowed_pairs(factors, clash)
    missing, draw = set(allowed), random.Random(seed)
    while True:
        wanted = sorted(map(sorted, missing or allowed))
        cells = [filled(dict(draw.choice(wanted)), factors, allowed, missing, draw) for _ in range(CANDIDATES)]
        best = max((cell for cell in cells if cell), key=lambda cell: len(pairs_of(cell) & missing), default=None)
        if best is None:
            continue
        missing -= pairs_of(best)
        yield best


def filled(
    cell: Cell, factors: Mapping[str, Sequence[str]], allowed: set[Pair], missing: set[Pair], draw: random.Random
) -> Cell | None:
    """A cell from two of its values, the others chosen one by one; None where no value suits those before it."""
    others = [name for name in factors if name not in cell]
    draw.shuffle(others)
    for name in others:
        new = {}
        for value in factors[name]:
            pairs = {frozenset({(name, value), other}) for other in cell.items()}
            if pairs <= allowed:
                new[value] = len(pairs & missing)
        if not new:
            return None
        most = max(new.values())
        cell[name] = draw.choice([value for value, count in new.items() if count == most])
    return {name: cell[name] for name in factors}
