"""Which events and leaders the channels know: the default of `event_types.toml`, or a file of the user's.

A taxonomy is data: a snapshot's manifest and an adapter's carry the content of another than the default one,
never a path. Its hash says what the channels mean; an adapter fits one hash only.
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

import pandas as pd
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from kronos_shared.cli import did_you_mean
from kronos_shared.errors import KronosError

IMPACT_WEIGHTS: Final[Mapping[str, float]] = {"high": 1.0, "medium": 0.5, "low": 0.25}
MOST_CHANNELS: Final = 128
"""Each channel costs the event embedding 256 parameters, of 1.1 million that an adapter may have."""
_RESERVED: Final = {
    *("symbol", "asset_class", "date", "origin", "step", "model", "series", "bar", "index", "fold", "year"),
    *("is_event", "event", "quiet", "all", "tier1", "control", "base", "adapter", "placebo", "zeroed"),
    *("s1", "s2", "total", "outcome", "crps", "pit", "hit", "spread", "surprise", "surprise_z", "days_until"),
}
"""Names of other columns and groups in the figures that families get columns in."""


class UnknownEventType(KronosError):
    """The calendar has event types that the taxonomy does not list."""


class TaxonomyError(KronosError):
    """A taxonomy that cannot be used, or data and an adapter of different ones."""


def _clock(text: str) -> str:
    if re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", text) is None:
        raise ValueError(f"expected a time such as 08:30, got {text!r}")
    return text


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"expected a time zone such as Europe/Berlin, got {name!r}") from None
    return name


_Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,47}$")]
_Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
_Leader = Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[A-Z0-9][A-Z0-9.^=_-]*$")]
AssetClass = Literal["crypto", "us_equity", "index", "fx"]


class UsualTimes(BaseModel):
    """When releases of an event type usually come: others are reported as departures."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    times: tuple[Annotated[str, AfterValidator(_clock)], ...] = Field(min_length=1)
    """Hours of the clock, such as 14:15."""
    time_zone: Annotated[str, AfterValidator(_zone)] = "America/New_York"


