"""No two boxes overlap, no edge crosses a box, and what is drawn is the graph."""

import io
import itertools
import xml.etree.ElementTree as ElementTree

import pytest
from PIL import Image

from gradopt.pictures import drawn_graph
from gradopt.pictures.graph import Node
from tests.pictures.objectives import OBJECTIVES, nodes


def ladder():
    """Each node is used by all that come after it: nothing but long edges."""
    return [
        Node(f"n{index}", "operation" if index else "unknown", "Add", f"node {index}", tuple(range(index)))
        for index in range(12)
    ]


def graphs():
    yield from ((name, lambda name=name: nodes(name)) for name in OBJECTIVES)
    yield "ladder", ladder


@pytest.fixture(params=[made for _, made in graphs()], ids=[name for name, _ in graphs()])
def drawn(request):
    found = request.param()
    return found, drawn_graph.laid_out(found)


def sides(box):
    return box.x - box.width / 2, box.y - box.height / 2, box.x + box.width / 2, box.y + box.height / 2


def crosses(box, start, end):
    """Whether a line runs through the inside of a box: clipped to it (Liang and Barsky) something is left."""
    left, top, right, bottom = sides(box)
    low, high = 0.0, 1.0
    for from_, to, least, most in ((start[0], end[0], left, right), (start[1], end[1], top, bottom)):
        least, most = least + 1e-6, most - 1e-6
        if from_ == to:
            if not least < from_ < most:
                return False
            continue
        near, far = sorted(((least - from_) / (to - from_), (most - from_) / (to - from_)))
        low, high = max(low, near), min(high, far)
    return low < high


def test_boxes_do_not_overlap(drawn):
    _, layout = drawn

    for one, other in itertools.combinations(layout.boxes, 2):
        (left, top, right, bottom), (left2, top2, right2, bottom2) = sides(one), sides(other)
        assert right <= left2 or right2 <= left or bottom <= top2 or bottom2 <= top


def test_edges_cross_no_box(drawn):
    _, layout = drawn

    for start, end, corners in layout.edges:
        for one, other in itertools.pairwise(corners):
            assert not [box for box in layout.boxes if crosses(box, one, other)], (start, end)


def test_edges_are_those_of_the_graph_and_run_downwards_from_box_to_box(drawn):
    found, layout = drawn

    assert {(start, end) for start, end, _ in layout.edges} == {
        (one, place) for place, node in enumerate(found) for one in node.inputs
    }
    for start, end, corners in layout.edges:
        first, last = sides(layout.boxes[start]), sides(layout.boxes[end])
        assert corners[0][1] == pytest.approx(first[3])
        assert first[0] <= corners[0][0] <= first[2]
        assert corners[-1][1] == pytest.approx(last[1])
        assert last[0] <= corners[-1][0] <= last[2]
        assert all(one[1] <= other[1] for one, other in itertools.pairwise(corners))


def test_all_is_inside_the_picture(drawn):
    _, layout = drawn

    for left, top, right, bottom in map(sides, layout.boxes):
        assert left >= 0 and top >= 0 and right <= layout.width and bottom <= layout.height
    for _, _, corners in layout.edges:
        assert all(0 <= x <= layout.width for x, _ in corners)


def test_the_svg_is_xml_with_every_label_and_the_png_shows_unknowns_and_loss(drawn):
    found, layout = drawn

    text = drawn_graph.svg(found, layout, 'a < b & "c"')
    picture = Image.open(io.BytesIO(drawn_graph.png(found, layout))).convert("RGB")

    root = ElementTree.fromstring(text)
    space = {"svg": "http://www.w3.org/2000/svg"}
    written = [one.text for one in root.findall(".//svg:g/svg:text", space)]
    assert root.find("svg:title", space).text == 'a < b & "c"'
    assert {node.label for node in found} <= set(written)
    assert len(root.findall(".//svg:g", space)) == len(found)
    colours = {colour for _, colour in picture.getcolors(1_000_000)}
    kinds = {node.kind for node in found}
    assert {tuple(bytes.fromhex(drawn_graph.FILLS[kind][1:])) for kind in kinds} <= colours
    assert picture.width == pytest.approx(1.5 * layout.width, abs=2)
