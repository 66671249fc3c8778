"""The page as HTML: a form for a model's modality, and what the model says of what was posted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, Template

from graft.errors import listed
from graft.inputs.columns import CATEGORICAL, Column
from graft.inspection.attribution import has_captum
from graft.model.explain import NO_CAPTUM
from graft.model.model import Model
from graft.serve.answer import SHOWN, Answer
from graft.serve.posted import ROW

TEMPLATE = "page.html.jinja"
ASSETS = {"page.css": "text/css", "page.js": "text/javascript"}
CLASSES = 8  # named at the top
CHOICES = 30  # categories in a list; of more one is typed
WHAT = {"image": "a photo", "audio": "a recording", "text": "a text", "table": "a row"}


@dataclass(frozen=True)
class Field:
    """A column of a table in the form; of a categorical one its `choices`, unless there are too many."""

    key: str
    label: str
    hint: str
    choices: Sequence[str] = ()


@dataclass(frozen=True)
class Page:
    """What does not change from one answer to the next."""

    name: str
    modality: str
    summary: str
    limit_mb: float
    no_explanation: str  # why there is none; empty where there is
    neighbours: bool
    fields: Sequence[Field] = ()

    @classmethod
    def of(cls, model: Model, limit_mb: float) -> "Page":
        """The page of a model."""
        spec: Any = model.backbone.input_spec
        modality = model.description.modality
        columns = spec.columns.all if modality == "table" else ()
        classes = model.classes
        into = "a number" if classes is None else f"{len(classes):,} classes: {listed(classes, CLASSES)}"
        return cls(
            model.description.name,
            modality,
            f"From {WHAT[modality]} to {into}",
            limit_mb,
            "" if has_captum() else NO_CAPTUM,
            model.neighbours is not None,
            [field_of(column, model.description.reading) for column in columns],
        )

    @property
    def what(self) -> str:
        """What it takes."""
        return WHAT[self.modality]

    def html(self, found: Answer | None = None, problem: str = "", values: Mapping[str, str] | None = None) -> str:
        """The page with an answer or with what was wrong, and a form that holds the values of the last one."""
        explain = values is None or bool(values.get("explain"))
        return template().render(
            page=self, found=found, problem=problem, values=values or {}, explain=explain, shown=SHOWN
        )


def field_of(column: Column, reading: Mapping[str, Any]) -> Field:
    """The form's field for a column."""
    key = f"{ROW}{column.name}"
    if column.kind == CATEGORICAL:
        few = len(column.categories) <= CHOICES
        hint = "" if few else f"one of {len(column.categories):,}, such as {column.categories[0]}"
        return Field(key, column.name, hint, column.categories if few else ())
    if column.name in reading.get("shares", ()):
        return Field(key, column.name, "a number, as counted")
    decimal = reading.get("decimal") or "."
    return Field(key, column.name, f"a number, half are below {column.median:g}".replace(".", decimal))


@cache
def template() -> Template:
    """The page's template."""
    environment = Environment(loader=PackageLoader("graft.serve", "."), autoescape=True, trim_blocks=True)
    return environment.get_template(TEMPLATE)


def asset(name: str) -> str:
    """A style sheet or script of the page."""
    return Path(__file__).with_name(name).read_text("utf-8")
