"""From a person's own files to a snapshot: the command `import`, for people without a database.

The files become a source like any other; `export` checks its rows and writes the snapshot in one step.
"""

import sys

from kronos_service.data.coverage import print_coverage, read_coverage
from kronos_service.data.sources.column_map import ColumnMaps, read_column_maps
from kronos_service.data.sources.files import read_files
from kronos_service.data.sources.presets import with_presets
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, read_taxonomy
from kronos_service.finetune.config import ImportConfig
from kronos_service.finetune.export_training_data import ExportSummary, export


def import_tables(config: ImportConfig) -> ExportSummary:
    """Read the files, make them the snapshot in `config.out`, and print what it holds.

    Raises:
        KronosError: a file, the map or a row is invalid; an older snapshot stays as it was.
    """
    maps = read_column_maps(config.map) if config.map else ColumnMaps()
    maps = with_presets(maps, config.preset) if config.preset else maps
    taxonomy = DEFAULT_TAXONOMY if config.taxonomy is None else read_taxonomy(config.taxonomy)
    source = read_files(config.ohlcv, config.calendar, config.symbols, maps, taxonomy)
    summary = export(source, config.out, on_bad_row=config.on_bad_row, accept=config.accept)
    sys.stdout.write("\n".join([*summary.lines(), *source.notes]) + "\n")
    print_coverage(read_coverage(config.out))
    return summary
