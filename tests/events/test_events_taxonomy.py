"""The channels and what gives them their meaning."""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kronos_service.events.taxonomy import (
    DEFAULT_TAXONOMY,
    TaxonomyError,
    UnknownEventType,
    read_taxonomy,
    taxonomy_of,
)


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
    named = r"expected event types of event_types\.toml, got bank_holiday, tankan:"
    with pytest.raises(UnknownEventType, match=named):
        DEFAULT_TAXONOMY.check_types(["tankan", "cpi", "bank_holiday", "tankan"])


CONTENT: dict[str, Any] = {
    "version": 2,
    "currency": "USD",
    "tier1": ["ecb_rate"],
    "symbol_types": ["earnings_before_open", "earnings_after_close"],
    "families": {
        "ecb_rate": ["ecb_rate_decision", "ecb_press_conference"],
        "cpi": ["cpi"],
        "earnings": ["earnings_before_open", "earnings_after_close"],
    },
    "currencies": {"ecb_rate": "EUR"},
    "releases": {"ecb_rate_decision": {"times": ["14:15"], "time_zone": "Europe/Berlin"}},
    "leaders": {"QQQ": "us_equity", "VIX": "index"},
}


def test_the_channels_follow_from_the_file() -> None:
    own = taxonomy_of(CONTENT, "mine")
    assert own.channels == (
        *("ecb_rate", "cpi", "earnings", "surprise_z", "days_until"),
        *("leader_qqq", "leader_vix"),
    )
    assert [own.channels[at] for at in (own.surprise, own.days_until, own.first_leader)] == [
        *("surprise_z", "days_until", "leader_qqq"),
    ]
    assert own.tier1_channels == [0]
    assert [own.currency_of(name) for name in ("ecb_press_conference", "cpi")] == ["EUR", "USD"]
    assert not own.is_default


def test_the_content_survives_a_manifest() -> None:
    own = taxonomy_of(CONTENT, "mine")
    again = taxonomy_of(json.loads(json.dumps(own.content())), "a manifest")
    assert again.content() == own.content()
    assert again.sha256 == own.sha256
    default = taxonomy_of(DEFAULT_TAXONOMY.content(), "a manifest")
    assert default.is_default
    assert default.sha256 == DEFAULT_TAXONOMY.sha256


@pytest.mark.parametrize(
    "changed",
    [
        {"version": 3},
        {"currency": "GBP"},
        {"tier1": ["cpi"]},
        {"symbol_types": ["earnings_before_open"]},
        {"currencies": {}},
        {"leaders": {"QQQ": "us_equity", "VIX": "us_equity"}},
        {"leaders": {"VIX": "index", "QQQ": "us_equity"}},
        {"leaders": {"QQQ": "index", "VIX": "index"}},
        {"families": dict(reversed(CONTENT["families"].items()))},
        {"families": CONTENT["families"] | {"cpi": ["cpi", "core_cpi"]}},
    ],
)
def test_what_a_channel_means_changes_the_hash(changed: dict[str, Any]) -> None:
    assert taxonomy_of(CONTENT | changed, "mine").sha256 != taxonomy_of(CONTENT, "mine").sha256


def test_usual_hours_and_the_order_of_tables_leave_the_hash() -> None:
    own = taxonomy_of(CONTENT, "mine")
    assert taxonomy_of(CONTENT | {"releases": {}}, "mine").sha256 == own.sha256
    assert taxonomy_of(dict(reversed(CONTENT.items())), "mine").sha256 == own.sha256
    assert (
        taxonomy_of(CONTENT | {"currencies": {"ecb_rate": "EUR", "cpi": "USD"}}, "mine").sha256 == own.sha256
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"family": {}}, "family: unknown key, did you mean families?"),
        ({"version": 0}, "version: Input should be greater than or equal to 1"),
        (
            {"currencies": {"ecb_rat": "EUR"}},
            "names ecb_rat, which no family is, did you mean ecb_rate?",
        ),
        ({"currencies": {"ecb_rate": "euro"}}, "currencies.ecb_rate: String should match"),
        ({"symbol_types": ["earnings"]}, "symbol_types names earnings, which no family has"),
        ({"tier1": ["ecb_rate", "ecb_rate"]}, "tier1 names something twice"),
        ({"families": {"a": ["x"], "b": ["x"]}}, "event type x is listed twice"),
        ({"families": {"date": ["x"]}}, "a family cannot be called date"),
        ({"families": {"leader_spy": ["x"]}}, "a family cannot be called leader_spy"),
        (
            {"leaders": {"QQQ": "stock"}},
            "leaders.QQQ: Input should be 'crypto', 'us_equity'",
        ),
        ({"leaders": {f"L{n}": "fx" for n in range(130)}}, "expected at most 128 channels, got 135"),
        ({"impact_weights": {"high": 2.0}}, "impact_weights must be"),
        ({"releases": {"cpi": {"times": ["8:30"]}}}, "expected a time such as 08:30, got '8:30'"),
        (
            {"releases": {"cpi": {"times": ["08:30"], "time_zone": "New York"}}},
            "expected a time zone such as Europe/Berlin, got 'New York'",
        ),
    ],
)
def test_a_file_that_contradicts_itself_is_refused_in_one_line(changed: dict[str, Any], message: str) -> None:
    content = CONTENT | changed
    if "families" in changed:
        content = {key: content[key] for key in ("version", "currency", "families")}
    with pytest.raises(TaxonomyError) as error:
        taxonomy_of(content, "mine.toml")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("mine.toml: ")
    assert "Value error" not in str(error.value)


