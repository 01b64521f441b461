"""The networks that the counters are compared on: eight of vision, five of language and speech, one with a shared layer.

Weights are random: only shapes matter. pytorchcv's networks have the layers of torchvision's (MobileNetV2 but for the
bias of its classifier).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch
import transformers
from torch import Tensor, nn


class Tagger(nn.Module):
    """Two LSTM layers and a linear layer on the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(40, 128, num_layers=2, batch_first=True)
        self.out = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(x)[0][:, -1])


def shared() -> nn.Module:
    """One linear layer in two blocks."""
    layer = nn.Linear(64, 64)
    return nn.Sequential(nn.Linear(32, 64), nn.Sequential(layer), nn.Sequential(layer), nn.Linear(64, 10))


def zoo(module: str, name: str) -> Callable[[], nn.Module]:
    return lambda: getattr(importlib.import_module(f"pytorchcv.models.{module}"), name)()


def vit() -> nn.Module:
    return transformers.ViTForImageClassification(transformers.ViTConfig(num_labels=1000))


def bert() -> nn.Module:
    config = transformers.BertConfig(
        vocab_size=1000, hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512
    )
    return transformers.BertModel(config)


def llama() -> nn.Module:
    config = transformers.LlamaConfig(
        vocab_size=1000,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
        use_cache=False,
    )
    return transformers.LlamaForCausalLM(config)


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(128, 4, 512, batch_first=True)
    return nn.TransformerEncoder(layer, 2)


PICTURE, TOKENS, SEQUENCE = (1, 3, 224, 224), (1, 64), (1, 64, 128)

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "ResNet-18": (zoo("resnet", "resnet18"), PICTURE),
    "ResNet-50": (zoo("resnet", "resnet50b"), PICTURE),
    "VGG-16": (zoo("vgg", "vgg16"), PICTURE),
    "MobileNetV2": (zoo("mobilenetv2", "mobilenetv2b_w1"), PICTURE),
    "DenseNet-121": (zoo("densenet", "densenet121"), PICTURE),
    "SqueezeNet 1.1": (zoo("squeezenet", "squeezenet_v1_1"), PICTURE),
    "EfficientNet-B0": (zoo("efficientnet", "efficientnet_b0"), PICTURE),
    "ShuffleNetV2": (zoo("shufflenetv2", "shufflenetv2_w1"), PICTURE),
    "ViT-B/16": (vit, PICTURE),
    "BERT, 2 layers": (bert, TOKENS),
    "Llama, 4 layers, 8 heads on 2": (llama, TOKENS),
    "nn.TransformerEncoder": (encoder, SEQUENCE),
    "the same, frozen": (lambda: encoder().requires_grad_(False), SEQUENCE),
    "LSTM, 2 layers": (Tagger, (1, 100, 40)),
    "a layer in two places": (shared, (1, 32)),
}


def build(name: str) -> tuple[nn.Module, Tensor]:
    """The network in eval mode, and its input."""
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    dtype = torch.int64 if shape == TOKENS else torch.float32
    return make().eval(), torch.zeros(shape, dtype=dtype)
