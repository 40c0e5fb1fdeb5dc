"""Decoding with fixed shapes against growing caches, and in bf16 against fp32."""

import copy
import gc
import threading
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_generation_decoder import GREEDY, MODELS, Case, cases, forced_logits, random_history
from tiny_models import tiny_tokenizer
from torch import Tensor

from kronos_service.model.generation import static_decoder as module
from kronos_service.model.generation.decoder import PathDecoder, ReadHistory
from kronos_service.model.generation.generate import History, generate
from kronos_service.model.generation.rollout import PathSampler
from kronos_service.model.generation.sampling import noise
from kronos_service.model.generation.static_decoder import MOST_IDLE, Shape, StaticDecoder, static_decoder
from kronos_service.model.kronos import Kronos
from kronos_service.model.precision import in_bf16

BF16_LOGITS = 0.15
"""Largest departure of a logit in bf16 from fp32, in standard deviations of the logits: bf16 has 8 bits."""


def sampler_of(case: Case, *, static: bool) -> PathSampler:
    return PathSampler(
        model=case.model, sampling=case.sampling, upstream_decode=case.upstream_decode, static=static
    )


@settings(max_examples=30)
@given(cases())
def test_fixed_shapes_draw_the_tokens_of_growing_caches_from_the_same_logits(case: Case) -> None:
    with torch.inference_mode():
        read = [sampler_of(case, static=False).read(one) for one in case.histories]
        tokens = sampler_of(case, static=False).roll_out(read, case.draws)
        assert torch.equal(sampler_of(case, static=True).roll_out(read, case.draws), tokens)
        wanted, got = (
            forced(case.model, read, tokens, static=static, upstream_decode=case.upstream_decode)
            for static in (False, True)
        )
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


@given(
    lengths=st.lists(st.integers(1, 600), min_size=1, max_size=9),
    horizon=st.integers(1, 64),
)
def test_a_shape_holds_its_histories_and_few_shapes_hold_all(lengths: list[int], horizon: int) -> None:
    model = MODELS["plain"]
    read = [PathSampler(model=model, sampling=GREEDY).read(random_history(0, 2, 1, model, False))]
    histories = [replace(read[0], bars=bars) for bars in lengths]
    shape = Shape.of(histories, 8, horizon, upstream_decode=False)
    assert len(lengths) <= shape.series < 2 * len(lengths)
    assert max(lengths) <= shape.bars < max(lengths) + 128
    assert horizon - 1 <= shape.ahead < horizon + 8
    assert (shape.bars % 128, shape.ahead % 8) == (0, 0)


def test_paths_that_nobody_waits_for_change_no_other() -> None:
    model = MODELS["both taps"]
    sampler = PathSampler(model=model, sampling=GREEDY, static=True)
    asked = iter(range(100))
    with torch.inference_mode():
        read = [sampler.read(random_history(seed, 9, 6, model, True)) for seed in range(3)]
        draws = noise([0, 1, 2], 8, 6)
        whole = sampler.roll_out(read, draws)
        part = sampler.roll_out(read, draws, [lambda: True, lambda: next(asked) < 2, lambda: True])
    assert torch.equal(part[[0, 2]], whole[[0, 2]])
    assert torch.equal(part[1, :, :2], whole[1, :, :2])
    assert (part[1, :, 2:] == 0).all()


def take(model: Kronos, read: Sequence[ReadHistory], horizon: int) -> StaticDecoder:
    """One of two decoders that are in use at the same time."""
    with (
        static_decoder(model, read, paths=2, horizon=horizon, upstream_decode=False) as one,
        static_decoder(model, read, paths=2, horizon=horizon, upstream_decode=False) as other,
    ):
        assert one is not other
        return one


def test_a_decoder_is_used_again_by_one_caller_at_a_time_and_goes_with_its_model() -> None:
    model = copy.deepcopy(MODELS["plain"])
    read = [PathSampler(model=model, sampling=GREEDY).read(random_history(0, 5, 3, model, False))]
    first = take(model, read, 3)
    assert take(model, read, 3) is first
    for horizon in (9, 17, 25, 33, 41):
        take(model, read, horizon)
    assert len(module._idle[model]) == MOST_IDLE
    models = len(module._idle)
    del model, first
    gc.collect()
    assert len(module._idle) == models - 1


