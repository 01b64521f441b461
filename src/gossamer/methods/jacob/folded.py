"""FoldedLayer: a convolution or linear layer and its batch norm, trained as the one layer they will become.

    W_f = gamma W / sigma, b_f = beta + gamma (b - mu) / sigma, sigma = sqrt(var + eps)          what inference runs
    before the freeze   y = (sigma_mv / sigma_b) conv(x, fq(gamma W / sigma_mv)) + beta - gamma mu_b / sigma_b
    after it            y = conv(x, fq(W_f)) + b_f  with the moving averages mu_mv, sigma_mv, which then stand still

b: this batch, mv: moving averages. The weight that is rounded (fq) is scaled by the moving average, so that its grid
does not jitter from batch to batch; the factor undoes that, and without rounding y is the batch norm of the batch, with
its gradient through mu_b and sigma_b. They come from a second convolution, with the float weight. `correction=False` is
the graph as the paper draws it: the second line from the first step on, while the averages go on moving.
The biased variance normalizes, the unbiased one enters the moving average, as in torch. Eval mode runs what inference runs.
Sources: Jacob et al., CVPR 2018, arXiv:1712.05877, section 3.2 and figures C.5 to C.8; the corrections: Krishnamoorthi,
arXiv:1806.08342, section 3.2.2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import handle_torch_function, has_torch_function_unary

from ...errors import ExportError, ModelError, TrainingError
from ...formats import WeightFormat
from ..norm_pairs import FOLDABLE
from .current_range import straight_through


class FoldedLayer(nn.Module):
    """`layer` followed by `norm`, with the folded weight rounded to `format` (None: not rounded).

    The two are submodules and keep their parameters; `frozen` is a buffer, so a checkpoint knows it.
    """

    layer: Any  # one of FOLDABLE
    norm: _BatchNorm
    frozen: Tensor

    def __init__(
        self,
        layer: nn.Module,
        norm: nn.Module,
        *,
        format: WeightFormat | None = None,
        correction: bool = True,
    ) -> None:
        super().__init__()
        if not isinstance(layer, FOLDABLE) or not isinstance(norm, _BatchNorm) or norm.running_mean is None:
            raise ModelError(
                f"FoldedLayer: {type(layer).__name__} and {type(norm).__name__} received, expected a convolution or "
                "linear layer and a batch norm that keeps running statistics."
            )
        self.layer = layer
        self.norm = norm
        self.format = format
        self.correction = correction
        self.register_buffer("frozen", torch.zeros((), dtype=torch.bool))

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self) if isinstance(self.layer, nn.Linear) else conv2d(x, self)

    def freeze(self) -> None:
        """Normalize by the moving averages from now on, and let them stand still."""
        self.frozen.fill_(True)

    @property
    def folded(self) -> tuple[Tensor, Tensor]:
        """(W_f, b_f) by the moving averages, before rounding."""
        gamma, beta = self._affine()
        factor = gamma / self._sigma()
        weight, bias, mean = self.layer.weight, self.layer.bias, self._averages()[0]
        spread = factor.reshape(-1, *([1] * (weight.dim() - 1)))
        return weight * spread, beta + factor * (-mean if bias is None else bias - mean)

    def _compute(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            raise ExportError("FoldedLayer cannot be traced; call jacob.finish(model) first.")
        if self.training and not bool(self.frozen):
            mean, var = self._moments(x)
            if self.correction:
                gamma, beta = self._affine()
                deviation = (var + self.norm.eps).sqrt()
                y = self._run(x, self._round(self.folded[0]), None)
                scale, shift = self._sigma() / deviation, beta - gamma * mean / deviation
                return y * _channels(scale, y) + _channels(shift, y)
        weight, bias = self.folded
        return self._run(x, self._round(weight), bias)

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance of the layer's float output without its bias, [C] each; the averages move along."""
        z = self._run(x, self.layer.weight, None)
        count = z.numel() // z.shape[1]
        if count < 2:
            raise TrainingError(
                f"FoldedLayer: an output of shape {tuple(z.shape)} has one value per channel, expected more to "
                "normalize by. Use a larger batch, or freeze the norms."
            )
        var, mean = torch.var_mean(z, dim=[0, *range(2, z.dim())], correction=0)
        with torch.no_grad():
            averages, bias, tracked = self._averages(), self.layer.bias, self.norm.num_batches_tracked
            assert tracked is not None
            tracked.add_(1)
            share = 1 / float(tracked) if self.norm.momentum is None else self.norm.momentum
            averages[0].lerp_(mean if bias is None else mean + bias, share)
            averages[1].lerp_(var * (count / (count - 1)), share)
        return mean, var

    def _run(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if isinstance(self.layer, nn.Linear):
            return F.linear(x, weight, bias)
        # torch's own way to run a convolution with another weight: it knows the padding mode
        result: Tensor = self.layer._conv_forward(x, weight, bias)
        return result

    def _round(self, weight: Tensor) -> Tensor:
        """fq; the gradient passes, for the grid reaches the largest weight."""
        return weight if self.format is None else straight_through(weight, self.format)

    def _affine(self) -> tuple[Tensor, Tensor]:
        """gamma and beta, [C] each."""
        if not self.norm.affine:
            mean = self._averages()[0]
            return torch.ones_like(mean), torch.zeros_like(mean)
        return self.norm.weight, self.norm.bias

    def _averages(self) -> tuple[Tensor, Tensor]:
        """mu_mv and sigma_mv^2, [C] each."""
        mean, var = self.norm.running_mean, self.norm.running_var
        assert mean is not None
        assert var is not None
        return mean, var

    def _sigma(self) -> Tensor:
        return (self._averages()[1] + self.norm.eps).sqrt()


def conv2d(x: Tensor, block: FoldedLayer) -> Tensor:
    """The block as one call of torch: who follows the calls of a forward (quantizers) sees one convolution."""
    if has_torch_function_unary(x):
        seen: Tensor = handle_torch_function(conv2d, (x,), x, block)
        return seen
    return block._compute(x)


def linear(x: Tensor, block: FoldedLayer) -> Tensor:
    """The same for a linear layer."""
    if has_torch_function_unary(x):
        seen: Tensor = handle_torch_function(linear, (x,), x, block)
        return seen
    return block._compute(x)


def _channels(values: Tensor, y: Tensor) -> Tensor:
    return values.reshape(-1, *([1] * (y.dim() - 2)))
