"""Toy networks, one for each way in which channels meet: name -> (network, example, groups that must be found)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PICTURE = (2, 3, 8, 8)


class Net(nn.Module):
    """Layers by name, and forward as a function of them and the inputs."""

    def __init__(self, run: Callable[..., Any], **layers: Any) -> None:
        super().__init__()
        for name, layer in layers.items():
            if isinstance(layer, nn.Parameter):
                self.register_parameter(name, layer)
            else:
                setattr(self, name, layer)
        self.run = run

    def forward(self, *inputs: Tensor) -> Any:
        return self.run(self, *inputs)


def conv(i: int, o: int, k: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, padding=k // 2, **options)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(noise(*shape))


class Attention(nn.Module):
    """Self attention; `keys` heads of keys and values serve `heads` heads of queries."""

    def __init__(self, width: int, heads: int, keys: int, dim: int) -> None:
        super().__init__()
        self.heads, self.keys, self.dim = heads, keys, dim
        self.q, self.o = nn.Linear(width, heads * dim), nn.Linear(heads * dim, width)
        self.k, self.v = nn.Linear(width, keys * dim), nn.Linear(width, keys * dim)

    def forward(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        q = self.q(x).view(n, length, self.heads, self.dim).transpose(1, 2)
        k = self.k(x).view(n, length, self.keys, self.dim).transpose(1, 2)
        v = self.v(x).view(n, length, self.keys, self.dim).transpose(1, 2)
        if self.keys < self.heads:
            shape = (n, self.keys, self.heads // self.keys, length, self.dim)
            k, v = (
                part[:, :, None].expand(shape).reshape(n, self.heads, length, self.dim) for part in (k, v)
            )
        scores = q @ k.transpose(-1, -2) / self.dim**0.5
        y = scores.softmax(-1) @ v
        return self.o(y.transpose(1, 2).reshape(n, length, self.heads * self.dim))


class FusedAttention(nn.Module):
    """One linear layer makes queries, keys and values, as in vision transformers."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        qkv = self.qkv(x).reshape(n, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).flatten(2))


