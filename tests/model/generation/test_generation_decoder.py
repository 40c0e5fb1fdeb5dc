"""Cached generation against recomputation: the same tokens from the same logits, whatever is asked for."""

import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from tiny_models import random_stamps, tiny_predictor, tiny_tokenizer
from torch import Tensor
from uncached_generation import uncached_paths

from kronos_service.model.adapter.read import kronos_of
from kronos_service.model.event_embedding import TAPS
from kronos_service.model.generation.candle_decoder import path_candles, path_candles_at_once
from kronos_service.model.generation.decoder import PathDecoder
from kronos_service.model.generation.packed_linear import PackedLinear, whole_groups
from kronos_service.model.generation.rollout import PathSampler, TokenHistory
from kronos_service.model.generation.sampling import Sampling, noise
from kronos_service.model.generation.static_decoder import StaticDecoder
from kronos_service.model.kronos import Kronos
from kronos_shared.lora_targets import DEFAULT_TARGETS, target_pattern

GREEDY = Sampling(temperature=0)
FAR = 10_000  # a context that no window here reaches


def eventful_model(taps: tuple[str, ...] = TAPS) -> Kronos:
    model = tiny_predictor()
    torch.manual_seed(1)
    for parameter in model.attach_event_embedding(taps).parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def adapted_model() -> Kronos:
    """With LoRA layers in place, whose both factors are random."""
    wrapped = get_peft_model(
        eventful_model(), LoraConfig(r=2, lora_alpha=4, target_modules=target_pattern(DEFAULT_TARGETS))
    )
    for name, parameter in wrapped.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return kronos_of(wrapped.eval())


MODELS = {
    "plain": tiny_predictor(),
    "both taps": eventful_model(),
    "input tap": eventful_model(("input",)),
    "output tap": eventful_model(("output",)),
    "lora": adapted_model(),
    "wide": tiny_predictor(s1_bits=5, s2_bits=6, n_layers=1, d_model=48, n_heads=6, ff_dim=20),
    "no blocks": tiny_predictor(n_layers=0),
    "fixed time": tiny_predictor(learn_te=False),
}
EXACT = {name: copy.deepcopy(model).double() for name, model in MODELS.items()}
"""In double precision, but for the norms: in single, draws now and then fall between two roundings."""


def random_history(seed: int, bars: int, horizon: int, model: Kronos, events: bool) -> TokenHistory:
    g = torch.Generator().manual_seed(seed)
    known = bars + horizon - 1
    ids = [torch.randint(2**bits, (bars,), generator=g) for bits in (model.s1_bits, model.s2_bits)]
    return TokenHistory(
        tokens=torch.stack(ids, dim=-1),
        stamps=random_stamps(g, 1, known)[0],
        events=torch.randn(known, 20, generator=g) if events else None,
    )


@dataclass(frozen=True)
class Case:
    model: Kronos
    histories: list[TokenHistory]
    paths: int
    horizon: int
    sampling: Sampling
    upstream_decode: bool

    @property
    def draws(self) -> Tensor:
        return noise(list(range(len(self.histories))), whole_groups(self.paths), self.horizon)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    model = EXACT[draw(st.sampled_from(sorted(EXACT)))]
    horizon = draw(st.integers(1, 6))
    lengths = draw(st.lists(st.integers(1, 40), min_size=1, max_size=4))
    eventful = [model.event_emb is not None and draw(st.booleans()) for _ in lengths]
    return Case(
        model=model,
        histories=[
            random_history(seed, bars, horizon, model, events)
            for seed, (bars, events) in enumerate(zip(lengths, eventful, strict=True))
        ],
        paths=draw(st.sampled_from([1, 2, 3, 8, 9, 17])),
        horizon=horizon,
        sampling=draw(st.sampled_from([GREEDY, Sampling(top_p=0.9), Sampling(temperature=1.4, top_k=9)])),
        upstream_decode=draw(st.booleans()),
    )


@settings(max_examples=30)
@given(cases())
def test_cached_generation_equals_recomputation(case: Case) -> None:
    drawing = PathSampler(model=case.model, sampling=case.sampling, upstream_decode=case.upstream_decode)
    with torch.inference_mode():
        read = [drawing.read(one) for one in case.histories]
        tokens = drawing.roll_out(read, case.draws)
        decoder = PathDecoder(
            case.model,
            read,
            paths=tokens.shape[1],
            horizon=case.horizon,
            upstream_decode=case.upstream_decode,
        )
        logits = forced_logits(decoder, tokens)
    for i, history in enumerate(case.histories):
        wanted = uncached_paths(
            case.model,
            history,
            case.draws[i, : case.paths],
            sampling=case.sampling,
            context=FAR,
            upstream_decode=case.upstream_decode,
        )
        assert torch.equal(tokens[i, : case.paths], wanted.tokens)
        for got, want in zip(logits, (wanted.s1_logits, wanted.s2_logits), strict=True):
            torch.testing.assert_close(got[i, : case.paths], want, rtol=0, atol=1e-6)


