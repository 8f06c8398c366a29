"""Where the boxes and edges of a graph lie, so that no edge crosses a box.

The method is that of Sugiyama, Tagawa and Toda, IEEE Trans. Systems, Man, and Cybernetics 11 (1981) 109: the nodes lie
in layers, inputs above what is computed from them. An edge over several layers gets a place of its own in each layer it
passes, between the boxes; all edges from one node share these places.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from gradopt.pictures.graph import Node

SWEEPS = 12
"""Passes over the layers, half of them downwards, in which the order is improved."""

SETTLING = 10
"""Passes in which the boxes then move towards what they are joined to."""

BOX_GAP = 26.0
LANE_GAP = 16.0
"""Between a box and its neighbour, and between an edge that passes and its neighbour."""

LANE_WEIGHT = 4.0
"""How much more a bend in an edge that passes counts than a box that is not below its inputs."""

LAYER_GAP = 40.0
STUB = 8.0
"""The straight piece at the end of an edge, for its head."""

MARGIN = 12.0


@dataclass(frozen=True, slots=True)
class Box:
    """Where a node lies: its centre, and its whole width and height, in pixels from the top left."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Layout:
    """A drawing.

    Attributes:
        boxes: Of the nodes, in their order.
        edges: (from, to, corners) of each pair of nodes that are joined, the corners from top to bottom.
    """

    boxes: Sequence[Box]
    edges: Sequence[tuple[int, int, Sequence[tuple[float, float]]]]
    width: float
    height: float


@dataclass(slots=True)
class _Place:
    """A node, or the place in a layer where the edges of a node pass."""

    node: int
    layer: int
    width: float
    height: float
    is_box: bool
    x: float = 0.0


def layout(nodes: Sequence[Node], measure: Callable[[Node], tuple[float, float]]) -> Layout:
    """Lay a graph out.

    Args:
        nodes: Each behind its inputs.
        measure: Width and height of a node's box.
    """
    layers_of = _layers(nodes)
    places, chains = _places(nodes, layers_of, measure)
    joined = _joined(nodes, layers_of, chains)
    layers: list[list[int]] = [[] for _ in range(max(layers_of) + 1)]
    for place, one in enumerate(places):
        layers[one.layer].append(place)
    _order(layers, joined)
    _settle(layers, places, joined)
    return _drawing(nodes, places, layers, chains, layers_of)


def _layers(nodes: Sequence[Node]) -> list[int]:
    """Each below all its inputs; an unknown right above the first that uses it."""
    layer = [0] * len(nodes)
    for place, node in enumerate(nodes):
        layer[place] = 1 + max((layer[one] for one in node.inputs), default=-1)
    first = [len(nodes)] * len(nodes)
    for place, node in enumerate(nodes):
        for one in node.inputs:
            first[one] = min(first[one], layer[place])
    return [first[p] - 1 if not node.inputs and node.kind == "unknown" else layer[p] for p, node in enumerate(nodes)]


def _places(
    nodes: Sequence[Node], layer: Sequence[int], measure: Callable[[Node], tuple[float, float]]
) -> tuple[list[_Place], list[dict[int, int]]]:
    """All places, those of the nodes first; and of each node where it is found in each layer it is seen in."""
    places = [_Place(p, layer[p], *measure(node), is_box=True) for p, node in enumerate(nodes)]
    chains = [{layer[place]: place} for place in range(len(nodes))]
    for place, node in enumerate(nodes):
        for one in node.inputs:
            for passed in range(layer[one] + 1, layer[place]):
                if passed not in chains[one]:
                    chains[one][passed] = len(places)
                    places.append(_Place(one, passed, 0.0, 0.0, is_box=False))
    return places, chains


def _joined(nodes: Sequence[Node], layer: Sequence[int], chains: Sequence[Mapping[int, int]]) -> list[tuple[int, int]]:
    """Pairs of places in neighbouring layers, upper first."""
    found = dict[tuple[int, int], None]()
    for one, chain in enumerate(chains):
        for passed, place in chain.items():
            if passed > layer[one]:
                found[chain[passed - 1], place] = None
    for place, node in enumerate(nodes):
        for one in node.inputs:
            found[chains[one][layer[place] - 1], place] = None
    return list(found)


def _order(layers: list[list[int]], joined: Sequence[tuple[int, int]]) -> None:
    """Sort each layer by the mean position of its neighbours in the layer before, up and down in turn; keep the order
    with the fewest crossings.
    """
    above, below = _neighbours(joined)
    best, fewest = [list(layer) for layer in layers], _crossings(layers, below)
    for sweep in range(SWEEPS):
        if fewest == 0:
            break
        down = sweep % 2 == 0
        for layer in layers[1:] if down else reversed(layers[:-1]):
            _sort(layer, layers, above if down else below)
        crossings = _crossings(layers, below)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in layers], crossings
    layers[:] = best


