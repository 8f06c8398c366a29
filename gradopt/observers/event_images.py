"""A graph and images as event files of their own, beside those of the scalars.

TensorBoard's older loader reads the files of a directory one after another and never goes back to an earlier one. So
the graph is in a file whose name comes first, and the images are in one that is written when the run has ended.
"""

# The protocol buffers make their classes when they are imported: the type checker cannot see them.
# pyright: reportAttributeAccessIssue=false

import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboard.compat.proto import (
    event_pb2,
    graph_pb2,
    node_def_pb2,
    summary_pb2,
    tensor_pb2,
    tensor_shape_pb2,
    types_pb2,
    versions_pb2,
)

from gradopt.observers.event_file import EventFile
from gradopt.pictures.graph import Node

PRODUCER = 22
"""The version of graphs that TensorBoard reads since its beginning."""

_Dim = tensor_shape_pb2.TensorShapeProto.Dim


def write_graph(directory: Path, nodes: Sequence[Node]) -> None:
    """Write the graph of a loss, for the tab Graphs."""
    graph = graph_pb2.GraphDef(versions=versions_pb2.VersionDef(producer=PRODUCER))
    for node in nodes:
        names = list(dict.fromkeys(nodes[one].name for one in node.inputs))
        definition = node_def_pb2.NodeDef(name=node.name, op=node.operation, input=names)
        for name, value in {"label": node.label, **node.constants}.items():
            definition.attr[name].s = value.encode()
        if node.shape is not None:
            shape = tensor_shape_pb2.TensorShapeProto(dim=[_Dim(size=size) for size in node.shape])
            definition.attr["_output_shapes"].list.shape.append(shape)
        graph.node.append(definition)
    with EventFile(directory, step=None, order="0.") as file:
        file.put(event_pb2.Event(wall_time=time.time(), graph_def=graph.SerializeToString()))


def write_images(directory: Path, images: Mapping[str, bytes], step: int) -> None:
    """Write PNG files by tag, for the tab Images."""
    # Not as a session of its own, which would take from the other files what they hold of later steps.
    with EventFile(directory, step=None) as file:
        file.write([_image(tag, content) for tag, content in images.items()], step=step)


def _image(tag: str, png: bytes) -> Any:
    width, height = struct.unpack(">II", png[16:24])
    tensor = tensor_pb2.TensorProto(
        dtype=types_pb2.DT_STRING,
        string_val=[str(width).encode(), str(height).encode(), png],
        tensor_shape=tensor_shape_pb2.TensorShapeProto(dim=[_Dim(size=3)]),
    )
    plugin = summary_pb2.SummaryMetadata.PluginData(plugin_name="images")
    metadata = summary_pb2.SummaryMetadata(plugin_data=plugin, data_class=summary_pb2.DATA_CLASS_BLOB_SEQUENCE)
    return summary_pb2.Summary.Value(tag=tag, tensor=tensor, metadata=metadata)
