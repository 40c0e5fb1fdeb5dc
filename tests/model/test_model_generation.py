"""Forecasts: repeatable, independent of their company, cut or sliding at the context limit."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tiny_models import random_stamps, tiny_predictor, tiny_tokenizer
from torch import Tensor

from kronos_service.model.generation import GenerationError, generate, repair_candles
from kronos_service.model.kronos import Kronos
from kronos_service.model.sampling import Sampling
from kronos_service.model.tokenizer import KronosTokenizer

HORIZON, CONTEXT = 4, 40


def eventful_model() -> Kronos:
    model = tiny_predictor()
    torch.manual_seed(1)
    for parameter in model.attach_event_embedding().parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def request(series: int = 3, bars: int = 20, events: bool = True) -> dict[str, Any]:
    """Arguments of `generate` for some random series."""
    g = torch.Generator().manual_seed(7)
    return {
        "x": torch.randn(series, bars, 6, generator=g),
        "stamps": random_stamps(g, series, bars),
        "future_stamps": random_stamps(g, series, HORIZON),
        "events": torch.randn(series, bars + HORIZON - 1, 20, generator=g) if events else None,
        "horizon": HORIZON,
        "paths": 3,
        "sampling": Sampling(),
        "seeds": list(range(series)),
        "context": CONTEXT,
    }


def one_of(arguments: dict[str, Any], i: int) -> dict[str, Any]:
    """The request for series i alone."""
    per_series = ("x", "stamps", "future_stamps", "events", "seeds")
    return arguments | {name: arguments[name][i : i + 1] for name in per_series}


def forecast(arguments: dict[str, Any], model: Kronos | None = None, **changes: Any) -> Tensor:
    return generate(tiny_tokenizer(), model or eventful_model(), **(arguments | changes))


def test_the_same_seed_gives_the_same_numbers_alone_or_in_any_batch() -> None:
    arguments = request(series=5)
    together = forecast(arguments)
    assert together.shape == (5, 3, HORIZON, 6)
    assert torch.equal(together, forecast(arguments))
    for i in range(5):
        assert torch.equal(forecast(one_of(arguments, i)), together[i : i + 1])


def product_shapes(**changes: Any) -> set[tuple[str, torch.Size]]:
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
    generate(tokenizer, model, **(request(**changes.pop("request")) | changes))
    return seen


@pytest.mark.parametrize("bars", [1, 20, 130])
def test_matrix_products_have_the_same_shapes_for_any_series_and_paths(bars: int) -> None:
    # a BLAS may round the same row differently in a product of another shape
    alone = product_shapes(request={"series": 1, "bars": bars}, paths=1, context=200)
    assert product_shapes(request={"series": 3, "bars": bars}, paths=11, context=200) == alone


@pytest.mark.parametrize("bars", [5, 20, 130])
def test_a_path_does_not_depend_on_how_many_paths_there_are(bars: int) -> None:
    arguments = request(series=2, bars=bars) | {"context": 200}
    many = forecast(arguments, paths=19)
    for paths in (1, 7, 8, 9):
        assert torch.equal(forecast(arguments, paths=paths), many[:, :paths])


def test_unequal_seeds_and_unequal_paths_differ() -> None:
    arguments = one_of(request(), 0)
    paths = forecast(arguments, seeds=[0], paths=6)[0]
    others = forecast(arguments, seeds=[1], paths=6)[0]
    assert len({tuple(path.flatten().tolist()) for path in (*paths, *others)}) == 12


def test_greedy_paths_are_equal_and_ignore_the_seed() -> None:
    arguments = one_of(request(), 0) | {"sampling": Sampling(temperature=0)}
    paths = forecast(arguments, paths=4)
    assert torch.equal(paths[:, :1].expand_as(paths), paths)
    assert torch.equal(forecast(arguments, paths=4, seeds=[9]), paths)


def test_a_longer_horizon_begins_with_the_shorter_one() -> None:
    arguments = request(events=False)
    model = tiny_predictor()
    short = {"horizon": 2, "future_stamps": arguments["future_stamps"][:, :2]}
    torch.testing.assert_close(
        forecast(arguments, model)[:, :, :2], forecast(arguments, model, **short), rtol=0, atol=1e-6
    )


def test_events_of_a_step_change_the_bars_from_that_step_on() -> None:
    arguments = one_of(request(), 0)
    before = forecast(arguments, paths=8)
    for step in range(1, HORIZON):
        events = arguments["events"].clone()
        events[:, 20 + step - 1] += 5
        after = forecast(arguments, paths=8, events=events)
        torch.testing.assert_close(after[:, :, :step], before[:, :, :step], rtol=0, atol=1e-6)
        assert not torch.allclose(after[:, :, step], before[:, :, step], atol=1e-3)


def test_without_events_the_plain_base_forecasts() -> None:
    arguments = request(events=False)
    assert torch.equal(forecast(arguments, eventful_model()), forecast(arguments, tiny_predictor()))


def test_long_history_is_cut_so_that_the_forecast_fits_the_context() -> None:
    long = request(bars=60)
    keep = CONTEXT - HORIZON
    cut = long | {name: long[name][:, 60 - keep :] for name in ("x", "stamps", "events")}
    assert torch.equal(forecast(long), forecast(cut))


def test_an_exact_window_sees_the_last_context_bars_at_each_step() -> None:
    long = request(bars=60, events=False)
    model = tiny_predictor()
    exact, cut = forecast(long, model, exact_window=True), forecast(long, model)
    assert not torch.equal(exact, cut)
    # the first step, by hand: the tokens of all history, the last `context` of them, greedily
    greedy = long | {"sampling": Sampling(temperature=0), "paths": 1}
    tokenizer = tiny_tokenizer()
    with torch.no_grad():
        s1, s2 = tokenizer.encode(long["x"])
        h = model.hidden(s1[:, -CONTEXT:], s2[:, -CONTEXT:], long["stamps"][:, -CONTEXT:])
        next_s1 = model.s1_logits(h[:, -1:]).argmax(-1)
        next_s2 = model.s2_logits(h, next_s1, torch.full((3, 1), CONTEXT - 1)).argmax(-1)
        tail = [torch.cat((ids[:, 1 - CONTEXT :], new), 1) for ids, new in ((s1, next_s1), (s2, next_s2))]
        by_hand = tokenizer.decode(tail[0], tail[1])[:, -1]
    one = {"horizon": 1, "future_stamps": long["future_stamps"][:, :1], "exact_window": True}
    torch.testing.assert_close(forecast(greedy, model, **one)[:, 0, 0], by_hand, rtol=0, atol=1e-5)


def test_inside_the_limit_the_exact_window_changes_nothing() -> None:
    assert torch.equal(forecast(request()), forecast(request(), exact_window=True))


def test_upstream_decoding_differs_from_ours() -> None:
    arguments = request(events=False) | {"paths": 8}
    assert not torch.equal(forecast(arguments), forecast(arguments, upstream_decode=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizon": 0}, "horizon, paths and history must be at least 1, got 0, 3, 20"),
        ({"paths": 0}, "must be at least 1"),
        ({"context": HORIZON}, "horizon must be below the context of 4 bars, got 4"),
        ({"seeds": [1]}, "expected one seed for each of 3 series, got 1"),
        ({"future_stamps": torch.zeros(3, 2, 5, dtype=torch.int64)}, r"future_stamps must be \(3, 4, 5\)"),
        ({"events": torch.zeros(3, 20, 20)}, r"events must be \(3, 23, 20\), got \(3, 20, 20\)"),
        ({"x": torch.full((3, 20, 6), float("nan"))}, "history and events must be finite"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(GenerationError, match=message):
        forecast(request(), **changes)


def test_a_model_in_training_mode_is_refused(tokenizer: KronosTokenizer, model: Kronos) -> None:
    with pytest.raises(GenerationError, match=r"must be in eval\(\)"):
        generate(tokenizer, model.train(), **request(events=False))


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
