"""Small networks with activation quantizers, and what ONNX Runtime makes of their files."""

from __future__ import annotations

import collections
from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gossamer import formats, runtime
from gossamer.formats import Uniform
from gossamer.quantizers import Grid, Quantizer


class Fixed(Quantizer):
    """A quantizer whose grid is given, or reaches over all that was seen."""

    def __init__(self, grid: Grid | None = None, **options):
        super().__init__(**options)
        self.seen = (0.0, 0.0)
        self.fixed = grid
        self.state = "observe" if grid is None else "quantize"

    def observe(self, x):
        self.seen = (min(self.seen[0], float(x.min())), max(self.seen[1], float(x.max())))

    def settle(self):
        self.fixed = Grid.of_range(*self.seen, bits=self.bits, signed=self.signed)
        self.state = "quantize"

    def quantize(self, x):
        return self.fixed.fake(x)

    def grid(self):
        return self.fixed


class Block(nn.Module):
    """A residual block of ResNet-20 with quantizers; the shortcut slices and pads."""

    def __init__(self, block: nn.Module, **options):
        super().__init__()
        self.conv1, self.conv2, self.stride, self.pad = block.conv1, block.conv2, block.stride, block.pad
        self.inner, self.left, self.sum = (Fixed(**options) for _ in range(3))

    def forward(self, x):
        y = self.left(self.conv2(self.inner(F.relu(self.conv1(x)))))
        if self.pad:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
        return self.sum(F.relu(y + x))


class Residual(nn.Module):
    """ResNet-20, or the first `blocks` of each of its stages, its norms already folded, with quantizers."""

    def __init__(self, net: nn.Module, blocks: int = 3, **options):
        super().__init__()
        chosen = [block for stage in (net.layer1, net.layer2, net.layer3) for block in stage[:blocks]]
        self.conv1, self.linear = net.conv1, net.linear
        self.blocks = nn.Sequential(*(Block(block, **options) for block in chosen))
        self.input, self.first, self.mean = Fixed(), Fixed(**options), Fixed(**options)

    def forward(self, x):
        x = self.first(F.relu(self.conv1(self.input(x))))
        return self.linear(self.mean(self.blocks(x).mean((2, 3))))


class LeNet(nn.Module):
    """The LeNet-5 of Caffe with quantizers behind the poolings."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net
        self.rounds = nn.ModuleList(Fixed() for _ in range(4))

    def forward(self, x):
        q, net = self.rounds, self.net
        x = q[1](F.max_pool2d(net.conv1(q[0](x)), 2))
        x = q[2](F.max_pool2d(net.conv2(x), 2))
        return net.ip2(q[3](F.relu(net.ip1(torch.flatten(x, 1)))))


class Inverted(nn.Module):
    """An inverted residual with ReLU6, as MobileNet has it, and its head."""

    def __init__(self):
        super().__init__()
        self.stem, self.wide = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 24, 1)
        self.deep, self.narrow = nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.Conv2d(24, 8, 1)
        self.linear = nn.Linear(8, 5)
        self.rounds = nn.ModuleList(Fixed() for _ in range(7))

    def forward(self, x):
        q = self.rounds
        x = q[1](F.relu6(self.stem(q[0](x))))
        y = q[3](F.relu6(self.deep(q[2](F.relu6(self.wide(x))))))
        y = q[5](x + q[4](self.narrow(y)))
        return self.linear(q[6](F.adaptive_avg_pool2d(y, 1).flatten(1)))


class Fire(nn.Module):
    """Two branches that meet in a concat; `one`: they share its grid."""

    def __init__(self, one: bool):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 6, 1)
        self.last = nn.Conv2d(10, 4, 3)
        self.input, self.ends, self.joined, self.out = (
            Fixed(),
            nn.ModuleList([Fixed(), Fixed()]),
            Fixed(),
            Fixed(),
        )
        self.one = one

    def forward(self, x):
        x = self.input(x)
        left, right = F.relu(self.left(x)), F.relu(self.right(x))
        if not self.one:
            left, right = self.ends[0](left), self.ends[1](right)
        return self.out(F.relu(self.last(self.joined(torch.cat([left, right], 1)))))


class Perceptron(nn.Sequential):
    """Three linear layers; over two axes they become Gemm, over three MatMul."""

    def __init__(self):
        super().__init__(
            Fixed(),
            nn.Linear(12, 20),
            nn.ReLU(),
            Fixed(),
            nn.Linear(20, 16),
            nn.ReLU(),
            Fixed(),
            nn.Linear(16, 3),
        )


def quantizers(model: nn.Module) -> list[Fixed]:
    return [module for module in model.modules() if isinstance(module, Fixed)]


def calibrated(model: nn.Module, x: Tensor) -> nn.Module:
    """The model with grids that reach over all values of one call."""
    model.eval()
    with torch.no_grad():
        model(x)
    for quantizer in quantizers(model):
        if quantizer.state == "observe":
            quantizer.settle()
    return model


def gridded(model: nn.Module, format: Callable[[], formats.WeightFormat] | None = None) -> nn.Module:
    """The model with every matrix and kernel on integer grids, 8 bits and a scale per channel unless given."""
    for name, parameter in list(model.named_parameters()):
        if parameter.dim() > 1:
            formats.refine(
                model, name, Uniform(bits=8, granularity="channel") if format is None else format()
            )
    return model


def options() -> ort.SessionOptions:
    chosen = ort.SessionOptions()
    chosen.log_severity_level = 4
    chosen.intra_op_num_threads = 1
    return chosen


def optimized(packed, folder) -> collections.Counter[str]:
    """How often each operator occurs in what ONNX Runtime runs."""
    chosen = options()
    chosen.optimized_model_filepath = str(folder / "optimized.onnx")
    ort.InferenceSession(runtime.unpack(packed), chosen, providers=["CPUExecutionProvider"])
    nodes = onnx.load(folder / "optimized.onnx", load_external_data=False).graph.node
    return collections.Counter(node.op_type for node in nodes)


def graph_of(packed) -> onnx.GraphProto:
    return onnx.load_from_string(runtime.unpack(packed)).graph


def constants(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}


def disagreements(model: nn.Module, packed, x: Tensor) -> list[tuple[float, int]]:
    """Per quantizer, (share of codes that differ, largest difference) when both compute from the file's own codes.

    Every quantizer of the model hands on what the file has there, so that a difference stays where it arose.
    """
    whole = onnx.load_from_string(runtime.unpack(packed))
    graph, known = whole.graph, constants(whole.graph)
    readers = collections.defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    places = []
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            name = node.output[0]
            while [reader.op_type for reader in readers[name]] == ["Clip"]:
                name = readers[name][0].output[0]
            places.append((name, known[node.input[1]]))
            graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None))
    session = ort.InferenceSession(whole.SerializeToString(), options(), providers=["CPUExecutionProvider"])
    given = session.run([name for name, _ in places], {graph.input[0].name: x.numpy()})
    found, rows = iter(zip(places, given, strict=True)), []

    def compare(quantizer, inputs, output):
        (_, scale), codes = next(found)
        grid = quantizer.grid()
        assert np.float32(grid.scale) == scale
        theirs = torch.from_numpy(codes.astype(np.float32)).reshape(output.shape) + grid.qmin
        difference = (grid.codes(inputs[0]) - theirs).abs()
        rows.append((float((difference > 0).float().mean()), int(difference.max())))
        return (theirs - grid.zero_point) * grid.scale

    hooks = [quantizer.register_forward_hook(compare) for quantizer in quantizers(model)]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return rows
