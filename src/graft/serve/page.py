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
from graft.model.model import Model, columns_of
from graft.serve.answer import SHOWN, Answer
from graft.serve.posted import ROW

TEMPLATE = "page.html.jinja"
ASSETS = {"page.css": "text/css", "page.js": "text/javascript"}
CLASSES = 8  # named at the top
CHOICES = 30  # categories in a list; of more one is typed
NO_NEIGHBOURS = "Nearest training samples: train with save.neighbours=true."
WHAT = {"image": "a photo", "audio": "a recording", "text": "a text", "table": "a row", "multimodal": "a sample"}


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
    parts: Sequence[str]  # modalities of an input
    fused: bool  # whether they are parts of a fusion, any of which may be missing
    summary: str
    limit_mb: float
    no_explanation: str  # why there is none; empty where there is
    no_neighbours: str  # how to get them; empty where there are, or where there can be none
    fields: Sequence[Field] = ()

    @classmethod
    def of(cls, model: Model, limit_mb: float) -> "Page":
        """The page of a model."""
        columns = columns_of(model.backbone.input_spec) if "table" in model.modalities else None
        return cls(
            model.description.name,
            model.modalities,
            bool(model.backbone.parts),
            f"From {what_of(model.modalities)} to {into(model)}",
            limit_mb,
            no_explanation(model),
            "" if model.neighbours is not None or one_alone(model) else NO_NEIGHBOURS,
            [] if columns is None else [field_of(column, model.description.reading) for column in columns.all],
        )

    @property
    def what(self) -> str:
        """What it takes."""
        return what_of(self.parts)

    def html(self, found: Answer | None = None, problem: str = "", values: Mapping[str, str] | None = None) -> str:
        """The page with an answer or with what was wrong, and a form that holds the values of the last one."""
        explain = values is None or bool(values.get("explain"))
        return template().render(
            page=self, found=found, problem=problem, values=values or {}, explain=explain, shown=SHOWN
        )


def what_of(parts: Sequence[str]) -> str:
    """What a model of these modalities takes: `a text with a photo`."""
    return " with ".join(WHAT[part] for part in parts)


def into(model: Model) -> str:
    """What it predicts."""
    if model.predicts_texts:
        return "a text"
    if model.classes is None:
        return "a number"
    classes = f"{len(model.classes):,} classes: {listed(model.classes, CLASSES)}"
    return f"boxes of {classes}" if model.predicts_boxes else classes


def one_alone(model: Model) -> bool:
    """Whether a prediction stands alone, without an explanation and neighbours."""
    return model.predicts_boxes or model.predicts_texts


def no_explanation(model: Model) -> str:
    """Why there is no explanation; empty where there is."""
    if one_alone(model):
        return f"{'Boxes' if model.predicts_boxes else 'Texts'} are not explained."
    return "" if has_captum() else NO_CAPTUM


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
