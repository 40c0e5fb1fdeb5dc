"""The ablation as a forest plot: gains with their intervals on event and on quiet targets."""

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kronos_service.finetune.event_conditioned.ablation.table import Row
from kronos_service.finetune.event_conditioned.evaluation.bootstrap import Gain

COLUMNS = {"over_control": "gain over the control", "over_adapter": "gain over the adapter"}


def forest_plot(rows: Sequence[Row]) -> Figure:
    """Two panels (over the control, over the adapter), one line per arm, event and quiet side by side."""
    figure = Figure(figsize=(11, 1.2 + 0.45 * len(rows)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (column, title) in zip(panels, COLUMNS.items(), strict=True):
        _panel(axes, rows, column)
        axes.set_title(title)
        axes.set_xlabel("nats per target, 95 % interval over dates")
    panels[0].set_yticks(range(len(rows)), [row.name for row in rows])
    panels[0].invert_yaxis()
    panels[0].legend(loc="best", frameon=False)
    return figure


def png(figure: Figure) -> bytes:
    """The figure's bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def _panel(axes: Axes, rows: Sequence[Row], column: str) -> None:
    axes.axvline(0.0, color="0.6", linewidth=1)
    for group, offset, colour in (("event", -0.12, "tab:red"), ("quiet", 0.12, "tab:blue")):
        gains: list[tuple[int, Gain]] = [
            (number, gain)
            for number, row in enumerate(rows)
            if (gain := getattr(getattr(row, group), column)) is not None
        ]
        axes.errorbar(
            [gain.nats for _, gain in gains],
            [number + offset for number, _ in gains],
            xerr=[
                [max(gain.nats - gain.low, 0.0) for _, gain in gains],
                [max(gain.high - gain.nats, 0.0) for _, gain in gains],
            ],
            fmt="o",
            markersize=4,
            color=colour,
            label=f"{group} targets",
        )
