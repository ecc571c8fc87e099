"""Draw one panel as inline SVG: small, sharp on paper, with searchable text."""

from __future__ import annotations

import contextlib
import html
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from facenet.report.page import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, SOFT = "#1b1b1b", "#5c5c5c"
SIZE = (4.8, 3.5)  # inches
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name with $ is a name
    "font.size": 10,
    "axes.labelsize": 10,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
}


def draw(name: str, alt: str, paint: Callable[[Axes], None], *, caption: str = "", size: Any = SIZE) -> Figure:
    """Draw one panel by `paint` and return it as inline SVG with the alternative text `alt`; same input, same bytes.

    `name` must be unique on the page, since the identifiers inside the drawing derive from it.
    """
    with _quiet_fonts():
        import matplotlib
        from matplotlib.figure import Figure as Canvas

        style: Any = {**STYLE, "svg.hashsalt": name}
        with matplotlib.rc_context(style):
            canvas = Canvas(figsize=size, layout="constrained")
            paint(canvas.add_subplot())
            buffer = io.StringIO()
            canvas.savefig(buffer, format="svg", metadata={"Date": None})
    return Figure(inline_svg(buffer.getvalue(), alt), caption)


@contextlib.contextmanager
def _quiet_fonts() -> Iterator[None]:
    """Silence matplotlib's lines on its font cache and on glyphs that its own fonts lack."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from")
            yield
    finally:
        logger.setLevel(level)


def inline_svg(text: str, alt: str) -> str:
    """Remove from an SVG document what HTML does not need: prolog, metadata, comments, namespaces, unused ids."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    head, body = text.split(">", 1)
    box = re.search(r'viewBox="([^"]*)"', head)
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', body))
    body = re.sub(r'\sid="([^"]*)"', lambda match: match[0] if match[1] in used else "", body)
    body = re.sub(r"\n\s*", "\n", body.replace("xlink:href", "href"))
    return f'<svg viewBox="{box[1] if box else "0 0 1 1"}" role="img" aria-label="{html.escape(alt)}">{body.strip()}'
