"""The channels and what gives them their meaning."""

import pytest

from kronos_service.events.taxonomy import (
    CHANNEL_VERSION,
    CHANNELS,
    EVENT_TYPES,
    FAMILIES,
    TIER1,
    UnknownEventType,
    channel_hash,
    check_event_types,
)


def test_eighteen_types_fill_fourteen_families() -> None:
    assert len(EVENT_TYPES) == 18
    assert set(EVENT_TYPES.values()) == set(FAMILIES)
    assert len(FAMILIES) == 14
    assert {name for name, family in EVENT_TYPES.items() if family == "pce"} == {"pce", "core_pce"}


def test_the_first_tier_is_rate_decisions_cpi_and_payrolls() -> None:
    assert TIER1 == ("fomc_rate", "cpi", "nfp")
    assert set(TIER1) <= set(FAMILIES)


def test_the_twenty_channels_stand_in_their_order() -> None:
    assert CHANNELS[:2] == ("fomc_rate", "fomc_minutes")
    assert CHANNELS[13:] == (
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
    assert CHANNEL_VERSION == 1
    assert channel_hash() == "eb9f81aa6bc568c3b07b349926f342487cfa2c23b2c093a1cee30fa63a1488de"


def test_tier_1_names_families_and_is_no_part_of_the_hash() -> None:
    """The hash above holds although `tier1` came after it."""
    assert TIER1 == ("fomc_rate", "cpi", "nfp")
    assert set(TIER1) <= set(FAMILIES)


def test_every_unknown_type_is_named_at_once() -> None:
    with pytest.raises(UnknownEventType, match="got bank_holiday, tankan"):
        check_event_types(["tankan", "cpi", "bank_holiday", "tankan"])
