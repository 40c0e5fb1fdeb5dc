"""The channels and what gives them their meaning."""

import pytest

from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, UnknownEventType


def test_eighteen_types_fill_fourteen_families() -> None:
    assert len(DEFAULT_TAXONOMY.event_types) == 18
    assert set(DEFAULT_TAXONOMY.event_types.values()) == set(DEFAULT_TAXONOMY.families)
    assert len(DEFAULT_TAXONOMY.families) == 14
    assert {name for name, family in DEFAULT_TAXONOMY.event_types.items() if family == "pce"} == {
        "pce",
        "core_pce",
    }


def test_the_first_tier_is_rate_decisions_cpi_and_payrolls() -> None:
    assert DEFAULT_TAXONOMY.tier1 == ("fomc_rate", "cpi", "nfp")
    assert set(DEFAULT_TAXONOMY.tier1) <= set(DEFAULT_TAXONOMY.families)


def test_the_twenty_channels_stand_in_their_order() -> None:
    assert DEFAULT_TAXONOMY.channels[:2] == ("fomc_rate", "fomc_minutes")
    assert DEFAULT_TAXONOMY.channels[13:] == (
        "sentiment_and_labour",
        "surprise_z",
        "days_until",
        "leader_btcusdt",
        "leader_spy",
        "leader_dxy",
        "leader_vix",
    )


def test_the_hash_is_the_one_adapters_were_made_with() -> None:
    """Fails when a channel changes its meaning: then raise the version, and give the new hash here."""
    assert DEFAULT_TAXONOMY.version == 1
    assert DEFAULT_TAXONOMY.sha256 == "eb9f81aa6bc568c3b07b349926f342487cfa2c23b2c093a1cee30fa63a1488de"


def test_tier_1_names_families_and_is_no_part_of_the_hash() -> None:
    """The hash above holds although `tier1` came after it."""
    assert DEFAULT_TAXONOMY.tier1 == ("fomc_rate", "cpi", "nfp")
    assert set(DEFAULT_TAXONOMY.tier1) <= set(DEFAULT_TAXONOMY.families)


def test_every_unknown_type_is_named_at_once() -> None:
    with pytest.raises(UnknownEventType, match="got bank_holiday, tankan"):
        DEFAULT_TAXONOMY.check_types(["tankan", "cpi", "bank_holiday", "tankan"])
