"""A first forecast of a model that is about to serve, so that no request pays for first-time work."""

import time

import numpy as np
import torch

from kronos_service.events.taxonomy import CHANNELS
from kronos_service.inference.models.served_model import ServedModel
from kronos_service.inference.scheduler.work import BatchKey, ForecastJob, context_of, cost_of, run_batch
from kronos_service.model.generation.generate import History
from kronos_service.model.generation.sampling import Sampling

HORIZON = 2


def warm_up(serving: ServedModel) -> float:
    """Forecast two bars of noise from as much history as fits; the seconds it took per unit of cost.

    Raises:
        ValueError: the model gives something that is no number.
    """
    bars = context_of(serving) - HORIZON
    rng = np.random.default_rng(0)
    stamps = torch.zeros(bars + HORIZON, 5, dtype=torch.int64)
    stamps[:, 3:] = 1  # days and months count from 1
    events = torch.zeros(bars + HORIZON - 1, len(CHANNELS)) if serving.manifest is not None else None
    history = History(
        x=torch.from_numpy(rng.normal(size=(bars, 6)).clip(-5, 5).astype(np.float32)),
        stamps=stamps[:bars],
        future_stamps=stamps[bars:],
        events=events,
        seed=0,
    )
    ask = BatchKey(horizon=HORIZON, paths=8, sampling=Sampling())
    work = ForecastJob(serving=serving, ask=ask, histories=[history], expires_at=0.0)
    started = time.monotonic()
    (generated,) = run_batch([work])
    took = time.monotonic() - started
    if not generated.bars.isfinite().all():
        raise ValueError("the model's first forecast is not finite: its weights are broken")
    return took / cost_of([work.demand])
