"""Binary spherical quantization: a vector on the unit sphere becomes its signs (arXiv 2406.07548).

Letters: B batch, T bars, C = s1_bits + s2_bits components.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def bits_to_ids(bits: Tensor) -> Tensor:
    """Booleans (..., n), least significant bit first, to int64 ids (...)."""
    weights = 2 ** torch.arange(bits.shape[-1], device=bits.device)
    return (bits.long() * weights).sum(-1)


def ids_to_bits(ids: Tensor, n_bits: int) -> Tensor:
    """The inverse of `bits_to_ids`: int64 ids (...) to booleans (..., n_bits)."""
    return ((ids.unsqueeze(-1) >> torch.arange(n_bits, device=ids.device)) & 1).bool()


def _entropy(p: Tensor) -> Tensor:
    return -(p * torch.log(p + 1e-8)).sum(-1)


class SphericalQuantizer(nn.Module):
    """Signs of a unit vector, scaled back onto the sphere, with the loss that keeps the codes in use.

    `quantizer_loss` = beta x commitment + zeta x (gamma0 x entropy per sample - gamma x codebook entropy),
    the latter over groups of `group_size` bits, because the whole book of 2**C codes would be too large.
    """

    basis: Tensor
    group_basis: Tensor

    def __init__(
        self, dim: int, *, beta: float, gamma0: float, gamma: float, zeta: float, group_size: int
    ) -> None:
        super().__init__()
        if group_size < 1 or dim % group_size:
            raise ValueError(f"group_size must divide s1_bits + s2_bits = {dim}, got {group_size}")
        self.beta, self.gamma0, self.gamma, self.zeta = beta, gamma0, gamma, zeta
        self.group_size = group_size
        self.scale = 1.0 / math.sqrt(dim)
        # `basis` has no reader here, but belongs to the released state dict
        self.register_buffer("basis", 2 ** torch.arange(dim - 1, -1, -1))
        self.register_buffer("group_basis", 2 ** torch.arange(group_size - 1, -1, -1))

    def quantize(self, z: Tensor) -> Tensor:
        """(..., C) -> codes of +-1/sqrt(C), with a straight-through gradient."""
        signs = torch.where(z > 0, 1.0, -1.0).to(z.dtype)
        return (z + (signs - z).detach()) * self.scale

    def quantizer_loss(self, z: Tensor, codes: Tensor) -> Tensor:
        """Scalar loss of unit vectors z (..., C) and their codes."""
        commitment = ((codes.detach() - z) ** 2).sum(-1).mean()
        penalty = self.gamma0 * self._sample_entropy(z) - self.gamma * self._codebook_entropy(z)
        return self.beta * commitment + self.zeta * penalty

    def _sample_entropy(self, z: Tensor) -> Tensor:
        p = torch.sigmoid(-4 * z * self.scale)
        return _entropy(torch.stack((p, 1 - p), dim=-1)).sum(-1).mean()

    def _codebook_entropy(self, z: Tensor) -> Tensor:
        n_codes = 2**self.group_size
        signs = (torch.arange(n_codes, device=z.device).unsqueeze(-1) & self.group_basis) != 0
        codebook = (signs.to(z.dtype) * 2 - 1) * self.scale
        groups = z.view(*z.shape[:-1], -1, self.group_size)  # (..., C / group_size, group_size)
        p = (2 * groups @ codebook.T).softmax(-1)
        return _entropy(p.flatten(0, -3).mean(0)).sum()


class BSQuantizer(nn.Module):
    """Normalises to the sphere, quantizes, and splits the bits into s1 (coarse) and s2 (fine) ids."""

    def __init__(
        self,
        s1_bits: int,
        s2_bits: int,
        *,
        beta: float,
        gamma0: float,
        gamma: float,
        zeta: float,
        group_size: int,
    ) -> None:
        super().__init__()
        self.s1_bits, self.s2_bits = s1_bits, s2_bits
        self.bsq = SphericalQuantizer(
            s1_bits + s2_bits, beta=beta, gamma0=gamma0, gamma=gamma, zeta=zeta, group_size=group_size
        )

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z (B, T, C) -> codes (B, T, C), scalar loss."""
        z = F.normalize(z, dim=-1)
        codes = self.bsq.quantize(z)
        return codes, self.bsq.quantizer_loss(z, codes)

    def ids(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z (B, T, C) -> s1 and s2 ids, int64 (B, T)."""
        bits = F.normalize(z, dim=-1) > 0
        return bits_to_ids(bits[..., : self.s1_bits]), bits_to_ids(bits[..., self.s1_bits :])

    def codes(self, s1_ids: Tensor, s2_ids: Tensor) -> Tensor:
        """Ids (B, T) -> the codes (B, T, C) they stand for, fp32."""
        bits = torch.cat((ids_to_bits(s1_ids, self.s1_bits), ids_to_bits(s2_ids, self.s2_bits)), dim=-1)
        return (bits.float() * 2 - 1) * self.bsq.scale
