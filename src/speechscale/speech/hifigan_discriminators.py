"""The discriminators of HiFi-GAN and the losses they give.

Enters: real and generated sound. Leaves: scores and features of every layer. The one decision worth knowing: `width`
scales all channels, so that the same code is tested small.

Source: Kong, Kim & Bae 2020, sections 2.3 and 2.4, appendix A.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

SLOPE = 0.1
Judged = tuple[Tensor, list[Tensor]]
"""Scores, and the features of each layer with the scores last."""


class PeriodDiscriminator(nn.Module):
    """Looks at every `period`-th sample."""

    def __init__(self, period: int, width: float) -> None:
        super().__init__()
        self.period = period
        sizes = [1, *(max(1, round(channels * width)) for channels in (32, 128, 512, 1024, 1024))]
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, (5, 1), (3 if i < 4 else 1, 1), padding=(2, 0)))
            for i, (a, b) in enumerate(itertools.pairwise(sizes))
        )
        self.post = weight_norm(nn.Conv2d(sizes[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, audio: Float[Tensor, "B samples"]) -> Judged:
        missing = -audio.shape[1] % self.period
        x = functional.pad(audio[:, None], (0, missing), mode="reflect").unflatten(2, (-1, self.period))
        return _through(x, self.convs, self.post)


class ScaleDiscriminator(nn.Module):
    """Looks at the sound averaged over 1, 2 or 4 samples."""

    def __init__(self, scale: int, width: float) -> None:
        super().__init__()
        self.scale = scale
        norm: Callable[[nn.Module], nn.Module] = spectral_norm if scale == 0 else weight_norm
        base = [max(16, 16 * round(channels * width / 16)) for channels in (128, 128, 256, 512, 1024, 1024, 1024)]
        kernels, strides, groups = (15, 41, 41, 41, 41, 41, 5), (1, 2, 2, 4, 4, 1, 1), (1, 4, 16, 16, 16, 16, 1)
        sizes = [1, *base]
        self.convs = nn.ModuleList(
            norm(nn.Conv1d(sizes[i], sizes[i + 1], kernel, stride, padding=kernel // 2, groups=group))
            for i, (kernel, stride, group) in enumerate(zip(kernels, strides, groups, strict=True))
        )
        self.post = norm(nn.Conv1d(sizes[-1], 1, 3, padding=1))

    def forward(self, audio: Float[Tensor, "B samples"]) -> Judged:
        x = audio[:, None]
        for _ in range(self.scale):
            x = functional.avg_pool1d(x, 4, 2, padding=2)
        return _through(x, self.convs, self.post)


class Discriminators(nn.Module):
    """All of them; each judges a batch of sounds."""

    def __init__(self, *, periods: Sequence[int] = (2, 3, 5, 7, 11), scales: int = 3, width: float = 1.0) -> None:
        super().__init__()
        self.judges = nn.ModuleList(
            [PeriodDiscriminator(period, width) for period in periods]
            + [ScaleDiscriminator(scale, width) for scale in range(scales)]
        )

    def forward(self, audio: Float[Tensor, "B samples"]) -> list[Judged]:
        return [judge(audio) for judge in self.judges]


def discriminator_loss(real: Sequence[Judged], made: Sequence[Judged]) -> Tensor:
    """Least squares: real sound should score 1, made sound 0. Source: eq. 1."""
    losses = [(1 - r).square().mean() + m.square().mean() for (r, _), (m, _) in zip(real, made, strict=True)]
    return torch.stack(losses).sum()


def adversarial_loss(made: Sequence[Judged]) -> Tensor:
    """Made sound should score 1. Source: eq. 2."""
    return torch.stack([(1 - scores).square().mean() for scores, _ in made]).sum()


def feature_loss(real: Sequence[Judged], made: Sequence[Judged]) -> Tensor:
    """Mean absolute difference of the features of all layers. Source: eq. 4."""
    losses = [
        (r.detach() - m).abs().mean()
        for (_, of_real), (_, of_made) in zip(real, made, strict=True)
        for r, m in zip(of_real, of_made, strict=True)
    ]
    return torch.stack(losses).sum()


def _through(x: Tensor, convs: nn.ModuleList, post: nn.Module) -> Judged:
    features = []
    for conv in convs:
        x = functional.leaky_relu(conv(x), SLOPE)
        features.append(x)
    x = post(x)
    return x.flatten(1), [*features, x]
