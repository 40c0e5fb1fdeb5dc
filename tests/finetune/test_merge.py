"""A merged base, read as upstream's own code reads it, against the adapted model without events."""

import json
import re
import resource
import shutil
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from inspect import signature
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import PyTorchModelHubMixin
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn

from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_service.finetune.__main__ import main
from kronos_service.finetune.event_conditioned.provenance import seen_by
from kronos_service.model.adapter.read import LoadedAdapter, find_adapter, load_adapter, read_adapter
from kronos_service.model.factory import NANO_DIRECTORY, Bundle, load_bundle
from kronos_service.model.generation.generate import History, generate
from kronos_service.model.generation.rollout import PathSampler, TokenHistory
from kronos_service.model.generation.sampling import Sampling, noise
from kronos_service.model.kronos import Kronos
from kronos_service.model.tokenizer import KronosTokenizer
from kronos_shared.adapter_manifest import (
    ADAPTER_WEIGHTS,
    DAY_KINDS,
    EVENT_WEIGHTS,
    MANIFEST,
    LoraRecord,
    RecalibrationRecord,
)
from kronos_shared.lora_targets import DEFAULT_TARGETS, LINEAR_NAMES, target_pattern

ROOT = Path(__file__).parents[2]
GOLDENS = ROOT / "tests" / "goldens" / "parity"
GREEDY = Sampling(temperature=0)
BARS, HORIZON = 40, 12


def tensors(**named: Tensor) -> nn.Module:
    """A module that holds these and nothing else: floats are parameters, integers buffers."""
    module = nn.Module()
    for name, tensor in named.items():
        if tensor.is_floating_point():
            module.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
        else:
            module.register_buffer(name, tensor)
    return module


def norm(width: int) -> nn.Module:
    return tensors(weight=torch.empty(width))