class _File(BaseModel):
    """The keys of a taxonomy file; docs/taxonomy.md says what each means."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    version: int = Field(ge=1)
    currency: _Currency
    families: dict[_Name, Annotated[tuple[_Name, ...], Field(min_length=1)]] = Field(min_length=1)
    currencies: dict[_Name, _Currency] = {}
    symbol_types: tuple[_Name, ...] = ()
    tier1: tuple[_Name, ...] = ()
    leaders: dict[_Leader, AssetClass] = {}
    releases: dict[_Name, UsualTimes] = {}
    impact_weights: dict[str, float] = dict(IMPACT_WEIGHTS)


@dataclass(frozen=True, kw_only=True, eq=False)
class Taxonomy:
    """Event types, their families and currencies, the symbol events, and the leaders; the channels follow."""

    version: int
    currency: str
    """Of the families that `currencies` does not name."""
    families: tuple[str, ...]
    """In the order of their channels."""
    event_types: Mapping[str, str]
    """Event type -> family."""
    currencies: Mapping[str, str] = field(default_factory=dict)
    """Family -> its own currency."""
    symbol_types: tuple[str, ...] = ()
    """The event types whose rows carry a symbol: they fall on that symbol's bars only."""
    tier1: tuple[str, ...] = ()
    """The families whose high-impact days are reported as tier 1."""
    leader_asset_class: Mapping[str, str] = field(default_factory=dict)
    """Leader -> asset class, in the order of the channels."""
    releases: Mapping[str, UsualTimes] = field(default_factory=dict)
    """Event type -> its usual hours; no part of the hash, because no channel depends on them."""

    @cached_property
    def leaders(self) -> tuple[str, ...]:
        """In the order of their channels."""
        return tuple(self.leader_asset_class)

    @cached_property
    def channels(self) -> tuple[str, ...]:
        """Names of the event tensor's channels."""
        leaders = (f"leader_{leader.lower()}" for leader in self.leaders)
        return (*self.families, "surprise_z", "days_until", *leaders)

    @property
    def surprise(self) -> int:
        """Number of the channel `surprise_z`: the families come before it."""
        return len(self.families)

    @property
    def days_until(self) -> int:
        """Number of the channel `days_until`."""
        return len(self.families) + 1

    @property
    def first_leader(self) -> int:
        """Number of the first leader's channel."""
        return len(self.families) + 2

    @cached_property
    def tier1_channels(self) -> list[int]:
        """Numbers of the tier-1 families' channels."""
        return [self.families.index(name) for name in self.tier1]

    @cached_property
    def sha256(self) -> str:
        """The hash of everything that defines the channels."""
        events: dict[str, Any] = {
            "version": self.version,
            "currency": self.currency,
            "impact_weights": dict(IMPACT_WEIGHTS),
            "families": self._families(),
        }
        meaning: dict[str, Any] = {"taxonomy": events, "channels": self.channels}
        own = self._own()
        if own:  # adapters of the default taxonomy carry the hash without it
            meaning["own"] = own
        return hashlib.sha256(json.dumps(meaning).encode()).hexdigest()

    @property
    def is_default(self) -> bool:
        """Whether it is the taxonomy of `event_types.toml`, usual hours and all."""
        return self.content() == DEFAULT_TAXONOMY.content()

    def currency_of(self, event_type: str) -> str:
        """The currency in which releases of a type count."""
        return self.currencies.get(self.event_types[event_type], self.currency)

    @cached_property
    def all_currencies(self) -> tuple[str, ...]:
        """Every currency in which something counts."""
        return tuple(dict.fromkeys(map(self.currency_of, self.event_types)))

    def counts(self, event_type: pd.Series, currency: pd.Series) -> pd.Series:
        """Whether each row (of a type, in a currency) is for the channels.

        Rows of a known type in another currency than the type's are another country's. Those of an unknown
        type in one of the taxonomy's currencies are kept, for `check_types` to name them.
        """
        expected = event_type.map({name: self.currency_of(name) for name in self.event_types})
        unknown: pd.Series = expected.isna() & currency.isin(self.all_currencies)
        return (expected == currency).fillna(False) | unknown

    def check_types(self, event_types: Iterable[str]) -> None:
        """Raise `UnknownEventType` with every type that is not in the taxonomy."""
        unknown = sorted({str(event_type) for event_type in event_types} - set(self.event_types))
        if unknown:
            where = "event_types.toml" if self.is_default else "the taxonomy"
            raise UnknownEventType(
                f"expected event types of {where}, got {', '.join(unknown)}: "
                "map them to a listed type or drop those rows from the calendar"
            )

    def content(self) -> dict[str, Any]:
        """What `taxonomy_of` reads back, in plain JSON."""
        optional = {
            "currencies": dict(self.currencies),
            "symbol_types": list(self.symbol_types),
            "tier1": list(self.tier1),
            "leaders": dict(self.leader_asset_class),
            "releases": {name: one.model_dump(mode="json") for name, one in self.releases.items()},
        }
        given = {key: value for key, value in optional.items() if value}
        return {"version": self.version, "currency": self.currency, "families": self._families(), **given}

    def _families(self) -> dict[str, list[str]]:
        return {
            family: [name for name, of in self.event_types.items() if of == family]
            for family in self.families
        }

    def _own(self) -> dict[str, Any]:
        """What the default taxonomy has otherwise, or not at all, beside the families and their order."""
        known = _default_file()
        found: dict[str, Any] = {
            "currencies": dict(sorted(self.currencies.items())),
            "symbol_types": sorted(self.symbol_types),
            "leaders": {
                name: kind
                for name, kind in sorted(self.leader_asset_class.items())
                if known["leaders"].get(name) != kind
            },
            "tier1": [] if list(self.tier1) == known["tier1"] else sorted(self.tier1),
        }
        return {key: value for key, value in found.items() if value}


