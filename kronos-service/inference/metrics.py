"""The Prometheus metrics, by hand-picked names; a registry per app, so that two apps share nothing."""

from collections.abc import Callable, Iterator

import pandas as pd
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kronos_service.inference.market.refresher import RefresherStatus
from kronos_service.inference.models.loader import LoaderStatus

LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """What the service counts as it goes."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "kronos_requests", "Requests answered.", ["route", "status"], registry=registry
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
        for reason in ("queue_full", "deadline", "expired", "not_ready"):
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
    """What can be read off the loader and the refresher at the moment of a scrape."""

    def __init__(
        self,
        loader: Callable[[], LoaderStatus],
        refresher: Callable[[], RefresherStatus],
        now: Callable[[], float],
    ) -> None:
        self._loader, self._refresher, self._now = loader, refresher, now

    def collect(self) -> Iterator[Metric]:
        """The families `kronos_adapter_*`, `kronos_ready` and `kronos_source_*`."""
        yield from _adapter_families(self._loader())
        source = self._refresher()
        yield _counter("kronos_source_failures", "Readings of the source that failed.", source.failures)
        if source.market is not None and source.checked_at is not None:
            age = self._now() - source.checked_at.timestamp()
            bar_age = self._now() - source.market.last_bar.timestamp()
            yield _gauge("kronos_source_age_seconds", "Since the source was read or found unchanged.", age)
            until = pd.Timestamp(source.market.tables.reach).timestamp() - self._now()
            yield _gauge("kronos_source_calendar_seconds", "How far ahead the calendar reaches.", until)
            yield _gauge("kronos_source_last_bar_age_seconds", "Since the date of the latest bar.", bar_age)
            yield _gauge(
                "kronos_source_bad_bars", "Bars left out: they cannot be true.", len(source.market.dropped)
            )


def _adapter_families(status: LoaderStatus) -> Iterator[Metric]:
    serving = status.serving
    info = GaugeMetricFamily("kronos_adapter_info", "What serves.", labels=["version", "digest", "base"])
    if serving is not None:
        info.add_metric([serving.version or "", serving.digest or "", serving.base.base.repo], 1)
    yield info
    yield _gauge("kronos_adapter_generation", "0: no adapter.", (serving and serving.generation) or 0)
    yield _gauge("kronos_adapter_quarantined", "Digests not tried again.", len(status.quarantined))
    yield _gauge(
        "kronos_adapter_stale", "1: not what LATEST or the pin names.", float(status.reason is not None)
    )
    yield _gauge(
        "kronos_adapter_state_unsaved",
        "1: a restart would not find it.",
        float(status.state_unsaved is not None),
    )
    outcomes = CounterMetricFamily("kronos_adapter_outcomes", "What became of adapters.", labels=["outcome"])
    counters = status.counters
    for outcome in ("loads", "swaps", "refusals", "reloads", "errors"):
        outcomes.add_metric([outcome], getattr(counters, outcome))
    yield outcomes
    if status.last_flip_seconds is not None:
        yield _gauge(
            "kronos_adapter_flip_seconds", "The latest exchange of models.", status.last_flip_seconds
        )
    if status.last_publish_to_live_seconds is not None:
        yield _gauge(
            "kronos_adapter_publish_to_live_seconds",
            "Of the latest adapter.",
            status.last_publish_to_live_seconds,
        )


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)
