"""What was found of a run is kept by its content beside its report, so that the next report takes no time."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graft.packages import versions_of
from graft.runs.folder import CONFIG, INSPECTION, MODEL, PREDICTIONS, REPORT_FILES

USED = (f"{MODEL}/weights.safetensors", f"{MODEL}/model.json", CONFIG, PREDICTIONS)  # of the run's files
LIBRARIES = ("torch", "captum", "openTSNE")


def key_of(folder: Path, slices: Sequence[str], content: bool) -> str:
    """Hash of the run's files that decide what is found, this code, and the libraries that it uses where they are."""
    files = [*(folder / name for name in USED), *sorted(Path(__file__).parent.glob("*.py"))]
    digest = hashlib.sha256(repr((*slices, content, versions_of(LIBRARIES))).encode())
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest() if file.is_file() else b"none")
    return digest.hexdigest()


def read(folder: Path, key: str) -> dict[str, Any] | None:
    """What an earlier report kept under a key; None where there is nothing that can be read."""
    try:
        found = json.loads((folder / REPORT_FILES / INSPECTION).read_text())
        return found if isinstance(found, dict) and found.get("key") == key else None
    except (OSError, ValueError):
        return None
