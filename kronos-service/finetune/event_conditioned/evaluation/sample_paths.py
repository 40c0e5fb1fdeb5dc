"""Sample paths of a model at many origins, by the code that serves forecasts.

Letters: n origins, N sample paths, H horizon in bars.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kronos_service.data.snapshot import read as snapshots
from kronos_service.data.snapshot.read import Snapshot
from kronos_service.events.encoder import EventEncoder, prepare
from kronos_service.finetune.event_conditioned.evaluation.har import log_range
from kronos_service.finetune.event_conditioned.evaluation.origins import Origin
from kronos_service.finetune.event_conditioned.samples.series import Series
from kronos_service.model.generation.inputs import Prepared, Shown, forecast_prices, prepare_history
from kronos_service.model.generation.sampling import Sampling
from kronos_service.model.kronos import Kronos
from kronos_service.model.tokenizer import KronosTokenizer
from kronos_shared.adapter_manifest import RecalibrationRecord
from kronos_shared.columns import CLOSE, HIGH, LOW
from kronos_shared.normalization import Floats

AT_ONCE = 8
"""Origins that are generated together."""


@dataclass(frozen=True, kw_only=True)
class PathSettings:
    """How paths are drawn, the same for every model."""

    horizon: int
    paths: int
    context: int
    """The model's limit in bars."""
    sampling: Sampling
    seed: int


def prepare_origins(
    snapshot: Snapshot,
    series: Sequence[Series],
    origins: Sequence[Origin],
    settings: PathSettings,
    encoder: EventEncoder,
    *,
    recalibration: RecalibrationRecord | None = None,
) -> list[Prepared]:
    """What is known at each origin, ready for a model; nothing from after an origin's as_of is in it."""
    tables = prepare(snapshot.calendar, snapshots.leader_data(snapshot), snapshot.taxonomy)
    bars = {
        number: snapshots.series(snapshot, series[number].symbol) for number in {o.series for o in origins}
    }
    return [
        prepare_history(
            bars[origin.series].iloc[: origin.bar + 1],
            series[origin.series].asset_class,
            tables,
            symbol=series[origin.series].symbol,
            encoder=encoder,
            context=settings.context,
            horizon=settings.horizon,
            seed=_seed(settings.seed, series[origin.series], origin),
            recalibration=recalibration,
            interval=snapshot.interval,
        )
        for origin in origins
    ]


@dataclass(frozen=True, kw_only=True, eq=False)
class SampledBars:
    """What the sample paths of one model say."""

    closes: Floats
    """(n, N, H) in each series' own currency."""
    log_range: Floats
    """(n, N) log true range of the first bar, whose previous close is the origin's."""


def sample_bars(
    tokenizer: KronosTokenizer,
    model: Kronos,
    prepared: Sequence[Prepared],
    settings: PathSettings,
    *,
    events: Shown,
    advance: Callable[[int], object] = lambda _: None,
) -> SampledBars:
    """Closes and first ranges of every origin's paths; all models draw with the same random numbers."""
    closes: list[Floats] = []
    ranges: list[Floats] = []
    for begin in range(0, len(prepared), AT_ONCE):
        group = [one.shown(events) for one in prepared[begin : begin + AT_ONCE]]
        prices = forecast_prices(
            tokenizer,
            model,
            group,
            horizon=settings.horizon,
            paths=settings.paths,
            sampling=settings.sampling,
            context=settings.context,
        )
        closes += [paths[..., CLOSE] for paths in prices]
        ranges += [
            log_range(paths[:, 0, HIGH], paths[:, 0, LOW], np.array(one.last_close))
            for paths, one in zip(prices, group, strict=True)
        ]
        advance(len(group))
    return SampledBars(closes=np.stack(closes), log_range=np.stack(ranges))


def _seed(seed: int, one: Series, origin: Origin) -> int:
    """A seed of its own for each symbol and date, whichever other origins are drawn."""
    day = int(one.dates[origin.bar].astype(np.int64))
    return int(np.random.SeedSequence([seed, day, *one.symbol.encode()]).generate_state(1)[0])