def forced_logits(decoder: PathDecoder | StaticDecoder, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The decoder's logits of s1 and s2, each (B, P, H, V), along given tokens (B, P, H, 2)."""
    s1_logits, s2_logits = [], []
    steps = tokens.flatten(0, 1).unbind(1)
    for i, step in enumerate(steps):
        s1_logits.append(decoder.s1_logits())
        s2_logits.append(decoder.s2_logits(step[:, 0]))
        if i < len(steps) - 1:
            decoder.advance(*step.unbind(-1))
    shape = tokens.shape[:3]
    return torch.stack(s1_logits, dim=1).view(*shape, -1), torch.stack(s2_logits, dim=1).view(*shape, -1)


@settings(max_examples=25)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=3),
    paths=st.sampled_from([2, 8, 16]),
    horizon=st.integers(1, 6),
    layers=st.integers(1, 3),
)
def test_candles_of_paths_equal_those_of_whole_sequences(
    lengths: list[int], paths: int, horizon: int, layers: int
) -> None:
    tokenizer = tiny_tokenizer(n_dec_layers=layers)
    g = torch.Generator().manual_seed(0)
    histories = [torch.randint(16, (bars, 2), generator=g) for bars in lengths]
    tokens = torch.randint(16, (len(lengths), paths, horizon, 2), generator=g)
    with torch.inference_mode():
        got = path_candles(tokenizer, histories, tokens)
        torch.testing.assert_close(path_candles_at_once(tokenizer, histories, tokens), got, rtol=0, atol=1e-5)
        for i, history in enumerate(histories):
            whole = torch.cat((history.expand(paths, -1, -1), tokens[i]), dim=1)
            wanted = tokenizer.decode(*whole.unbind(-1))[:, -horizon:]
            torch.testing.assert_close(got[i], wanted, rtol=0, atol=1e-5)


SHAPES_OF_BASE = [(832, 832), (2048, 832), (832, 2048), (832, 1664), (1024, 832)]


@pytest.mark.parametrize(("outputs", "inputs"), SHAPES_OF_BASE)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_row_is_rounded_alike_in_any_company(outputs: int, inputs: int, threads: int) -> None:
    torch.manual_seed(0)
    layer, rows = PackedLinear(torch.nn.Linear(inputs, outputs)), torch.randn(64, inputs)
    torch.set_num_threads(threads)
    try:
        together = layer(rows)
        for count in (2, 8, 16, 24, 40):
            assert torch.equal(layer(rows[:count]), together[:count])
            assert torch.equal(layer(rows[64 - count :]), together[64 - count :])
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("packs", [True, False])
def test_a_packed_layer_computes_what_its_layer_does(packs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not packs:
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    rows = torch.randn(11, 32)
    for model in (MODELS["plain"], MODELS["lora"]):
        for name in ("self_attn.q_proj", "ffn.w1"):
            layer = model.get_submodule(f"transformer.0.{name}")
            torch.testing.assert_close(PackedLinear(layer)(rows), layer(rows), rtol=0, atol=1e-5)


def test_packed_layers_are_shared_until_a_weight_changes() -> None:
    first, second, rows = torch.nn.Linear(16, 16), torch.nn.Linear(16, 8), torch.randn(3, 16)
    packed = PackedLinear(first, second)
    assert PackedLinear(first, second)._packed is packed._packed
    for changed in (first, second):
        with torch.no_grad():
            changed.weight += 1
        assert_side_by_side(first, second, rows)
    other = torch.nn.Linear(16, 8)
    assert_side_by_side(first, other, rows)
    assert_side_by_side(first, second, rows)


def assert_side_by_side(first: torch.nn.Linear, second: torch.nn.Linear, rows: Tensor) -> None:
    wanted = torch.cat((first(rows), second(rows)), dim=1)
    torch.testing.assert_close(PackedLinear(first, second)(rows), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("bars", [5, 33])
@pytest.mark.parametrize("name", ["both taps", "wide"])
def test_tokens_and_logits_do_not_depend_on_company_by_a_single_bit(name: str, bars: int) -> None:
    model = MODELS[name]
    events = model.event_emb is not None
    others = [random_history(seed, length, 5, model, events) for seed, length in enumerate((9, 1, 40))]
    one = random_history(9, bars, 5, model, events)
    alone = decoded(model, [one], paths=1)
    for company in ([one], [one, *others], [*others, one]):
        place = next(i for i, history in enumerate(company) if history is one)
        for paths in (1, 2, 8, 30):
            tokens, *logits = decoded(model, company, paths=paths)
            assert torch.equal(tokens[place, 0], alone[0][0, 0])
            for got, want in zip(logits, alone[1:], strict=True):
                assert torch.equal(got[place, 0], want[0, 0])


@torch.inference_mode()
def decoded(model: Kronos, histories: list[TokenHistory], *, paths: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens of each history's paths under its own draws, and the logits along them."""
    seeds = [len(one.tokens) for one in histories]
    drawing = PathSampler(model=model, sampling=Sampling())
    read = [drawing.read(one) for one in histories]
    tokens = drawing.roll_out(read, noise(seeds, whole_groups(paths), 5))
    decoder = PathDecoder(model, read, paths=tokens.shape[1], horizon=5, upstream_decode=False)
    return (tokens, *forced_logits(decoder, tokens))


def test_a_lone_path_takes_two_rows_and_others_whole_groups_of_eight() -> None:
    assert np.array_equal([whole_groups(n) for n in (1, 2, 8, 9, 30)], [2, 8, 8, 16, 32])
