"""evaluate and report as a user runs them, after one tiny run: files, tables, refusals, the whole page."""

import json
import re
import shutil
from contextlib import redirect_stdout
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kronos_service.finetune.__main__ import main
from kronos_service.finetune.config import PretrainConfig
from kronos_service.finetune.event_conditioned.ablation.config import AblateConfig
from kronos_service.finetune.event_conditioned.config import (
    EvaluateConfig,
    EventLoraConfig,
    ReportConfig,
)
from kronos_service.finetune.event_conditioned.evaluation.sample_paths import PathSettings
from kronos_service.finetune.event_conditioned.evaluation.test_split_log import OPENINGS
from kronos_service.finetune.event_conditioned.folds.config import WalkForwardConfig
from kronos_service.finetune.event_conditioned.report import tables
from kronos_service.finetune.event_conditioned.report.document import SECTIONS as DOCUMENT_SECTIONS
from kronos_service.finetune.event_conditioned.report.document import render
from kronos_service.finetune.event_conditioned.report.run_record import ReportError, read_run
from kronos_service.model.generation.sampling import Sampling
from kronos_shared.adapter_manifest import DAY_KINDS
from kronos_shared.cli import Settings, parse
from kronos_shared.errors import KronosError

SPLITS = "--train-start 2022-01-03 --val-start 2022-06-01 --test-start 2022-10-01 --test-end 2022-12-15"
SIZE = "--epochs 2 --targets-per-window 8 --context 72 --rank 2 --forecast-origins 6 --forecast-paths 20"
RUN = f"{SIZE} --promote if-better --recalibrate {SPLITS}"
SECTIONS = (
    *("day", "leaderboard", "families", "days", "learning", "forecasts", "calibration", "events"),
    *("criteria", "audit", "missing", "made"),
)
"""Of a run without an ablation, whose test split is closed."""
FEW = ["--targets-per-window", "8", "--origins", "8", "--horizon", "2", "--paths", "20"]


