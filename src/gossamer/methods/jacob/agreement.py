"""Agreement: how far the integers of this engine are from those of ONNX Runtime, layer by layer and end to end.

    layer by layer   every layer reads the integers that ONNX Runtime made before it: only its own arithmetic differs
    end to end       every layer reads what this engine made before it: differences add up and spread

Every QuantizeLinear is made an output of the graph; ONNX Runtime still runs its integer kernels where activations are
uint8 (with int8 it leaves the layers in float). Needs the packages onnx and onnxruntime.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from .fixed_point import Rounding
from .network import IntegerNetwork
from .operators import Array


@dataclass(frozen=True)
class Agreement:
    """Of `count` integers, the fraction that is equal and that differs by at most one; the largest difference."""

    name: str
    op: str
    count: int
    equal: float
    within_one: float
    largest: int

    @classmethod
    def of(cls, name: str, op: str, ours: Array, theirs: Array) -> Agreement:
        apart = np.abs(ours.astype(np.int64) - theirs.astype(np.int64))
        return cls(
            name, op, apart.size, float((apart == 0).mean()), float((apart <= 1).mean()), int(apart.max())
        )

    @classmethod
    def over(cls, rows: Iterable[Agreement], name: str, op: str = "all") -> Agreement:
        """All rows as one: the layers of a network, or one layer on several batches."""
        rows = list(rows)
        count = sum(row.count for row in rows)
        equal, close = (
            sum(getattr(row, kind) * row.count for row in rows) / count for kind in ("equal", "within_one")
        )
        return cls(name, op, count, equal, close, max(row.largest for row in rows))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Engine:
    """What ONNX Runtime made: integers by tensor name, results by name, and the kernels it ran, counted."""

    codes: dict[str, Array]
    outputs: dict[str, Array]
    kernels: dict[str, int]


def run_engine(model: bytes, inputs: Mapping[str, Array], *, fused: bool = True) -> Engine:
    """Run the graph in ONNX Runtime on one thread; fused=False takes every operator as it stands, in float."""
    import onnx
    import onnxruntime

    exposed, network = onnx.load_from_string(model), IntegerNetwork(model)
    rounded = [node for node in network.nodes if node.op == "QuantizeLinear"]
    for node in rounded:
        zero = network.constants[node.inputs[2]] if len(node.inputs) > 2 else np.zeros((), np.uint8)
        assert isinstance(zero, np.ndarray)
        kind = onnx.helper.np_dtype_to_tensor_dtype(zero.dtype)
        exposed.graph.output.append(onnx.helper.make_tensor_value_info(node.outputs[0], kind, None))
    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # the optimized graph is saved for a look only, not to be run elsewhere
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if fused else levels.ORT_DISABLE_ALL
    with TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        session = onnxruntime.InferenceSession(
            exposed.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        optimized = onnx.load(options.optimized_model_filepath)
    results = session.run(None, dict(inputs))
    names = network.outputs
    codes = {node.outputs[0]: made for node, made in zip(rounded, results[len(names) :], strict=True)}
    kernels = dict(Counter(node.op_type for node in optimized.graph.node).most_common())
    return Engine(codes, dict(zip(names, results, strict=False)), kernels)


def layer_by_layer(
    network: IntegerNetwork,
    inputs: Mapping[str, Array],
    codes: Mapping[str, Array],
    *,
    rounding: Rounding = "double",
) -> list[Agreement]:
    """Each layer on the given integers of another engine."""
    return compare(network, network.run(inputs, given=codes, rounding=rounding).codes, codes)


def end_to_end(
    network: IntegerNetwork,
    inputs: Mapping[str, Array],
    codes: Mapping[str, Array],
    *,
    rounding: Rounding = "double",
) -> list[Agreement]:
    """Each layer on the integers that this engine made itself."""
    return compare(network, network.run(inputs, rounding=rounding).codes, codes)


def compare(
    network: IntegerNetwork, ours: Mapping[str, Array], theirs: Mapping[str, Array]
) -> list[Agreement]:
    """Row by row, in the order of the graph; `op` is the operator whose result is rounded."""
    made_by = {node.outputs[0]: node for node in network.nodes}
    rows = []
    for name, codes in ours.items():
        source = made_by[name].inputs[0]
        op = made_by[source].op if source in made_by else "input"
        rows.append(Agreement.of(name, op, codes, theirs[name]))
    return rows
