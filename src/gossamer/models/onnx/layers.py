"""layers: nodes with constant weights as torch modules, so that steps find their layers.

    Conv, ConvTranspose   nn.Conv1d ... nn.ConvTranspose3d; uneven padding goes before, cutting behind
    MatMul, Gemm          nn.Linear, when the second factor is a constant matrix
    Gather                nn.Embedding, when a constant matrix is picked from by row
    BatchNormalization, InstanceNormalization, LayerNormalization, GroupNormalization, PRelu      their namesakes

Each function is named after its operator and returns a Layer, or None where the node stays a function. Modules are
made without storage and get the file's own tensors. Matrices and kernels that two layers share are one Parameter;
vectors are copied, because exporters merge equal ones (biases of zeros) that have nothing to do with each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

from .graph import Constant, Graph, Node
from .operators import windows

META: dict[str, Any] = {"device": "meta"}  # no storage: the file brings the weights
_CONVS: tuple[Any, ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED: tuple[Any, ...] = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_BATCH_NORMS: tuple[Any, ...] = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_INSTANCE_NORMS: tuple[Any, ...] = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


@dataclass(frozen=True)
class Layer:
    """A module, the values it reads, and what is done to its input before and to its output behind."""

    module: nn.Module
    inputs: tuple[str, ...]
    weight: str
    bias: str = ""
    before: Callable[..., Tensor] | None = None
    after: Callable[..., Tensor] | None = None


@dataclass
class Weights:
    """The parameters made so far: tied weights are found again by where they come from."""

    graph: Graph
    made: dict[tuple[str, bool], nn.Parameter] = field(default_factory=dict)

    def constant(self, node: Node, at: int) -> Constant | None:
        """The constant that a node reads as input `at`, in floats."""
        value = node.inputs[at] if at < len(node.inputs) else ""
        found = self.graph.constants.get(value)
        return found if found is not None and found.tensor.is_floating_point() else None

    def matrix(self, constant: Constant, *, transposed: bool = False, factor: float = 1.0) -> nn.Parameter:
        """A weight of two or more axes, transposed and multiplied if wanted; the same one for the same source."""
        key = constant.source if factor == 1 else None
        if key is not None and transposed:
            key = key[0], not key[1]
        if key is not None and key in self.made:
            return self.made[key]
        tensor = constant.tensor.T if transposed else constant.tensor
        parameter = nn.Parameter((tensor if factor == 1 else tensor * factor).contiguous())
        if key is not None:
            self.made[key] = parameter
        return parameter

    def vector(self, tensor: Tensor) -> nn.Parameter:
        return nn.Parameter(tensor.clone())


def Conv(node: Node, weights: Weights) -> Layer | None:
    weight, bias = weights.constant(node, 1), weights.constant(node, 2)
    if weight is None or not 3 <= weight.tensor.ndim <= 5 or not _bias_is_known(node, bias):
        return None
    bias = None if _is_filler(bias) else bias
    kernel, given = tuple(weight.tensor.shape[2:]), node.attributes
    count, group = len(kernel), given.get("group", 1)
    strides, dilations = given.get("strides") or (1,) * count, given.get("dilations") or (1,) * count
    pads, auto = given.get("pads") or (0,) * 2 * count, given.get("auto_pad", "NOTSET")
    even = auto in ("NOTSET", "VALID") and pads[:count] == pads[count:]
    module = _CONVS[count - 1](
        weight.tensor.shape[1] * group,
        weight.tensor.shape[0],
        kernel,
        strides,
        pads[:count] if even and auto == "NOTSET" else 0,
        dilations,
        group,
        bias is not None,
        **META,
    )
    _fill(module, weights, weight, bias)
    before = None
    if not even:
        before = partial(
            windows.padded, kernel=kernel, strides=strides, dilations=dilations, pads=pads, auto_pad=auto
        )
    return Layer(module, node.inputs[:1], weight.label, _label(bias), before)


def ConvTranspose(node: Node, weights: Weights) -> Layer | None:
    weight, bias = weights.constant(node, 1), weights.constant(node, 2)
    if weight is None or not 3 <= weight.tensor.ndim <= 5 or not _bias_is_known(node, bias):
        return None
    bias = None if _is_filler(bias) else bias
    kernel, given = tuple(weight.tensor.shape[2:]), node.attributes
    count, group = len(kernel), given.get("group", 1)
    strides, dilations = given.get("strides") or (1,) * count, given.get("dilations") or (1,) * count
    pads, extra = given.get("pads") or (0,) * 2 * count, given.get("output_padding") or (0,) * count
    auto, shape = given.get("auto_pad", "NOTSET"), given.get("output_shape") or ()
    plain = auto in ("NOTSET", "VALID") and not shape and pads[:count] == pads[count:]
    module = _TRANSPOSED[count - 1](
        weight.tensor.shape[0],
        weight.tensor.shape[1] * group,
        kernel,
        strides,
        pads[:count] if plain and auto == "NOTSET" else 0,
        extra,
        group,
        bias is not None,
        dilations,
        **META,
    )
    _fill(module, weights, weight, bias)
    after = None
    if not plain:
        after = partial(windows.cut, strides=strides, pads=pads, output_shape=shape, auto_pad=auto)
    return Layer(module, node.inputs[:1], weight.label, _label(bias), None, after)


def MatMul(node: Node, weights: Weights) -> Layer | None:
    """x W (+ bias, where an Add was fused)."""
    weight, bias = weights.constant(node, 1), weights.constant(node, 2)
    if weight is None or weight.tensor.ndim != 2:
        return None
    inner, outer = weight.tensor.shape
    module = nn.Linear(inner, outer, bias=bias is not None, **META)
    module.weight = weights.matrix(weight, transposed=True)
    if bias is not None:
        module.bias = weights.vector(bias.tensor)
    return Layer(module, node.inputs[:1], weight.label, _label(bias))


def Gemm(node: Node, weights: Weights) -> Layer | None:
    """alpha A B + beta C; the constants take alpha and beta in."""
    weight, bias, given = weights.constant(node, 1), weights.constant(node, 2), node.attributes
    if weight is None or weight.tensor.ndim != 2 or given.get("transA") or not _bias_is_known(node, bias):
        return None
    stored = bool(given.get("transB"))
    inner, outer = weight.tensor.shape[::-1] if stored else weight.tensor.shape
    if bias is not None and bias.tensor.numel() != outer and bias.tensor.numel() != 1:
        return None  # one bias for each sample
    module = nn.Linear(inner, outer, bias=bias is not None, **META)
    module.weight = weights.matrix(weight, transposed=not stored, factor=given.get("alpha", 1.0))
    if bias is not None:
        vector = bias.tensor.reshape(-1).expand(outer) * given.get("beta", 1.0)
        module.bias = weights.vector(vector)
    return Layer(module, node.inputs[:1], weight.label, _label(bias))


def Gather(node: Node, weights: Weights) -> Layer | None:
    """Rows of a table; negative rows are not looked for."""
    table = weights.constant(node, 0)
    if table is None or table.tensor.ndim != 2 or node.attributes.get("axis", 0) not in (0, -2):
        return None
    if not table.weight:
        return None
    rows, width = table.tensor.shape
    module = nn.Embedding(rows, width, **META)
    module.weight = weights.matrix(table)
    return Layer(module, node.inputs[1:2], table.label)


def BatchNormalization(node: Node, weights: Weights) -> Layer | None:
    given = [weights.constant(node, at) for at in range(1, 5)]
    scale, bias, mean, variance = given
    rank = weights.graph.rank(node.inputs[0])
    if scale is None or bias is None or mean is None or variance is None or not 2 <= rank <= 5:
        return None
    module = _BATCH_NORMS[max(rank - 3, 0)](
        scale.tensor.numel(),
        node.attributes.get("epsilon", 1e-5),
        1 - node.attributes.get("momentum", 0.9),
        **META,
    )
    module.weight, module.bias = weights.vector(scale.tensor), weights.vector(bias.tensor)
    module.running_mean, module.running_var = mean.tensor.clone(), variance.tensor.clone()
    module.num_batches_tracked = module.num_batches_tracked.new_zeros((), device="cpu")
    return Layer(module, node.inputs[:1], scale.label, bias.label)


def InstanceNormalization(node: Node, weights: Weights) -> Layer | None:
    scale, bias = weights.constant(node, 1), weights.constant(node, 2)
    rank = weights.graph.rank(node.inputs[0])
    if scale is None or bias is None or not 3 <= rank <= 5:
        return None
    module = _INSTANCE_NORMS[rank - 3](
        scale.tensor.numel(), node.attributes.get("epsilon", 1e-5), affine=True, **META
    )
    module.weight, module.bias = weights.vector(scale.tensor), weights.vector(bias.tensor)
    return Layer(module, node.inputs[:1], scale.label, bias.label)


def LayerNormalization(node: Node, weights: Weights) -> Layer | None:
    scale, bias = weights.constant(node, 1), weights.constant(node, 2)
    axis, rank = node.attributes.get("axis", -1), weights.graph.rank(node.inputs[0])
    if scale is None or not _bias_is_known(node, bias) or len([out for out in node.outputs if out]) > 1:
        return None
    count = -axis if axis < 0 else rank - axis
    shape = tuple(scale.tensor.shape)
    if count != len(shape) or (bias is not None and tuple(bias.tensor.shape) != shape):
        return None
    module = nn.LayerNorm(shape, node.attributes.get("epsilon", 1e-5), bias=bias is not None, **META)
    module.weight = weights.vector(scale.tensor)
    if bias is not None:
        module.bias = weights.vector(bias.tensor)
    return Layer(module, node.inputs[:1], scale.label, _label(bias))


def GroupNormalization(node: Node, weights: Weights) -> Layer | None:
    scale, bias, groups = weights.constant(node, 1), weights.constant(node, 2), node.attributes["num_groups"]
    if scale is None or bias is None:
        return None
    module = nn.GroupNorm(groups, scale.tensor.numel(), node.attributes.get("epsilon", 1e-5), **META)
    module.weight, module.bias = weights.vector(scale.tensor), weights.vector(bias.tensor)
    return Layer(module, node.inputs[:1], scale.label, bias.label)


def PRelu(node: Node, weights: Weights) -> Layer | None:
    """One slope, or one for each channel of axis 1."""
    slope, rank = weights.constant(node, 1), weights.graph.rank(node.inputs[0])
    if slope is None:
        return None
    shape = tuple(slope.tensor.shape)
    by_channel = rank > 1 and len(shape) == rank - 1 and all(size == 1 for size in shape[1:])
    if slope.tensor.numel() != 1 and not by_channel:
        return None
    module = nn.PReLU(slope.tensor.numel(), **META)
    module.weight = weights.vector(slope.tensor.reshape(-1))
    return Layer(module, node.inputs[:1], slope.label)


def _fill(module: Any, weights: Weights, weight: Constant, bias: Constant | None) -> None:
    module.weight = weights.matrix(weight)
    if bias is not None:
        module.bias = weights.vector(bias.tensor)


def _bias_is_known(node: Node, bias: Constant | None) -> bool:
    return bias is not None or len(node.inputs) < 3 or not node.inputs[2]


def _is_filler(bias: Constant | None) -> bool:
    """Whether a bias is zeros that the exporter computed because the operator has a place for one."""
    return bias is not None and bias.source is None and not bool(bias.tensor.any())


def _label(constant: Constant | None) -> str:
    return constant.label if constant is not None else ""
