"""Figures that leave their page: what must not be lost on the way."""

from kronos_service.finetune.event_conditioned.report.figures import forest_figure
from kronos_service.finetune.event_conditioned.report.walk_forward import warnings

GAIN = {"nats": 0.01, "low": 0.0, "high": 0.02, "dates": 64}
GAINS = {"tier 1": GAIN}
SEEN = "NOT out of sample: base NeoQuasar/Kronos-base was pretrained on data of these dates (all of them)"


def test_a_base_that_has_seen_a_fold_is_named_in_the_picture_itself() -> None:
    found = {"seen": {"2022-01-01": SEEN, "2023-01-01": SEEN, "2024-07-01": None}}
    (panel,) = forest_figure(GAINS, warnings(found)).axes
    assert panel.get_title("left").replace("\n", " ") == SEEN
    (unwarned,) = forest_figure(GAINS, warnings({"seen": {"2024-07-01": None}})).axes
    assert unwarned.get_title("left") == ""
