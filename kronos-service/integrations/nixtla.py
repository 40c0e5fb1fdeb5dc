"""A forecast of the front door as Nixtla's tools (utilsforecast, statsforecast, mlforecast) write theirs."""

from decimal import Decimal
from typing import Final

import pandas as pd

from kronos_shared.cli import did_you_mean
from kronos_shared.errors import KronosError

MODEL: Final = "KronosEvents"


class NixtlaError(KronosError):
    """A forecast that has no form in Nixtla's columns."""


def to_nixtla(
    out: pd.DataFrame, *, target: str = "close", id_column: str = "symbol", timestamp_column: str = "ts"
) -> pd.DataFrame:
    """One target of `predict_df`, wide: unique_id, ds, KronosEvents, and per pair of quantiles its interval.

    The quantiles 0.1 and 0.9 become KronosEvents-lo-80 and KronosEvents-hi-80; attrs are kept.

    Raises:
        NixtlaError: no such target or column, or a quantile level without its counterpart (0.9 for 0.1).
    """
    missing = [name for name in (id_column, timestamp_column, "target_name") if name not in out.columns]
    if missing:
        raise NixtlaError(f"expected a frame of predict_df, got one without {', '.join(missing)}")
    rows = out[out["target_name"] == target]
    if rows.empty:
        there = [str(name) for name in out["target_name"].unique()]
        near = did_you_mean(target, there)
        raise NixtlaError(f"expected a target of {', '.join(there)}, got {target!r}{near}")
    columns = {id_column: "unique_id", timestamp_column: "ds", "predictions": MODEL}
    levels = [name for name in out.columns if _is_level(str(name)) and name != "0.5"]
    for name in levels:
        low = min(Decimal(name), 1 - Decimal(name))
        if not any(Decimal(other) == 1 - Decimal(name) for other in levels):
            raise NixtlaError(
                f"expected quantile levels in pairs around 0.5, got {name} without {1 - Decimal(name)}: ask "
                "predict_df for both"
            )
        side = "lo" if Decimal(name) == low else "hi"
        columns[name] = f"{MODEL}-{side}-{(100 * (1 - 2 * low)).normalize():f}"
    wide = rows[list(columns)].rename(columns=columns).reset_index(drop=True)
    wide.attrs = dict(out.attrs)
    return wide


def _is_level(name: str) -> bool:
    return name.startswith("0.") and name[2:].isdigit()
