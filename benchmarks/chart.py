"""A bar chart as SVG: costs side by side, each as a multiple of one proxy's.

Knows numbers and where to draw them; must not know what they mean.
"""

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

import attrs

__all__ = ["Group", "draw"]

_COLOURS = ("#1f6feb", "#8b949e", "#bf8700", "#6e40c9", "#2da44e")
_LABEL, _BARS, _VALUE, _BAR, _GAP = 210, 420, 110, 16, 18


@attrs.frozen
class Group:
    """Bars that belong together.

    :ivar values: what each is, in `unit`.
    """

    title: str
    unit: str
    values: Mapping[str, float]


def draw(title: str, groups: Sequence[Group]) -> str:
    """Draw the groups beneath each other, the longest bar of each over the whole width.

    A bar that is cut for the others' sake would say nothing: so each group has its own scale, and
    the numbers stand beside the bars.
    """
    names = list(dict.fromkeys(name for group in groups for name in group.values))
    colours = {name: _COLOURS[at % len(_COLOURS)] for at, name in enumerate(names)}
    parts, y = [_text(0, 18, title, "bold")], 36
    for group in groups:
        parts.append(_text(0, y + 12, group.title))
        parts.append(_text(0, y + 28, group.unit, "small"))
        most = max(group.values.values(), default=0.0) or 1.0
        for name, value in group.values.items():
            parts += _bar(y, name, value, value / most, colours[name])
            y += _BAR + 2
        y += _GAP
    return _document(_LABEL + _BARS + _VALUE, y, parts)


def _bar(y: int, name: str, value: float, share: float, colour: str) -> list[str]:
    width = max(1.0, share * _BARS)
    return [
        f'<rect x="{_LABEL}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{colour}"/>',
        _text(_LABEL + width + 6, y + 12, f"{value:.3g} {name}", "small"),
    ]


def _text(x: float, y: float, text: str, kind: str = "plain") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(text)}</text>'


def _document(width: int, height: int, parts: Sequence[str]) -> str:
    style = (
        "text { font: 13px sans-serif; fill: #57606a } .bold { font-weight: bold } "
        ".small { font-size: 11px }"
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
            f' width="{width}" height="{height}" role="img">',
            f"<style>{style}</style>",
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            *parts,
            "</svg>\n",
        ]
    )
