"""The networks of the compatibility table: random weights, small configurations, all families that users bring.

Each entry is (family, build, example): `build()` makes a fresh network in eval mode, `example()` its inputs (a tuple, or a
dict of keyword arguments).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import transformers
from torch import Tensor, nn

import gossamer as gs


@dataclass(frozen=True)
class Network:
    """One row of the table; least: the fraction of its channels that every group keeps."""

    family: str
    build: Callable[[], nn.Module]
    example: Callable[[], Any]
    least: float = 0.1


def picture(size: int, channels: int = 3) -> Callable[[], tuple[Tensor]]:
    return lambda: (torch.randn(1, channels, size, size, generator=torch.Generator().manual_seed(0)),)


def zoo(family: str, module: str, name: str, size: int = 64, **options: Any) -> Network:
    """A network of pytorchcv, built for pictures of `size` where its head allows."""

    def build() -> nn.Module:
        make = getattr(importlib.import_module(f"pytorchcv.models.{module}"), name)
        return make(**options)

    return Network(family, build, picture(size))


def ours(family: str, name: str, channels: int, size: int) -> Network:
    return Network(family, lambda: gs.load_model(name), picture(size, channels))


def tokens(length: int = 16, vocabulary: int = 200, **more: int) -> Callable[[], dict[str, Tensor]]:
    def example() -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(5, vocabulary, (1, length), generator=generator)
        others = {k: torch.randint(5, vocabulary, (1, n), generator=generator) for k, n in more.items()}
        return {"input_ids": ids, **others}

    return example


def language(
    family: str, config: str, model: str, example: Callable[[], Any] | None = None, **options: Any
) -> Network:
    """A network of transformers with a small random configuration."""

    def build() -> nn.Module:
        made = getattr(transformers, config)(**{"vocab_size": 200, "use_cache": False, **options})
        return getattr(transformers, model)(made)

    return Network(family, build, example or tokens())


def vision(family: str, config: str, model: str, size: int, **options: Any) -> Network:
    def build() -> nn.Module:
        return getattr(transformers, model)(getattr(transformers, config)(num_labels=10, **options))

    return Network(family, build, lambda: {"pixel_values": picture(size)()[0]})


def whisper() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "input_features": torch.randn(1, 16, 60, generator=generator),
        "decoder_input_ids": torch.randint(5, 200, (1, 8), generator=generator),
    }


def clip() -> dict[str, Tensor]:
    return {**tokens()(), "pixel_values": picture(32)()[0]}


class UNet(nn.Module):
    """Two levels down and up with concatenated skips and transposed convolutions (Ronneberger et al., 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.middle = self.block(3, 16), self.block(16, 32), self.block(32, 64)
        self.up2, self.up1 = nn.ConvTranspose2d(64, 32, 2, stride=2), nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.join2, self.join1 = self.block(64, 32), self.block(32, 16)
        self.head = nn.Conv2d(16, 2, 1)

    @staticmethod
    def block(inner: int, outer: int) -> nn.Sequential:
        first = [nn.Conv2d(inner, outer, 3, padding=1), nn.BatchNorm2d(outer), nn.ReLU()]
        return nn.Sequential(*first, nn.Conv2d(outer, outer, 3, padding=1), nn.BatchNorm2d(outer), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(nn.functional.max_pool2d(first, 2))
        x = self.middle(nn.functional.max_pool2d(second, 2))
        x = self.join2(torch.cat([second, self.up2(x)], dim=1))
        return self.head(self.join1(torch.cat([first, self.up1(x)], dim=1)))


class ESPCN(nn.Module):
    """Super resolution by pixel shuffle (Shi et al., 2016), with a hidden shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 32, 5, padding=2), nn.Conv2d(32, 64, 3, padding=1)
        self.shuffle = nn.PixelShuffle(2)
        self.last = nn.Conv2d(16, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.shuffle(self.last(self.shuffle(torch.tanh(self.second(torch.tanh(self.first(x)))))))


SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
PATCHES = {"image_size": 32, "patch_size": 8}
GPT = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}

NETWORKS = {
    "lenet5": ours("plain", "lenet5", 1, 28),
    "vgg-small": ours("plain", "vgg-small", 3, 32),
    # half of it is in two layers in front of local response norms, so little may stay of the others
    "alexnet": replace(zoo("plain", "alexnet", "alexnet", 224), least=0.05),
    "nin_cifar10": zoo("plain", "nin_cifar", "nin_cifar10", 32),
    "resnet20": ours("residual", "resnet20", 3, 32),
    "resnet18": zoo("residual", "resnet", "resnet18", 224),
    "resnet50": zoo("residual", "resnet", "resnet50", 224),
    "preresnet20_cifar10": zoo("residual", "preresnet_cifar", "preresnet20_cifar10", 32),
    "wrn16_10_cifar10": zoo("residual", "wrn_cifar", "wrn16_10_cifar10", 32),
    "dla34": zoo("residual", "dla", "dla34", 224),
    "hrnet_w18_small_v1": zoo("multi-branch", "hrnet", "hrnet_w18_small_v1", 224),
    "densenet40_k12_cifar10": zoo("dense", "densenet_cifar", "densenet40_k12_cifar10", 32),
    "peleenet": zoo("dense", "peleenet", "peleenet", 224),
    "vovnet27s": zoo("dense", "vovnet", "vovnet27s", 224),
    "resnext20_32x4d_cifar10": zoo("grouped", "resnext_cifar", "resnext20_32x4d_cifar10", 32),
    "regnetx002": zoo("grouped", "regnet", "regnetx002", 224),
    "shufflenet_g3_wd4": zoo("shuffle", "shufflenet", "shufflenet_g3_wd4", 224),
    "shufflenetv2_wd2": zoo("shuffle", "shufflenetv2", "shufflenetv2_wd2", 224),
    "seresnet20_cifar10": zoo("squeeze-excite", "seresnet_cifar", "seresnet20_cifar10", 32),
    "senet16": zoo("squeeze-excite", "senet", "senet16", 224),
    "cbam_resnet18": zoo("squeeze-excite", "cbamresnet", "cbam_resnet18", 224),
    "squeezenet_v1_1": zoo("inception", "squeezenet", "squeezenet_v1_1", 224),
    "bninception": zoo("inception", "bninception", "bninception", 224),
    "inceptionv3": zoo("inception", "inceptionv3", "inceptionv3", 299),
    "mobilenet_wd4": zoo("depthwise", "mobilenet", "mobilenet_wd4", 224),
    "mobilenetv2_wd4": zoo("depthwise", "mobilenetv2", "mobilenetv2_wd4", 224),
    "mobilenetv3_small_wd2": zoo("depthwise", "mobilenetv3", "mobilenetv3_small_wd2", 224),
    "efficientnet_b0": zoo("depthwise", "efficientnet", "efficientnet_b0", 224),
    "mnasnet_small": zoo("depthwise", "mnasnet", "mnasnet_small", 224),
    "ghostnet": zoo("depthwise", "ghostnet", "ghostnet", 224),
    "unet": Network("u-net", UNet, picture(32)),
    "espcn": Network("pixel shuffle", ESPCN, picture(16, 1)),
    "convnext": vision("transformer-like", "ConvNextConfig", "ConvNextForImageClassification", 64,
                       hidden_sizes=[16, 32, 64, 128], depths=[1, 1, 2, 1]),
    "vit": vision("transformer", "ViTConfig", "ViTForImageClassification", 32, **SMALL, **PATCHES),
    "deit": vision("transformer", "DeiTConfig", "DeiTForImageClassification", 32, **SMALL, **PATCHES),
    "swin": vision("transformer", "SwinConfig", "SwinForImageClassification", 64, image_size=64, patch_size=4,
                   embed_dim=32, depths=[2, 2], num_heads=[2, 4], window_size=4),
    "bert": language("transformer", "BertConfig", "BertForSequenceClassification", **SMALL),
    "distilbert": language("transformer", "DistilBertConfig", "DistilBertForSequenceClassification",
                           dim=64, n_layers=2, n_heads=4, hidden_dim=128),
    "gpt2": language("decoder", "GPT2Config", "GPT2LMHeadModel", **GPT),
    "opt": language("decoder", "OPTConfig", "OPTForCausalLM", hidden_size=64, num_hidden_layers=2,
                    num_attention_heads=4, ffn_dim=128, word_embed_proj_dim=64),
    "llama-gqa": language("decoder", "LlamaConfig", "LlamaForCausalLM", **SMALL, num_key_value_heads=2),
    "qwen2-gqa": language("decoder", "Qwen2Config", "Qwen2ForCausalLM", **SMALL, num_key_value_heads=2),
    "t5": language("encoder-decoder", "T5Config", "T5ForConditionalGeneration", tokens(decoder_input_ids=8),
                   d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4),
    "whisper": language("encoder-decoder", "WhisperConfig", "WhisperForConditionalGeneration", whisper, d_model=64,
                        encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
                        encoder_ffn_dim=128, decoder_ffn_dim=128, num_mel_bins=16, max_source_positions=30,
                        max_target_positions=32, pad_token_id=0, bos_token_id=1, eos_token_id=2,
                        decoder_start_token_id=1),
    "clip": Network("two towers", lambda: transformers.CLIPModel(transformers.CLIPConfig(
        text_config={**SMALL, "vocab_size": 200, "eos_token_id": 2}, vision_config={**SMALL, **PATCHES},
        projection_dim=32)), clip),
}  # fmt: skip
