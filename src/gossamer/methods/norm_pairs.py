"""Norm pairs: which batch norm stands alone behind which convolution or linear layer, so that one may fold into the other.

Read off the traced graph (torch.export, in eval mode, without formats and quantizers): the layer feeds the norm and
nothing else, and both are used once. Names do not matter, nor where the modules stand in the tree. A linear layer counts
where its outputs are [N, C]: behind one of [N, L, C] a norm works on L.
Raises: ModelError when the model cannot be traced.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .. import formats, quantizers
from ..errors import ModelError

FOLDABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def norm_pairs(model: nn.Module, example: Any) -> dict[str, str]:
    """{path of the norm: path of the layer}, in the order of the graph; `example` is one input batch."""
    training = model.training
    try:
        with quantizers.unquantized(model.eval()):
            program = torch.export.export(formats.baked(model), (torch.as_tensor(example),))
    except Exception as error:  # tracing runs the user's code, which may raise anything
        raise ModelError(f"the model could not be traced ({str(error).splitlines()[0][:80]})") from error
    finally:
        model.train(training)
    names = {**program.graph_signature.inputs_to_parameters, **program.graph_signature.inputs_to_buffers}
    owners = {name: path.rpartition(".")[0] for name, path in names.items()}
    uses: dict[str, int] = {}
    pairs: dict[str, str] = {}
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        mine = {owners[a.name] for a in node.all_input_nodes if a.name in owners}
        for path in mine:
            uses[path] = uses.get(path, 0) + 1
        norm = next((path for path in mine if isinstance(model.get_submodule(path), _BatchNorm)), None)
        source = node.all_input_nodes[0] if node.all_input_nodes else None
        if norm is None or source is None or source.op != "call_function" or len(source.users) != 1:
            continue
        layer = next((owners[a.name] for a in source.all_input_nodes if a.name in owners), None)
        if layer is not None and _channels_second(model.get_submodule(layer), source):
            pairs[norm] = layer
    return {norm: layer for norm, layer in pairs.items() if uses[norm] == uses[layer] == 1}


def _channels_second(layer: nn.Module, made: torch.fx.Node) -> bool:
    """Whether what the layer made has its channels where a norm looks for them: axis 1."""
    return isinstance(layer, FOLDABLE) and (not isinstance(layer, nn.Linear) or made.meta["val"].dim() == 2)
