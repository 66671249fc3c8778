"""Domains by name: `{domain}` in a path stands for one, and what is on the disk says which there are."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from graft.files import user_path

PLACEHOLDER = "{domain}"


def names_there(path: str | Path) -> list[str] | None:
    """The names for which a path with the placeholder leads somewhere; None where no folder above it is there."""
    parts = Path(path).parts
    place = next(number for number, part in enumerate(parts) if PLACEHOLDER in part)
    folder = Path(*parts[:place])
    if not place or not folder.is_dir():
        return None
    before, _, after = parts[place].partition(PLACEHOLDER)
    pattern = re.compile(f"{re.escape(before)}([^.].*){re.escape(after)}")
    found = [match[1] for one in sorted(folder.iterdir()) if (match := pattern.fullmatch(one.name))]
    whole = [Path(str(path).replace(PLACEHOLDER, name)) for name in found]
    folders = not before and not after  # a file beside the folders of domains is none
    return [n for n, one in zip(found, whole, strict=True) if (one.is_dir() if folders else one.exists())]


def wrong_names(root: str | None, sources: Sequence[str] | None, target: str | None) -> Iterator[str]:
    """Messages on `data.root`, `data.sources` and `data.target_domain` that cannot be meant.

    A folder that is not there is no such mistake: as for every file, the message on it comes with reading.
    """
    if root is None:
        yield "`data.root` has to be given: data.root=<a folder that holds a folder for each domain>"
    there = None if root is None else names_there(user_path(root) / PLACEHOLDER)
    has = "" if there is None else f"; {root} has {', '.join(there) or 'none'}"
    if target is None:
        yield f"`data.target_domain` has to be given: data.target_domain=<one of the domains>{has}"
    elif there is not None and target not in there:
        yield f"`data.target_domain={target}`: there is no such domain{has}"
    if there is not None and (unknown := [name for name in sources or () if name not in there]):
        yield f"`data.sources=[{','.join(sources or ())}]`: there is no domain {', '.join(unknown)}{has}"
    yield from (f"`data.sources`: {problem}" for problem in wrong_sources(sources, target))


def wrong_sources(sources: Sequence[str] | None, target: str | None) -> Iterator[str]:
    """What is wrong with names of sources, of which None means all but the target."""
    if sources is None:
        return
    if not sources:
        yield "the list is empty; name one domain at least, or null for all but the target's"
    if twice := next((name for name in sources if sources.count(name) > 1), None):
        yield f"{twice} is there twice; name each source once"
    if target in sources:
        yield f"{target} is the target's domain too, whose samples would be on both sides; leave it out"