def test_threads_do_not_disturb_each_other() -> None:
    model = MODELS["plain"]
    sampler = PathSampler(model=model, sampling=GREEDY, static=True)
    with torch.inference_mode():
        reads = [[sampler.read(random_history(seed, 20, 9, model, False))] for seed in range(4)]
        wanted = [sampler.roll_out(read, noise([0], 8, 9)) for read in reads]
    got: dict[int, Tensor] = {}

    def work(number: int) -> None:
        with torch.inference_mode():
            for _ in range(5):
                got[number] = sampler.roll_out(reads[number], noise([0], 8, 9))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert all(torch.equal(got[number], wanted[number]) for number in range(4))


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("name", ["both taps", "wide", "lora"])
def test_bf16_logits_are_near_those_of_fp32(name: str, static: bool) -> None:
    exact = MODELS[name]
    rounded = in_bf16(exact)
    histories = [random_history(seed, bars, 6, exact, name != "wide") for seed, bars in enumerate((30, 7))]
    with torch.inference_mode():
        tokens = torch.randint(16, (2, 8, 6, 2), generator=torch.Generator().manual_seed(0))
        logits = []
        for model in (exact, rounded):
            read = [PathSampler(model=model, sampling=GREEDY).read(one) for one in histories]
            logits.append(forced(model, read, tokens, static=static))
    for exactly, nearly in zip(*logits, strict=True):
        assert nearly.dtype == torch.bfloat16
        departure = (nearly.float() - exactly).abs().max() / exactly.std()
        assert 0 < departure < BF16_LOGITS


def forced(
    model: Kronos, read: Sequence[ReadHistory], tokens: Tensor, *, static: bool, upstream_decode: bool = False
) -> tuple[Tensor, Tensor]:
    """Logits along given tokens (B, P, H, 2)."""
    paths, horizon = tokens.shape[1:3]
    if not static:
        grown = PathDecoder(model, read, paths=paths, horizon=horizon, upstream_decode=upstream_decode)
        return forced_logits(grown, tokens)
    with static_decoder(
        model, read, paths=paths, horizon=horizon, upstream_decode=upstream_decode
    ) as decoder:
        return forced_logits(decoder, tokens)


def test_a_forecast_in_bf16_is_finite_and_its_bars_are_fp32() -> None:
    tokenizer, model = tiny_tokenizer(), in_bf16(MODELS["both taps"])
    history = History(
        x=torch.randn(20, 6, generator=torch.Generator().manual_seed(0)),
        stamps=torch.ones(20, 5, dtype=torch.int64),
        future_stamps=torch.ones(4, 5, dtype=torch.int64),
        events=torch.zeros(23, 20),
        seed=0,
    )
    for static in (None, True):
        got = generate(
            tokenizer, model, [history], horizon=4, paths=3, sampling=GREEDY, context=64, static=static
        )
        assert got.bars.shape == (1, 3, 4, 6)
        assert got.bars.dtype == torch.float32
        assert got.bars.isfinite().all()


def test_a_rounded_copy_leaves_the_original_and_its_positions_exact() -> None:
    model = copy.deepcopy(MODELS["lora"])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rounded = in_bf16(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {one.dtype for one in rounded.parameters()} == {torch.bfloat16}
    assert {one.dtype for one in rounded.buffers()} == {torch.float32}
    assert not any(one.requires_grad for one in rounded.parameters())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", sorted(MODELS))
def test_graphs_draw_what_growing_caches_draw(name: str) -> None:
    model = copy.deepcopy(MODELS[name]).cuda()
    histories = [random_history(seed, bars, 9, model, False) for seed, bars in enumerate((30, 7, 150))]
    on_device = [replace(one, tokens=one.tokens.cuda(), stamps=one.stamps.cuda()) for one in histories]
    with torch.inference_mode():
        for _ in range(2):  # captured, then replayed
            tokens = [
                sampler.roll_out([sampler.read(one) for one in on_device], noise([0, 1, 2], 8, 9))
                for sampler in (
                    PathSampler(model=model, sampling=GREEDY),
                    PathSampler(model=model, sampling=GREEDY, static=True),
                )
            ]
            assert torch.equal(*tokens)
