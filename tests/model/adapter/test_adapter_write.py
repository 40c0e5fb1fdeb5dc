"""An adapter directory: written whole, published atomically, read back exactly, refused when it is off."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file

from kronos_service.finetune.event_conditioned.training.lora import adapt, trainable
from kronos_service.model.adapter.canary import canary_logits, check_canary
from kronos_service.model.adapter.files import LARGEST_HEADER, AdapterError, header_problems, read_files
from kronos_service.model.adapter.read import (
    attach,
    find_adapter,
    kronos_of,
    load_adapter,
    merge,
    read_adapter,
    tensor_records,
)
from kronos_service.model.adapter.write import save_adapter
from kronos_service.model.factory import PACKAGED, Bundle, load_bundle, save_base
from kronos_service.model.kronos import Kronos
from kronos_service.model.packaged import SAMPLE
from kronos_service.model.presets import PRESETS
from kronos_shared.adapter_manifest import (
    ADAPTER_WEIGHTS,
    EVENT_WEIGHTS,
    FILES,
    LARGEST_TOTAL,
    MANIFEST,
    DataRecord,
    LoraRecord,
)

DATA = DataRecord(
    snapshot="s", sha256="0" * 64, has_manifest=True, splits={"val": ("2025-01-01", "2025-06-30")}
)


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> PeftModel:
    """An adapter with every trainable tensor away from its initial value."""
    wrapped = adapt(bundle.model, lora=LoraRecord(rank=4, alpha=8, dropout=0.05), taps="both", seed=0)
    torch.manual_seed(1)
    with torch.no_grad():
        for _, parameter in trainable(wrapped):
            parameter.add_(0.05 * torch.randn_like(parameter))
    return wrapped


@pytest.fixture(scope="module")
def saved(model: PeftModel, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("adapter") / "adapter"
    save_adapter(model, bundle, directory, context=72, data=DATA, metrics={}, gain="unknown", card="# card\n")
    return directory


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def logits(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return canary_logits(model, seed=7, length=24)


def test_a_saved_adapter_loads_back_to_identical_logits(
    model: PeftModel, bundle: Bundle, saved: Path
) -> None:
    loaded = attach(read_adapter(saved), bundle)
    for got, expected in zip(logits(kronos_of(loaded)), logits(kronos_of(model)), strict=True):
        assert torch.equal(got, expected)


def test_merging_changes_neither_the_adapter_nor_the_base(model: PeftModel, bundle: Bundle) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    base = {name: value.clone() for name, value in bundle.model.state_dict().items()}
    merged = merge(model)
    for got, expected in zip(logits(merged), logits(kronos_of(model)), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, base[name]) for name, value in bundle.model.state_dict().items())


def test_the_canary_holds_for_the_adapter_and_for_no_other(bundle: Bundle, saved: Path) -> None:
    adapter = read_adapter(saved)
    check_canary(merge(attach(adapter, bundle)), adapter.manifest.canary)
    other = adapt(bundle.model, lora=LoraRecord(rank=4, alpha=8, dropout=0.0), taps="both", seed=0)
    with pytest.raises(AdapterError, match="logits differ from the trainer's"):
        check_canary(merge(other), adapter.manifest.canary)


def test_the_directory_holds_exactly_the_files_of_the_format(saved: Path) -> None:
    assert {path.name for path in saved.iterdir()} == {*FILES, MANIFEST}
    assert not any("pickle" in path.name or path.suffix in (".bin", ".pt") for path in saved.iterdir())


def test_peft_itself_reads_the_adapter(model: PeftModel, bundle: Bundle, saved: Path) -> None:
    plain = deepcopy(bundle.model)
    read = PeftModel.from_pretrained(plain, str(saved))
    expected = {name: value for name, value in model.state_dict().items() if ".lora_" in name}
    got = {name: value for name, value in read.state_dict().items() if ".lora_" in name}
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    config = LoraConfig.from_pretrained(str(saved))
    assert (config.r, config.lora_alpha, config.target_modules) == (
        4,
        8,
        r"transformer\.\d+\.self_attn\.(q_proj|v_proj)",
    )


def reseal(directory: Path, change: Callable[[dict[str, Any]], None] = lambda manifest: None) -> None:
    """Make the manifest vouch for the files as they are now, after changing what else it says."""
    manifest = json.loads((directory / MANIFEST).read_text())
    for name in manifest["files"]:
        if (directory / name).exists():
            content = (directory / name).read_bytes()
            manifest["files"][name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    for name in (ADAPTER_WEIGHTS, EVENT_WEIGHTS):
        if (directory / name).exists():
            records = tensor_records(load_file(directory / name))
            manifest["tensors"][name] = {key: record.model_dump() for key, record in records.items()}
    change(manifest)
    (directory / MANIFEST).write_text(json.dumps(manifest))


def edit(directory: Path, name: str, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(directory / name)
    change(tensors)
    save_file(tensors, directory / name)
    reseal(directory)


def drop_first(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[sorted(tensors)[0]]


def narrow_first(tensors: dict[str, torch.Tensor]) -> None:
    first = sorted(tensors)[0]
    tensors[first] = tensors[first][:-1].clone()


def half_precision(tensors: dict[str, torch.Tensor]) -> None:
    for name in tensors:
        tensors[name] = tensors[name].half()


def not_finite(tensors: dict[str, torch.Tensor]) -> None:
    tensors[sorted(tensors)[0]].view(-1)[0] = float("nan")


def flip_a_bit(directory: Path) -> None:
    content = bytearray((directory / EVENT_WEIGHTS).read_bytes())
    content[len(content) // 2] ^= 1
    (directory / EVENT_WEIGHTS).write_bytes(content)


def not_safetensors(directory: Path) -> None:
    content = b"x" * 99
    (directory / EVENT_WEIGHTS).write_bytes(content)
    manifest = json.loads((directory / MANIFEST).read_text())
    manifest["files"][EVENT_WEIGHTS] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (directory / MANIFEST).write_text(json.dumps(manifest))


def other_channels(manifest: dict[str, Any]) -> None:
    manifest["channels"]["sha256"] = "f" * 64


def other_rank(manifest: dict[str, Any]) -> None:
    manifest["lora"]["rank"] = 5


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no event_emb": (lambda d: (d / EVENT_WEIGHTS).unlink(), "event_emb.safetensors is missing"),
    "no manifest": (lambda d: (d / MANIFEST).unlink(), "manifest.json is missing"),
    "bit flip": (flip_a_bit, "event_emb.safetensors is not the file the manifest describes"),
    "truncated": (
        lambda d: (d / ADAPTER_WEIGHTS).write_bytes((d / ADAPTER_WEIGHTS).read_bytes()[:-4]),
        "adapter_model.safetensors is not the file",
    ),
    "missing tensor": (lambda d: edit(d, EVENT_WEIGHTS, drop_first), "missing tensor fc_in.bias"),
    "wrong shape": (lambda d: edit(d, ADAPTER_WEIGHTS, narrow_first), "has shape"),
    "wrong dtype": (lambda d: edit(d, ADAPTER_WEIGHTS, half_precision), "dtype torch.float16"),
    "not finite": (lambda d: edit(d, EVENT_WEIGHTS, not_finite), "is not finite"),
    "not safetensors": (
        not_safetensors,
        "not a safetensors",
    ),
    "another channel hash": (
        lambda d: reseal(d, other_channels),
        "made for event channels version 1 \\(ffffffffffff\\)",
    ),
    "another rank": (lambda d: reseal(d, other_rank), "r must be 5, got 4"),
    "manifest of the wrong type": (lambda d: (d / MANIFEST).write_text("[]"), "not a valid manifest"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_adapter_is_refused_with_its_reason(
    copy: Path, bundle: Bundle, damage: Callable[[Path], object], message: str
) -> None:
    attach(read_adapter(copy), bundle)
    damage(copy)
    with pytest.raises(AdapterError, match=message):
        attach(read_adapter(copy), bundle)


def test_an_adapter_may_be_as_large_as_allowed_and_no_larger(copy: Path) -> None:
    others = sum((copy / name).stat().st_size for name in FILES if name != ADAPTER_WEIGHTS)

    def promise(size: int) -> None:
        manifest = json.loads((copy / MANIFEST).read_text())
        manifest["files"][ADAPTER_WEIGHTS]["size"] = size
        (copy / MANIFEST).write_text(json.dumps(manifest))

    promise(LARGEST_TOTAL - others)
    with pytest.raises(AdapterError, match="not the file the manifest describes"):  # sizes alone are fine
        read_files(copy)
    promise(LARGEST_TOTAL - others + 1)
    with pytest.raises(AdapterError, match="may have 50000000 bytes at most in all"):
        read_files(copy)


def test_a_header_is_believed_if_it_fits_into_its_file() -> None:
    def file(length: int, header: bytes) -> bytes:
        return length.to_bytes(8, "little") + header

    assert header_problems(file(2, b"{}"), {}) == []
    assert header_problems(file(3, b"{} "), {}) == []
    for length, header in ((3, b"{}"), (LARGEST_HEADER + 1, b" " * (LARGEST_HEADER + 1))):
        (problem,) = header_problems(file(length, header), {})
        assert f"a header of {length} bytes" in problem
    largest = b"{}".ljust(LARGEST_HEADER)
    assert header_problems(file(LARGEST_HEADER, largest), {}) == []
    assert header_problems(b"\2\0\0", {}) == ["not a safetensors file: a header of 2 bytes in 3"]


def test_the_adapter_that_ships_still_computes_what_it_computed_when_it_was_made() -> None:
    load_adapter(read_adapter(find_adapter(SAMPLE)), load_bundle(PACKAGED))


def test_an_adapter_of_another_base_is_refused_and_both_are_named(
    bundle: Bundle, saved: Path, tmp_path: Path
) -> None:
    with torch.no_grad():
        other_model = type(bundle.model)(**bundle.model.config)
    save_base(tmp_path / "other", bundle.tokenizer, other_model, context=72, preset="nano", extra={})
    with pytest.raises(AdapterError, match=r"made for base tiny \(\w{12}\), not other \(\w{12}\)"):
        attach(read_adapter(saved), load_bundle(str(tmp_path / "other")))


def test_an_adapter_of_another_tokenizer_is_refused(bundle: Bundle, saved: Path) -> None:
    other = replace(bundle, tokenizer_print=replace(bundle.tokenizer_print, content_sha256="e" * 64))
    with pytest.raises(AdapterError, match=r"made for tokenizer tiny .* not tiny \(eeeeeeeeeeee\)"):
        attach(read_adapter(saved), other)


@pytest.mark.slow
def test_an_adapter_of_the_base_preset_is_under_five_megabytes_and_loads_back(
    bundle: Bundle, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    full_size = Kronos(**PRESETS["base"].predictor).eval().requires_grad_(False)
    large = replace(bundle, model=full_size)
    wrapped = adapt(full_size, lora=LoraRecord(rank=8, alpha=16, dropout=0.05), taps="both", seed=0)
    with torch.no_grad():
        for _, parameter in trainable(wrapped):
            parameter.add_(0.01 * torch.randn_like(parameter))
    save_adapter(
        wrapped, large, tmp_path / "a", context=512, data=DATA, metrics={}, gain="unknown", card="# card\n"
    )
    assert sum(path.stat().st_size for path in (tmp_path / "a").iterdir()) < 5_000_000
    loaded = attach(read_adapter(tmp_path / "a"), large)
    for got, expected in zip(logits(kronos_of(loaded)), logits(kronos_of(wrapped)), strict=True):
        assert torch.equal(got, expected)


def test_an_adapter_in_use_has_no_second_copy_of_the_frozen_tensors(
    adapter_of: Callable[[int], Path], bundle: Bundle
) -> None:
    adapter = read_adapter(adapter_of(0))
    assert adapter.directory == adapter_of(0)
    attached = attach(adapter, bundle)
    merged = merge(attached)
    base = {tensor.data_ptr() for tensor in (*bundle.model.parameters(), *bundle.model.buffers())}

    def own(model: torch.nn.Module) -> set[str]:
        return {name for name, one in model.named_parameters() if one.data_ptr() not in base}

    assert not [name for name in own(attached) if ".lora_" not in name and "event_emb" not in name]
    touched = re.compile(r"\.[qv]_proj\.(weight|bias)$|event_emb")
    assert not [name for name in own(merged) if not touched.search(name)]
    assert any(name.endswith("q_proj.weight") for name in own(merged))
    for model in (attached, merged):
        assert not any(one.requires_grad for one in model.parameters())
        assert not any(module.training for module in model.modules())
