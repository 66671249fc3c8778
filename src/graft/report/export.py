"""A report's tables, as they are shown and as CSV, LaTeX and Markdown."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

from graft.report.summary import padded

TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
TEX |= {character: f"\\{character}" for character in "&%$#_{}"}


@dataclass(frozen=True)
class Table:
    """Cells as text under a header; the first columns are words, from `numbers` on they are numbers."""

    name: str
    title: str
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: int = 1

    def without_empty(self) -> "Table":
        """The same without columns that hold nothing."""
        kept = [place for place, _ in enumerate(self.header) if any(row[place] for row in self.rows)]
        header, *rows = ([row[place] for place in kept] for row in (self.header, *self.rows))
        return replace(self, header=header, rows=rows, numbers=sum(place < self.numbers for place in kept))

    def as_csv(self) -> str:
        """Comma-separated, with the header."""
        text = io.StringIO(newline="")
        csv.writer(text).writerows([self.header, *self.rows])
        return text.getvalue()

    def as_markdown(self) -> str:
        """A Markdown table."""
        cells = [[cell.replace("|", "\\|") for cell in row] for row in (self.header, *self.rows)]
        return padded([cells[0], ["-" * len(name) for name in cells[0]], *cells[1:]]) + "\n"

    def as_latex(self) -> str:
        """A tabular with the rules of booktabs."""
        columns = "l" * self.numbers + "r" * (len(self.header) - self.numbers)
        lines = [" & ".join("".join(TEX.get(c, c) for c in cell) for cell in row) + r" \\" for row in self.rows]
        header = " & ".join("".join(TEX.get(c, c) for c in cell) for cell in self.header) + r" \\"
        rules = (r"\toprule", header, r"\midrule", *lines, r"\bottomrule")
        return "\n".join([f"\\begin{{tabular}}{{{columns}}}", *rules, r"\end{tabular}", ""])
