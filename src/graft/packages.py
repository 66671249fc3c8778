"""Installed Python packages: their versions, and files inside them, which are models and data without a download."""

from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from graft.errors import GraftError

PREFIX = "pip:"


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """The version of each package that is installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def package_files(value: str, key: str) -> list[Path]:
    """All files of the package in `pip:<package>/...`, not imported; messages name the config's `key`."""
    package = value.removeprefix(PREFIX).partition("/")[0]
    try:
        installed = distribution(package)
    except PackageNotFoundError as error:
        raise GraftError(f"{key}={value}: the package is not installed. Install it: pip install {package}") from error
    return [Path(str(installed.locate_file(file))) for file in installed.files or []]


def file_in_package(value: str, key: str) -> Path:
    """The file that `pip:<package>/<end of its path>` names."""
    ending = value.partition("/")[2]
    return the_only(package_files(value, key), lambda file: file.as_posix().endswith(f"/{ending}"), value, key)


def folder_in_package(value: str, holding: str, key: str) -> Path:
    """The folder of `pip:<package>` that holds a file of a name."""
    files = package_files(value, key)
    return the_only(files, lambda file: file.name == holding and file.parent != file.parents[-1], value, key).parent


def the_only(files: list[Path], wanted: Callable[[Path], bool], value: str, key: str) -> Path:
    """The file that is wanted, of several the one least deep; GraftError where there is none."""
    found = sorted((file for file in files if wanted(file)), key=lambda file: (len(file.parts), file))
    if not found:
        raise GraftError(f"{key}={value}: the package has no such file.")
    return found[0]
