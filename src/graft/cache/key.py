"""Names of cache entries: hashes of all that their content depends on, the code that was used among it."""

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import re
import secrets
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# Libraries that compute or read something, by the name of their import: their version counts where they are used, and
# their source is not looked at. Others, such as Hydra or tqdm, change nothing that is kept.
LIBRARIES = {
    **{name: name for name in ("numpy", "pandas", "peft", "pyarrow", "safetensors", "scipy", "soundfile", "timm")},
    **{name: name for name in ("datasets", "tokenizers", "torch", "torchmetrics", "torchvision", "transformers")},
    "PIL": "pillow",
    "pytorch_lightning": "pytorch-lightning",
    "sklearn": "scikit-learn",
}
EXTERNAL = {*LIBRARIES, *sys.stdlib_module_names}
OWN = __name__.partition(".")[0]


def cache_key(depends_on: Mapping[str, Any]) -> str:
    """Name of an entry: a hash of plain values, whatever their order."""
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:16]


def numerics() -> dict[str, Any]:
    """Settings of torch that decide how exactly it computes."""
    import torch  # only here: hashing code needs no second of imports

    return {
        "matmul": torch.get_float32_matmul_precision(),
        "tf32": torch.backends.cudnn.allow_tf32,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def code_used(*parts: Any) -> dict[str, Any]:
    """Hash of the source files behind some parts, and versions of the libraries that those import.

    A part is an object, a class, a function, or the name of any of them or of a module. Files are followed from import
    to import within Graft and the part's own package, a user's for instance, as this process first read them.
    """
    found: dict[str, str] = {}
    libraries: set[str] = set()
    todo = {module_of(part) for part in parts}
    followed = {OWN, *(module.partition(".")[0] for module in todo)} - EXTERNAL
    while todo:
        module = todo.pop()
        top = module.partition(".")[0]
        if top in LIBRARIES:
            libraries.add(LIBRARIES[top])
        elif top in followed and module not in found:
            found[module], imports = source_of(module)
            todo |= imports
    return {"files": sha256(repr(sorted(found.items())).encode()), "versions": versions(tuple(sorted(libraries)))}


def targets(settings: Any) -> Iterator[str]:
    """Every `_target_` in a config, at any depth."""
    if isinstance(settings, Mapping):
        if "_target_" in settings:
            yield settings["_target_"]
        settings = list(settings.values())
    if isinstance(settings, list | tuple):
        for value in settings:
            yield from targets(value)


def module_of(part: Any) -> str:
    """Name of the module in which a part is."""
    name = part if isinstance(part, str) else getattr(part, "__module__", type(part).__module__)
    while "." in name and name not in sys.modules and file_of(name) is None:
        name = name.rpartition(".")[0]
    return name


@functools.cache
def source_of(module: str) -> tuple[str, frozenset[str]]:
    """Hash of a module's file, and the modules that it imports, also inside functions; what is for types alone is not.

    What was typed into a notebook has no file: its hash is another one in every process.
    """
    file = file_of(module)
    if file is None:
        return secrets.token_hex(), frozenset()
    content = file.read_bytes()
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    imports = imported(imports_alone(content) or ast.parse(content), package) if file.suffix == ".py" else ()
    return sha256(content), frozenset(imports)


# The beginning of a line: an `if TYPE_CHECKING:`, an import statement, which may go on in brackets, or anything else.
LINES = re.compile(
    rb"^([ \t]*)(?:(if[ ]TYPE_CHECKING:)|((?:import|from)\b[^\n(]*(?:\([^)]*\))?)|\S)", re.MULTILINE | re.VERBOSE
)
# Where an import may begin elsewhere: behind a colon or a semicolon, in lines that end otherwise, behind a mark.
ELSEWHERE = re.compile(rb"[:;][ \t]*(?:import|from)\b|\r(?!\n)|\f|\A\xef\xbb\xbf")


def imports_alone(content: bytes) -> ast.Module | None:
    """The import statements of a file without those for types alone: all of it takes five times as long to parse.

    None where there may be others, and where a line of a text begins like one.
    """
    if ELSEWHERE.search(content):
        return None
    found: list[bytes] = []
    for_types: int | None = None  # the indentation of the `if TYPE_CHECKING:` that a line may be in
    for line in LINES.finditer(content):
        indentation = len(line[1])
        if for_types is None or indentation <= for_types:
            for_types = indentation if line[2] else None
            found += [line[3]] if line[3] else []
    try:
        return ast.parse(b"\n".join(found))
    except SyntaxError:
        return None


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Modules that a syntax tree imports; of `from a import b` it is a.b where that is a module."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            base = importlib.util.resolve_name(name, package) if node.level else name
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if base.partition(".")[0] not in EXTERNAL and file_of(inner) else base
        elif isinstance(node, ast.If) and getattr(node.test, "id", getattr(node.test, "attr", "")) == "TYPE_CHECKING":
            yield from imported(ast.Module(node.orelse, []), package)
        elif isinstance(node, ast.stmt | ast.ExceptHandler):  # no expression imports anything
            yield from imported(node, package)


@functools.cache
def file_of(module: str) -> Path | None:
    """A module's file, found without importing it."""
    top, *inner = module.split(".")
    spec = None if top == "__main__" else importlib.util.find_spec(top)
    if not inner:
        file = spec.origin if spec else getattr(sys.modules.get(module), "__file__", None)
        return Path(file) if file and Path(file).is_file() else None
    locations = (spec and spec.submodule_search_locations) or ()
    candidates = [Path(location).joinpath(*inner) for location in locations]
    files = [file for path in candidates for file in (path / "__init__.py", path.with_name(f"{path.name}.py"))]
    return next((file for file in files if file.is_file()), None)


@functools.cache
def versions(packages: tuple[str, ...]) -> dict[str, str | None]:
    """Version of each package, None where it is not installed."""
    found: dict[str, str | None] = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def sha256(content: bytes) -> str:
    """Hash in hex digits."""
    return hashlib.sha256(content).hexdigest()
