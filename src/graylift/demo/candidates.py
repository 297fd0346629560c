"""Candidates as an honest engineer would build them, two of them with a mistake.

Graph surgery on ONNX values, no files and no runtime. Called by the scenarios, at prepare time, on models whose
digests were checked.
"""

from __future__ import annotations

import onnx
from onnx import helper, numpy_helper

from graylift.errors import GrayliftError


def with_table_lookup(model: onnx.ModelProto, rows: int | None = None) -> onnx.ModelProto:
    """Replace a one-hot encoding times an embedding table by a lookup in the table: equal answers, less work.

    rows: how many rows of the table to keep; None keeps all. 256 is the mistake of the demo: "a byte has 256 values"
          forgets the padding token, whose row is the 257th, so every input that needs padding fails at run time.

    Exporters write the encoding as Equal(tokens, 0..n-1), Cast, MatMul(table). GrayliftError if that is not there.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    tables = {tensor.name: tensor for tensor in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}

    for product in graph.node:
        cast = makers.get(product.input[0]) if product.op_type == "MatMul" else None
        equal = makers.get(cast.input[0]) if cast is not None and cast.op_type == "Cast" else None
        if equal is not None and equal.op_type == "Equal" and product.input[1] in tables:
            break
    else:
        raise GrayliftError(
            "the model has no one-hot encoding before a MatMul; there is nothing to replace by a lookup"
        )

    table = tables[product.input[1]]
    kept = numpy_helper.to_array(table)[:rows]
    table.CopyFrom(numpy_helper.from_array(kept.copy(), table.name))
    lookup = helper.make_node("Gather", [table.name, graph.input[0].name], list(product.output), name="table_lookup")
    product.CopyFrom(lookup)
    _drop_unused(graph)
    return changed


def padded_to_batch(model: onnx.ModelProto, size: int) -> onnx.ModelProto:
    """Run every request `size` times over and keep the first answer: equal answers, `size` times the work.

    The mistake is a real habit: an export traced with a fixed batch, and an adapter around it that fills the batch up
    by repeating the request. Nothing fails; it is only slow.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    served_in, served_out = graph.input[0].name, graph.output[0].name
    inner_in, inner_out = f"{served_in}/filled", f"{served_out}/filled"
    for node in graph.node:
        for names, old, new in ((node.input, served_in, inner_in), (node.output, served_out, inner_out)):
            renamed = [new if name == old else name for name in names]
            del names[:]
            names.extend(renamed)
    graph.initializer.extend(
        helper.make_tensor(name, onnx.TensorProto.INT64, (1,), (value,))
        for name, value in (("fill/zero", 0), ("fill/one", 1))
    )
    before = [
        helper.make_node("Concat", [served_in] * size, [inner_in], name="fill_batch", axis=0),
        helper.make_node("Shape", [served_in], ["fill/shape"], name="fill_shape"),
        helper.make_node("Slice", ["fill/shape", "fill/zero", "fill/one"], ["fill/count"], name="fill_count"),
    ]
    for node in reversed(before):
        graph.node.insert(0, node)
    graph.node.append(
        helper.make_node("Slice", [inner_out, "fill/zero", "fill/count", "fill/zero"], [served_out], name="keep_first")
    )
    return changed


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and constants that nothing leads to any more, to the last."""
    while True:
        used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
        idle = [node for node in graph.node if used.isdisjoint(node.output)]
        for node in idle:
            graph.node.remove(node)
        if not idle:
            break
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
