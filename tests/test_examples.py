"""The notebooks under examples/ run from the first cell to the last in a new kernel."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def run(name: str, folder: Path) -> list[Any]:
    """The code cells of a notebook with their outputs; a cell that fails raises."""
    notebook = read(EXAMPLES / name)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=240, kernel_name="python3", resources=resources).execute()
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell: Any) -> str:
    """All that a cell shows as text."""
    parts = [one.get("text", "") + one.get("data", {}).get("text/plain", "") for one in cell.outputs]
    return "\n".join(parts)


def has_picture(cell: Any) -> bool:
    return any("image/png" in one.get("data", {}) for one in cell.outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_kept_without_outputs(path: Path) -> None:
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert cells
    assert not any(cell.outputs or cell.execution_count for cell in cells)


@pytest.mark.slow
def test_the_quickstart_runs_in_five_cells(tmp_path: Path) -> None:
    load, forecast, chart, what_if, compared = run("quickstart.ipynb", tmp_path)
    assert "SYNTHETIC" in shown(load)
    assert "'synthetic': True" in shown(forecast)
    assert has_picture(chart)
    changes = shown(what_if).split()
    assert "+0.00%" in changes
    assert any(one.endswith("%") and one != "+0.00%" for one in changes)
    figures = dict(
        line.split() for line in shown(compared).splitlines() if line.startswith(("base", "adapter"))
    )
    assert float(figures["adapter"]) < float(figures["base"])


@pytest.mark.slow
def test_own_data_becomes_a_snapshot_an_adapter_and_a_forecast(tmp_path: Path) -> None:
    *_, forecast, chart = run("own_data.ipynb", tmp_path)
    assert (tmp_path / "snapshots" / "mine" / "manifest.json").is_file()
    assert (tmp_path / "adapters" / "LATEST.json").is_file()
    for symbol in ("BTCUSDT", "SPY", "SYN01", "VIX"):
        assert symbol in shown(forecast)
    assert has_picture(chart)
