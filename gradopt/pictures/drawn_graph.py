"""The graph of a loss as SVG and as PNG, from one layout.

Unknowns are rounded, operations are boxes and the loss has a double border, so that colour is not needed to read it.
"""

import io
import math
from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

from PIL import Image, ImageDraw

from gradopt.pictures.graph import Node
from gradopt.pictures.layout import Box, Layout, layout
from gradopt.pictures.letters import font, legible

MAX_DRAWN = 200
"""Nodes of a graph that a person can read."""

SIZE, SMALL = 15.0, 11.0
"""Of the letters, in pixels."""

FILLS = {"unknown": "#cfe8f7", "operation": "#ffffff", "output": "#fbe3b5"}
LINE, FAINT = "#222222", "#5a5a5a"
DRAWN = 3
"""Pixels, for one of the layout, at which the PNG is drawn."""

REDUCED = 2
"""It is made so many times smaller then, so that its lines have smooth edges."""


def laid_out(nodes: Sequence[Node]) -> Layout:
    """The layout of a graph."""
    return layout(nodes, _measure)


def svg(nodes: Sequence[Node], drawing: Layout, title: str) -> str:
    """The drawing as a document that a browser shows; the text in it can be searched."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {drawing.width:.0f} {drawing.height:.0f}" '
        f'width="{drawing.width:.0f}" height="{drawing.height:.0f}" role="img" '
        'font-family="Helvetica, Arial, Liberation Sans, DejaVu Sans, sans-serif" text-anchor="middle">',
        f"<title>{escape(title)}</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    for start, end, corners in drawing.edges:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
        names = f"{nodes[start].name} to {nodes[end].name}"
        parts.append(f'<polyline points="{points}" fill="none" stroke="{FAINT}" data-edge={quoteattr(names)}/>')
        parts.append(f'<polygon points="{_points(_head(*corners[-1]))}" fill="{FAINT}"/>')
    for node, box in zip(nodes, drawing.boxes, strict=True):
        parts.append(f"<g data-node={quoteattr(node.name)}><title>{escape(_told(node))}</title>")
        for shrunk in (0, 3) if node.kind == "output" else (0,):
            radius = box.height / 2 if node.kind == "unknown" else 3
            parts.append(
                f'<rect x="{box.x - box.width / 2 + shrunk:.1f}" y="{box.y - box.height / 2 + shrunk:.1f}" '
                f'width="{box.width - 2 * shrunk:.1f}" height="{box.height - 2 * shrunk:.1f}" rx="{radius:.1f}" '
                f'fill="{FILLS[node.kind]}" stroke="{LINE}"/>'
            )
        for text, size, y in _lines(node, box):
            # A browser has letters of its own where there were none to measure.
            length = f' textLength="{_width(text, size):.1f}"' if legible(text)[0] == text else ""
            parts.append(
                f'<text x="{box.x:.1f}" y="{y + 0.35 * size:.1f}" font-size="{size:g}" fill="{LINE}"{length}>'
                f"{escape(text)}</text>"
            )
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def png(nodes: Sequence[Node], drawing: Layout) -> bytes:
    """The drawing as a PNG file."""
    picture = Image.new("RGB", (round(DRAWN * drawing.width), round(DRAWN * drawing.height)), "#ffffff")
    canvas = ImageDraw.Draw(picture)
    for _, _, corners in drawing.edges:
        points = [(DRAWN * x, DRAWN * y) for x, y in corners]
        canvas.line(points, fill=FAINT, width=DRAWN, joint="curve")
        canvas.polygon([(DRAWN * x, DRAWN * y) for x, y in _head(*corners[-1])], fill=FAINT)
    for node, box in zip(nodes, drawing.boxes, strict=True):
        for shrunk in (0, 3) if node.kind == "output" else (0,):
            width, height = box.width / 2 - shrunk, box.height / 2 - shrunk
            canvas.rounded_rectangle(
                [DRAWN * side for side in (box.x - width, box.y - height, box.x + width, box.y + height)],
                radius=DRAWN * (height if node.kind == "unknown" else 3),
                fill=FILLS[node.kind],
                outline=LINE,
                width=DRAWN,
            )
        for text, size, y in _lines(node, box):
            shown, file = legible(text)
            canvas.text((DRAWN * box.x, DRAWN * y), shown, fill=LINE, font=font(file, DRAWN * size), anchor="mm")
    file = io.BytesIO()
    picture.reduce(REDUCED).save(file, "PNG")
    return file.getvalue()


def _measure(node: Node) -> tuple[float, float]:
    shape = _shape(node)
    width = max(_width(node.label, SIZE), _width(shape, SMALL), 14.0) + 20.0
    return width, 44.0 if shape else 30.0


def _lines(node: Node, box: Box) -> Sequence[tuple[str, float, float]]:
    """(text, size, y of its middle) of each line in a box."""
    shape = _shape(node)
    if not shape:
        return [(node.label, SIZE, box.y)]
    return [(node.label, SIZE, box.y - 8.0), (shape, SMALL, box.y + 11.0)]


def _shape(node: Node) -> str:
    """Of what is no single number."""
    if not node.shape or math.prod(node.shape) == 1:
        return ""
    return f"size {node.shape[0]}" if len(node.shape) == 1 else " x ".join(map(str, node.shape))


def _told(node: Node) -> str:
    """What is shown when the pointer rests on a box."""
    constants = ", ".join(f"{name} = {value}" for name, value in node.constants.items())
    return f"{node.operation}{f' ({constants})' if constants else ''}"


def _head(x: float, y: float) -> list[tuple[float, float]]:
    return [(x, y), (x - 3.5, y - 7.0), (x + 3.5, y - 7.0)]


def _points(corners: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)


def _width(text: str, size: float) -> float:
    shown, file = legible(text)
    return font(file, 4 * size).getlength(shown) / 4 if text else 0.0
