"""A long convolution through the Fourier transform.

Enters: a grouped torch Conv1d with a long kernel. Leaves: a module that gives the same numbers to rounding. The one
decision worth knowing: the positional convolution of HuBERT and its kin has kernels of 128 frames, for which products
in the frequency domain need a fiftieth of the multiplications; on a CPU it is 3 to 5 times faster, in float32 whatever
the precision of the rest.

Source: overlap-save, Oppenheim & Schafer, Discrete-Time Signal Processing, 8.7.
"""

from __future__ import annotations

import torch
from jaxtyping import Float

SHORTEST_KERNEL = 32
TRANSFORM = 512
"""Frames per block; kernels up to half of it."""


class SpectralConv1d(torch.nn.Module):
    """Stands for `conv`: stride 1, no dilation, zeros outside."""

    def __init__(self, conv: torch.nn.Conv1d) -> None:
        super().__init__()
        self.groups, self.kernel, self.padding = conv.groups, conv.kernel_size[0], int(conv.padding[0])
        self.per_block = TRANSFORM - self.kernel + 1
        weight = conv.weight.detach().float()  # (out, in per group, taps)
        spectrum = torch.fft.rfft(weight, n=TRANSFORM).conj()  # conj: a correlation, as torch's convolutions are
        spectrum = spectrum.unflatten(0, (self.groups, -1)).permute(3, 0, 2, 1)  # (bins, groups, in, out)
        self.spectrum = spectrum.flatten(0, 1).contiguous()
        self.bias = None if conv.bias is None else conv.bias.detach().float()

    def forward(self, hidden: Float[torch.Tensor, "batch channels frames"]) -> Float[torch.Tensor, "batch out frames"]:
        with torch.autocast("cpu", enabled=False):
            rows = [self._row(row) for row in hidden.float()]
        return torch.stack(rows).to(hidden.dtype)

    def _row(self, row: torch.Tensor) -> torch.Tensor:
        length = row.shape[1] + 2 * self.padding - self.kernel + 1
        blocks = -(-length // self.per_block)
        needed = (blocks - 1) * self.per_block + TRANSFORM
        padded = torch.nn.functional.pad(row, (self.padding, needed - row.shape[1] - self.padding))
        heard = torch.fft.rfft(padded.unfold(1, TRANSFORM, self.per_block))  # (channels, blocks, bins)
        heard = heard.unflatten(0, (self.groups, -1)).permute(3, 0, 2, 1).flatten(0, 1)  # (bins * groups, blocks, in)
        product = torch.bmm(heard, self.spectrum).unflatten(0, (-1, self.groups))  # (bins, groups, blocks, out)
        product = product.permute(1, 3, 2, 0).flatten(0, 1).contiguous()  # (channels, blocks, bins)
        output = torch.fft.irfft(product, n=TRANSFORM)[:, :, : self.per_block].flatten(1)[:, :length]
        return output if self.bias is None else output + self.bias[:, None]


def replaceable(conv: torch.nn.Module) -> bool:
    """Whether a module is a convolution that `SpectralConv1d` can stand for and is faster than."""
    return (
        isinstance(conv, torch.nn.Conv1d)
        and SHORTEST_KERNEL <= conv.kernel_size[0] <= TRANSFORM // 2
        and (conv.stride[0], conv.dilation[0], conv.padding_mode) == (1, 1, "zeros")
    )
