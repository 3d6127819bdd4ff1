"""A model as an ONNX file: its graph and none of its weights."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import onnx
import torch

from numb.capture.dummy import Call
from numb.capture.trace import Flat, flat_inputs


def by_trace(model: torch.nn.Module, call: Call) -> bytes:
    """Export with the TorchScript exporter, which takes a tenth of a second. Raises whatever it raises."""
    with io.BytesIO() as file, _no_log():
        torch.onnx.export(
            Flat(model, call),
            flat_inputs(call),
            cast(Any, file),  # typed as a path, and documented as a file too
            dynamo=False,
            export_params=False,
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,  # the flags are set already; it would set them again
        )
        return _bare(onnx.load_model_from_string(file.getvalue()))


@contextmanager
def _no_log() -> Iterator[None]:
    """Keep the exporter's log to itself: torch 2.13 switches it on whatever one says, and writes past `sys.stdout`."""
    core: Any = torch._C
    log = getattr(core, "_jit_onnx_log", None)
    core._jit_onnx_log = lambda *_: None
    try:
        yield
    finally:
        core._jit_onnx_log = log


def by_export(model: torch.nn.Module, call: Call) -> bytes:
    """Export with torch's default exporter, which takes seconds and more kinds of models. Raises whatever it raises."""
    program = torch.onnx.export(Flat(model, call), flat_inputs(call), dynamo=True, verbose=False)
    if program is None:
        raise RuntimeError("the exporter returned nothing")
    return _bare(program.model_proto)


def _bare(file: onnx.ModelProto) -> bytes:
    """Take out the weights, which become inputs of the graph, and every note about source files."""
    graph = file.graph
    known = {each.name for each in graph.input}
    for weight in graph.initializer:
        if weight.name not in known:
            graph.input.append(onnx.helper.make_tensor_value_info(weight.name, weight.data_type, list(weight.dims)))
    del graph.initializer[:]
    for node in graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
        node.input[:] = [name.removeprefix("model.") for name in node.input]
    for each in graph.input:
        each.name = each.name.removeprefix("model.")
    serialized: bytes = file.SerializeToString()
    return serialized
