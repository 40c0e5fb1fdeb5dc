"""Forecasts on disk: Parquet files of one form, which the nightly batch and the service's log write, and from
which the track record is scored.

One row per symbol, forecast bar and column: what `POST /v1/forecast` answers, and for the close its sample
paths, so that a score needs no approximation. Letters: N sample paths.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from kronos_shared.columns import FEATURES
from kronos_shared.errors import KronosError, first_line
from kronos_shared.quantiles import LEVELS, quantile_name

TARGETS: Final = FEATURES[:5]
"""The columns that are forecast; turnover follows from volume and prices."""
QUANTILES: Final = tuple(quantile_name(level) for level in LEVELS)
SCHEMA: Final = pa.schema(
    [
        ("symbol", pa.string()),
        ("asset_class", pa.string()),
        ("last_bar", pa.date32()),  # session date of the last bar that was known
        ("last_close", pa.float64()),
        ("as_of", pa.timestamp("us", tz="UTC")),  # nothing that became known later was used
        ("date", pa.date32()),  # session date of the forecast bar
        ("step", pa.int32()),  # 1 for the first forecast bar
        ("target_name", pa.string()),
        ("mean", pa.float64()),
        *((name, pa.float64()) for name in QUANTILES),
        ("samples", pa.list_(pa.float64())),  # (N,) of the close; null for the other columns
        ("paths", pa.int32()),
        ("seed", pa.int64()),
        ("missing_leaders", pa.string()),  # separated by commas
        ("version", pa.string()),  # of the adapter; null: the base alone
        ("digest", pa.string()),  # sha256 of the adapter's manifest
        ("base_digest", pa.string()),
    ]
)
"""Columns of a forecast file, in the quote currency where they are prices."""
ABOUT: Final = b"kronos_forecasts"
"""Key of the file's own metadata: what it was made from, and which symbols it lacks and why."""


class ForecastFileError(KronosError):
    """A file that should hold forecasts and does not, or cannot be read."""


def with_about(schema: pa.Schema, about: Mapping[str, Any]) -> pa.Schema:
    """The schema with what a file says about itself."""
    return schema.with_metadata({ABOUT: json.dumps(about, sort_keys=True).encode()})


def read_about(path: Path) -> dict[str, Any]:
    """What a forecast file says about itself.

    Raises:
        ForecastFileError: it is no forecast file, or damaged.
    """
    try:
        schema = pq.read_schema(path)
        about = json.loads((schema.metadata or {})[ABOUT])
    except KeyError:
        raise ForecastFileError(f"{path} holds no forecasts: expected a file of forecast-all") from None
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ForecastFileError(f"{path} cannot be read: {first_line(error)}") from None
    if not schema.equals(SCHEMA) or not isinstance(about, dict):
        raise ForecastFileError(f"{path} has other columns than this version writes: make it again")
    return about


def read_batches(path: Path, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of a forecast file, some at a time; raises as `read_about`."""
    read_about(path)
    try:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise ForecastFileError(f"{path} cannot be read: {first_line(error)}") from None
