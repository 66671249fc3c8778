"""Names of cache entries: hashes of all that their content depends on."""

import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def cache_key(depends_on: Mapping[str, Any]) -> str:
    """Name of an entry: a hash of plain values, whatever their order."""
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:16]


@functools.cache
def code_hash(names: tuple[str, ...]) -> str:
    """Hash of source files and of all in folders, named relative to the package, as this process first read them."""
    root = Path(__file__).parents[1]
    files = [file for name in names for file in (sorted((root / name).rglob("*.py")) or [root / name])]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@functools.cache
def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Installed version of each package."""
    return {name: importlib.metadata.version(name) for name in packages}
