"""Whether targets are new to a base that this project did not train."""

from datetime import date

from kronos_service.finetune.event_conditioned.provenance import out_of_sample


def test_targets_before_june_2024_are_not_out_of_sample_for_the_released_bases() -> None:
    for base in ("NeoQuasar/Kronos-mini", "NeoQuasar/Kronos-small", "NeoQuasar/Kronos-base"):
        assert out_of_sample(base, date(2024, 5, 31)).startswith("NOT out of sample")
        assert "new to it" in out_of_sample(base, date(2024, 6, 1))


def test_nothing_is_claimed_about_another_base() -> None:
    said = out_of_sample("mine", date(2020, 1, 1))
    assert "base.json" in said
    assert "out of sample" not in said
