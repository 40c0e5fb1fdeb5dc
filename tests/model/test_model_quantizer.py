"""Codes, ids and the loss that keeps the codebook in use."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kronos_service.model.quantizer import BSQuantizer, bits_to_ids, ids_to_bits

WEIGHTS = {"beta": 0.05, "gamma0": 1.0, "gamma": 1.1, "zeta": 0.05}


def quantizer(s1_bits: int = 3, s2_bits: int = 5, group_size: int = 4) -> BSQuantizer:
    return BSQuantizer(s1_bits, s2_bits, group_size=group_size, **WEIGHTS)


@given(st.lists(st.booleans(), min_size=1, max_size=20))
def test_bits_are_least_significant_first_and_come_back(bits: list[bool]) -> None:
    ids = bits_to_ids(torch.tensor(bits))
    assert int(ids) == sum(2**i for i, bit in enumerate(bits) if bit)
    assert ids_to_bits(ids, len(bits)).tolist() == bits


def test_ids_split_into_coarse_first_and_fine_after() -> None:
    signs = torch.tensor([1.0, -1, -1, 1, 1, -1, -1, -1]).view(1, 1, 8)
    s1, s2 = quantizer().ids(signs)
    assert (int(s1), int(s2)) == (0b001, 0b00011)


@given(s1=st.integers(0, 7), s2=st.integers(0, 31))
def test_codes_of_ids_are_what_the_forward_quantizes_to(s1: int, s2: int) -> None:
    q = quantizer()
    codes = q.codes(torch.tensor([[s1]]), torch.tensor([[s2]]))
    torch.testing.assert_close(codes.norm(dim=-1), torch.ones(1, 1))
    forward, _ = q(codes * 3)
    torch.testing.assert_close(forward, codes)
    assert [int(i) for i in q.ids(codes * 3)] == [s1, s2]


def test_gradients_pass_straight_through_the_signs() -> None:
    z = torch.randn(2, 3, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(quantizer().bsq.quantize(z).sum(), z)
    torch.testing.assert_close(gradient, torch.full_like(z, 1 / math.sqrt(8)))


def brute_force_loss(z: Tensor, group_size: int) -> float:
    """The loss written out over every code of every group, in plain floats."""
    rows, dim = [row.tolist() for row in z.flatten(0, -2)], z.shape[-1]
    scale, n = 1 / math.sqrt(dim), z.shape[:-1].numel()
    commitment = sum(sum((math.copysign(scale, v) - v) ** 2 for v in row) for row in rows) / n
    on = [[1 / (1 + math.exp(-4 * v * scale)) for v in row] for row in rows]
    per_sample = sum(-sum(p * math.log(p) + (1 - p) * math.log(1 - p) for p in row) for row in on) / n
    book = 0.0
    for start in range(0, dim, group_size):
        average = dict.fromkeys(itertools.product((-1, 1), repeat=group_size), 0.0)
        for row in rows:
            group = row[start : start + group_size]
            weights = {
                code: math.exp(2 * scale * sum(c * v for c, v in zip(code, group, strict=True)))
                for code in average
            }
            total = sum(weights.values())
            for code, weight in weights.items():
                average[code] += weight / total / n
        book -= sum(p * math.log(p) for p in average.values())
    return 0.05 * commitment + 0.05 * (1.0 * per_sample - 1.1 * book)


@pytest.mark.parametrize("group_size", [1, 2, 4, 8])
def test_loss_equals_the_sum_over_all_codes(group_size: int) -> None:
    z = torch.randn(2, 7, 8, generator=torch.Generator().manual_seed(group_size))
    _, loss = quantizer(group_size=group_size)(z)
    expected = brute_force_loss(F.normalize(z, dim=-1), group_size)
    assert float(loss) == pytest.approx(expected, abs=1e-6)


def test_a_collapsed_codebook_costs_more_than_a_used_one() -> None:
    used = torch.randn(1, 256, 8, generator=torch.Generator().manual_seed(0))
    collapsed = used[:, :1].expand(-1, 256, -1)
    assert quantizer()(collapsed)[1] > quantizer()(used)[1]


def test_a_group_size_that_does_not_divide_the_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="group_size must divide s1_bits \\+ s2_bits = 8, got 3"):
        quantizer(group_size=3)
