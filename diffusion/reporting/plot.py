"""Line plots as inline SVG: an element tree, so that every text is escaped; colours and fonts come from the page.

Colour i of the page is the CSS variable --c<i>; text takes currentColor, so a plot follows the reader's dark mode.
"""

import dataclasses
import math
from collections.abc import Sequence
from xml.etree import ElementTree

from markupsafe import Markup

from diffusion.reporting.axes import Axis, around, written

COLOURS, STROKES = 8, ("none", "5 4", "1.5 3", "9 3 2 3")
FEW = 12  # points that are shown as such
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 420, 270, 52, 10, 8, 42

Point = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Line:
    """bars: a low and a high beside each point, drawn where there are both; stroke: 0 drawn through, then dashed;
    dots: each point is shown."""

    label: str
    colour: int
    points: Sequence[Point]
    bars: Sequence[tuple[float | None, float | None]] = ()
    stroke: int = 0
    dots: bool = False

    @property
    def style(self) -> str:
        """More runs than colours: the further ones have another stroke."""
        dash = STROKES[(self.stroke + self.colour // COLOURS) % len(STROKES)]
        return f"--c:var(--c{self.colour % COLOURS});stroke-dasharray:{dash}"


@dataclasses.dataclass(frozen=True)
class Plot:
    """ticks: the numbers under the x axis, where they are not its own."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    log_x: bool = False
    log_y: bool = False
    ticks: Sequence[float] | None = None

    @property
    def svg(self) -> Markup:
        return Markup(ElementTree.tostring(draw(self), encoding="unicode"))


def thinned(points: Sequence[Point], most: int = 300) -> list[Point]:
    """Means of equally many neighbours where there are more points than a plot can show."""
    size = -(-len(points) // most) or 1
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def draw(plot: Plot) -> ElementTree.Element:
    """The <svg>."""
    xs = [x for line in plot.lines for x, _ in line.points]
    ys = [y for line in plot.lines for _, y in line.points]
    ys += [end for line in plot.lines for bar in line.bars for end in bar if end is not None]
    across, up = around(xs, plot.log_x, pad=0.02), around(ys, plot.log_y)
    svg = ElementTree.Element("svg", {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img", "aria-label": plot.title})
    _axes(svg, plot, across, up)
    for line in plot.lines:
        _line(svg, line, across, up)
    return svg


def _x(axis: Axis, value: float) -> str:
    return f"{LEFT + axis.place(value) * (WIDTH - LEFT - RIGHT):.1f}"


def _y(axis: Axis, value: float) -> str:
    return f"{HEIGHT - BOTTOM - axis.place(value) * (HEIGHT - TOP - BOTTOM):.1f}"


def _text(parent: ElementTree.Element, text: str, **attributes: str) -> None:
    ElementTree.SubElement(parent, "text", {k.replace("_", "-"): v for k, v in attributes.items()}).text = text


def _axes(svg: ElementTree.Element, plot: Plot, across: Axis, up: Axis) -> None:
    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM
    for value in up.ticks:
        y = _y(up, value)
        ElementTree.SubElement(svg, "path", {"class": "grid", "d": f"M{left} {y}H{right}"})
        _text(svg, written(value), x=f"{left - 6}", y=y, dy="0.35em", text_anchor="end")
    for value in across.ticks if plot.ticks is None else plot.ticks:
        x = _x(across, value)
        ElementTree.SubElement(svg, "path", {"class": "grid", "d": f"M{x} {top}V{bottom}"})
        _text(svg, written(value), x=x, y=f"{bottom + 16}", text_anchor="middle")
    ElementTree.SubElement(svg, "path", {"class": "axis", "d": f"M{left} {top}V{bottom}H{right}"})
    _text(svg, plot.x_label, x=f"{(left + right) / 2}", y=f"{HEIGHT - 8}", text_anchor="middle")
    _text(svg, plot.y_label, transform=f"translate(12 {(top + bottom) / 2}) rotate(-90)", text_anchor="middle")


def _line(svg: ElementTree.Element, line: Line, across: Axis, up: Axis) -> None:
    points = [(x, y) for x, y in line.points if math.isfinite(x) and math.isfinite(y)]
    places = [(_x(across, x), _y(up, y)) for x, y in points]
    if not places:
        return
    group = ElementTree.SubElement(svg, "g", {"class": "line", "style": line.style})
    ElementTree.SubElement(group, "title").text = line.label
    ElementTree.SubElement(group, "path", {"d": "M" + "L".join(f"{x} {y}" for x, y in places)})
    for (x, _), (low, high) in zip(line.points, line.bars):
        if low is not None and high is not None:
            way = f"M{_x(across, x)} {_y(up, low)}V{_y(up, high)}"
            ElementTree.SubElement(group, "path", {"class": "bar", "d": way})
    if line.dots or len(places) <= FEW:
        for (x, y), (_, value) in zip(places, points, strict=True):
            dot = ElementTree.SubElement(group, "circle", {"cx": x, "cy": y, "r": "3"})
            ElementTree.SubElement(dot, "title").text = f"{line.label}: {value:.4g}"
