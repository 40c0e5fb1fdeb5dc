"""What is planted in the sample market is found, and nothing is found under the placebo; three seeds.

Run with `pytest -m slow -s` and this file; each seed prints its figures.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from kronos_service.data.sample import Effects, sample_snapshot_path
from kronos_service.data.snapshot.read import load_snapshot
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.evaluation.bootstrap import Gain
from kronos_service.finetune.event_conditioned.event_lora import event_lora
from kronos_service.finetune.event_conditioned.samples.series import Series, build_series
from kronos_service.model.adapter.read import attach, kronos_of, read_adapter
from kronos_service.model.factory import Bundle, load_bundle
from kronos_service.model.generation.generate import History, generate
from kronos_service.model.generation.sampling import Sampling
from kronos_service.model.kronos import Kronos
from kronos_shared.normalization import denormalize, normalize, statistics

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SURPRISE = DEFAULT_TAXONOMY.channels.index("surprise_z")
HISTORY, PATHS, ORIGINS = 96, 64, 150


@dataclass(frozen=True)
class Forecaster:
    """One-step forecasts of an adapter (events given) or of its base."""

    bundle: Bundle
    model: Kronos

    def returns(
        self, one: Series, bars: npt.NDArray[np.int64], events: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float64]:
        """Log returns (n, PATHS) of the bars after `bars` (n,), given event rows (n, HISTORY, 20)."""
        windows = [one.features[bar + 1 - HISTORY : bar + 1] for bar in bars]
        scales = [statistics(window) for window in windows]
        paths = generate(
            self.bundle.tokenizer,
            self.model,
            [
                History(
                    x=torch.from_numpy(normalize(window, *scale)),
                    stamps=torch.from_numpy(one.stamps[bar + 1 - HISTORY : bar + 1]),
                    future_stamps=torch.from_numpy(one.stamps[bar + 1 : bar + 2]),
                    events=torch.from_numpy(rows),
                    seed=int(bar),
                )
                for window, scale, bar, rows in zip(windows, scales, bars, events, strict=True)
            ],
            horizon=1,
            paths=PATHS,
            sampling=Sampling(top_p=1.0),
            context=self.bundle.context,
        ).bars
        closes = np.stack(
            [denormalize(path[:, 0].numpy(), *scale)[:, 3] for path, scale in zip(paths, scales, strict=True)]
        )
        moves: npt.NDArray[np.float64] = np.log(closes / one.features[bars, 3][:, None])
        return moves


@dataclass(frozen=True)
class Found:
    """What one seed's training found."""

    event: Gain
    quiet: Gain
    placebo: Gain
    dispersion: float
    """Mean forecast deviation on event days over that on quiet days."""
    up: float
    down: float
    """Mean forecast return, in quiet-day sigmas, of the bar after a surprise of +2 and of -2 sigma."""


@pytest.fixture(scope="module", params=[0, 1, 2], ids=lambda seed: f"seed{seed}")
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Found:
    directory: Path = tmp_path_factory.mktemp("planted")
    result = event_lora(
        EventLoraConfig(
            run_dir=directory / "run",
            adapter_store=directory / "adapters",
            seed=request.param,
            control=True,
            placebo=True,
            promote="always",
        )
    )
    bundle = load_bundle("kronos-nano")
    forecaster = Forecaster(bundle, kronos_of(attach(read_adapter(directory / "run" / "adapter"), bundle)))
    series = [one for one in build_series(load_snapshot(sample_snapshot_path())) if one.symbol != "SPY"]
    up, down = surprise_moves(forecaster, series)
    figures = Found(
        event=result.gains["adapter_event"],
        quiet=result.gains["adapter_quiet"],
        placebo=result.gains["placebo_event"],
        dispersion=dispersion_ratio(forecaster, series),
        up=up,
        down=down,
    )
    print(f"seed {request.param}: {figures}")  # noqa: T201
    return figures


def validation_origins(one: Series, wanted: npt.NDArray[np.bool_], seed: int) -> npt.NDArray[np.int64]:
    """Up to ORIGINS / 10 bars whose next bar is in the validation split and wanted."""
    dates = one.dates[1:]
    inside = (dates >= np.datetime64("2025-01-01")) & (dates < np.datetime64("2025-07-01"))
    (bars,) = np.nonzero(inside & wanted)
    return np.random.default_rng(seed).permutation(bars)[: ORIGINS // 10]


def known_events(one: Series, bars: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    return np.stack([one.events[bar + 1 - HISTORY : bar + 1] for bar in bars])


def quiet_sigma(one: Series) -> float:
    """Deviation of the symbol's quiet-day log returns before the validation split."""
    returns = np.diff(np.log(one.features[:, 3]))
    past = (one.dates[1:] < np.datetime64("2025-01-01")) & ~one.is_event[1:]
    return float(returns[past].std())


def dispersion_ratio(forecaster: Forecaster, series: list[Series]) -> float:
    spread: dict[bool, list[float]] = {True: [], False: []}
    for number, one in enumerate(series[:10]):
        for event in (True, False):
            bars = validation_origins(one, one.is_event[1:] == event, number)
            moves = forecaster.returns(one, bars, known_events(one, bars)) / quiet_sigma(one)
            spread[event] += moves.std(axis=1).tolist()
    return float(np.mean(spread[True]) / np.mean(spread[False]))


def surprise_moves(forecaster: Forecaster, series: list[Series]) -> tuple[float, float]:
    means = []
    for sign in (2.0, -2.0):
        moves: list[float] = []
        for number, one in enumerate(series[:10]):
            bars = validation_origins(one, one.events[:-1, SURPRISE] != 0, number)
            events = known_events(one, bars)
            events[:, -1, SURPRISE] = sign
            moves += (forecaster.returns(one, bars, events).mean(axis=1) / quiet_sigma(one)).tolist()
        means.append(float(np.mean(moves)))
    return means[0], means[1]


def test_event_days_gain_at_least_three_percent_over_the_control(found: Found) -> None:
    assert found.event.percent >= 3.0
    assert found.event.low > 0


def test_quiet_days_end_at_most_one_percent_above_the_control(found: Found) -> None:
    assert found.quiet.percent >= -1.0


def test_the_placebo_finds_less_than_a_third_of_it(found: Found) -> None:
    assert found.placebo.nats < found.event.nats / 3


def test_forecasts_are_wider_on_event_days_by_the_planted_factor(found: Found) -> None:
    assert found.dispersion == pytest.approx(Effects().volatility, rel=0.3)


def test_the_sign_of_a_surprise_is_the_sign_of_the_next_bars_mean_move(found: Found) -> None:
    assert found.up > 0.3
    assert found.down < -0.3
