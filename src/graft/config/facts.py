"""What constructors say of their arguments, and classes of themselves, read from source files.

Nothing is imported: no torch for a check, and no code of a config's `_target_`. What cannot be read raises
UnreadableError, or is an argument without a rule.
"""

import ast
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from graft.config import sources
from graft.config.sources import Definition, Module, NotThereError, UnreadableError, find
from graft.config.types import Kind, Rule

SCALARS = {
    "builtins.int": int,
    "builtins.float": float,
    "builtins.str": str,
    "builtins.bool": bool,
    "pathlib.Path": str,
}
LISTS = ("Sequence", "Iterable", "Collection", "List", "Tuple", "Set", "list", "tuple", "set")
MAPPINGS = ("Mapping", "MutableMapping", "Dict", "dict")
TYPING = ("typing.", "typing_extensions.", "collections.abc.", "builtins.")
# Bases without arguments and facts, in long files: of what a check takes, reading them was half.
BARE = (
    *("torch.nn.Module", "torch.optim.Optimizer", "torch.optim.optimizer.Optimizer"),
    *("pytorch_lightning.LightningDataModule", "pytorch_lightning.callbacks.Callback", "abc.ABC"),
)


@dataclass(frozen=True)
class Field:
    """An argument of a constructor, or a key of a TypedDict."""

    name: str
    module: Module
    annotation: ast.expr | None = None
    default: ast.expr | None = None
    required: bool = False

    @functools.cached_property
    def rule(self) -> Rule | None:
        """What it may hold; None where that cannot be read."""
        try:
            return rule_of(self.annotation, self.module) if self.annotation else None
        except (UnreadableError, NotThereError):
            return None

    def is_annotated(self, name: str) -> bool:
        """Whether its annotation is a name of graft.config.types."""
        return self.annotation is not None and self.module.dotted(self.annotation) == f"graft.config.types.{name}"

    @property
    def given(self) -> bool:
        """Whether the run gives it, so that no config may."""
        return self.is_annotated("Given")


@dataclass(frozen=True)
class Fields:
    """The arguments of a constructor by name, or the keys of a TypedDict."""

    known: Mapping[str, Field] = field(default_factory=dict)
    unread: str = ""  # why there may be others, which nothing here can check
    own: tuple[str, ...] = ()  # of them the keys that are no arguments: code reads them

    def __or__(self, other: "Fields") -> "Fields":
        """Both; of two with one name the other's."""
        return Fields({**self.known, **other.known}, self.unread or other.unread)


# Arguments


@functools.cache
def arguments(target: str) -> Fields:
    """The arguments of the class or function that `_target_` names."""
    found = find(target)
    match found.node:
        case ast.ClassDef():
            return of_class(lineage(found))
        case ast.FunctionDef():
            return of_function(found.node, found.module, ())
        case _ if (alias := found.module.dotted(found.node)) and alias != found.dotted:
            return arguments(alias)
    raise UnreadableError(f"`{target}` is made when its module runs")


@functools.cache
def lineage(found: Definition) -> tuple[Definition, ...]:
    """A class and its bases in the order in which Python looks through them, near enough: depth first."""
    classes = [found]
    for base in found.class_node.bases:
        dotted = found.module.dotted(base.value if isinstance(base, ast.Subscript) else base)
        if dotted is None:
            raise UnreadableError(f"a base of `{found.dotted}` is made when its module runs")
        if dotted.startswith(TYPING) or dotted in BARE:
            continue
        above = find(dotted)
        if not isinstance(above.node, ast.ClassDef):
            raise UnreadableError(f"the base `{dotted}` of `{found.dotted}` is no class in its source")
        classes += lineage(above)
    return tuple(classes)


def of_class(classes: tuple[Definition, ...]) -> Fields:
    """The arguments of the first constructor among a class and its bases."""
    for place, one in enumerate(classes):
        if any(
            dotted_call(decorator, one.module) == "dataclasses.dataclass" for decorator in one.class_node.decorator_list
        ):
            return of_dataclass(classes[place:])
        for statement in one.class_node.body:
            if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
                return of_function(statement, one.module, classes[place + 1 :])
    return Fields()


def of_dataclass(classes: tuple[Definition, ...]) -> Fields:
    """The fields of a dataclass and of those that it inherits from."""
    return functools.reduce(Fields.__or__, (Fields(annotated(one)) for one in reversed(classes)), Fields())


def annotated(found: Definition) -> dict[str, Field]:
    """The annotated names in a class's body."""
    return {
        statement.target.id: Field(
            statement.target.id, found.module, statement.annotation, statement.value, required=statement.value is None
        )
        for statement in found.class_node.body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    }


