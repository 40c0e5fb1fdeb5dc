"""Examples for the OpenAPI document."""

from typing import Final

from pydantic import JsonValue

REQUESTS: Final[list[JsonValue]] = [
    {
        "series": [{"symbol": "SPY"}],
        "horizon": 5,
        "paths": 100,
        "seed": 7,
        "quantiles": [0.05, 0.5, 0.95],
    },
    {
        "series": [{"symbol": "SPY"}],
        "horizon": 10,
        "scenario": {"surprises": [{"date": "2026-04-01", "event_type": "fomc_rate_decision", "z": 2.0}]},
    },
]

RESPONSES: Final[list[JsonValue]] = [
    {
        "request_id": "0d5e4c3b2a1908f7",
        "model": {
            "version": "000003-0123456789ab",
            "digest": "0123456789ab" + 52 * "0",
            "generation": 4,
            "base": "NeoQuasar/Kronos-base",
            "base_digest": "fedcba987654" + 52 * "0",
        },
        "seed": 7,
        "series": [
            {
                "symbol": "SPY",
                "asset_class": "us_equity",
                "last_bar": "2026-03-31",
                "as_of": "2026-03-31T20:05:00Z",
                "bars_given": 1024,
                "bars_used": 510,
                "history_shortened": True,
                "missing_sessions": [],
                "missing_leaders": [
                    {"leader": "DXY", "last_bar": "2026-03-30"},
                    {"leader": "VIX", "last_bar": "2026-03-30"},
                ],
                "events": [
                    {
                        "date": "2026-04-01",
                        "event_type": "fomc_rate_decision",
                        "family": "fomc_rate",
                        "impact": "high",
                        "release_at": "2026-04-01T18:00:00Z",
                    }
                ],
                "calendar_until": "2026-05-20",
                "dates": ["2026-04-01", "2026-04-02"],
                "mean": {
                    "open": [394.4, 395.5],
                    "high": [398.2, 399.4],
                    "low": [393.4, 393.7],
                    "close": [396.8, 398.3],
                    "volume": [94.9e6, 90.0e6],
                },
                "quantiles": {
                    "0.5": {
                        "open": [393.5, 395.2],
                        "high": [396.6, 397.2],
                        "low": [392.8, 393.9],
                        "close": [396.1, 396.1],
                        "volume": [84.7e6, 81.7e6],
                    }
                },
                "paths": {
                    "open": [[394.4, 395.5]],
                    "high": [[398.2, 399.4]],
                    "low": [[393.4, 393.7]],
                    "close": [[396.8, 398.3]],
                    "volume": [[94.9e6, 90.0e6]],
                },
            }
        ],
    }
]
