"""Sample paths of a model at many origins, by the code that serves forecasts.

Letters: n origins, N sample paths, H horizon in bars, 6 columns of a bar.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from kronos_service.data.snapshot import read as snapshots
from kronos_service.data.snapshot.read import Snapshot
from kronos_service.events.encoder import prepare
from kronos_service.finetune.event_conditioned.evaluation.origins import Origin
from kronos_service.finetune.event_conditioned.samples.series import Series
from kronos_service.finetune.event_conditioned.samples.windows import MIN_HISTORY
from kronos_service.model.generation.generate import History, generate
from kronos_service.model.generation.inputs import Prepared, prepare_history, to_prices
from kronos_service.model.generation.sampling import Sampling
from kronos_service.model.kronos import Kronos
from kronos_service.model.tokenizer import KronosTokenizer
from kronos_shared.normalization import Floats

AT_ONCE = 8
"""Origins that are generated together."""

Events = Literal["known", "zeroed", "none"]
"""What the model is shown: what was known, all channels zero, or no event embedding at all (the base)."""


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
    snapshot: Snapshot, series: Sequence[Series], origins: Sequence[Origin], settings: PathSettings
) -> list[Prepared]:
    """What is known at each origin, ready for a model; nothing from after an origin's as_of is in it."""
    tables = prepare(snapshot.calendar, snapshots.leader_data(snapshot))
    bars = {
        number: snapshots.series(snapshot, series[number].symbol) for number in {o.series for o in origins}
    }
    return [
        prepare_history(
            bars[origin.series].iloc[: origin.bar + 1],
            series[origin.series].asset_class,
            tables,
            horizon=settings.horizon,
            longest=settings.context - settings.horizon,
            min_history=MIN_HISTORY,
            seed=_seed(settings.seed, series[origin.series], origin),
        )
        for origin in origins
    ]


def sample_closes(
    tokenizer: KronosTokenizer,
    model: Kronos,
    prepared: Sequence[Prepared],
    settings: PathSettings,
    *,
    events: Events,
    advance: Callable[[int], object] = lambda _: None,
) -> Floats:
    """Closes (n, N, H) in each series' own currency; all models draw with the same random numbers."""
    closes = []
    device = next(model.parameters()).device
    for begin in range(0, len(prepared), AT_ONCE):
        group = prepared[begin : begin + AT_ONCE]
        generated = generate(
            tokenizer,
            model,
            [_on(device, _shown(one.history, events)) for one in group],
            horizon=settings.horizon,
            paths=settings.paths,
            sampling=settings.sampling,
            context=settings.context,
        )
        closes += [to_prices(bars, one)[..., 3] for bars, one in zip(generated.bars, group, strict=True)]
        advance(len(group))
    return np.stack(closes)


def _shown(history: History, events: Events) -> History:
    if events == "known":
        return history
    assert history.events is not None
    return replace(history, events=torch.zeros_like(history.events) if events == "zeroed" else None)


def _on(device: torch.device, history: History) -> History:
    return replace(
        history,
        x=history.x.to(device),
        stamps=history.stamps.to(device),
        future_stamps=history.future_stamps.to(device),
        events=None if history.events is None else history.events.to(device),
    )


def _seed(seed: int, one: Series, origin: Origin) -> int:
    """A seed of its own for each symbol and date, whichever other origins are drawn."""
    day = int(one.dates[origin.bar].astype(np.int64))
    return int(np.random.SeedSequence([seed, day, *one.symbol.encode()]).generate_state(1)[0])
