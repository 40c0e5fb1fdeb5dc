"""Pretraining learns, says how well, sees nothing it must not, and continues to the same bits."""

import io
import json
import re
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from rich.console import Console
from safetensors.torch import load_file

from kronos_service.data.sample import sample_snapshot_path, write_sample
from kronos_service.data.snapshot.read import load_snapshot
from kronos_service.finetune import PROGRAM
from kronos_service.finetune.config import PretrainConfig
from kronos_service.finetune.pretrain import loop
from kronos_service.finetune.pretrain.loop import PretrainError, learning_rate
from kronos_service.finetune.pretrain.pretrain import (
    command_line,
    mean_losses,
    prediction_loss,
    predictor_report,
    pretrain,
    reconstruction_loss,
    spread_codes,
    tokenizer_report,
)
from kronos_service.finetune.pretrain.windows import (
    Batch,
    Series,
    WindowError,
    draw_batch,
    training_series,
    validation_batch,
)
from kronos_service.model.factory import NANO_DIRECTORY, load_bundle
from kronos_service.model.kronos import Kronos
from kronos_service.model.presets import PRESETS
from kronos_service.model.tokenizer import KronosTokenizer
from kronos_shared import progress
from kronos_shared.cli import ConfigError

Weights = dict[str, torch.Tensor]

UNTIL = date(2022, 7, 1)
CONTEXT = 48
DOCUMENT = Path(__file__).parents[3] / "docs" / "sample-market.md"


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pretrain") / "market"
    write_sample(path, seed=5, symbols=3, start=date(2021, 1, 1), end=date(2022, 12, 31))
    return path


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost more than they give to a model this small, most of all beside other work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def data(snapshot: Path) -> list[Series]:
    return training_series(load_snapshot(snapshot), until=UNTIL, heldout=0.2, context=CONTEXT)


def settings(snapshot: Path, out: Path, **changes: Any) -> PretrainConfig:
    few: dict[str, Any] = {"tokenizer_steps": 6, "predictor_steps": 6, "batch_size": 2, "save_every": 2}
    few |= {"preset": "nano", "until": UNTIL, "context": CONTEXT, "heldout": 0.2, "precision": "no"}
    return PretrainConfig(snapshot=snapshot, out=out, **(few | changes))


def nano(seed: int = 0) -> tuple[KronosTokenizer, Kronos]:
    torch.manual_seed(seed)
    preset = PRESETS["nano"]
    return KronosTokenizer(**preset.tokenizer).eval(), Kronos(**preset.predictor).eval()


def weights(out: Path) -> Weights:
    return {
        f"{part}.{name}": value
        for part in ("tokenizer", "predictor")
        for name, value in load_file(out / part / "model.safetensors").items()
    }


def test_the_base_loads_and_its_record_tells_how_it_was_made(snapshot: Path, tmp_path: Path) -> None:
    config = settings(snapshot, tmp_path / "base")
    shown = io.StringIO()
    record = pretrain(config, Console(file=shown, width=20))
    line = f"{PROGRAM} event-lora --snapshot {snapshot} --base-model {config.out}"
    assert f"; next:\n{line}\n" in shown.getvalue()
    bundle = load_bundle(str(config.out))
    assert bundle.context == CONTEXT
    assert record["command"].startswith(f"{PROGRAM} pretrain --snapshot market --out base --preset nano")
    assert str(tmp_path) not in (config.out / "base.json").read_text(encoding="utf-8")
    assert record["snapshot_sha256"] == load_snapshot(snapshot).sha256
    assert [len(record["train_loss"][stage]) for stage in ("tokenizer", "predictor")] == [3, 3]
    assert record["validation"]["loss"] == pytest.approx(
        record["validation"]["s1_loss"] + record["validation"]["s2_loss"], abs=1e-3
    )
    assert not (config.out / "state").exists()


@pytest.fixture(scope="module")
def weights_of(snapshot: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Weights]:
    """The weights after two steps of each stage, with changed settings."""

    def pretrained(**changes: Any) -> Weights:
        few: dict[str, Any] = {"tokenizer_steps": 2, "predictor_steps": 2}
        config = settings(snapshot, tmp_path_factory.mktemp("base") / "base", **few | changes)
        AcceleratorState._reset_state(True)  # the first one of a process fixes the precision of all
        pretrain(config)
        AcceleratorState._reset_state(True)
        return weights(config.out)

    return pretrained


@pytest.fixture(scope="module")
def plain(weights_of: Callable[..., Weights]) -> Weights:
    return weights_of()


@pytest.mark.parametrize(
    ("name", "value"), [("until", date(2022, 5, 1)), ("batch_size", 3), ("precision", "bf16"), ("seed", 1)]
)
def test_a_base_depends_on_each_setting(
    weights_of: Callable[..., Weights], plain: Weights, name: str, value: object
) -> None:
    changed = weights_of(**{name: value})
    assert not all(torch.equal(changed[name], plain[name]) for name in plain)