def of_function(node: ast.FunctionDef, module: Module, above: tuple[Definition, ...]) -> Fields:
    """The arguments of a function, and where it passes further ones on, those of what it calls.

    `above` are the bases of the class whose constructor it is.
    """
    own = node.args.posonlyargs + node.args.args
    defaults = [*[None] * (len(own) - len(node.args.defaults)), *node.args.defaults]
    pairs = [*zip(own, defaults, strict=True), *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]
    if node.name == "__init__":
        pairs = pairs[1:]
    named = {a.arg: Field(a.arg, module, a.annotation, default, default is None) for a, default in pairs}
    if node.args.kwarg is None:
        return Fields(named)
    further = passed_on(node, module, above)
    return Fields({**named, **{name: one for name, one in further.known.items() if name not in named}}, further.unread)


def passed_on(node: ast.FunctionDef, module: Module, above: tuple[Definition, ...]) -> Fields:
    """What the calls take to which a function passes its `**rest`, without what they are given otherwise."""
    assert node.args.kwarg is not None
    rest = node.args.kwarg.arg
    for call in (inner for inner in ast.walk(node) if isinstance(inner, ast.Call)):
        if not any(k.arg is None and isinstance(k.value, ast.Name) and k.value.id == rest for k in call.keywords):
            continue
        if ast.unparse(call.func) == "super().__init__":
            fields = of_class(above)
        elif dotted := module.dotted(call.func):
            try:
                fields = arguments(dotted)
            except (UnreadableError, NotThereError) as error:
                return Fields(unread=f"**{rest}: {error}")
        else:
            break
        given = {*list(fields.known)[: len(call.args)], *(k.arg for k in call.keywords)}
        return Fields({name: one for name, one in fields.known.items() if name not in given}, fields.unread)
    return Fields(unread=f"**{rest} of `{node.name}` in `{module.name}`")


# What classes say of themselves


@functools.cache
def rule_at(dotted: str) -> Rule:
    """What a name of an annotation allows, such as a TypedDict's keys."""
    return of_annotated_class(find(dotted))


def attribute(target: str, name: str, default: Any = None) -> Any:
    """A class attribute of what `_target_` names, or of the class that a function says it returns.

    `default` where no class has it or it cannot be read.
    """
    try:
        found = find(target)
        if isinstance(found.node, ast.FunctionDef) and found.node.returns:
            found = find(found.module.dotted(found.node.returns) or "")
        if not isinstance(found.node, ast.ClassDef):
            return default
        for one in lineage(found):
            for statement in one.class_node.body:
                match statement:
                    case ast.Assign(targets=[ast.Name(id=named)], value=value) if named == name:
                        return constant(value, one.module)
                    case ast.AnnAssign(target=ast.Name(id=named), value=ast.expr() as value) if named == name:
                        return constant(value, one.module)
    except (UnreadableError, NotThereError):
        pass
    return default


# Annotations


def rule_of(node: ast.expr, module: Module) -> Rule:
    """What an annotation allows. Raises UnreadableError."""
    match node:
        case ast.Constant(value=None):
            return Rule(null=True)
        case ast.Constant(value=str() as text):
            return rule_of(ast.parse(text, mode="eval").body, module)
        case ast.BinOp(op=ast.BitOr()):
            return rule_of(node.left, module) | rule_of(node.right, module)
        case ast.Subscript():
            return of_subscript(node, module)
    dotted = module.dotted(node)
    if dotted is None:
        raise UnreadableError(f"annotation {ast.unparse(node)}")
    if dotted in SCALARS:
        return Rule(kinds=(Kind(SCALARS[dotted]),))
    if dotted.startswith(TYPING):
        return of_typing(dotted.rpartition(".")[2])
    found = find(dotted)
    if isinstance(found.node, ast.ClassDef):
        return of_annotated_class(found)
    if isinstance(found.node, ast.FunctionDef):
        raise UnreadableError(f"annotation {dotted}")
    return rule_of(found.node, found.module)


def of_typing(name: str) -> Rule:
    """A name of typing or collections.abc, or a built-in, without brackets."""
    if name in ("Any", "object"):
        return Rule(kinds=(Kind(object),))
    if name in LISTS:
        return Rule(kinds=(Kind(list),))
    if name in MAPPINGS:
        return Rule(kinds=(Kind(dict),))
    if name == "Callable":
        return Rule(kinds=(Kind(dict, target=True),))
    raise UnreadableError(f"annotation {name}")


