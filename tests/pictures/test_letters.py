"""Names in any script: drawn by a font that has them, and never as boxes."""

import pytest
import torch
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from gradopt.pictures import drawn_graph, letters
from gradopt.pictures.graph import Node
from gradopt.pictures.landscape import Scene, landscape
from gradopt.pictures.letters import DEJAVU, OWN, legible


@pytest.fixture
def no_fonts(tmp_path, monkeypatch):
    """A machine on which no fonts are installed; returns where they would be."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path))
    letters._found.cache_clear()
    (tmp_path / "fonts").mkdir()
    yield tmp_path / "fonts"
    letters._found.cache_clear()


@pytest.fixture
def chinese(no_fonts):
    """The same with a font that has two letters, and these look like bars."""

    def bar(width):
        pen = TTGlyphPen(None)
        pen.moveTo((0, 0))
        for corner in ((0, 800), (width, 800), (width, 0)):
            pen.lineTo(corner)
        pen.closePath()
        return pen.glyph()

    names = {".notdef": bar(900), "one": bar(200), "two": bar(600)}
    made = FontBuilder(1000, isTTF=True)
    made.setupGlyphOrder(list(names))
    made.setupCharacterMap({ord("质"): "one", ord("量"): "two"})
    made.setupGlyf(names)
    made.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    made.setupHorizontalHeader(ascent=800, descent=-200)
    made.setupNameTable({"familyName": "Bars", "styleName": "Regular"})
    made.setupOS2()
    made.setupPost()
    file = no_fonts / "wqy-zenhei.ttc"
    made.save(file)
    return file


def test_a_plain_name_keeps_the_own_font():
    assert legible("layers.0.weight") == ("layers.0.weight", OWN)


def test_letters_that_no_font_has_are_escaped(no_fonts):
    assert legible("质 x")[0] == r"\u8d28 x"
    assert legible("a\tb")[0] == r"a\tb"


def test_greek_comes_with_matplotlib(no_fonts):
    shown, file = legible("λ é ∂")

    assert shown == "λ é ∂"
    assert file.endswith(DEJAVU)


def test_an_installed_font_is_found_by_its_letters(chinese):
    assert legible("质量") == ("质量", str(chinese))
    assert legible("质") == ("质", str(chinese))
    assert legible("λλλ质")[0] == r"λλλ\u8d28"  # one font writes a text: the one with the most


def graph_of(name):
    nodes = [Node(name, "unknown", "Variable", name), Node("loss", "output", "Output", "loss", (0,), {}, ())]
    drawing = drawn_graph.laid_out(nodes)
    return drawing, drawn_graph.png(nodes, drawing), drawn_graph.svg(nodes, drawing, "f")


def test_a_graph_shows_no_boxes_and_keeps_the_text(no_fonts):
    drawing, png, svg = graph_of("质量")

    assert png == graph_of(r"\u8d28\u91cf")[1]
    assert ">质量</text>" in svg
    line = next(line for line in svg.splitlines() if "质量</text>" in line)
    assert "textLength" not in line  # measured are other letters
    assert drawing.boxes[0].width > 80
    assert "textLength" in next(line for line in graph_of("x")[2].splitlines() if "x</text>" in line)


def test_a_graph_is_drawn_with_the_font_that_was_found(chinese):
    assert graph_of("质质")[1] != graph_of("量量")[1]
    assert "textLength" in next(line for line in graph_of("质")[2].splitlines() if "质</text>" in line)


def test_charts_do_the_same(chinese):
    def drawn(name):
        points = torch.zeros(2, 2, dtype=torch.float64)
        scene = Scene(lambda at: at.square().sum(1), points, points[0] + 1, None, ["x", name], name)
        return landscape(scene, 1.0)

    assert drawn("质") != drawn("量")  # and matplotlib warns of no letter: warnings are errors here
    assert drawn("한") == drawn(r"\ud55c")
