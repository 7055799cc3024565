"""Tables of text, and tables and bars of HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

_CELL = "padding:0.15em 0.7em;text-align:"
_WIDTH, _BAR, _NAME = 620, 18, 230


@dataclass(frozen=True)
class Table:
    """Rows of cells under headers; a header that begins with ``>`` is of numbers, which stand to the right."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""

    def text(self) -> str:
        """The table as text, without spaces at the ends of lines."""
        cells = [[_plain(header) for header in self.headers], *self.rows]
        widths = [max(len(row[index]) for row in cells) for index in range(len(self.headers))]
        lines = [self._line(row, widths) for row in cells]
        lines.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
        return "\n".join([self.title, *lines] if self.title else lines)

    def _line(self, row: Sequence[str], widths: Sequence[int]) -> str:
        cells = zip(row, widths, self.headers, strict=True)
        return "  ".join(cell.rjust(width) if header.startswith(">") else cell.ljust(width) for cell, width, header in cells).rstrip()

    def html(self) -> str:
        """The table as HTML."""
        sides = ["right" if header.startswith(">") else "left" for header in self.headers]

        def row(tag: str, cells: Sequence[str]) -> str:
            return "".join(
                f'<{tag} style="{_CELL}{side}">{html.escape(cell)}</{tag}>' for cell, side in zip(cells, sides, strict=True)
            )

        head = f"<tr>{row('th', [_plain(header) for header in self.headers])}</tr>"
        body = "".join(f"<tr>{row('td', cells)}</tr>" for cells in self.rows)
        caption = f'<caption style="text-align:left">{html.escape(self.title)}</caption>' if self.title else ""
        return f"<table>{caption}<thead>{head}</thead><tbody>{body}</tbody></table>"


@dataclass(frozen=True)
class Bars:
    """Names and a number of each, drawn as bars from 0."""

    title: str
    names: Sequence[str]
    values: Sequence[float]
    unit: str = ""

    def html(self) -> str:
        """The bars as SVG."""
        most = max((value for value in self.values if value == value), default=0.0) or 1.0
        room = _WIDTH - _NAME - 90
        parts: list[str] = []
        for index, (name, value) in enumerate(zip(self.names, self.values, strict=True)):
            top = index * (_BAR + 4)
            length = max(0.0, value / most * room) if value == value else 0.0
            shown = f"{value:,.4g} {self.unit}".strip()
            parts.append(
                f'<text x="{_NAME - 8}" y="{top + 13}" text-anchor="end">{html.escape(name)}</text>'
                f'<rect x="{_NAME}" y="{top}" width="{length:.1f}" height="{_BAR}" fill="#4878a8"/>'
                f'<text x="{_NAME + length + 6:.1f}" y="{top + 13}">{html.escape(shown)}</text>'
            )
        height = len(self.names) * (_BAR + 4)
        drawing = f'<svg width="{_WIDTH}" height="{height}" font-size="12" fill="currentColor">{"".join(parts)}</svg>'
        return f"<div>{html.escape(self.title)}<br>{drawing}</div>"


class Report:
    """What prints as tables, and shows as tables and bars in a notebook."""

    def _head(self) -> str:
        """Lines before the tables."""
        return ""

    def _tables(self) -> list[Table]:
        raise NotImplementedError

    def _bars(self) -> list[Bars]:
        return []

    def __str__(self) -> str:
        return "\n\n".join(part for part in [self._head(), *(table.text() for table in self._tables())] if part)

    def _repr_html_(self) -> str:
        head = html.escape(self._head()).replace("\n", "<br>")
        parts = [table.html() for table in self._tables()] + [bars.html() for bars in self._bars()]
        return f"<div><p>{head}</p>{''.join(parts)}</div>"


def megabytes(count: float) -> str:
    """Bytes in units of 1,000,000, with a digit behind the point, or three of a small number."""
    return f"{count / 1e6:,.1f}" if count >= 1e6 else f"{count / 1e6:.3f}"


def optional(value: float | None, form: str) -> str:
    """A number in the format ``form``, or a dash."""
    return "-" if value is None else format(value, form)


def _plain(header: str) -> str:
    return header.removeprefix(">")
