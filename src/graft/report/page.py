"""A report: one HTML page that needs nothing else, and its figures and tables as files beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, PackageLoader

from graft.files import write_whole, written_whole
from graft.report.answer import Answer, first_line
from graft.report.checks import Finding
from graft.report.export import Table
from graft.report.figures import Picture
from graft.report.samples import Sample
from graft.runs.folder import REPORT, REPORT_FILES

TEMPLATE = "page.html.jinja"


@dataclass(frozen=True)
class Section:
    """A heading with sentences, tables, pictures and samples under it."""

    title: str
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    samples: Sequence[Sample] = ()
    lines: Sequence[str] = ()


@dataclass(frozen=True)
class Page:
    """What a report shows, from its first line on; `checked` is how many checks looked."""

    title: str
    answers: Sequence[Answer]
    findings: Sequence[Finding] = ()
    checked: int = 0
    sections: Sequence[Section] = ()
    footer: str = ""
    kept: Mapping[str, bytes] = field(default_factory=dict)  # further files for that folder

    @property
    def first_line(self) -> str:
        """What a terminal shows."""
        return first_line(self.answers)

    def html(self) -> str:
        """The whole page."""
        environment = Environment(loader=PackageLoader("graft.report", "."), autoescape=True, trim_blocks=True)
        return environment.get_template(TEMPLATE).render(page=self)

    def files(self) -> dict[str, bytes]:
        """Names of the figures' and tables' files with what they hold."""
        found = dict(self.kept)
        for section in self.sections:
            for picture in section.pictures:
                found |= {f"{picture.name}.svg": picture.svg.encode(), f"{picture.name}.png": picture.png}
            for table in section.tables:
                forms = {"csv": table.as_csv(), "md": table.as_markdown(), "tex": table.as_latex()}
                found |= {f"{table.name}.{form}": text.encode() for form, text in forms.items()}
        return {f"{REPORT_FILES}/{name}": content for name, content in found.items()}

    def write(self, folder: Path) -> Path:
        """Write page and files into a folder; the page's path."""
        (folder / REPORT_FILES).mkdir(exist_ok=True)
        for name, content in self.files().items():
            with written_whole(folder / name) as file:
                file.write(content)
        write_whole(folder / REPORT, self.html())
        return folder / REPORT
