"""A run that an earlier version left unfinished resumes to the result that version would have reached.

tests/goldens/run_36faa60/ holds the run, its base and its data as that version wrote them, and under
expected/ what it made of them itself.
"""

import hashlib
import json
import re
import shutil
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kronos_service.finetune.__main__ import main

GOLDEN = Path(__file__).parents[2] / "goldens" / "run_36faa60"
EXPECTED = GOLDEN / "expected"


def read(path: Path) -> Any:
    return json.loads(path.read_bytes())


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("earlier") / "copy"
    shutil.copytree(GOLDEN, directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        with (directory / "log").open("w") as log, redirect_stdout(log):
            assert main(["event-lora", "--resume", "--run-dir", "runs/unfinished"]) == 0
    return directory / "runs" / "unfinished"


def test_the_log_says_which_training_of_how_many_it_is_in(resumed: Path) -> None:
    log = (resumed.parents[1] / "log").read_text()
    assert re.findall(r"training (.*)", log) == ["1 of 2: adapter", "2 of 2: control"]


def test_its_criteria_and_results_are_the_earlier_versions(resumed: Path) -> None:
    got, expected = ({one["name"]: one for one in read(d / "criteria.json")} for d in (resumed, EXPECTED))
    del expected["rank 8 beats rank 4"]  # since then in the ablation's criteria only
    assert set(expected) <= set(got)
    assert {name: got[name]["verdict"] for name in expected} == {
        name: one["verdict"] for name, one in expected.items()
    }
    figures = {name: one["figure"] for name, one in expected.items() if one["figure"] is not None}
    del figures["wall time"]
    more = got["adapter size"]["figure"] - figures.pop("adapter size")
    assert 0 < more < 2000  # the manifest and the card also hold tier 1 and the comparison with LATEST
    assert {name: got[name]["figure"] for name in figures} == pytest.approx(figures, rel=1e-3, abs=1e-3)
    results, earlier = (numbers(read(directory / "results.json")) for directory in (resumed, EXPECTED))
    assert {name: results[name] for name in earlier} == pytest.approx(earlier, rel=1e-3, abs=1e-3)


def test_its_adapter_is_the_earlier_versions(resumed: Path) -> None:
    for file, tensors in read(EXPECTED / "tensors.json").items():
        got = load_file(resumed / "adapter" / file)
        assert set(got) == set(tensors)
        for name, one in tensors.items():
            assert [*got[name].shape] == one["shape"]
            assert got[name].double().norm().item() == pytest.approx(one["norm"], rel=1e-3), name
            assert got[name].flatten()[:4].tolist() == pytest.approx(one["first"], rel=1e-2, abs=1e-4), name


def test_where_products_round_as_they_did_then_every_bit_is_the_same(resumed: Path) -> None:
    now = {"torch": torch.__version__, "cpu": torch.backends.cpu.get_cpu_capability()}
    results, expected = read(resumed / "results.json"), read(EXPECTED / "results.json")
    if now != read(EXPECTED / "made_by.json") or results["val"]["base"] != expected["val"]["base"]:
        pytest.skip("the goldens were made with another torch, or on a processor that rounds otherwise")
    got = numbers(results)
    assert {name: got[name] for name in numbers(expected)} == numbers(expected)
    hashes = {
        name: hashlib.sha256((resumed / name).read_bytes()).hexdigest()
        for name in read(EXPECTED / "sha256.json")
    }
    assert hashes == read(EXPECTED / "sha256.json")


def numbers(tree: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """The leaves of nested figures by their path."""
    leaves: dict[str, float] = {}
    for name, value in tree.items():
        path = f"{prefix}/{name}"
        leaves |= numbers(value, path) if isinstance(value, dict) else {path: value}
    return leaves