def _sort(layer: list[int], layers: Sequence[Sequence[int]], towards: Mapping[int, Sequence[int]]) -> None:
    position = {place: index for row in layers for index, place in enumerate(row)}
    own = {place: index for index, place in enumerate(layer)}

    def mean(place: int) -> float:
        near = towards.get(place, ())
        return sum(position[one] for one in near) / len(near) if near else float(own[place])

    layer.sort(key=mean)


def _neighbours(joined: Sequence[tuple[int, int]]) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    above: dict[int, list[int]] = {}
    below: dict[int, list[int]] = {}
    for upper, lower in joined:
        above.setdefault(lower, []).append(upper)
        below.setdefault(upper, []).append(lower)
    return above, below


def _crossings(layers: Sequence[Sequence[int]], below: Mapping[int, Sequence[int]]) -> int:
    number = 0
    for upper, lower in pairwise(layers):
        position = {place: index for index, place in enumerate(lower)}
        ends: list[int] = []
        for place in upper:
            mine = sorted(position[one] for one in below.get(place, ()))
            number += sum(1 for end in ends for one in mine if end > one)
            ends += mine
    return number


def _settle(layers: Sequence[Sequence[int]], places: Sequence[_Place], joined: Sequence[tuple[int, int]]) -> None:
    """Give each place an x: as near to its neighbours' as the order of its layer and the widths allow."""
    above, below = _neighbours(joined)
    for layer in layers:
        _spread(layer, places, [0.0] * len(layer))
    for sweep in range(SETTLING):
        last = sweep == SETTLING - 1
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            wanted: list[float] = []
            for place in layer:
                near = [*above.get(place, ()), *below.get(place, ())]
                lanes = [one for one in near if not places[one].is_box]
                if not places[place].is_box and lanes:  # an edge that passes goes straight on
                    near = lanes
                elif not last:
                    near = (above if sweep % 2 == 0 else below).get(place, [])
                wanted.append(sum(places[one].x for one in near) / len(near) if near else places[place].x)
            _spread(layer, places, wanted)


def _spread(layer: Sequence[int], places: Sequence[_Place], wanted: Sequence[float]) -> None:
    """The x of a layer nearest to those wanted, in the sum of squares, with room between neighbours: the places are
    pooled where they would come too near (isotonic regression).
    """
    offsets = [0.0]
    for left, right in pairwise(layer):
        one, other = places[left], places[right]
        gap = BOX_GAP if one.is_box and other.is_box else LANE_GAP
        offsets.append(offsets[-1] + (one.width + other.width) / 2 + gap)
    pools: list[tuple[float, float, int]] = []  # (mean, weight, number)
    for place, want, offset in zip(layer, wanted, offsets, strict=True):
        pools.append((want - offset, 1.0 if places[place].is_box else LANE_WEIGHT, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (one, weight, number), (other, more, added) = pools[-2:]
            pools[-2:] = [((one * weight + other * more) / (weight + more), weight + more, number + added)]
    shifts = [mean for mean, _, number in pools for _ in range(number)]
    for place, shift, offset in zip(layer, shifts, offsets, strict=True):
        places[place].x = shift + offset


def _drawing(
    nodes: Sequence[Node],
    places: Sequence[_Place],
    layers: Sequence[Sequence[int]],
    chains: Sequence[Mapping[int, int]],
    layer_of: Sequence[int],
) -> Layout:
    left = min(one.x - one.width / 2 for one in places) - MARGIN
    tops, heights, top = [], [], MARGIN
    for layer in layers:
        tops.append(top)
        heights.append(max(places[place].height for place in layer))
        top += heights[-1] + LAYER_GAP
    for one in places:
        one.x -= left
    boxes = [
        Box(one.x, tops[one.layer] + heights[one.layer] / 2, one.width, one.height) for one in places[: len(nodes)]
    ]
    edges = []
    for place, node in enumerate(nodes):
        sources = sorted(set(node.inputs), key=lambda one: places[chains[one][layer_of[place] - 1]].x)
        for index, one in enumerate(sources):
            box, first = boxes[place], boxes[one]
            corners = [(first.x, first.y + first.height / 2)]
            corners.append((first.x, tops[layer_of[one]] + heights[layer_of[one]]))  # out of the layer before it turns
            for passed in range(layer_of[one] + 1, layer_of[place]):
                x = places[chains[one][passed]].x
                corners += [(x, tops[passed]), (x, tops[passed] + heights[passed])]
            port = box.x + (index - (len(sources) - 1) / 2) * min(18.0, box.width / (len(sources) + 1))
            corners += [(port, tops[layer_of[place]] - STUB), (port, box.y - box.height / 2)]
            edges.append((one, place, corners))
    return Layout(boxes, edges, max(one.x + one.width / 2 for one in places) + MARGIN, top - LAYER_GAP + MARGIN)
