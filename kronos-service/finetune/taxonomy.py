"""The command `taxonomy check`: what channels a file of event types and leaders makes."""

from pathlib import Path

from rich.table import Table

from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, Taxonomy, read_taxonomy
from kronos_shared.progress import console, say


def check_taxonomy(file: Path) -> Taxonomy:
    """Read a taxonomy file and print its channels, one row each, with its hash.

    Raises:
        TaxonomyError: it cannot be read or parsed, or contradicts itself.
    """
    taxonomy = read_taxonomy(file)
    count = len(taxonomy.channels)
    say(f"{file}: taxonomy {taxonomy.sha256[:12]} (version {taxonomy.version}), {count} channels")
    table = Table("channel", "name", "made of")
    for number, (name, made_of) in enumerate(zip(taxonomy.channels, _made_of(taxonomy), strict=True)):
        table.add_row(str(number), name, made_of)
    console.print(table)
    for line in _notes(taxonomy):
        say(line)
    return taxonomy


def _made_of(taxonomy: Taxonomy) -> list[str]:
    """What each channel tells, in their order."""
    families = []
    for family in taxonomy.families:
        types = [name for name, of in taxonomy.event_types.items() if of == family]
        own = " of the bar's own symbol" if set(types) <= set(taxonomy.symbol_types) else ""
        tier = ", tier 1" if family in taxonomy.tier1 else ""
        families.append(f"{', '.join(types)} in {taxonomy.currency_of(types[0])}{own}{tier}")
    leaders = [f"last move of {name} ({kind})" for name, kind in taxonomy.leader_asset_class.items()]
    return [
        *families,
        "largest surprise that became known",
        "nearness of the next high-impact release",
        *leaders,
    ]


def _notes(taxonomy: Taxonomy) -> list[str]:
    """What follows for data and adapters, one line each."""
    if taxonomy.sha256 == DEFAULT_TAXONOMY.sha256:
        lines = ["the channels of the default taxonomy: its adapters fit"]
    else:
        lines = [
            f"not the channels of the default taxonomy ({DEFAULT_TAXONOMY.sha256[:12]}): train adapters of "
            "your own; a service serves adapters of one taxonomy"
        ]
    if taxonomy.symbol_types:
        lines.append(f"rows of {', '.join(taxonomy.symbol_types)} need a symbol in the calendar")
    if not taxonomy.tier1:
        lines.append("note: no family is tier 1, so no figure is about tier-1 days")
    if not taxonomy.leaders:
        lines.append("note: no leaders")
    known = DEFAULT_TAXONOMY.event_types
    untimed = [name for name in taxonomy.event_types if name not in taxonomy.releases and name not in known]
    if untimed:
        lines.append(f"note: no usual hours to compare {', '.join(untimed)} with ([releases.{untimed[0]}])")
    return lines
