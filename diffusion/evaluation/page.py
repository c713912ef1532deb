"""The page of an evaluation: one HTML file without links to anything, which opens offline."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from PIL import Image

TEMPLATE = Path(__file__).with_name("page.html")


def page(results: Mapping, samples: Sequence[tuple[str, Image.Image]], memory: Mapping[str, Image.Image]) -> str:
    """samples: prompts, which are anybody's text, and their pictures; memory: a grid for each feature network."""
    render = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    render.globals["inline"] = inline
    return render.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        results=results, scores=results["scores"], samples=samples, memory=memory)


def inline(picture: Image.Image) -> str:
    """As a data URL."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
