"""Names for what is cached: a hash of everything that it depends on, the code that computes it included."""

import hashlib
import importlib.metadata
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import graft


def content_key(depends_on: Mapping[str, Any]) -> str:
    """A short hash of plain values."""
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:16]


def code_hash(names: Iterable[str]) -> str:
    """Hash of source files, and of all below a folder, by their names below src/graft."""
    root = Path(graft.__file__).parent
    files = [
        path
        for name in names
        for path in (sorted((root / name).rglob("*.py")) if (root / name).is_dir() else [root / name])
    ]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """Installed versions of libraries."""
    return {name: importlib.metadata.version(name) for name in names}
