"""Reads the bars of some symbols of a snapshot at a time: memory does not grow with the table."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kronos_service.data.snapshot.manifest import SnapshotError, read_manifest, require_daily, taxonomy_in
from kronos_service.data.tables import bar_table, calendar_table, symbol_table
from kronos_service.events.sessions import DAILY
from kronos_service.events.taxonomy import Taxonomy
from kronos_shared.columns import BAR_COLUMNS
from kronos_shared.errors import first_line


@dataclass(frozen=True, kw_only=True)
class SymbolReader:
    """A snapshot whose bars stay on disk; symbols and calendar are in memory, typed but not validated."""

    name: str
    sha256: str
    symbols: pd.DataFrame
    calendar: pd.DataFrame
    taxonomy: Taxonomy
    longest: int
    """Bars of the symbol that has most."""
    _bars: Path
    _groups: dict[str, int]

    def bars(self, symbols: Sequence[str]) -> pd.DataFrame:
        """Typed bars of these symbols, ascending; those that have none are not in it."""
        groups = [self._groups[symbol] for symbol in symbols if symbol in self._groups]
        if not groups:
            types = {"symbol": "str", "ts": "datetime64[ns, UTC]"}
            return pd.DataFrame({name: [] for name in BAR_COLUMNS}, dtype="float64").astype(types)
        try:
            with pq.ParquetFile(self._bars) as file:
                return bar_table(file.read_row_groups(groups, columns=list(BAR_COLUMNS)).to_pandas())
        except (OSError, pa.ArrowException) as error:
            raise SnapshotError(f"cannot read {self._bars}: {first_line(error)}") from None


def open_by_symbol(directory: Path) -> SymbolReader:
    """A reader of a snapshot with a manifest, whose files are checked against it as they lie on disk.

    Raises:
        SnapshotError: a file is missing, damaged or not of the form that `write` makes.
    """
    manifest = read_manifest(directory)
    require_daily(str(directory), manifest.get("interval", DAILY), "this")
    paths = {name: directory / str(entry["file"]) for name, entry in manifest["tables"].items()}
    try:
        for name, path in paths.items():
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != manifest["tables"][name]["sha256"]:
                raise SnapshotError(f"{path} fails its hash; export the snapshot again")
        footer = pq.read_metadata(paths["ohlcv_1d"])
        symbols, calendar = (pd.read_parquet(paths[name]) for name in ("symbols", "economic_calendar"))
    except (OSError, pa.ArrowException) as error:
        raise SnapshotError(f"cannot read {directory}: {first_line(error)}; export it again") from None
    return SymbolReader(
        name=directory.resolve().name,
        sha256=str(manifest["sha256"]),
        symbols=symbol_table(symbols),
        calendar=calendar_table(calendar),
        taxonomy=taxonomy_in(manifest, str(directory)),
        longest=max(footer.row_group(i).num_rows for i in range(footer.num_row_groups)),
        _bars=paths["ohlcv_1d"],
        _groups=_groups(footer, paths["ohlcv_1d"]),
    )


def _groups(footer: pq.FileMetaData, path: Path) -> dict[str, int]:
    """Symbol -> its row group."""
    groups: dict[str, int] = {}
    for number in range(footer.num_row_groups):
        names = footer.row_group(number).column(0).statistics
        if names is None or names.min != names.max or names.min in groups:
            raise SnapshotError(f"{path} does not hold one row group a symbol; export the snapshot again")
        groups[str(names.min)] = number
    return groups
