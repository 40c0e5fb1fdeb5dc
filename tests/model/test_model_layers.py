"""The blocks: rotary angles that stay exact, norms in fp32, no hidden state."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kronos_service.model import layers
from kronos_service.model.kronos import FixedEmbedding
from kronos_service.model.layers import (
    BlockStack,
    RMSNorm,
    RotaryEmbedding,
    SelfAttention,
    TransformerBlock,
    rotate,
)


@given(a=st.integers(0, 1000), b=st.integers(0, 1000), shift=st.integers(0, 1000))
def test_rotated_products_depend_on_the_distance_only(a: int, b: int, shift: int) -> None:
    rotary, g = RotaryEmbedding(16), torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 16, generator=g)

    def product(i: int, j: int) -> float:
        at = [rotate(x, rotary(torch.tensor([n]))) for x, n in ((q, i), (k, j))]
        return float((at[0] * at[1]).sum())

    assert product(a, b) == pytest.approx(product(a + shift, b + shift), abs=2e-3)


def test_the_gradient_of_a_rotation_is_autograds_own() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 5, 8, generator=g, requires_grad=True)
    rope = RotaryEmbedding(8)(torch.arange(5))
    direction = torch.randn(2, 3, 5, 8, generator=g)
    a, b = x.chunk(2, dim=-1)
    expected = torch.stack((a * rope.real - b * rope.imag, b * rope.real + a * rope.imag), -1).flatten(-2)
    got = rotate(x, rope)
    torch.testing.assert_close(got, expected)
    for seen_through in (direction, direction[..., :1].expand_as(direction)):
        wanted = torch.autograd.grad(expected, x, seen_through, retain_graph=True)
        torch.testing.assert_close(torch.autograd.grad(got, x, seen_through, retain_graph=True), wanted)


def test_a_rotation_without_gradients_is_the_same() -> None:
    x, rope = torch.randn(2, 3, 5, 8, requires_grad=True), RotaryEmbedding(8)(torch.arange(5))
    trained = rotate(x, rope)
    with torch.no_grad():
        assert torch.equal(rotate(x, rope), trained)


def test_rotary_angles_stay_fp32_in_a_bf16_model() -> None:
    exact = RotaryEmbedding(8)(torch.arange(512))
    rotary = RotaryEmbedding(8).bfloat16()
    assert rotary.inv_freq.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rope = rotary(torch.arange(512))
    assert torch.equal(rope, exact)
    assert len(torch.unique(rope.imag[:, 1])) > 500  # in bf16 neighbouring positions would fall together


def test_positions_per_row_give_the_same_angles_as_a_range() -> None:
    rotary = RotaryEmbedding(8)
    table = rotary(torch.arange(10))
    picked = rotary(torch.tensor([[9, 0], [3, 3]]))
    assert picked.shape == (2, 1, 2, 4)
    assert torch.equal(picked[0, 0], table[[9, 0]])
    assert torch.equal(picked[1, 0], table[[3, 3]])


def test_a_bf16_block_runs_and_returns_bf16() -> None:
    stack = BlockStack([TransformerBlock(16, 2, 32)]).bfloat16()
    assert stack(torch.randn(1, 5, 16, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_a_forward_in_inference_mode_does_not_break_training() -> None:
    stack = BlockStack([TransformerBlock(16, 2, 32) for _ in range(2)])
    x = torch.randn(1, 5, 16)
    with torch.inference_mode():
        stack(x)
    before = {name: value.clone() for name, value in stack.state_dict().items()}
    stack(x).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in stack.state_dict().items())


def test_a_stack_without_blocks_is_the_identity() -> None:
    x = torch.randn(2, 3, 4)
    assert torch.equal(BlockStack()(x), x)


def test_rms_norm_is_computed_in_fp32() -> None:
    x = torch.full((1, 64), 300.0, dtype=torch.float16)  # its square overflows fp16
    torch.testing.assert_close(RMSNorm(64).half()(x), torch.ones(1, 64, dtype=torch.float16))


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 2 x n_heads = 6, got 32"):
        SelfAttention(32, 3)


def test_fixed_time_tables_are_sinusoids_without_gradient() -> None:
    table = FixedEmbedding(24, 8)
    assert not any(p.requires_grad for p in table.parameters())
    row = table(torch.tensor(3))
    assert row[0] == pytest.approx(torch.sin(torch.tensor(3.0)).item())
    assert row[1] == pytest.approx(torch.cos(torch.tensor(3.0)).item())


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_the_norms_gradient_is_that_of_its_formula(scale: float) -> None:
    g = torch.Generator().manual_seed(0)
    x = (scale * torch.randn(2, 5, 16, generator=g)).double().requires_grad_()
    direction = torch.randn(2, 5, 16, generator=g)
    norm = RMSNorm(16)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(16, generator=g))

    def formula(x: torch.Tensor) -> torch.Tensor:
        return x / (x.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight

    got = torch.autograd.grad((norm(x.float()) * direction).sum(), [x, norm.weight])
    expected = torch.autograd.grad((formula(x) * direction).sum(), [x, norm.weight])
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 / scale, check_dtype=False)


def test_the_norm_is_torchs_own_bit_for_bit_with_and_without_a_gradient() -> None:
    x = torch.randn(3, 7, 832, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.rms_norm(x, (832,), eps=1e-5)
    norm = RMSNorm(832)
    assert torch.equal(norm(x), expected)
    assert torch.equal(norm(x.requires_grad_()), expected)
    with torch.inference_mode():
        assert torch.equal(norm(x), expected)


def test_a_block_under_autocast_gives_the_bits_it_gives_when_each_product_casts_for_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    block = TransformerBlock(32, 2, 48)
    rope = block.self_attn.rotary(torch.arange(6))
    x = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def run() -> list[torch.Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = block(x, rope)
        return [out, *torch.autograd.grad(out.sum(), x)]

    once = run()
    monkeypatch.setattr(layers, "cast_once", lambda y: y)
    each = run()
    assert once[0].dtype == torch.float32
    assert torch.equal(once[0], each[0])
    torch.testing.assert_close(once[1], each[1], rtol=0.02, atol=0.02)
