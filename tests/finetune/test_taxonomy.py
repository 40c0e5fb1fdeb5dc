"""The command `taxonomy check`: the channels of a file, and one clear line for each mistake."""

from pathlib import Path

import pytest

from kronos_service.data.sample_worlds import OWN_TAXONOMY
from kronos_service.events.taxonomy import DEFAULT_TAXONOMY, read_taxonomy
from kronos_service.finetune.__main__ import main
from kronos_shared.progress import console

BARE = """
version = 7
currency = "EUR"
tier1 = []

[families]
rates = ["rate_decision"]

[leaders]
"""


def rows(output: str) -> list[list[str]]:
    """The cells of the printed table."""
    lines = [line for line in output.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_every_channel_is_explained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "_width", 200)  # else cells wrap
    own = read_taxonomy(OWN_TAXONOMY)
    assert main(["taxonomy", "check", str(OWN_TAXONOMY)]) == 0
    output = capsys.readouterr().out
    table = [row for row in rows(output) if row[0].isdecimal()]
    assert [row[:2] for row in table] == [[str(i), name] for i, name in enumerate(own.channels)]
    made_of = {name: text for _, name, text in table}
    assert made_of["ecb_rate"] == "ecb_rate_decision in EUR, tier 1"
    assert made_of["oil_inventories"] == "oil_inventories in USD"
    assert "of the bar's own symbol" in made_of["earnings"]
    leaders = [f"last move of {name} ({kind})" for name, kind in own.leader_asset_class.items()]
    assert list(made_of.values())[-len(leaders) :] == leaders
    assert f"taxonomy {own.sha256[:12]} (version 1), {len(own.channels)} channels" in output
    assert f"not the channels of the default taxonomy ({DEFAULT_TAXONOMY.sha256[:12]})" in output
    assert "rows of earnings_before_open, earnings_after_close need a symbol in the calendar" in output


def test_what_a_file_lacks_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bare.toml"
    file.write_text(BARE)
    assert main(["taxonomy", "check", str(file)]) == 0
    output = capsys.readouterr().out
    assert "no family is tier 1" in output
    assert "note: no leaders" in output
    assert "no usual hours to compare rate_decision with ([releases.rate_decision])" in output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["check", "absent.toml"], "absent.toml"),
        (["check", "broken.toml"], "broken.toml"),
        (["explain", "bare.toml"], "expected taxonomy check FILE, got taxonomy explain"),
        ([], "file"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bare.toml").write_text(BARE)
    Path("broken.toml").write_text(BARE.replace('["rate_decision"]', "["))
    assert main(["taxonomy", *words]) == 2
    output = capsys.readouterr()
    assert len(output.err.splitlines()) == 1
    assert said in output.err
    assert not output.out
