"""A plot as a file of its own: an SVG with its colours and a legend, for pages that only show pictures."""

from pathlib import Path
from xml.etree import ElementTree

from diffusion.files import write_text
from diffusion.reporting.plot import HEIGHT, WIDTH, Plot, draw

COLOURS = ("#000", "#888", "#b60", "#c22", "#06c", "#083", "#0aa", "#90c")
STYLE = """text { font: 10px sans-serif; fill: currentColor } .grid { stroke: #ccc; stroke-width: .5 }
.axis { stroke: currentColor; fill: none } .line path { stroke: var(--c); fill: none; stroke-width: 1.5 }
.line circle { fill: var(--c); r: 2 } svg { background: #fff; """
LEGEND, ROW = 180, 13  # its width, and the height of an entry


def figure(plot: Plot) -> str:
    """The file's content."""
    svg = draw(plot)
    svg.set("xmlns", "http://www.w3.org/2000/svg")
    svg.set("viewBox", f"0 0 {WIDTH + LEGEND} {HEIGHT}")
    style = ElementTree.Element("style")
    style.text = STYLE + " ".join(f"--c{i}: {colour};" for i, colour in enumerate(COLOURS)) + " }"
    svg.insert(0, style)
    for i, line in enumerate(plot.lines):
        entry = ElementTree.SubElement(svg, "g", {"class": "line", "style": line.style})
        ElementTree.SubElement(entry, "path", {"d": f"M{WIDTH} {14 + ROW * i}h22"})
        ElementTree.SubElement(svg, "text", {"x": f"{WIDTH + 27}", "y": f"{17 + ROW * i}"}).text = line.label
    return ElementTree.tostring(svg, encoding="unicode")


def write_figure(path: Path, plot: Plot) -> None:
    write_text(path, figure(plot) + "\n")
