"""nbits: products with weights of 2, 4 or 8 bits and a scale per group of inputs run as MatMulNBits.

    y[o] = sum_i x[i] scale[o, i // group] code[o, i]      codes: signed, of at most b = 2, 4 or 8 bits

The operator (com.microsoft) keeps the weights packed while it runs and so reads an eighth or a sixteenth of the bytes;
activations stay floats. It wants B: uint8 [O, ceil(I / group), group b / 8], code + 2^(b-1) with the first code in the
lowest bits, the last group filled with zeros.

The file stores the packed bytes: a byte is one symbol of the entropy coder, and 4-bit codes coded by twos cost within
1 % of what they cost one by one, with nothing for a reader to pack.
ONNX Runtime 1.18 knows 4 bits; 1.32 knows 2 and 8 as well. Groups are powers of two, 16 to 256.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from ..artifact import Floats, Stored, layouts
from ..artifact.stored import Field
from . import constants
from .codes import NoCodesError, whole_numbers
from .match import Weight

DOMAIN = "com.microsoft"
GROUPS = (16, 32, 64, 128, 256)
WIDTHS = (2, 4, 8)


def use_nbits(model: ir.Model, found: dict[str, Weight], stored: Mapping[str, Stored]) -> tuple[str, ...]:
    """Rewrite every product with such a weight, in place, with `found` kept up to date; returns notes."""
    notes = []
    for value in [entry.value for entry in found.values()]:
        assert value.name is not None
        entry = found[value.name]
        tree = stored.get(entry.name)
        if entry.stored is not None or tree is None or tree.layout != "uniform" or len(tree.shape) != 2:
            continue
        if "group" not in tree.options:
            continue
        try:
            nodes = [reader for reader, _ in value.uses()]
            for node in nodes:
                _check(node, value, entry)
            _convert(model, found, entry, tree, nodes)
        except NoCodesError as reason:
            notes.append(f"{entry.name} is unpacked to floats when the file is opened: {reason}")
    return tuple(notes)


def pack_codes(codes: np.ndarray, group: int, bits: int) -> np.ndarray:
    """uint8 [O, ceil(I / group), group bits / 8] of signed codes [O, I]."""
    rows, columns = codes.shape
    padded = np.zeros((rows, -(-columns // group) * group), np.int64)
    padded[:, :columns] = codes
    fields = (padded + 2 ** (bits - 1)).reshape(rows, -1, group * bits // 8, 8 // bits)
    shifts = bits * np.arange(8 // bits)
    packed: np.ndarray = (fields << shifts).sum(axis=-1)
    return packed.astype(np.uint8)


def _scale(graph: ir.Graph, found: dict[str, Weight], name: str, field: Field) -> ir.Value:
    """The scales as a new initialiser of float32, stored with as many bits as the format keeps."""
    values = np.asarray(field.values, np.float32).ravel()
    scale = constants.add(graph, name, values)
    kind = field.dtype if isinstance(field, Floats) else "float32"
    kept = Stored("dense", values.shape, {"values": Floats(values, kind)})
    found[scale.name or ""] = Weight(scale, scale.name or "", None, kept)
    return scale


def _check(node: ir.Node, value: ir.Value, entry: Weight) -> None:
    """NoCodesError unless the node is a plain product x W^T of the weight [O, I]."""
    turned = entry.perm == (1, 0)
    plain = all(node.attributes.get_float(name, 1.0) == 1.0 for name in ("alpha", "beta"))
    transposed = bool(node.attributes.get_int("transB"))
    product = node.op_type == "Gemm" and plain and not node.attributes.get_int("transA")
    if node.inputs[0] is value or not (node.op_type == "MatMul" or product):
        raise NoCodesError(f"{node.op_type} reads it in floats")
    if turned == transposed:
        raise NoCodesError("its groups do not run along the inputs")


def _convert(
    model: ir.Model, found: dict[str, Weight], entry: Weight, tree: Stored, nodes: list[ir.Node]
) -> None:
    """Rewrite all products with one weight, or raise before anything is changed."""
    graph, group = model.graph, tree.options["group"]
    if group not in GROUPS:
        raise NoCodesError(f"groups of {group}, but MatMulNBits takes {', '.join(map(str, GROUPS))}")
    integers = Stored("integers", tree.shape, {"codes": tree.fields["codes"]})
    codes = layouts.rebuild(integers).astype(np.int64) - tree.options.get("offset", 0)
    fitting = [
        b for b in WIDTHS if codes.min(initial=0) >= -(2 ** (b - 1)) and codes.max(initial=0) < 2 ** (b - 1)
    ]
    if not fitting:
        raise NoCodesError(f"its codes {codes.min()}..{codes.max()} do not fit 8 bits")
    packed = pack_codes(codes, group, fitting[0])
    name = entry.value.name
    assert name is not None
    for node in nodes:
        node.replace_input_with(1, None)
    del found[name]
    constants.drop(graph, entry.value)
    held = constants.add(graph, name, packed)
    found[held.name or ""] = Weight(held, entry.name, None, whole_numbers(packed))
    scale = _scale(graph, found, f"{name}.scale", tree.fields["scale"])
    rows, columns = tree.shape
    sizes = {"K": columns, "N": rows, "bits": fitting[0], "block_size": group}
    for node in nodes:
        product = ir.node("MatMulNBits", [node.inputs[0], held, scale], sizes, domain=DOMAIN)
        new = [product]
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            new.append(ir.node("Add", [product.outputs[0], node.inputs[2]]))
        for one in new:
            one.outputs[0].shape, one.outputs[0].type = node.outputs[0].shape, node.outputs[0].type
        ir.convenience.replace_nodes_and_values(graph, node, [node], new, node.outputs, new[-1].outputs)
    model.opset_imports[DOMAIN] = 1
