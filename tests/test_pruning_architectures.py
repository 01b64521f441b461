"""Real architectures: half of what can go is cut, and the outputs are those of the masked original."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gossamer.models import load_model
from gossamer.pruning import cut, find_groups, masked
from gossamer.pruning.trace import tensors_of
from test_pruning_surgery import halves

os.environ.setdefault("HF_HUB_OFFLINE", "1")
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
Build = Callable[[], tuple[nn.Module, Any]]


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def zoo(module: str, name: str, size: int) -> Build:
    def build() -> tuple[nn.Module, Any]:
        found = pytest.importorskip(f"pytorchcv.models.{module}")
        return getattr(found, name)(), noise(1, 3, size, size)

    return build


def language(config: str, model: str, *inputs: str, **options: Any) -> Build:
    def build() -> tuple[nn.Module, Any]:
        transformers = importlib.import_module("transformers")
        made = getattr(transformers, config)(**{"vocab_size": 99, "use_cache": False, **options})
        tokens = torch.randint(3, 99, (2, 9), generator=torch.Generator().manual_seed(0))
        return getattr(transformers, model)(made), dict.fromkeys(("input_ids", *inputs), tokens)

    return build


def vision(config: str, model: str, **options: Any) -> Build:
    def build() -> tuple[nn.Module, Any]:
        transformers = importlib.import_module("transformers")
        made = getattr(transformers, config)(**options)
        return getattr(transformers, model)(made), {"pixel_values": noise(1, 3, 32, 32)}

    return build


T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
# name: (network, groups at least, the share of parameters left at most)
NETWORKS: dict[str, tuple[Build, int, float]] = {
    "mobilenet-small": (lambda: (load_model("mobilenet-small"), noise(1, 3, 32, 32)), 5, 0.6),
    "preresnet20": (zoo("preresnet_cifar", "preresnet20_cifar10", 32), 12, 0.4),
    "resnext20": (zoo("resnext_cifar", "resnext20_32x4d_cifar10", 32), 10, 0.4),
    "seresnet20": (zoo("seresnet_cifar", "seresnet20_cifar10", 32), 18, 0.4),
    "shufflenetv2": (zoo("shufflenetv2", "shufflenetv2_wd2", 224), 15, 0.6),
    "squeezenet": (zoo("squeezenet", "squeezenet_v1_1", 224), 20, 0.5),
    "bert": (language("BertConfig", "BertModel", **SMALL), 4, 0.9),
    "distilbert": (language("DistilBertConfig", "DistilBertModel", dim=32, n_layers=2, n_heads=4, hidden_dim=48), 4, 0.9),
    "gpt2": (language("GPT2Config", "GPT2LMHeadModel", n_embd=32, n_layer=2, n_head=4), 4, 0.9),
    "llama": (language("LlamaConfig", "LlamaForCausalLM", num_key_value_heads=2, **SMALL), 4, 0.8),
    "qwen3": (language("Qwen3Config", "Qwen3ForCausalLM", num_key_value_heads=2, head_dim=8, **SMALL), 4, 0.8),
    "t5": (language("T5Config", "T5Model", "decoder_input_ids", **T5), 6, 0.8),
    "vit": (vision("ViTConfig", "ViTModel", image_size=32, patch_size=8, **SMALL), 4, 0.8),
    "swin": (
        vision("SwinConfig", "SwinModel", image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4],
               window_size=4),
        8,
        0.7,
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the libraries that these networks come from
@pytest.mark.parametrize("name", NETWORKS)
def test_half_of_every_group_can_be_cut(name):
    torch.manual_seed(0)
    build, least, left = NETWORKS[name]
    model, example = build()
    model.eval()
    groups = find_groups(model, example)
    choice = halves(groups)

    smaller, plan = cut(model, choice, groups)

    assert len(groups) >= least
    assert not plan.walls
    with torch.no_grad(), masked(model, choice, groups):
        expected = tensors_of(run(model, example))
    received = tensors_of(run(smaller, example))
    for one, other in zip(received, expected, strict=True):
        assert (one.detach() - other).abs().max() <= 1e-4 * other.abs().max()
    before, after = (sum(p.numel() for p in network.parameters()) for network in (model, smaller))
    assert after <= left * before
    sum(output.float().sum() for output in received if output.requires_grad).backward()
    again = plan.apply(model)
    assert {k: v.shape for k, v in again.state_dict().items()} == {
        k: v.shape for k, v in smaller.state_dict().items()
    }


def run(model: nn.Module, example: Any) -> Any:
    return model(**example) if isinstance(example, dict) else model(example)