COLUMNS = """
symbol asset_class date origin step model series bar index fold year
is_event event quiet all tier1 control base adapter placebo zeroed
s1 s2 total outcome crps pit hit spread surprise surprise_z days_until leader_spy
"""


@pytest.mark.parametrize("name", COLUMNS.split())
def test_no_family_bears_the_name_of_another_column_of_the_figures(name: str) -> None:
    with pytest.raises(TaxonomyError, match=f"a family cannot be called {name}: choose another name"):
        taxonomy_of({"version": 2, "currency": "USD", "families": {name: ["x"]}}, "mine.toml")


def test_the_hours_of_the_clock_are_new_york_s_unless_the_file_says_others() -> None:
    hours = {"cpi": {"times": ["08:30"]}, **CONTENT["releases"]}
    own = taxonomy_of(CONTENT | {"releases": hours}, "mine.toml")
    assert {name: one.time_zone for name, one in own.releases.items()} == {
        "cpi": "America/New_York",
        "ecb_rate_decision": "Europe/Berlin",
    }


def test_only_rows_in_the_currency_of_their_family_count() -> None:
    own = taxonomy_of(CONTENT, "mine")
    rows = pd.DataFrame(
        [
            ("ecb_rate_decision", "EUR", True),
            ("ecb_rate_decision", "USD", False),
            ("cpi", "EUR", False),
            ("cpi", "USD", True),
            ("tankan", "JPY", False),
            ("tankan", "EUR", True),  # kept, to be named as unknown
        ],
        columns=["event_type", "currency", "counts"],
    )
    assert own.counts(rows["event_type"], rows["currency"]).tolist() == rows["counts"].tolist()
    with pytest.raises(UnknownEventType, match="expected event types of the taxonomy, got tankan"):
        own.check_types(rows["event_type"])


def test_there_may_be_exactly_128_channels() -> None:
    families = {f"f{number}": [f"t{number}"] for number in range(126)}
    most = taxonomy_of({"version": 2, "currency": "USD", "families": families}, "mine.toml")
    assert len(most.channels) == 128
    with pytest.raises(TaxonomyError, match="expected at most 128 channels, got 129"):
        taxonomy_of({"version": 2, "currency": "USD", "families": {**families, "g": ["u"]}}, "mine.toml")


def test_a_file_is_named_with_what_it_contradicts(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'version = 2\ncurrency = "USD"\ntier1 = ["cpj"]\n[families]\ncpi = ["cpi"]\n', encoding="utf-8"
    )
    with pytest.raises(TaxonomyError, match=f"^{re.escape(str(path))}: tier1 names cpj, which no family is"):
        read_taxonomy(path)
    path.write_text('version = 2\ncurrency = "USD"\n[families]\ncpi = ["cpi"]\n', encoding="utf-8")
    assert read_taxonomy(path).families == ("cpi",)


@pytest.mark.parametrize("text", ["version = ", "\xff"], ids=["syntax", "bytes"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.toml").write_text(text, encoding="latin-1")
    with pytest.raises(TaxonomyError, match=r"mine.toml is not valid TOML"):
        read_taxonomy(tmp_path / "mine.toml")
    with pytest.raises(TaxonomyError, match=r"cannot read the taxonomy .*other.toml \(No such file"):
        read_taxonomy(tmp_path / "other.toml")
