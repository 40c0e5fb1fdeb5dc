"""From the trainer's command to a wider forecast: `event-lora` publishes while the service runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from replica import Replica, running

from kronos_service.data.sample import sample_snapshot_path
from kronos_service.data.snapshot import read as snapshots
from kronos_service.data.snapshot.read import load_snapshot
from kronos_service.events.calendar import read_calendar
from kronos_service.events.labels import label_targets
from kronos_service.events.sessions import session_dates
from kronos_service.finetune.__main__ import main
from kronos_shared.adapter_store import latest

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

DAYS = 6
"""Event days that are forecast: the last ones of the sample."""
TRAINING = [
    "--epochs",
    "4",
    "--warmup-steps",
    "5",
    "--train-start",
    "2023-07-01",
    "--event-learning-rate",
    "3e-3",
    "--no-control",
    "--promote",
    "always",
]
"""Few epochs at a high rate: enough for the event days to show, in a fraction of a minute."""


def requests() -> list[dict[str, Any]]:
    """One bar of SPY, from the session before each of the last high-impact event days."""
    snapshot = load_snapshot(sample_snapshot_path())
    bars = snapshots.series(snapshot, "SPY")
    days = session_dates(bars["ts"])
    (events,) = np.nonzero(
        label_targets(read_calendar(snapshot.calendar), "us_equity", days, symbol=None).is_event
    )
    return [one_request(bars, int(event)) for event in events[-DAYS:]]


def one_request(bars: Any, event: int) -> dict[str, Any]:
    past = bars[event - 100 : event]
    candles = [
        {"ts": f"{row.ts:%Y-%m-%d}"}
        | {name: float(getattr(row, name)) for name in ("open", "high", "low", "close", "volume")}
        for row in past.itertuples()
    ]
    series = {"symbol": "SPY", "asset_class": "us_equity", "candles": candles}
    return {"series": [series], "horizon": 1, "paths": 64, "quantiles": [0.05, 0.95], "top_p": 1.0}


def width(replica: Replica) -> float:
    """Mean relative width of the 90 % band of the close, over the event days."""
    widths = []
    for body in requests():
        answer = replica.post("/v1/forecast", body)
        assert answer.status_code == 200, answer.text
        (series,) = answer.json()["series"]
        assert any(event["impact"] == "high" for event in series["events"])
        low, high = (series["quantiles"][level]["close"][0] for level in ("0.05", "0.95"))
        widths.append((high - low) / body["series"][0]["candles"][-1]["close"])
    return float(np.mean(widths))


def test_what_event_lora_publishes_serves_and_knows_the_event_days(tmp_path: Path) -> None:
    store = tmp_path / "adapters"
    replica = Replica(
        adapters=store,
        directory=tmp_path / "replica",
        base="kronos-nano",
        snapshot=sample_snapshot_path(),
        settings={"allow_base_only": "1"},
    )
    with running(replica):
        assert replica.model()["serving"]["version"] is None
        base = width(replica)
        argv = ["event-lora", *TRAINING, "--run-dir", str(tmp_path / "run"), "--adapter-store", str(store)]
        assert main(argv) == 0
        published = latest(store)
        assert published is not None
        replica.wait_for(published.version)
        lag = replica.metric("kronos_adapter_publish_to_live_seconds")
        adapted = width(replica)
    print(f"width {base:.4f} by the base, {adapted:.4f} adapted; live after {lag:.1f} s")  # noqa: T201
    assert lag <= 5
    assert adapted > 1.2 * base
