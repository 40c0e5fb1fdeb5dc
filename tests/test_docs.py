"""docs/: the Python page runs, and every flag, link and path that a page names exists."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from kronos_service.finetune.commands import COMMANDS as FINETUNE
from kronos_service.finetune.event_conditioned.config import EventLoraFlags
from kronos_service.inference.commands import COMMANDS as INFERENCE
from kronos_shared.cli import parse_given

ROOT = Path(__file__).parents[1]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
ROOT_PAGES = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
}
TINY = (
    "epochs=1, context=80, targets_per_window=8, rank=2, train_start='2025-01-01', val_start='2025-04-01', "
    "test_start='2025-06-01', test_end='2025-07-31', forecast_origins=2, control=False, "
    "promote='always'"
)


def python_blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)


def shell_lines(text: str) -> list[str]:
    """Each command of the page's sh blocks, with its continuation lines."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```$", text, re.M | re.S)
    return [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]


@pytest.mark.slow
def test_the_python_page_runs_as_written(tmp_path: Path) -> None:
    """In one process, as a reader would; only the training is cut to a few windows."""
    script = "".join(python_blocks(PAGES["python.md"]))
    assert script.count("EventLoraConfig(epochs=4)") == 1
    script = script.replace("EventLoraConfig(epochs=4)", f"EventLoraConfig({TINY})")
    script += (
        "assert result.promoted is not None\n"
        "assert usual['predictions'].ne(supposed['predictions']).any()\n"
        "assert usual['predictions'].ne(base['predictions']).any()\n"
        "assert mine.served.version == result.promoted and out['symbol'].nunique() == 27\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "SYNTHETIC" in done.stderr
    assert "27 symbols" in done.stdout
    assert (tmp_path / "fan.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("page", ["README.md", *PAGES])
def test_every_flag_that_a_command_is_shown_with_exists(
    page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = PAGES.get(page) or ROOT_PAGES[page]
    for line in shell_lines(text):
        called = re.search(r"-m kronos_service\.(finetune|inference) (.+)", line)
        if called is None:
            continue
        commands = FINETUNE if called[1] == "finetune" else INFERENCE
        name, *words = shlex.split(called[2])
        with pytest.raises(SystemExit):
            commands[name](["--help"])
        shown = capsys.readouterr().out
        for word in words:
            assert not word.startswith("--") or re.search(rf"{word}\b", shown), (name, word)


def test_the_config_file_that_is_shown_is_one_that_is_read(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```toml\n(.*?)^```$", PAGES["training.md"], re.M | re.S)
    (tmp_path / "run.toml").write_text(block, encoding="utf-8")
    argv = ["--config", str(tmp_path / "run.toml")]
    given = parse_given(EventLoraFlags, argv, prog="event-lora", description="")
    assert given["event_weight"] == 3.0
    assert given["snapshot"] == Path("data/snapshots/2026-11")


# the changelog names flags that are gone
@pytest.mark.parametrize("page", sorted({*ROOT_PAGES, *PAGES} - {"CHANGELOG.md"}))
def test_commands_are_spelled_in_one_way(page: str) -> None:
    text = PAGES.get(page) or ROOT_PAGES[page]
    assert not re.search(r"\.venv/bin/python -m|kronos-finetune |kronos-inference (serve|forecast)", text)
    assert not re.search(r"--(scored|clip|adapters|force|require-gain|event-oversample)\b", text)


@pytest.mark.parametrize("page", [*ROOT_PAGES, *PAGES])
def test_links_and_paths_lead_somewhere(page: str) -> None:
    text = PAGES.get(page) or ROOT_PAGES[page]
    folder = ROOT if page in ROOT_PAGES else ROOT / "docs"
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        target = folder / path if path else folder / page
        assert path.startswith("https://") or target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.M)
            assert anchor in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}, link
    for path in re.findall(r"(?:kronos-service|shared|tests|deploy|docs)/[\w./-]+\w", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", [*ROOT_PAGES, *PAGES])
def test_prose_fits_a_terminal(page: str) -> None:
    text = re.sub(r"^ *```.*?^ *```$", "", PAGES.get(page) or ROOT_PAGES[page], flags=re.M | re.S)
    assert [line for line in text.splitlines() if len(line) > 110 and not line.lstrip().startswith("|")] == []