class SplitAttention(nn.Module):
    """Queries, keys and values by split, sizes kept in the module, as in GPT-2."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.split_size = heads, width // heads, width
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        shape = (*x.shape[:-1], -1, self.head_dim)
        q, k, v = (part.view(shape).transpose(1, 2) for part in self.c_attn(x).split(self.split_size, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).reshape(*x.shape[:-1], -1))


class Shuffle(nn.Module):
    """Half of the channels pass, half are transformed, then both are interleaved (ShuffleNet v2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.branch = nn.Sequential(conv(half, half, 1), nn.ReLU(), conv(half, half, groups=half))

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=1)
        y = torch.cat([a, self.branch(b)], 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def residual(m: Net, x: Tensor) -> Tensor:
    x = m.a(x)
    return m.c(x + m.b(x.relu()))


def excite(m: Net, x: Tensor) -> Tensor:
    x = m.a(x)
    gate = m.up(m.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
    return m.b(x * gate)


def embed(m: Net, tokens: Tensor) -> Tensor:
    x = m.table(tokens) + m.positions[: tokens.shape[1]]
    return F.linear(x + m.down(F.gelu(m.up(x))), m.table.weight)


def build(name: str) -> tuple[nn.Module, Any]:
    """A fresh toy network and its example."""
    torch.manual_seed(0)
    model, example = TOYS[name]()
    return model.eval(), example


def seq(*layers: nn.Module, example: Tensor | None = None) -> tuple[nn.Module, Any]:
    return nn.Sequential(*layers), noise(*PICTURE) if example is None else example


def net(run: Callable[..., Any], example: Any = None, **layers: Any) -> tuple[nn.Module, Any]:
    return Net(run, **layers), noise(*PICTURE) if example is None else example


TOYS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "plain": lambda: seq(conv(3, 8), nn.ReLU(), conv(8, 6), nn.Sigmoid(), conv(6, 4)),
    "batch norm": lambda: seq(conv(3, 8), nn.BatchNorm2d(8), nn.ReLU6(), nn.MaxPool2d(2), conv(8, 4)),
    "instance norm": lambda: seq(conv(3, 8), nn.InstanceNorm2d(8, affine=True), conv(8, 4)),
    "instance norm without weights": lambda: seq(conv(3, 8), nn.InstanceNorm2d(8), conv(8, 4)),
    "group norm": lambda: seq(conv(3, 8), nn.GroupNorm(4, 8), nn.ReLU(), conv(8, 4)),
    "group norm without weights": lambda: seq(conv(3, 8), nn.GroupNorm(4, 8, affine=False), conv(8, 4)),
    "residual": lambda: net(residual, a=conv(3, 8), b=conv(8, 8), c=conv(8, 4)),
    "concat": lambda: net(
        lambda m, x: m.c(torch.cat([m.a(x), x, m.b(x)], 1)), a=conv(3, 4), b=conv(3, 5), c=conv(12, 4)
    ),
    "dense": lambda: net(
        lambda m, x: m.c(F.relu(m.n(torch.cat([x := m.a(x), m.b(x)], 1)))),
        a=conv(3, 6),
        b=conv(6, 4),
        n=nn.BatchNorm2d(10),
        c=conv(10, 4),
    ),
    "chunk": lambda: net(lambda m, x: m.b(torch.mul(*m.a(x).chunk(2, 1))), a=conv(3, 12), b=conv(6, 4)),
    "chunk to two readers": lambda: net(
        lambda m, x: (m.b((p := m.a(x).chunk(2, 1))[0]), m.c(p[1])), a=conv(3, 12), b=conv(6, 4), c=conv(6, 2)
    ),
    "split by sizes": lambda: net(
        lambda m, x: m.b((p := m.a(x).split(m.sizes, 1))[0]) + m.c(p[1]),
        a=conv(3, 12),
        b=conv(8, 4),
        c=conv(4, 4),
        sizes=[8, 4],
    ),
    "halves by slices": lambda: net(
        lambda m, x: m.b((y := m.a(x))[:, : y.shape[1] // 2] * y[:, y.shape[1] // 2 :].sigmoid()),
        a=conv(3, 12),
        b=conv(6, 4),
    ),
    "unbind and stack": lambda: net(
        lambda m, x: m.b(torch.stack(m.a(x).unbind(1)[::-1], 1)), a=conv(3, 6), b=conv(6, 4)
    ),
    "glu": lambda: seq(conv(3, 12), nn.GLU(1), conv(6, 4)),
    "grouped": lambda: seq(conv(3, 8), nn.ReLU(), conv(8, 12, groups=4), nn.ReLU(), conv(12, 4)),
    "depthwise": lambda: seq(conv(3, 8), conv(8, 8, groups=8), nn.ReLU(), conv(8, 4, 1)),
    "depthwise, two per channel": lambda: seq(conv(3, 4), conv(4, 8, groups=4), nn.ReLU(), conv(8, 4, 1)),
    "flatten": lambda: seq(
        conv(3, 6), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(96, 10), nn.ReLU(), nn.Linear(10, 3)
    ),
    "linear to picture": lambda: seq(
        nn.Linear(5, 96), nn.ReLU(), nn.Unflatten(1, (6, 4, 4)), conv(6, 4), example=noise(2, 5)
    ),
    "pixel shuffle": lambda: seq(conv(3, 16), nn.PixelShuffle(2), nn.Tanh(), conv(4, 3)),
    "pixel unshuffle": lambda: seq(conv(3, 4), nn.PixelUnshuffle(2), conv(16, 6), nn.ReLU(), conv(6, 4)),
    "channel shuffle": lambda: seq(conv(3, 12), Shuffle(12), nn.ReLU(), Shuffle(12), conv(12, 4)),
    "channel shuffle of groups": lambda: seq(
        conv(3, 12), nn.ChannelShuffle(3), conv(12, 12, groups=12), conv(12, 4)
    ),
    "transposed": lambda: seq(
        conv(3, 6), nn.ConvTranspose2d(6, 8, 2, 2), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 4)
    ),
    "transposed and grouped": lambda: seq(
        conv(3, 6), nn.ConvTranspose2d(6, 9, 2, 2, groups=3), nn.ReLU(), conv(9, 4)
    ),
    "upsample and pad": lambda: seq(
        conv(3, 6), nn.Upsample(scale_factor=2), nn.ZeroPad2d(1), nn.ReflectionPad2d(1), conv(6, 4)
    ),
    "pad channels": lambda: net(
        lambda m, x: m.c((x := m.a(x)).relu() + 0 * x + F.pad(m.b(x), (0, 0, 0, 0, 1, 2))),
        a=conv(3, 9),
        b=conv(9, 6),
        c=conv(9, 4),
    ),
    "excite": lambda: net(excite, a=conv(3, 8), down=conv(8, 3, 1), up=conv(3, 8, 1), b=conv(8, 4)),
    "spatial gate": lambda: net(
        lambda m, x: m.b((x := m.a(x)) * m.gate(x).sigmoid()), a=conv(3, 6), gate=conv(6, 1), b=conv(6, 4)
    ),
    "prelu": lambda: seq(conv(3, 8), nn.PReLU(8), conv(8, 4)),
    "layer scale": lambda: net(
        lambda m, x: m.b((x := m.a(x)) + m.scale[:, None, None] * m.c(x)),
        a=conv(3, 8),
        b=conv(8, 4),
        c=conv(8, 8),
        scale=weight(8),
    ),
    "attention": lambda: (Attention(12, 4, 4, 5), noise(2, 7, 12)),
    "attention of as many heads as dims": lambda: (Attention(12, 4, 4, 4), noise(2, 4, 12)),
    "grouped queries": lambda: (Attention(12, 6, 3, 4), noise(2, 7, 12)),
    "one key head": lambda: (Attention(12, 6, 1, 4), noise(2, 7, 12)),
    "fused attention": lambda: (FusedAttention(12, 4), noise(2, 7, 12)),
    "split attention": lambda: (SplitAttention(12, 4), noise(2, 7, 12)),
    "transformer layer": lambda: (
        nn.TransformerEncoderLayer(12, 3, 20, batch_first=True, dropout=0.0),
        noise(2, 7, 12),
    ),
    "two transformer layers and a decoder": lambda: (
        nn.Transformer(12, 4, 2, 1, 20, batch_first=True, dropout=0.0),
        (noise(2, 7, 12), noise(2, 5, 12)),
    ),
    "gated linear units": lambda: net(
        lambda m, x: m.down(F.silu(m.gate(x)) * m.up(x)),
        noise(2, 7, 6),
        gate=nn.Linear(6, 10, bias=False),
        up=nn.Linear(6, 10, bias=False),
        down=nn.Linear(10, 6, bias=False),
    ),
    "embedding tied to the output": lambda: net(
        embed,
        torch.arange(8).reshape(2, 4),
        table=nn.Embedding(11, 6),
        positions=weight(9, 6),
        up=nn.Linear(6, 10),
        down=nn.Linear(10, 6),
    ),
    "learned positions": lambda: net(
        lambda m, x: m.b((m.a(x).flatten(2).transpose(1, 2) + m.positions).relu()).mean(1),
        a=conv(3, 8),
        b=nn.Linear(8, 5),
        positions=weight(1, 64, 8),
    ),
    "class token": lambda: net(
        lambda m, x: m.b(torch.cat([m.token.expand(len(x), -1, -1), m.a(x)], 1).relu())[:, 0],
        noise(2, 5, 4),
        a=nn.Linear(4, 8),
        b=nn.Linear(8, 3),
        token=weight(1, 1, 8),
    ),
    "weight as matrix": lambda: net(
        lambda m, x: torch.addmm(m.bias, F.relu(x @ m.first), m.second),
        noise(4, 5),
        first=weight(5, 8),
        second=weight(8, 3),
        bias=weight(3),
    ),
    "einsum": lambda: net(
        lambda m, x: torch.einsum("nlo,ho->nlh", torch.einsum("nli,oi->nlo", x, m.first).relu(), m.second),
        noise(2, 4, 5),
        first=weight(8, 5),
        second=weight(3, 8),
    ),
    "einsum with an ellipsis": lambda: net(
        lambda m, x: torch.einsum("...o,ho->...h", torch.einsum("...i,oi", x, m.first).relu(), m.second),
        noise(2, 4, 5),
        first=weight(8, 5),
        second=weight(3, 8),
    ),
    "einsum of three": lambda: net(
        lambda m, x: torch.einsum("...i,oi,ho->...h", x, m.first, m.second),
        noise(2, 4, 5),
        first=weight(8, 5),
        second=weight(3, 8),
    ),
    "rms norm written out": lambda: net(
        lambda m, x: m.last(
            (h := m.first(x)) * torch.rsqrt(h.float().pow(2).mean(-1, keepdim=True) + 1e-6) * m.scale
        ),
        noise(2, 5, 6),
        first=nn.Linear(6, 8),
        scale=weight(8),
        last=nn.Linear(8, 4),
    ),
    "layer norm written out": lambda: net(
        lambda m, x: m.last(
            (c := (h := m.first(x)) - h.mean(-1, keepdim=True))
            / torch.sqrt(c.pow(2).mean(-1, keepdim=True) + 1e-6)
        ),
        noise(2, 5, 6),
        first=nn.Linear(6, 8),
        last=nn.Linear(8, 4),
    ),
    "weight norm": lambda: seq(nn.utils.parametrizations.weight_norm(conv(3, 8)), nn.ReLU(), conv(8, 4)),
    "used twice": lambda: net(
        lambda m, x: m.c(m.b(m.b(m.a(x)).relu())), a=conv(3, 8), b=conv(8, 8), c=conv(8, 4)
    ),
    "one layer, two inputs": lambda: net(
        lambda m, x, y: m.b((m.a(x) * m.a(y)).relu()),
        (noise(2, 3, 8, 8), noise(2, 3, 8, 8)),
        a=conv(3, 8),
        b=conv(8, 4),
    ),
    "many outputs": lambda: net(
        lambda m, x: {"first": m.b(y := m.a(x).relu()), "rest": [m.c(y).mean()]},
        a=conv(3, 8),
        b=conv(8, 4),
        c=conv(8, 2),
    ),
    "written in part": lambda: net(written, a=conv(3, 8), b=conv(8, 4)),
    "radix attention": lambda: net(
        lambda m, x: m.b(m.a(x).relu().view(len(x), 2, -1, 8, 8).sum(1)), a=conv(3, 12), b=conv(6, 4)
    ),
    "sequence": lambda: seq(
        nn.Conv1d(3, 8, 3),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(8, 4, 3),
        example=noise(2, 3, 20),
    ),
    "volume": lambda: seq(
        nn.Conv3d(2, 6, 3), nn.BatchNorm3d(6), nn.ReLU(), nn.Conv3d(6, 3, 1), example=noise(2, 2, 5, 5, 5)
    ),
    "recurrent": lambda: net(
        lambda m, x: m.b(m.lstm(m.a(x).relu())[0]),
        noise(2, 7, 5),
        a=nn.Linear(5, 8),
        lstm=nn.LSTM(8, 6, batch_first=True),
        b=nn.Linear(6, 3),
    ),
    "softmax over channels": lambda: seq(conv(3, 8), nn.Softmax(1), conv(8, 6), nn.ReLU(), conv(6, 4)),
    "layer norm": lambda: seq(
        nn.Linear(5, 8), nn.LayerNorm(8), nn.Linear(8, 9), nn.ReLU(), nn.Linear(9, 3), example=noise(2, 5)
    ),
    "without batch": lambda: seq(conv(3, 6), nn.ReLU(), conv(6, 4), example=noise(3, 8, 8)),
}


def written(m: Net, x: Tensor) -> Tensor:
    y = m.a(x).clone()
    y[:, :, 0] = 0
    return m.b(y.relu_())
