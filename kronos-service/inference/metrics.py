"""The Prometheus metrics; a registry per app, so that two apps in one process share nothing."""

from collections.abc import Callable, Iterator
from datetime import datetime

import pandas as pd
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kronos_service.inference.market.refresher import RefresherStatus
from kronos_service.inference.models.loader_status import LoaderStatus

LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """What the service counts as it goes."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "kronos_requests", "Requests answered.", ["route", "status"], registry=registry
        )
        self.key_requests = Counter(
            "kronos_key_requests",
            "Requests answered, by the name of their key.",
            ["key", "status"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "kronos_request_seconds",
            "From arrival to answer.",
            ["route"],
            buckets=LATENCIES,
            registry=registry,
        )
        self.rejections = Counter(
            "kronos_rejections", "Forecasts turned away.", ["reason"], registry=registry
        )
        for reason in ("queue_full", "deadline", "expired", "not_ready", "key_rate", "key_share"):
            self.rejections.labels(reason)
        self.batch_size = Histogram(
            "kronos_batch_requests",
            "Requests that ran together.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )
        self.forecast_seconds = Histogram(
            "kronos_forecast_seconds", "Time of the model for a batch.", buckets=LATENCIES, registry=registry
        )
        self.late = Counter(
            "kronos_late_answers", "Forecasts that ended after their deadline.", registry=registry
        )
        self.queue_depth = Gauge("kronos_queue_depth", "Requests that wait.", registry=registry)


class StateCollector(Collector):
    """What is read off the loader and the market refresher at the moment of a scrape."""

    def __init__(
        self,
        loader: Callable[[], LoaderStatus],
        refresher: Callable[[], RefresherStatus],
        now: Callable[[], datetime],
        *,
        most_stale: int,
    ) -> None:
        self._loader, self._refresher, self._now = loader, refresher, now
        self._most_stale = most_stale

    def collect(self) -> Iterator[Metric]:
        """The families `kronos_adapter_*` and `kronos_source_*`."""
        yield from _adapter_families(self._loader())
        source, now = self._refresher(), self._now()
        yield CounterMetricFamily(
            "kronos_source_failures", "Readings of the source that failed.", value=source.failures
        )
        if source.market is None or source.checked_at is None:
            return
        until = pd.Timestamp(source.market.tables.reach).timestamp()
        for name, text, value in (
            (
                "age_seconds",
                "Since the source was read or found unchanged.",
                now.timestamp() - source.checked_at.timestamp(),
            ),
            ("calendar_seconds", "How far ahead the calendar reaches.", until - now.timestamp()),
            (
                "last_bar_age_seconds",
                "Since the date of the latest bar.",
                now.timestamp() - source.market.last_bar.timestamp(),
            ),
            (
                "stale_symbols",
                "Symbols whose last bar is too many sessions old.",
                len(source.market.stale_symbols(now, most=self._most_stale)),
            ),
            ("bad_bars", "Bars left out: they cannot be true.", len(source.market.dropped)),
        ):
            yield GaugeMetricFamily(f"kronos_source_{name}", text, value=value)


def _adapter_families(status: LoaderStatus) -> Iterator[Metric]:
    serving, live = status.serving, status.last_publish_to_live_seconds
    info = GaugeMetricFamily("kronos_adapter_info", "What serves.", labels=["version", "digest", "base"])
    if serving is not None:
        info.add_metric([serving.version or "", serving.digest or "", serving.base.base.repo], 1)
    yield info
    for name, text, value in (
        ("generation", "0: no adapter.", (serving and serving.generation) or 0),
        ("quarantined", "Digests not tried again.", len(status.quarantined)),
        ("stale", "1: not what LATEST or the pin names.", int(status.reason is not None)),
        ("state_unsaved", "1: a restart would not find it.", int(status.state_unsaved is not None)),
        ("flip_seconds", "The latest swap of models.", status.last_flip_seconds),
        ("publish_to_live_seconds", "Of the latest adapter.", live),
    ):
        if value is not None:
            yield GaugeMetricFamily(f"kronos_adapter_{name}", text, value=value)
    outcomes = CounterMetricFamily("kronos_adapter_outcomes", "What became of adapters.", labels=["outcome"])
    for outcome, count in vars(status.counters).items():
        outcomes.add_metric([outcome], count)
    yield outcomes
