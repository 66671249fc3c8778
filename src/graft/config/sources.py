"""Python modules as syntax trees: where a dotted name is defined, found without importing anything."""

import ast
import difflib
import functools
import importlib.util
import sys
from dataclasses import dataclass, field
from pathlib import Path

# Lightning's code is installed under one of two names.
TWINS = {"lightning.pytorch": "pytorch_lightning", "lightning.fabric": "lightning_fabric"}


class UnreadableError(Exception):
    """What cannot be read from source files; the text gives the reason."""


class NotThereError(Exception):
    """A name that does not exist; the text says which."""


@dataclass(eq=False)
class Module:
    """What a module's top level defines and imports."""

    name: str
    is_package: bool
    definitions: dict[str, ast.ClassDef | ast.FunctionDef | ast.expr] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)  # name here -> dotted name there
    stars: list[str] = field(default_factory=list)  # modules of which everything is imported

    def read(self, statements: list[ast.stmt]) -> None:
        """Take in statements, and those inside of `if` and `try`; of several definitions the last counts."""
        for statement in statements:
            match statement:
                case ast.ClassDef() | ast.FunctionDef():
                    self.definitions[statement.name] = statement
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    self.definitions[name] = value
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    self.definitions[name] = value
                case ast.Import():
                    for alias in statement.names:
                        top = alias.name.partition(".")[0]
                        self.imports[alias.asname or top] = alias.name if alias.asname else top
                case ast.ImportFrom():
                    self.read_import(statement)
                case ast.If():
                    self.read(statement.orelse)
                    self.read(statement.body)
                case ast.Try():
                    for handler in statement.handlers:
                        self.read(handler.body)
                    self.read(statement.body)

    def read_import(self, statement: ast.ImportFrom) -> None:
        """Take in `from ... import ...`."""
        parts = self.name.split(".")
        above = parts[: len(parts) - statement.level + self.is_package] if statement.level else []
        source = ".".join([*above, *filter(None, [statement.module])])
        for alias in statement.names:
            if alias.name == "*":
                self.stars.append(source)
            else:
                self.imports[alias.asname or alias.name] = f"{source}.{alias.name}"

    def dotted(self, expression: ast.expr) -> str | None:
        """The dotted name that `Name` or `a.b.c` means in this module; None for another expression."""
        match expression:
            case ast.Name(id=name):
                if name in self.imports and name not in self.definitions:
                    return self.imports[name]
                return f"{self.name}.{name}" if name in self.definitions or self.stars else f"builtins.{name}"
            case ast.Attribute(value=value, attr=attribute):
                above = self.dotted(value)
                return above and f"{above}.{attribute}"
        return None


@dataclass(frozen=True)
class Definition:
    """A class, a function or an assigned expression, and the module that it stands in."""

    module: Module
    name: str
    node: ast.ClassDef | ast.FunctionDef | ast.expr

    @property
    def dotted(self) -> str:
        """Its name from the top level package on."""
        return f"{self.module.name}.{self.name}"

    @property
    def class_node(self) -> ast.ClassDef:
        """Its node, where it is known to be a class."""
        assert isinstance(self.node, ast.ClassDef)
        return self.node


@functools.cache
def find(dotted: str) -> Definition:
    """Where a dotted name is defined, through imports.

    Raises NotThereError where there is no such name and UnreadableError where that cannot be decided.
    """
    for name, twin in TWINS.items():
        if dotted.startswith(f"{name}.") and importlib.util.find_spec(name.partition(".")[0]) is None:
            dotted = twin + dotted.removeprefix(name)
    parts = dotted.split(".")
    length = 1
    while length < len(parts) - 1 and file_of(".".join(parts[: length + 1])):
        length += 1
    name, holder = ".".join(parts[:length]), parts[length:]
    if not file_of(name) or not holder:
        raise NotThereError(f"there is no package `{parts[0]}` to import" if not file_of(name) else "it names no class")
    found = name_in(module(name), holder[0])
    if len(holder) > 1:
        if isinstance(found.node, ast.ClassDef):
            raise UnreadableError(f"`{'.'.join(holder[1:])}` is inside of the class `{found.dotted}`")
        return find(".".join([found.dotted, *holder[1:]]))
    return found


def name_in(holder: Module, name: str) -> Definition:
    """A name at a module's top level, its own or an imported one."""
    if name in holder.definitions:
        return Definition(holder, name, holder.definitions[name])
    if name in holder.imports:
        return find(holder.imports[name])
    for star in holder.stars:
        try:
            return find(f"{star}.{name}")
        except NotThereError:
            continue
    if "__getattr__" in holder.definitions:
        raise UnreadableError(f"`{holder.name}` makes `{name}` when it runs")
    close = difflib.get_close_matches(name, [*holder.definitions, *holder.imports, *modules_in(holder)], n=1)
    hint = f" (did you mean `{holder.name}.{close[0]}`?)" if close else ""
    raise NotThereError(f"there is no `{name}` in `{holder.name}`{hint}")


def modules_in(holder: Module) -> list[str]:
    """The names of a package's modules."""
    file = file_of(holder.name)
    return [path.stem for path in file.parent.iterdir()] if holder.is_package and file else []


@functools.cache
def module(name: str) -> Module:
    """A module from its file. Raises UnreadableError where that is not in Python."""
    file = file_of(name)
    if file is None or file.suffix != ".py":
        raise UnreadableError(f"`{name}` has no source in Python")
    found = Module(name, is_package=file.name == "__init__.py")
    if file.exists():  # a namespace package has none
        try:
            found.read(ast.parse(file.read_bytes()).body)
        except SyntaxError as error:
            raise UnreadableError(f"{file}, line {error.lineno}: {error.msg}") from None
    return found


@functools.cache
def file_of(name: str) -> Path | None:
    """The file of a module, `__init__.py` of a package, whether there is one or not; None where there is no module."""
    first, *below = name.split(".")
    for place in places(first):
        if place.is_file():
            return None if below else place
        path = place.joinpath(*below)
        if path.is_dir():
            return path / "__init__.py"
        if below and path.parent.is_dir():
            for file in (path.with_suffix(".py"), *path.parent.glob(f"{path.name}.*.so")):
                if file.is_file():
                    return file
    return None


@functools.cache
def places(name: str) -> tuple[Path, ...]:
    """The folders of a top level package, or the file of a module; looks for it without importing anything."""
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # it is imported, and nothing says from where
        spec = None
    if spec is None and name in sys.modules:
        raise UnreadableError(f"`{name}` was made when it ran")
    if spec is None:
        return ()
    if spec.submodule_search_locations is not None:
        return tuple(map(Path, spec.submodule_search_locations))
    return () if spec.origin is None else (Path(spec.origin),)  # `built-in` for those inside of the interpreter


def forget() -> None:
    """Read files again from now on."""
    for known in (find, module, file_of, places):
        known.cache_clear()
