"""Every command in the README runs: with a small market and base in the place of the reader's own."""

import re
import shlex
from pathlib import Path

import pytest

from kronos_service.finetune.__main__ import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^python -m kronos_service\.finetune (.+)$", README, re.MULTILINE)
SMALL = {
    "event-lora": "--epochs 1 --scored 8 --context 72 --rank 2 --train-start 2021-06-01 "
    "--val-start 2022-06-01 --test-start 2022-10-01 --test-end 2023-03-31 --forecast-origins 4",
    "evaluate": "--scored 8 --origins 6 --horizon 2 --paths 20",
}


def test_the_commands_of_a_real_run_work_in_their_order(
    market_path: Path, base_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = []
    for line in COMMANDS:
        words = shlex.split(line, comments=True)
        name = words[0]
        yours = {"data/snapshots/2026-11": str(market_path), "NeoQuasar/Kronos-base": str(base_path)}
        argv = [yours.get(word, word) for word in words] + shlex.split(SMALL.get(name, ""))
        if name == "export":  # the reader's database is not here: the small market takes its place
            argv = ["export", "--source", "snapshot", "--tables", str(market_path), "--out", "exported"]
            assert set(words) - {"2026-11"} <= {"export", "--out", "data/snapshots/2026-11"}
        assert main(argv) == 0, line
        ran.append(name)
    assert {"export", "event-lora", "evaluate"} <= set(ran)


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"^make ([a-z-]+)", README, re.MULTILINE))
    assert {"demo", "test"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_file_tree_names_only_what_exists() -> None:
    tree = README.split("## Where things are")[1].split("```")[1]
    folder = ROOT
    for line in tree.strip().splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        folder = (
            ROOT
            if depth == 0
            else ROOT / "kronos-service"
            if depth == 1
            else ROOT / "kronos-service/finetune"
        )
        assert (folder / name.rstrip("/")).exists(), name
