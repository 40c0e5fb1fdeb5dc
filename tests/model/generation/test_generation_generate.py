"""Forecasts: repeatable, independent of their company, cut or sliding at the context limit."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pytest_mock import MockerFixture
from tiny_models import random_stamps, tiny_predictor, tiny_tokenizer
from torch import Tensor

from kronos_service.model.generation.generate import (
    Generated,
    GenerationError,
    History,
    generate,
    passes,
    repair_candles,
)
from kronos_service.model.generation.rollout import PathSampler
from kronos_service.model.generation.sampling import Sampling, SamplingError
from kronos_service.model.kronos import Kronos

HORIZON, CONTEXT = 4, 40
GREEDY = Sampling(temperature=0)


def eventful_model() -> Kronos:
    model = tiny_predictor()
    torch.manual_seed(1)
    for parameter in model.attach_event_embedding().parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def histories(*lengths: int, events: bool = True, horizon: int = HORIZON) -> list[History]:
    """Random series of these lengths, each with its own seed."""
    g = torch.Generator().manual_seed(7)
    return [
        History(
            x=torch.randn(bars, 6, generator=g),
            stamps=random_stamps(g, 1, bars)[0],
            future_stamps=random_stamps(g, 1, horizon)[0],
            events=torch.randn(bars + horizon - 1, 20, generator=g) if events else None,
            seed=seed,
        )
        for seed, bars in enumerate(lengths)
    ]


def forecast(series: Sequence[History], model: Kronos | None = None, **changes: Any) -> Tensor:
    return generated(series, model, **changes).bars


def generated(series: Sequence[History], model: Kronos | None = None, **changes: Any) -> Generated:
    settings: dict[str, Any] = {
        "horizon": HORIZON, "paths": 3, "sampling": Sampling(), "context": CONTEXT, **changes,
    }  # fmt: skip
    return generate(tiny_tokenizer(), model or eventful_model(), series, **settings)


def test_the_same_seed_gives_the_same_numbers_alone_or_in_any_batch() -> None:
    series = histories(20, 20, 7, 33, 1)
    together = forecast(series)
    assert together.shape == (5, 3, HORIZON, 6)
    assert torch.equal(together, forecast(series))
    for i in range(5):
        assert torch.equal(forecast(series[i : i + 1]), together[i : i + 1])


def test_paths_that_nobody_wants_any_more_are_dropped_and_the_others_keep_their_bits() -> None:
    series = histories(20, 7, 33)
    together, asked = forecast(series, paths=19), [0, 0, 0]

    def until(one: int, times: int) -> Callable[[], bool]:
        def is_wanted() -> bool:
            asked[one] += 1
            return asked[one] <= times

        return is_wanted

    left = forecast(series, paths=19, wanted=[until(0, 99), until(1, 2), until(2, 99)])
    assert torch.equal(left[[0, 2]], together[[0, 2]])
    assert (left[1] == 0).all()
    assert asked[1] <= 4  # at its third bar no more; then once before its bars are decoded


def test_a_forecast_that_nobody_wants_ends_at_the_next_bar() -> None:
    calls: list[int] = []

    def is_wanted() -> bool:
        calls.append(1)
        return len(calls) < 3

    assert (forecast(histories(20), horizon=HORIZON, wanted=[is_wanted]) == 0).all()
    assert len(calls) <= 4


def product_shapes(*lengths: int, **changes: Any) -> set[tuple[str, torch.Size]]:
    """The input shape of every linear layer during one forecast."""
    seen: set[tuple[str, torch.Size]] = set()
    tokenizer, model = tiny_tokenizer(), eventful_model()
    for part, module in (("tokenizer", tokenizer), ("model", model)):
        for name, layer in module.named_modules():
            if isinstance(layer, torch.nn.Linear):
                # the name is bound now, the shape noted at each call
                layer.register_forward_pre_hook(
                    lambda _, x, key=f"{part}.{name}": seen.add((key, x[0].shape))
                )
    generate(
        tokenizer, model, histories(*lengths), horizon=HORIZON, sampling=Sampling(), context=200, **changes
    )
    return seen


@pytest.mark.parametrize("bars", [1, 20, 130])
def test_matrix_products_have_the_same_shapes_for_any_series_and_paths(bars: int) -> None:
    # a BLAS may round the same row differently in a product of another shape
    assert product_shapes(bars, bars, bars, paths=11) == product_shapes(bars, paths=1)


@pytest.mark.parametrize("bars", [5, 20, 130])
def test_a_path_does_not_depend_on_how_many_paths_there_are(bars: int) -> None:
    series = histories(bars, bars)
    many = forecast(series, paths=19, context=200)
    for paths in (1, 7, 8, 9):
        assert torch.equal(forecast(series, paths=paths, context=200), many[:, :paths])


def test_unequal_seeds_and_unequal_paths_differ() -> None:
    (one,) = histories(20)
    paths = forecast([one], paths=6)[0]
    others = forecast([replace(one, seed=1)], paths=6)[0]
    assert len({tuple(path.flatten().tolist()) for path in (*paths, *others)}) == 12


def test_greedy_paths_are_equal_and_ignore_the_seed() -> None:
    (one,) = histories(20)
    paths = forecast([one], sampling=GREEDY, paths=4)
    assert torch.equal(paths[:, :1].expand_as(paths), paths)
    assert torch.equal(forecast([replace(one, seed=9)], sampling=GREEDY, paths=4), paths)


def test_a_longer_horizon_begins_with_the_shorter_one() -> None:
    series = histories(20, 15, 20, events=False)
    model = tiny_predictor()
    short = [replace(one, future_stamps=one.future_stamps[:2]) for one in series]
    torch.testing.assert_close(
        forecast(series, model)[:, :, :2], forecast(short, model, horizon=2), rtol=0, atol=1e-6
    )


def test_events_of_a_step_change_the_bars_from_that_step_on() -> None:
    (one,) = histories(20)
    assert one.events is not None
    before = forecast([one], paths=8)
    for step in range(1, HORIZON):
        events = one.events.clone()
        events[20 + step - 1] += 5
        after = forecast([replace(one, events=events)], paths=8)
        torch.testing.assert_close(after[:, :, :step], before[:, :, :step], rtol=0, atol=1e-6)
        assert not torch.allclose(after[:, :, step], before[:, :, step], atol=1e-3)


def test_without_events_the_plain_base_forecasts() -> None:
    series = histories(20, 9, events=False)
    assert torch.equal(forecast(series, eventful_model()), forecast(series, tiny_predictor()))


def test_series_with_and_without_events_share_a_batch() -> None:
    plain, eventful = histories(20, 20, events=False), histories(20, 20)
    together = forecast([plain[0], eventful[1]])
    assert torch.equal(together[:1], forecast(plain[:1]))
    assert torch.equal(together[1:], forecast(eventful[1:]))


def last(history: History, bars: int) -> History:
    cut = len(history.x) - bars
    events = None if history.events is None else history.events[cut:]
    return replace(history, x=history.x[cut:], stamps=history.stamps[cut:], events=events)


def test_long_history_is_cut_so_that_the_forecast_fits_the_context_and_the_result_says_so() -> None:
    series = histories(60, CONTEXT - HORIZON, 5)
    result = generated(series)
    assert result.bars_used == (CONTEXT - HORIZON, CONTEXT - HORIZON, 5)
    cut = [last(one, used) for one, used in zip(series, result.bars_used, strict=True)]
    assert torch.equal(result.bars, forecast(cut))


def test_upstream_decoding_differs_from_ours() -> None:
    series = histories(20, 12, events=False)
    assert not torch.equal(forecast(series, paths=8), forecast(series, paths=8, upstream_decode=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizon": 0}, "at least 1, got 0, 3, 2"),
        ({"paths": 0}, "at least 1, got 4, 0, 2"),
        ({"context": HORIZON}, "horizon must be below the context of 4 bars, got 4"),
        ({"horizon": 2}, r"histories\[0\].future_stamps must be \(2, 5\), got \(4, 5\)"),
    ],
)
def test_requests_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(GenerationError, match=message):
        forecast(histories(20, 9), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": torch.zeros(0, 6)}, r"histories\[1\].x must be \(1, 6\), got \(0, 6\)"),
        ({"x": torch.zeros(9, 5)}, r"histories\[1\].x must be \(9, 6\), got \(9, 5\)"),
        ({"stamps": torch.zeros(8, 5, dtype=torch.int64)}, r"stamps must be \(9, 5\), got \(8, 5\)"),
        ({"events": torch.zeros(9, 20)}, r"events must be \(12, 20\), got \(9, 20\)"),
        ({"events": torch.full((12, 20), float("inf"))}, r"histories\[1\]: bars and events must be finite"),
        ({"x": torch.full((9, 6), float("nan"))}, "must be finite"),
        ({"seed": -1}, "seeds must not be negative"),
    ],
)
def test_a_history_that_does_not_fit_is_refused_by_its_place(changes: dict[str, Any], message: str) -> None:
    first, second = histories(20, 9)
    with pytest.raises((GenerationError, SamplingError), match=message):
        forecast([first, replace(second, **changes)])


def test_no_history_at_all_is_refused() -> None:
    with pytest.raises(GenerationError, match="at least 1, got 4, 3, 0"):
        forecast([])


def test_a_model_in_training_mode_is_refused() -> None:
    with pytest.raises(GenerationError, match=r"must be in eval\(\)"):
        forecast(histories(20), tiny_predictor().train())


@given(arrays(np.float64, (5, 6), elements=st.floats(-1e6, 1e6)))
def test_repaired_candles_are_in_order_and_keep_open_and_close(bars: np.ndarray[Any, Any]) -> None:
    before = bars.copy()
    repaired = repair_candles(bars)
    opens, highs, lows, closes = repaired[:, :4].T
    assert (highs >= np.maximum(opens, closes)).all()
    assert (lows <= np.minimum(opens, closes)).all()
    assert np.array_equal(repaired[:, [0, 3, 4, 5]], before[:, [0, 3, 4, 5]])
    assert np.array_equal(repair_candles(repaired), repaired)
    assert np.array_equal(bars, before)


def test_a_valid_candle_is_left_alone_though_its_z_scores_are_out_of_order() -> None:
    bars = np.array([[100.0, 103, 99, 102, 7, 8]])
    assert np.array_equal(repair_candles(bars), bars)
    # why repair comes after denormalising: each column has its own mean, here high's is the largest
    z = bars - np.array([[100.0, 105, 95, 100, 7, 8]])
    assert not np.array_equal(repair_candles(z), z)


@pytest.mark.parametrize(("series", "paths"), [(1, 1), (4, 16), (5, 16), (2, 33), (2, 65), (3, 136)])
def test_passes_are_the_rollouts_of_a_forecast(series: int, paths: int, mocker: MockerFixture) -> None:
    rolled = mocker.spy(PathSampler, "roll_out")
    forecast(histories(*[5] * series, horizon=1), horizon=1, paths=paths)
    assert rolled.call_count == passes(series, paths)
