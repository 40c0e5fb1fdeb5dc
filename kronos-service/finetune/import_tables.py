"""From a person's own files to a snapshot: the command `import`, for people without a database.

The files become a source like any other; `export` judges its rows and writes the snapshot in one step.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from kronos_service.data.coverage import print_coverage, read_coverage
from kronos_service.data.sources.column_map import ColumnMaps, read_column_maps
from kronos_service.data.sources.files import read_files
from kronos_service.finetune.export_training_data import ExportSummary, export
from kronos_shared.options import option, require


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """Settings of an import."""

    ohlcv: tuple[Path, ...] = option(help="files of daily bars, .csv or .parquet")
    calendar: tuple[Path, ...] = option(help="files of releases, .csv or .parquet")
    symbols: Path | None = option(
        None, help="file of symbols with their asset class; without it the map gives them"
    )
    map: Path | None = option(
        None, help="TOML file that says what the files call our columns, and in which time zone"
    )
    out: Path = option(help="directory of the snapshot; an older one there stays until the new one is whole")
    on_bad_row: str = option(
        "fail",
        choices=("fail", "drop"),
        help="a bar that cannot be true stops the import, or is dropped and listed",
    )

    def __post_init__(self) -> None:
        require(bool(self.ohlcv and self.calendar), "--ohlcv and --calendar need at least one file each")


def import_tables(config: ImportConfig) -> ExportSummary:
    """Read the files, make them the snapshot in `config.out`, and print what it holds.

    Raises:
        KronosError: a file, the map or a row is not in order; an older snapshot stays as it was then.
    """
    maps = read_column_maps(config.map) if config.map else ColumnMaps()
    source = read_files(config.ohlcv, config.calendar, config.symbols, maps)
    on_bad_row = cast(Literal["fail", "drop"], config.on_bad_row)
    summary = export(source, config.out, on_bad_row=on_bad_row)
    sys.stdout.write("\n".join([*summary.lines(), *source.notes]) + "\n")
    print_coverage(read_coverage(config.out))
    return summary