def test_each_stage_takes_its_steps_at_its_rate(
    snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[float, int]] = []

    def watched(peak: float, step: int, steps: int) -> float:
        if step == 0:
            asked.append((peak, steps))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return learning_rate(peak, step, steps)

    monkeypatch.setattr(loop, "learning_rate", watched)
    rates = {"tokenizer_lr": 3e-3, "predictor_lr": 4e-3}
    with pytest.raises(KeyboardInterrupt):
        pretrain(settings(snapshot, tmp_path / "base", tokenizer_steps=2, predictor_steps=3, **rates))
    assert asked == [(3e-3, 2), (4e-3, 3)]


def test_both_stages_learn(snapshot: Path, tmp_path: Path) -> None:
    config = settings(
        snapshot, tmp_path / "base", tokenizer_steps=40, predictor_steps=40, save_every=10, batch_size=4
    )
    record = pretrain(config)
    for curve in record["train_loss"].values():
        assert curve[-1] < 0.9 * curve[0]


@pytest.mark.parametrize("stage", ["tokenizer", "predictor"])
def test_an_interrupted_run_continues_to_the_same_bits(
    snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    whole, cut = (settings(snapshot, tmp_path / name / "base") for name in ("whole", "cut"))
    expected = pretrain(whole)

    def interrupt(loss: float, at: loop.Stage, step: int) -> float:
        if at.name == stage and step == 5:
            raise KeyboardInterrupt
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_finite", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pretrain(cut)
    again = pretrain(cut)
    assert again["train_loss"] == expected["train_loss"]
    one, two = weights(whole.out), weights(cut.out)
    assert all(torch.equal(one[name], two[name]) for name in one | two)


def test_the_state_of_another_run_is_refused(
    snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(snapshot, tmp_path / "base", save_every=1)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "learning_rate", lambda peak, step, steps: float("nan") if step else peak)
        with pytest.raises(PretrainError, match="tokenizer: the loss of step 2 is nan"):
            pretrain(config)
    with pytest.raises(PretrainError, match="belongs to a run with other settings"):
        pretrain(config.replace(seed=1))


def test_the_state_of_an_earlier_version_is_refused(snapshot: Path, tmp_path: Path) -> None:
    config = settings(snapshot, tmp_path / "base")
    (config.out / "state").mkdir(parents=True)
    (config.out / "state" / "tokenizer.pt").touch()
    with pytest.raises(PretrainError, match="earlier version: remove it or change --out"):
        pretrain(config)


def test_a_log_file_is_told_of_both_stages(
    snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    log = io.StringIO()
    pretrain(settings(snapshot, tmp_path / "base"), Console(file=log))
    for stage in ("tokenizer", "predictor"):
        line = rf"^{stage}, 3 of 6 steps, loss \d+\.\d{{4}}, \d+\.\d/s, 0 s left$"
        assert re.search(line, log.getvalue(), re.MULTILINE), log.getvalue()


def test_bars_from_until_on_and_held_out_bars_are_never_trained_on(
    data: list[Series], snapshot: Path
) -> None:
    bars = load_snapshot(snapshot).bars
    last = bars[bars.ts < "2022-07-01"].groupby("symbol").size()
    assert sorted(len(s.x) for s in data) == sorted(last)
    scrambled = [s._replace(x=np.vstack([s.x[: s.rows], s.x[s.rows :] * 7.0])) for s in data]
    for step in range(20):
        one, two = (
            draw_batch(d, np.random.default_rng(step), size=8, context=CONTEXT) for d in (data, scrambled)
        )
        assert torch.equal(one.x, two.x)
    assert not torch.equal(*(validation_batch(d, context=CONTEXT).x for d in (data, scrambled)))


def test_every_validated_target_is_held_out(data: list[Series]) -> None:
    marked = [
        s._replace(stamps=np.where(np.arange(len(s.x)) < s.rows, 0, 1)[:, None].repeat(5, 1)) for s in data
    ]
    batch = validation_batch(marked, context=CONTEXT)
    assert batch.cut == CONTEXT * 3 // 4
    assert batch.stamps[:, batch.cut :].all()


def test_no_statistic_sees_a_scored_target(data: list[Series]) -> None:
    batch = draw_batch(data, np.random.default_rng(1), size=4, context=CONTEXT)
    assert CONTEXT // 2 <= batch.cut <= CONTEXT * 7 // 8
    assert batch.x[:, : batch.cut].mean(dim=1).abs().max() < 1e-3
    traded = batch.x[:, : batch.cut].std(dim=1, correction=0)
    assert (
        torch.isin(traded.round(decimals=2), torch.tensor([0.0, 1.0])).float().mean() > 0.9
    )  # clips are rare


def test_only_targets_from_the_cut_on_are_scored(data: list[Series]) -> None:
    tokenizer, model = nano()
    batch = draw_batch(data, np.random.default_rng(1), size=2, context=CONTEXT)
    s1, s2 = tokenizer.encode(batch.x)
    logits = model(s1[:, :-1], s2[:, :-1], batch.stamps[:, :-1], s1_targets=s1[:, 1:])
    for got, ids, scores in zip(mean_losses(tokenizer, model, batch), (s1, s2), logits, strict=True):
        log_p = scores.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
        assert got.item() == pytest.approx(-log_p[:, batch.cut - 1 :].mean().item(), rel=1e-5)


def test_the_losses_are_upstreams(data: list[Series]) -> None:
    tokenizer, model = nano()
    batch = validation_batch(data, context=CONTEXT)
    out = tokenizer(batch.x)
    errors = ((out.recon_s1 - batch.x) ** 2).mean() + ((out.recon - batch.x) ** 2).mean()
    assert torch.isclose(reconstruction_loss(tokenizer, batch), (errors + out.quantizer_loss) / 2)
    assert torch.isclose(
        prediction_loss(tokenizer, model, batch), sum(mean_losses(tokenizer, model, batch), torch.zeros(()))
    )


def test_codes_start_balanced(data: list[Series]) -> None:
    tokenizer, _ = nano()
    batch = validation_batch(data, context=CONTEXT)
    before = tokenizer_report(tokenizer, batch)
    spread_codes(tokenizer, batch.x)
    after = tokenizer_report(tokenizer, batch)
    assert after["s1_perplexity"] > 2 * before["s1_perplexity"]
    assert after["s2_perplexity"] > 2 * before["s2_perplexity"]


def test_a_perfect_tokenizer_reports_no_error(data: list[Series]) -> None:
    class Perfect(KronosTokenizer):
        def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            self.x = x
            return torch.zeros(x.shape[:2], dtype=torch.int64), torch.arange(x[..., 0].numel()).reshape(
                x.shape[:2]
            ) % 4

        def decode(self, s1_ids: torch.Tensor, s2_ids: torch.Tensor) -> torch.Tensor:
            return self.x

    report = tokenizer_report(Perfect(**PRESETS["nano"].tokenizer), validation_batch(data, context=CONTEXT))
    assert report["reconstruction_rms"] == report["close_error_in_daily_moves"] == 0
    assert (report["s1_perplexity"], report["s2_perplexity"]) == (1.0, 4.0)


def test_the_learning_rate_warms_up_and_ends_low() -> None:
    rates = [learning_rate(1.0, step, 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == rates[100] == 1.0
    assert rates[-1] == pytest.approx(0.02, abs=1e-3)


def test_a_snapshot_without_a_full_window_is_refused(snapshot: Path, tmp_path: Path) -> None:
    with pytest.raises(WindowError, match="no symbol of market has 2000 bars"):
        pretrain(settings(snapshot, tmp_path / "base", context=2000))
    with pytest.raises(WindowError, match="raise --heldout"):
        pretrain(settings(snapshot, tmp_path / "base", heldout=0.001))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context": 16}, "--context must be greater than or equal to 32"),
        ({"heldout": 1.0}, "--heldout must be less than 1"),
        ({"batch_size": 0}, "--batch-size"),
        ({"predictor_lr": -1e-3}, "--predictor-lr must be greater than 0"),
        ({"seed": -1}, "--seed must be greater than or equal to 0"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(tmp_path, tmp_path, **change)


def test_the_command_line_names_what_differs_from_the_defaults() -> None:
    config = PretrainConfig(snapshot=Path("/some/where/market"), out=Path("runs/x"), seed=3)
    assert command_line(config) == f"{PROGRAM} pretrain --snapshot market --out x --seed 3"


def test_a_batch_moves_with_its_cut() -> None:
    batch = Batch(torch.zeros(1, 4, 6), torch.zeros(1, 4, 5), 2)
    assert batch.to(torch.device("cpu")).cut == 2


def test_the_shipped_base_resolves_a_day_and_its_making_is_on_record() -> None:
    bundle = load_bundle("nano")
    market = load_snapshot(sample_snapshot_path())
    data = training_series(market, until=date(2026, 4, 1), heldout=0.1, context=bundle.context)
    batch = validation_batch(data, context=bundle.context)
    report = tokenizer_report(bundle.tokenizer, batch) | predictor_report(
        bundle.tokenizer, bundle.model, batch
    )
    assert report["close_error_in_daily_moves"] < 0.25
    assert report["range_error_in_daily_moves"] < 0.4
    assert report["loss"] < 4.8
    record = json.loads((NANO_DIRECTORY / "base.json").read_text(encoding="utf-8"))
    command = record["command"].removeprefix("kronos-finetune ")
    assert f"python -m kronos_service.finetune {command}\n" in re.sub(
        r"\\\n *", "", DOCUMENT.read_text(encoding="utf-8")
    )
    assert sum(file.stat().st_size for file in NANO_DIRECTORY.rglob("*.safetensors")) <= 3_000_000