def taxonomy_of(content: Mapping[str, Any], where: str) -> Taxonomy:
    """The taxonomy that a file or a manifest holds; `where` names it in messages.

    Raises:
        TaxonomyError: one line with every fault.
    """
    try:
        parsed = _File.model_validate(dict(content))
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, one['loc']))}: {_words(one)}" for one in error.errors()]
        raise TaxonomyError(f"{where}: {'; '.join(faults)}; docs/taxonomy.md shows a file") from None
    if faults := _contradictions(parsed):
        raise TaxonomyError(f"{where}: {'; '.join(faults)}")
    return Taxonomy(
        version=parsed.version,
        currency=parsed.currency,
        families=tuple(parsed.families),
        event_types={name: family for family, types in parsed.families.items() for name in types},
        currencies={name: own for name, own in parsed.currencies.items() if own != parsed.currency},
        symbol_types=parsed.symbol_types,
        tier1=parsed.tier1,
        leader_asset_class=dict(parsed.leaders),
        releases=parsed.releases,
    )


def read_taxonomy(path: Path) -> Taxonomy:
    """Read a taxonomy file (TOML).

    Raises:
        TaxonomyError: it cannot be read or parsed, or contradicts itself.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TaxonomyError(f"cannot read the taxonomy {path} ({error.strerror})") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TaxonomyError(f"{path} is not valid TOML: {error}") from None
    return taxonomy_of(content, str(path))


def require_same(ours: Taxonomy, theirs: Taxonomy, what: str) -> None:
    """Raise `TaxonomyError`, with both hashes, unless the channels of both mean the same."""
    if ours.sha256 != theirs.sha256:
        raise TaxonomyError(
            f"{what}: expected the taxonomy {ours.sha256[:12]} (version {ours.version}), got "
            f"{theirs.sha256[:12]} (version {theirs.version}): use data and an adapter of one taxonomy"
        )


def _words(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return f"unknown key{did_you_mean(str(error['loc'][-1]), _File.model_fields)}"
    return str(error["msg"]).removeprefix("Value error, ")


def _contradictions(parsed: _File) -> list[str]:
    """Names that are used twice, or that nothing defines."""
    types = [name for listed in parsed.families.values() for name in listed]
    faults = [
        f"event type {name} is listed twice" for name in sorted({n for n in types if types.count(n) > 1})
    ]
    # A column of figures is named after a family: it must not collide with another column.
    faults += [
        f"a family cannot be called {name}: choose another name"
        for name in parsed.families
        if name in _RESERVED or name.startswith("leader_")
    ]
    defined: dict[str, tuple[Iterable[str], Iterable[str]]] = {
        "currencies": (parsed.currencies, parsed.families),
        "tier1": (parsed.tier1, parsed.families),
        "symbol_types": (parsed.symbol_types, types),
        "releases": (parsed.releases, types),
    }
    for key, (used, known) in defined.items():
        listed = list(used)
        faults += [
            f"{key} names {name}, which no family{' is' if known is parsed.families else ' has'}"
            f"{did_you_mean(name, list(known))}"
            for name in listed
            if name not in set(known)
        ]
        if len(set(listed)) < len(listed):
            faults.append(f"{key} names something twice")
    lower = [name.lower() for name in parsed.leaders]
    if len(set(lower)) < len(lower):
        faults.append("two leaders have one name but for capitals")
    if parsed.impact_weights != dict(IMPACT_WEIGHTS):
        faults.append(f"impact_weights must be {IMPACT_WEIGHTS} or left out")
    channels = len(parsed.families) + 2 + len(parsed.leaders)
    if channels > MOST_CHANNELS:
        faults.append(f"expected at most {MOST_CHANNELS} channels, got {channels}")
    return faults


def _default_file() -> dict[str, Any]:
    text = files("kronos_shared").joinpath("event_types.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


DEFAULT_TAXONOMY: Final = taxonomy_of(_default_file(), "event_types.toml")
"""The 18 US event types and four leaders; snapshots and adapters that name no other were made with it."""