class Page(HTMLParser):
    """What a browser would see: ids, links, text, and whether tags nest."""

    VOID = ("meta", "br", "use", "path")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.resources: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [given["id"] or ""] if "id" in given else []
        self.links += [given["href"] or ""] if tag == "a" else []
        self.resources += [
            given[key] or "" for key in ("src", "href", "xlink:href", "data") if key in given and tag != "a"
        ]
        self.resources += re.findall(r"url\(([^)]*)\)", given.get("style") or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def place(market_path: Path, base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a finished run, whose widths are recalibrated, and its store."""
    directory = tmp_path_factory.mktemp("place")
    where = ["--run-dir", str(directory / "run"), "--adapter-store", str(directory / "adapters")]
    given = ["--snapshot", str(market_path), "--base-model", str(base_path), *RUN.split()]
    module = "kronos_service.finetune.event_conditioned.evaluation.recalibration"
    with pytest.MonkeyPatch.context() as patch:  # fewer forecasts than a user's, which would take a minute
        patch.setattr(f"{module}.ORIGINS", 16)
        patch.setattr(f"{module}.PATHS", 24)
        assert main(["event-lora", *given, *where]) == 0
    return directory


@pytest.fixture(scope="module")
def given(market_path: Path, base_path: Path) -> list[str]:
    return ["--snapshot", str(market_path), "--base-model", str(base_path), *FEW]


@pytest.fixture(scope="module")
def evaluated(place: Path, given: list[str]) -> str:
    """What `evaluate` says of the run; its figures are added to the run's directory."""
    with redirect_stdout(StringIO()) as said:
        assert main(["evaluate", "--adapter", str(place / "run" / "adapter"), *given]) == 0
    return " ".join(said.getvalue().split())


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def text_of(path: Path) -> str:
    return " ".join(Page(path.read_text(encoding="utf-8")).text)


def test_a_run_ends_with_a_report_that_stands_alone(place: Path) -> None:
    page = Page((place / "run" / "report.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert [name for name in page.ids if name in DOCUMENT_SECTIONS] == list(SECTIONS)
    assert page.links == [f"#{name}" for name in SECTIONS]
    assert page.ids[0] == "verdict"
    assert page.resources
    assert all(resource.startswith("#") for resource in page.resources)
    defined = set(page.ids)
    assert {resource.removeprefix("#") for resource in page.resources} <= defined
    source = (place / "run" / "report.html").read_text(encoding="utf-8")
    outside = re.sub(r'xmlns(:xlink)?="http://www\.w3\.org/[^"]*"', "", source)
    assert "http:" not in outside
    assert "https:" not in outside
    assert "prefers-color-scheme: dark" in source
    for figure in ("validation, event days", "PIT, adapter", "bars from the event", "bars ahead"):
        assert figure in source


def test_its_figures_are_those_of_the_runs_files(place: Path) -> None:
    run, shown = place / "run", text_of(place / "run" / "report.html")
    results = read_json(run / "results.json")
    for losses in results["val"].values():
        for group in losses.values():
            assert f"{group['total']:.4f}" in shown
    for gain in results["gains"].values():
        assert f"{gain['nats']:+.4f}" in shown
        assert tables.interval(gain["low"], gain["high"]) in shown
    for families in results["family_gains"].values():
        assert all(f"{gain['nats']:+.4f}" in shown for gain in families.values())
    for criterion in read_json(run / "criteria.json"):
        assert criterion["detail"] in shown
    for group in read_json(run / "evaluation-val.json")["forecasts"]["groups"]:
        assert tables.percent(group["models"]["adapter"]["crps"], 3) in shown
    for name, version in read_json(run / "versions.json").items():
        assert name in shown
        assert version in shown
    assert read_json(run / "finished.json")["promoted"] in shown


def test_the_model_card_shows_the_same_figures(place: Path) -> None:
    card = (place / "run" / "adapter" / "README.md").read_text(encoding="utf-8")
    results = read_json(place / "run" / "results.json")
    for losses in results["val"].values():
        assert all(f"{group['total']:.4f}" in card for group in losses.values())
    assert all(f"{gain['nats']:+.4f}" in card for gain in results["gains"].values())
    assert "2022-10-01 to 2022-12-15" in card
    assert "Audit for look-ahead: pass" in card


def test_family_gains_are_paired_differences_of_the_losses_on_file(place: Path) -> None:
    losses = pd.read_parquet(place / "run" / "val_losses.parquet")
    found = read_json(place / "run" / "results.json")["family_gains"]
    assert set(found) == {"base", "control"}
    for reference, families in found.items():
        for family, gain in families.items():
            mine = losses[losses[family]].pivot_table(
                index=["symbol", "date"], columns="model", values="total"
            )
            assert gain["nats"] == pytest.approx((mine[reference] - mine["adapter"]).mean())
            assert gain["targets"] == len(mine)


def test_evaluate_adds_its_figures_to_the_run_and_its_report(place: Path, evaluated: str) -> None:
    figures = read_json(place / "run" / "evaluation-val.json")
    forecasts = figures["forecasts"]
    assert forecasts["origins"] == 8
    assert forecasts["horizon"] == 2
    records = pd.read_parquet(place / "run" / "evaluation-val.parquet")
    everything = next(one for one in forecasts["groups"] if (one["by"], one["steps"]) == ("all", "1"))
    mine = records[(records["model"] == "adapter") & (records["step"] == 1)]
    assert everything["targets"] == len(mine) == 8
    assert everything["models"]["adapter"]["crps"] == pytest.approx(mine["crps"].mean())
    assert tables.percent(everything["models"]["adapter"]["crps"], 3) in evaluated
    assert tables.percent(everything["models"]["adapter"]["crps"], 3) in text_of(
        place / "run" / "report.html"
    )
    results = read_json(place / "run" / "results.json")["val"]
    for model in ("base", "adapter"):
        for group in ("event", "quiet"):
            assert figures["losses"][model][group]["total"] == pytest.approx(results[model][group]["total"])


def test_a_published_version_is_evaluated_in_a_directory_of_its_own(
    place: Path, given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "--adapter", str(place / "adapters"), *given, "--origins", "0"]) == 0
    (directory,) = (tmp_path / "runs").glob("evaluate-000001-*")
    assert read_json(directory / "evaluation-val.json")["forecasts"] is None
    shown = text_of(directory / "report.html")
    page = Page((directory / "report.html").read_text(encoding="utf-8"))
    assert page.links == ["#days", "#missing", "#made"], "an evaluation has no cards for what a run alone has"
    for absent in ("none were asked for (--origins 0)", "Not scored here"):
        assert absent in shown
    assert "When it was trained, " in shown, "the verdict on the adapter comes from its manifest"
    assert "no look-ahead found" in shown


def test_the_test_split_stays_closed_without_its_flag(
    place: Path, given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["evaluate", "--adapter", str(place / "run" / "adapter"), *given]
    assert main([*argv, "--split", "test"]) == 2
    assert "add --open-test-split to look" in capsys.readouterr().err
    assert main([*argv, "--open-test-split"]) == 2
    assert "belongs to --split test" in capsys.readouterr().err
    assert not (place / "run" / OPENINGS).exists()


def test_opening_the_test_split_is_remembered_and_said_the_second_time(
    place: Path, given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["evaluate", *given, "--origins", "4", "--split", "test", "--open-test-split"]
    assert main([*argv, "--adapter", str(place / "run" / "adapter")]) == 0
    assert "opened before" not in capsys.readouterr().out
    assert "These figures are the first look" in text_of(place / "run" / "report.html")
    assert len((place / "run" / OPENINGS).read_text().splitlines()) == 1
    # width factors are judged on other dates than they were found on
    models = {
        split: set(read_json(place / "run" / f"evaluation-{split}.json")["forecasts"]["groups"][0]["models"])
        for split in ("val", "test")
    }
    assert models["test"] - models["val"] == {"recalibrated"}
    assert "recalibrated" in text_of(place / "run" / "report.html")

    again = [*argv, "--origins", "0", "--adapter", str(place / "adapters"), "--out", str(tmp_path)]
    assert main(again) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "the test split was opened before" in said
    assert "by adapter adapter" in said
    assert "opened 1 times" in text_of(tmp_path / "report.html")
    evaluation = read_json(tmp_path / "evaluation-test.json")
    assert [one["adapter"] for one in evaluation["openings"]] == ["adapter"]

    assert main(["report", str(place / "run")]) == 0
    shown = text_of(place / "run" / "report.html")
    assert shown.count("Opened 20") == 2


def test_the_width_factors_are_published_with_what_they_stand_on(place: Path) -> None:
    (published,) = (place / "adapters" / "versions").glob("000001-*")
    table = read_json(published / "manifest.json")["recalibration"]
    assert {kind: len(row) for kind, row in table["factors"].items()} == dict.fromkeys(DAY_KINDS, 5)
    assert sum(sum(row) for row in table["forecasts"].values()) == 16 * 5
    assert "2022-06-01" <= table["first"] <= table["last"] <= "2022-09-30"


@pytest.mark.usefixtures("evaluated")
def test_figures_are_the_same_each_time(place: Path, given: list[str], tmp_path: Path) -> None:
    argv = ["evaluate", "--adapter", str(place / "run" / "adapter"), *given, "--out", str(tmp_path)]
    assert main(argv) == 0
    found, first = (read_json(out / "evaluation-val.json") for out in (tmp_path, place / "run"))
    assert found["made_at"] != first["made_at"]
    assert {**found, "made_at": None} == {**first, "made_at": None}


def test_forecasts_are_drawn_as_the_flags_say(
    place: Path, given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def watched(*_: object, origins: int, settings: PathSettings, **__: object) -> None:
        asked.update(origins=origins, settings=settings)
        raise KronosError("that is enough")

    monkeypatch.setattr("kronos_service.finetune.event_conditioned.evaluate.forecast_split", watched)
    drawn = "--origins 4 --horizon 3 --paths 21 --temperature 0.5 --top-p 0.3 --seed 4"
    argv = ["evaluate", "--adapter", str(place / "run" / "adapter"), *given, *drawn.split()]
    assert main([*argv, "--out", str(tmp_path)]) == 2
    sampling = Sampling(temperature=0.5, top_p=0.3)
    settings = PathSettings(horizon=3, paths=21, context=72, sampling=sampling, seed=4)
    assert asked == {"origins": 4, "settings": settings}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--paths", "5"], "--paths must be greater than or equal to 20"),
        (["--horizon", "0"], "--horizon must be greater than or equal to 1"),
        (["--seed", "-1"], "--seed must be greater than or equal to 0"),
        (["--origins", "-1"], "--origins must be greater than or equal to 0"),
        (["--horizon", "100"], "got none: the split has too few bars in a row"),
    ],
)
def test_mistakes_are_one_line(
    place: Path, given: list[str], flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--adapter", str(place / "run" / "adapter"), *given, *flags]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1


def test_the_commands_of_the_guide_are_understood() -> None:
    guide = (Path(__file__).parents[4] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    whole_lines = re.sub(r" \\\n +", " ", guide)
    commands = re.findall(r"^python -m kronos_service\.finetune (.+)$", whole_lines, re.MULTILINE)
    assert len(commands) == 9
    configs: dict[str, type[Settings]] = {
        "event-lora": EventLoraConfig,
        "evaluate": EvaluateConfig,
        "ablate": AblateConfig,
        "report": ReportConfig,
        "walk-forward": WalkForwardConfig,
        "pretrain": PretrainConfig,
    }
    for command in commands:
        name, *argv = command.split()
        argv = ["--run", *argv] if name == "report" else argv
        parse(configs[name], argv, prog=name, description="")


def test_a_report_needs_a_run_and_whole_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "holds neither a run of event-lora" in capsys.readouterr().err
    (tmp_path / "config.json").write_text('{"adapters": "nowhere"}')
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(ReportError, match="cannot be read"):
        read_run(tmp_path)


def test_a_run_that_has_just_begun_says_what_is_missing(tmp_path: Path) -> None:
    """No section is empty: what there is nothing of stands in one list, with the command that makes it."""
    (tmp_path / "config.json").write_text('{"adapters": "nowhere", "epochs": 3}')
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "epoch": 1, "train/loss": 2.0}\n{"step": 2, "ep')
    page = Page(render(read_run(tmp_path)))
    assert page.links == ["#missing", "#made"]
    missing = ("Forecasts", "Success criteria", "Loss curves", "Validation losses", "Ablation", "Test split")
    assert set(missing) <= set(page.text)


def test_an_ablation_elsewhere_is_shown(place: Path, tmp_path: Path) -> None:
    gain = {"nats": 0.0123, "low": 0.01, "high": 0.02, "percent": 1.0, "targets": 40, "dates": 20}
    by_seed = {"0": {"loss": 2.4, "over_control": 0.012}, "1": {"loss": 2.6, "over_control": 0.0126}}
    part = {"loss": 2.5, "over_adapter": None, "over_control": gain, "by_seed": by_seed}
    bare = part | {"over_control": None, "by_seed": {}}
    size = {"trainable": 149_792, "seconds": 90.0}
    arms = [
        {
            "name": "rank 4",
            "question": "is half enough?",
            "seeds": [0, 1],
            "event": part,
            "quiet": part,
            **size,
        },
        {"name": "control", "question": "what is new?", "seeds": [], "event": bare, "quiet": bare, **size},
    ]
    path = tmp_path / "ablation.json"
    criteria = [
        {
            "name": "rank 8 beats rank 4",
            "wanted": ">= 1 %",
            "figure": 0.1,
            "detail": "+0.10 %",
            "verdict": "fail",
        }
    ]
    path.write_text(json.dumps({"arms": arms, "unfinished": [["control", 0]], "criteria": criteria}))
    run = shutil.copytree(place / "run", tmp_path / "run")
    assert main(["report", str(run), "--ablation", str(path)]) == 0
    shown = " ".join(text_of(run / "report.html").split())
    for words in ("is half enough?", "+0.0123", "[+0.0100, +0.0200]", "Not trained yet: control (seed 0)"):
        assert words in shown
    for words in (
        "Ablation, non-event targets (40 targets on 20 dates",
        "0: +0.012, 1: +0.013",
        "149,792 1.5",
    ):
        assert words in shown
    assert ">= 1 % +0.10 % ✗ fail" in shown