def attention(width: int, heads: int) -> nn.Module:
    parts: dict[str, nn.Module] = {f"{name}_proj": nn.Linear(width, width) for name in ("q", "k", "v", "out")}
    rotary = nn.Module()
    rotary.register_buffer("inv_freq", torch.empty(width // heads // 2))
    return nn.ModuleDict(parts | {"rotary": rotary})


def blocks(count: int, width: int, heads: int, hidden: int) -> nn.ModuleList:
    def block() -> nn.Module:
        gates = {name: nn.Linear(width, hidden, bias=False) for name in ("w1", "w3")}
        ffn = nn.ModuleDict({**gates, "w2": nn.Linear(hidden, width, bias=False)})
        parts = {"norm1": norm(width), "self_attn": attention(width, heads), "norm2": norm(width), "ffn": ffn}
        return nn.ModuleDict(parts)

    return nn.ModuleList(block() for _ in range(count))


class UpstreamTokenizer(nn.Module, PyTorchModelHubMixin):
    """Arguments and tensors of upstream's class of the name KronosTokenizer."""

    def __init__(
        self,
        d_in: int,
        d_model: int,
        n_heads: int,
        ff_dim: int,
        n_enc_layers: int,
        n_dec_layers: int,
        ffn_dropout_p: float,
        attn_dropout_p: float,
        resid_dropout_p: float,
        s1_bits: int,
        s2_bits: int,
        beta: float,
        gamma0: float,
        gamma: float,
        zeta: float,
        group_size: int,
    ) -> None:
        super().__init__()
        bits = s1_bits + s2_bits
        self.embed, self.head = nn.Linear(d_in, d_model), nn.Linear(d_model, d_in)
        self.encoder = blocks(n_enc_layers - 1, d_model, n_heads, ff_dim)
        self.decoder = blocks(n_dec_layers - 1, d_model, n_heads, ff_dim)
        self.quant_embed = nn.Linear(d_model, bits)
        self.post_quant_embed_pre = nn.Linear(s1_bits, d_model)
        self.post_quant_embed = nn.Linear(bits, d_model)
        book = tensors(basis=torch.zeros(bits).long(), group_basis=torch.zeros(group_size).long())
        self.tokenizer = nn.ModuleDict({"bsq": book})


class UpstreamPredictor(nn.Module, PyTorchModelHubMixin):
    """Arguments and tensors of upstream's class of the name Kronos."""

    def __init__(
        self,
        s1_bits: int,
        s2_bits: int,
        n_layers: int,
        d_model: int,
        n_heads: int,
        ff_dim: int,
        ffn_dropout_p: float,
        attn_dropout_p: float,
        resid_dropout_p: float,
        token_dropout_p: float,
        learn_te: bool,
    ) -> None:
        super().__init__()
        words = {"s1": 2**s1_bits, "s2": 2**s2_bits}
        tables: dict[str, nn.Module] = {f"emb_{half}": nn.Embedding(n, d_model) for half, n in words.items()}
        self.embedding = nn.ModuleDict(tables | {"fusion_proj": nn.Linear(2 * d_model, d_model)})
        sizes = {"minute": 60, "hour": 24, "weekday": 7, "day": 32, "month": 13}
        times = {f"{name}_embed": nn.Embedding(size, d_model) for name, size in sizes.items()}
        fixed = {name: nn.ModuleDict({"emb": table}) for name, table in times.items()}
        self.time_emb = nn.ModuleDict(times if learn_te else fixed)
        self.transformer = blocks(n_layers, d_model, n_heads, ff_dim)
        self.norm = norm(d_model)
        self.dep_layer = nn.ModuleDict({"cross_attn": attention(d_model, 4), "norm": norm(d_model)})
        self.head = nn.ModuleDict({f"proj_{half}": nn.Linear(d_model, n) for half, n in words.items()})


UPSTREAM: dict[str, Any] = {"tokenizer": UpstreamTokenizer, "predictor": UpstreamPredictor}
"""By directory: what upstream's two classes read, as the goldens of its code have it (the first test)."""


def layout(state: dict[str, Tensor]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in state.items()}


@pytest.mark.parametrize("name", ["tiny", "tiny_fixed_time", "tiny_sliding"])
@pytest.mark.parametrize("part", UPSTREAM)
def test_the_description_of_upstreams_classes_is_that_of_its_goldens(part: str, name: str) -> None:
    settings = json.loads((GOLDENS / f"{name}.json").read_text(encoding="utf-8"))
    golden = load_file(GOLDENS / f"{name}.weights.safetensors")
    own = {key.removeprefix(f"{part}."): value for key, value in golden.items() if key.startswith(f"{part}.")}
    assert layout(UPSTREAM[part](**settings[part]).state_dict()) == layout(own)


@dataclass(frozen=True)
class Merged:
    """An adapter on its base, and what the command made of it."""

    adapter: Path
    loaded: LoadedAdapter
    base: Bundle
    out: Path

    def upstream(self, part: str) -> Any:
        """The tensors as upstream's `from_pretrained` reads them; its default would let some be missing."""
        return UPSTREAM[part].from_pretrained(self.out / part, strict=True)


@pytest.fixture(scope="module")
def long_base(base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small base, said to read more bars than the adapter was trained with."""
    return with_about(base_path, tmp_path_factory.mktemp("base") / "tiny", context=96)


def with_about(base: Path, copy: Path, **about: Any) -> Path:
    """A copy of a base with other entries in its base.json."""
    shutil.copytree(base, copy)
    old = json.loads((copy / "base.json").read_text(encoding="utf-8"))
    (copy / "base.json").write_text(json.dumps(old | about), encoding="utf-8")
    return copy


def with_manifest(adapter: Path, copy: Path, **changes: Any) -> Path:
    """A copy of an adapter with other entries in its manifest."""
    shutil.copytree(adapter, copy)
    manifest = read_adapter(copy).manifest.model_copy(update=changes)
    (copy / MANIFEST).write_bytes(manifest.to_bytes())
    return copy


LORA = {
    "default": LoraRecord(rank=4, alpha=8, dropout=0.05),
    "all": LoraRecord(
        rank=2, alpha=3, dropout=0.0, target_modules=LINEAR_NAMES, use_dora=True, use_rslora=True
    ),
}


@pytest.fixture(scope="module", params=LORA)
def lora(request: pytest.FixtureRequest) -> LoraRecord:
    """What every test of a merged base is run with: the default, and every layer in every way."""
    return LORA[request.param]


@pytest.fixture(scope="module")
def merged(
    adapter_of: Any, lora: LoraRecord, long_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Merged:
    adapter, out = adapter_of(1, lora), tmp_path_factory.mktemp("merged") / "merged"
    assert main(["merge", str(adapter), "--base-model", str(long_base), "--out", str(out)]) == 0
    bundle = load_bundle(str(long_base))
    return Merged(adapter, load_adapter(read_adapter(adapter), bundle), bundle, out)


@dataclass(frozen=True)
class Inputs:
    """Bars (B, T + H), of which the first T are known; ids of the bases of these tests."""

    s1: Tensor
    s2: Tensor
    stamps: Tensor
    x: Tensor


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    g = torch.Generator().manual_seed(0)
    s1, s2 = torch.randint(256, (2, 3, BARS), generator=g)
    limits = (60, 24, 7, 32, 13)
    stamps = [torch.randint(n, (3, BARS + HORIZON), generator=g) for n in limits]
    return Inputs(s1, s2, torch.stack(stamps, dim=-1), torch.randn(3, BARS, 6, generator=g))


def logits(model: Any, inputs: Inputs, events: Tensor | None = None) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        stamps = inputs.stamps[:, :BARS]
        s1, s2 = model(inputs.s1, inputs.s2, stamps, events=events, s1_targets=inputs.s1.roll(-1, dims=1))
    return s1, s2


def equal(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def greedy(model: Kronos, inputs: Inputs, *, upstream_decode: bool) -> Tensor:
    """(B, H, 2) tokens."""
    sampler = PathSampler(model=model, sampling=GREEDY, upstream_decode=upstream_decode)
    known = torch.stack((inputs.s1, inputs.s2), dim=-1)
    histories = [
        TokenHistory(tokens=tokens, stamps=stamps[:-1], events=None)
        for tokens, stamps in zip(known, inputs.stamps, strict=True)
    ]
    with torch.inference_mode():
        read = [sampler.read(one) for one in histories]
        return sampler.roll_out(read, noise([0, 1, 2], 2, HORIZON))[:, 0]


def bars(tokenizer: KronosTokenizer, model: Kronos, inputs: Inputs) -> Tensor:
    """(B, 1, H, 6) greedy forecasts."""
    histories = [
        History(x=x, stamps=stamps[:BARS], future_stamps=stamps[BARS:], events=None, seed=0)
        for x, stamps in zip(inputs.x, inputs.stamps, strict=True)
    ]
    asked: dict[str, Any] = {"horizon": HORIZON, "paths": 1, "sampling": GREEDY, "context": 72}
    return generate(tokenizer, model, histories, **asked).bars


@pytest.mark.parametrize("part", UPSTREAM)
def test_upstreams_loader_reads_every_tensor_of_its_own_names_shapes_and_dtypes(
    merged: Merged, part: str
) -> None:
    read, written = merged.upstream(part), load_file(merged.out / part / "model.safetensors")
    assert layout(read.state_dict()) == layout(written)
    assert equal([*read.state_dict().values()], [written[name] for name in read.state_dict()])
    config = json.loads((merged.out / part / "config.json").read_text(encoding="utf-8"))
    assert config.keys() == signature(UPSTREAM[part]).parameters.keys()
    ours = merged.base.model if part == "predictor" else merged.base.tokenizer
    assert config == ours.config


def test_only_what_lora_touches_differs_from_the_base(merged: Merged) -> None:
    before, after = merged.base.model.state_dict(), load_file(merged.out / "predictor" / "model.safetensors")
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    adapted = merged.loaded.adapter.manifest.lora.target_modules
    if adapted == DEFAULT_TARGETS:
        projections = [f"transformer.{i}.self_attn.{name}_proj.weight" for i in range(2) for name in "qv"]
        assert changed == set(projections)
    else:
        pattern = target_pattern(adapted)
        assert changed == {name for name in after if re.fullmatch(rf"({pattern})\.weight", name)}
        assert {"embedding.fusion_proj.weight", "head.proj_s2.weight"} < changed
    tokenizer = load_file(merged.out / "tokenizer" / "model.safetensors")
    assert equal(
        [*merged.base.tokenizer.state_dict().values()],
        [tokenizer[name] for name in merged.base.tokenizer.state_dict()],
    )


def test_our_loader_reads_it_and_its_logits_are_the_adapted_models_without_events(
    merged: Merged, inputs: Inputs
) -> None:
    bundle = load_bundle(str(merged.out))
    assert bundle.context == merged.loaded.context
    assert bundle.model.event_emb is None
    got, want = logits(bundle.model, inputs), logits(merged.loaded.merged, inputs)
    assert equal(got, want)
    events = torch.ones(3, BARS, len(DEFAULT_TAXONOMY.channels))
    assert not equal(want, logits(merged.loaded.merged, inputs, events))
    assert not equal(want, logits(merged.base.model, inputs))


def test_greedy_forecasts_are_equal_token_for_token(merged: Merged, inputs: Inputs) -> None:
    """Ours, and as upstream decodes: in the network whose parity with upstream's is tested."""
    tokenizer, model = KronosTokenizer(**merged.base.tokenizer.config), Kronos(**merged.base.model.config)
    tokenizer.load_state_dict(merged.upstream("tokenizer").state_dict())
    model.load_state_dict(merged.upstream("predictor").state_dict())
    adapted = merged.loaded.merged
    for upstream_decode in (False, True):
        tokens = greedy(model.eval(), inputs, upstream_decode=upstream_decode)
        assert torch.equal(tokens, greedy(adapted, inputs, upstream_decode=upstream_decode))
        assert not torch.equal(tokens, greedy(merged.base.model, inputs, upstream_decode=upstream_decode))
    forecast = bars(tokenizer.eval(), model, inputs)
    assert torch.equal(forecast, bars(merged.base.tokenizer, adapted, inputs))


def test_plain_peft_loads_the_lora_as_the_page_says(merged: Merged, long_base: Path, inputs: Inputs) -> None:
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?PeftModel.*?)^```$", page, re.M | re.S)
    for theirs, ours in (("NeoQuasar/Kronos-base", long_base), ("runs/mine/adapter", merged.adapter)):
        assert block.count(f'"{theirs}"') == 1
        block = block.replace(f'"{theirs}"', repr(str(ours)))
    page_names: dict[str, Any] = {}
    exec(block, page_names)
    model, plain = page_names["model"], page_names["plain"]
    assert equal(logits(plain, inputs), logits(load_bundle(str(merged.out)).model, inputs))
    beside = PeftModel.from_pretrained(load_bundle(str(long_base)).model, str(merged.adapter)).eval()
    assert isinstance(model, PeftModel)
    assert equal(logits(beside, inputs), logits(merged.loaded.attached, inputs))
    assert not equal(logits(beside, inputs), logits(merged.base.model, inputs))


def test_plain_peft_merges_the_lora_into_upstreams_model(merged: Merged, long_base: Path) -> None:
    upstream = UpstreamPredictor.from_pretrained(long_base / "predictor", strict=True)
    by_peft: Any = PeftModel.from_pretrained(upstream, str(merged.adapter))
    state = by_peft.merge_and_unload().state_dict()
    want = merged.upstream("predictor").state_dict()
    assert state.keys() == want.keys()
    assert equal([*state.values()], [want[name] for name in state])


def test_what_is_lost_is_said_and_stands_in_the_readme(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The packaged adapter, whose base its manifest names."""
    assert main(["merge", "sample", "--out", str(tmp_path / "merged")]) == 0
    shown = capsys.readouterr().out
    readme = (tmp_path / "merged" / "README.md").read_text(encoding="utf-8")
    for words in (
        "Lost: the event embedding, 145,184 of the 154,400 numbers",
        "as the adapted model does with events None",
        "no figure of the adapter's card or report holds for it",
        "SYNTHETIC",
    ):
        assert words in shown
        assert words in readme
    assert 'Kronos.from_pretrained("merged/predictor")' in readme
    assert 'KronosTokenizer.from_pretrained("merged/tokenizer")' in readme
    assert "max_context=128" in readme


def test_width_factors_are_lost_and_said_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = RecalibrationRecord(
        level=0.9,
        factors=dict.fromkeys(DAY_KINDS, (1.5,)),
        forecasts=dict.fromkeys(DAY_KINDS, (9,)),
        dates=dict.fromkeys(DAY_KINDS, (9,)),
        first="2025-01-01",
        last="2025-06-30",
        paths=32,
    )
    stretched = with_manifest(find_adapter(Path("sample")), tmp_path / "adapter", recalibration=one)
    for adapter in ("sample", str(stretched)):
        assert main(["merge", adapter, "--out", str(tmp_path / Path(adapter).name / "merged")]) == 0
        said = "Lost: the adapter's width factors" in capsys.readouterr().out
        assert said == (adapter != "sample")


@pytest.mark.parametrize(
    ("base_until", "until"),
    [
        ("2024-02-01", date(2025, 1, 1)),  # the adapter was trained to 31 December 2024
        ("2025-03-01", date(2025, 3, 1)),
        (None, None),
    ],
)
def test_a_merged_base_has_seen_what_its_base_and_its_adapter_had(
    tmp_path: Path, base_until: str | None, until: date | None
) -> None:
    base = with_about(NANO_DIRECTORY, tmp_path / "base", settings={"until": base_until})
    argv = ["merge", "sample", "--base-model", str(base), "--out", str(tmp_path / "merged")]
    assert main(argv) == 0
    bundle = load_bundle(str(tmp_path / "merged"))
    assert bundle.pretrained_until == until
    warning = str(seen_by(bundle, date(2024, 12, 1), date(2024, 12, 31)))
    assert ("does not say" if until is None else "NOT out of sample") in warning


def test_an_adapter_that_does_not_say_what_it_was_trained_on_makes_a_base_that_does_not(
    tmp_path: Path,
) -> None:
    """Its base says it; that alone would be too early a date."""
    sample = find_adapter(Path("sample"))
    data = read_adapter(sample).manifest.data.model_copy(update={"splits": {}})
    adapter = with_manifest(sample, tmp_path / "adapter", data=data)
    assert main(["merge", str(adapter), "--out", str(tmp_path / "merged")]) == 0
    assert load_bundle(str(tmp_path / "merged")).pretrained_until is None


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Runs the command, and gives the one line that it ends with; nothing is written."""

    def run(adapter: str | Path, *flags: str) -> str:
        argv = ["merge", str(adapter), "--out", str(tmp_path / "out" / "merged"), *flags]
        assert main(argv) == 2
        said = capsys.readouterr()
        assert said.err.startswith("error: ")
        assert said.err.count("\n") == 1
        assert said.out == ""
        return said.err

    yield run
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [ADAPTER_WEIGHTS, EVENT_WEIGHTS, MANIFEST])
def test_a_damaged_adapter_is_refused(
    refused: Any, merged: Merged, long_base: Path, tmp_path: Path, name: str
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(merged.adapter, damaged)
    content = bytearray((damaged / name).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (damaged / name).write_bytes(content)
    assert "damaged" in refused(damaged, "--base-model", str(long_base))


def test_an_adapter_of_another_base_is_refused(refused: Any, merged: Merged, long_base: Path) -> None:
    assert "made for base kronos-nano" in refused("sample", "--base-model", str(long_base))
    again = refused(merged.adapter, "--base-model", str(merged.out))
    assert "made for base tiny" in again
    assert "not merged" in again


def test_a_base_that_no_name_finds_is_asked_for(refused: Any, merged: Merged) -> None:
    assert "configure the base: give its directory as the base model" in refused(merged.adapter)


def test_a_directory_without_an_adapter_is_refused(refused: Any, tmp_path: Path) -> None:
    assert "holds no adapter" in refused(tmp_path)


def test_a_train_split_without_dates_is_refused(refused: Any, tmp_path: Path) -> None:
    sample = find_adapter(Path("sample"))
    data = read_adapter(sample).manifest.data.model_copy(update={"splits": {"train": ("once", "later")}})
    foreign = with_manifest(sample, tmp_path / "adapter", data=data)
    assert "must end on a date, got 'later'" in refused(foreign)


def test_an_existing_directory_is_refused_and_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("empty", "dangling"):
        out = tmp_path / name
        out.mkdir() if name == "empty" else out.symlink_to(tmp_path / "nowhere")
        assert main(["merge", "sample", "--out", str(out)]) == 2
        assert f"--out must be a new directory, and {out} exists" in capsys.readouterr().err
    assert not list((tmp_path / "empty").iterdir())


def test_a_full_disk_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A limit on the size of a file stops the writing as a full disk does."""
    out = tmp_path / "there" / "merged"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))  # the tokenizer fits, the predictor does not
    try:
        assert main(["merge", "sample", "--out", str(out)]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert re.fullmatch(r"error: cannot write .+merged \(.+\): make room, .+\n", capsys.readouterr().err)
    assert list(out.parent.iterdir()) == []


def merge_until_killed(out: Path) -> None:
    """The kernel kills a process whose file passes a limit: here in the middle of the predictor."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    main(["merge", "sample", "--out", str(out)])


def test_a_kill_while_it_writes_leaves_no_directory_and_the_same_command_works(tmp_path: Path) -> None:
    child = get_context("fork").Process(target=merge_until_killed, args=(tmp_path / "merged",))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGXFSZ
    assert not (tmp_path / "merged").exists()
    (scratch,) = tmp_path.iterdir()
    assert scratch.name.startswith(".merged-")
    assert (scratch / "tokenizer" / "model.safetensors").exists()
    assert main(["merge", "sample", "--out", str(tmp_path / "merged")]) == 0
    assert load_bundle(str(tmp_path / "merged")).context == 128