def of_annotated_class(found: Definition) -> Rule:
    """A TypedDict is a mapping of its keys; an object of another class is what a `_target_` builds."""
    bases = [found.module.dotted(base) for base in found.class_node.bases]
    keys = annotated(found)
    for base in filter(None, bases):
        if base.endswith(".TypedDict"):
            return Rule(kinds=(Kind(dict, fields=Fields(keys)),))
        above = find(base) if base.startswith("graft.") else None
        if above and isinstance(above.node, ast.ClassDef):
            inherited = of_annotated_class(above).kinds[0].fields
            if inherited:
                return Rule(kinds=(Kind(dict, fields=inherited | Fields(keys)),))
    return Rule(kinds=(Kind(dict, target=True),))


def of_subscript(node: ast.Subscript, module: Module) -> Rule:
    """An annotation with brackets."""
    dotted = module.dotted(node.value) or ""
    inside = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    name = dotted.rpartition(".")[2]
    if not dotted.startswith(TYPING):
        return rule_of(node.value, module)
    if name == "Literal":
        words = constant(node.slice, module)
        return of_words(words if isinstance(words, tuple | list | dict) else (words,))
    if name == "Annotated":
        return with_bounds(rule_of(inside[0], module), inside[1:], module)
    if name == "Optional":
        return Rule(null=True) | rule_of(inside[0], module)
    if name == "Union":
        return functools.reduce(Rule.__or__, (rule_of(one, module) for one in inside))
    if name in LISTS:
        items = [one for one in inside if not (isinstance(one, ast.Constant) and one.value is ...)]
        return Rule(kinds=(Kind(list, items=functools.reduce(Rule.__or__, (rule_of(one, module) for one in items))),))
    if name in MAPPINGS:
        return Rule(kinds=(Kind(dict, items=rule_of(inside[1], module)),))
    if name in ("Required", "NotRequired", "ReadOnly", "Final", "ClassVar"):
        return rule_of(inside[0], module)
    return of_typing(name)


def of_words(words: Iterable[Any]) -> Rule:
    """One of several words; None is one too."""
    words = dict.fromkeys(words)
    return Rule(null=None in words, choices=tuple(word for word in words if word is not None))


def with_bounds(rule: Rule, metadata: list[ast.expr], module: Module) -> Rule:
    """A rule with annotated_types' bounds: Ge, Gt, Le, Lt, Interval, MinLen."""
    bounds: dict[str, float] = {}
    for one in metadata:
        if not isinstance(one, ast.Call):
            continue
        name = (dotted_call(one, module) or "").removeprefix("annotated_types.").lower()
        if name in ("ge", "gt", "le", "lt"):
            bounds[name] = constant(one.args[0], module)
        elif name == "interval":
            bounds |= {keyword.arg: constant(keyword.value, module) for keyword in one.keywords if keyword.arg}
        elif name == "minlen":
            rule = rule.bounded(least=constant(one.args[0], module))
    return rule.bounded(bounds=tuple(bounds.items())) if bounds else rule


def dotted_call(node: ast.expr, module: Module) -> str | None:
    """The dotted name of what is called, or of what stands there uncalled."""
    return module.dotted(node.func if isinstance(node, ast.Call) else node)


# Values


def constant(node: ast.expr, module: Module) -> Any:
    """The value of an expression of literals and names of such; of a dict its keys. Raises UnreadableError."""
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Tuple(elts=elements) | ast.List(elts=elements) | ast.Set(elts=elements):
            values: list[Any] = []
            for element in elements:
                if isinstance(element, ast.Starred):
                    values += constant(element.value, module)
                else:
                    values.append(constant(element, module))
            return tuple(values)
        case ast.Dict(keys=keys) if None not in keys:
            return tuple(constant(key, module) for key in keys if key is not None)
        case ast.Call(func=ast.Name(id="tuple"), args=[value]):
            return tuple(constant(value, module))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -constant(operand, module)
        case ast.BinOp(op=ast.Add()):
            return constant(node.left, module) + constant(node.right, module)
        case ast.BinOp(op=ast.Pow()):
            return constant(node.left, module) ** constant(node.right, module)
        case ast.Name() | ast.Attribute():
            found = find(module.dotted(node) or "")
            if isinstance(found.node, ast.expr):
                return constant(found.node, found.module)
    raise UnreadableError(f"value {ast.unparse(node)}")


def forget() -> None:
    """Read files again from now on, for a notebook whose user changed a part of their own package."""
    arguments.cache_clear()
    rule_at.cache_clear()
    lineage.cache_clear()
    sources.forget()
