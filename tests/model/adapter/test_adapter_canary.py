"""The canary: it holds on the CPU in fp32, wherever and in whatever precision the model is kept."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kronos_service.model.adapter.canary import check_canary, make_canary
from kronos_service.model.adapter.files import AdapterError
from kronos_service.model.adapter.read import attach, merge, read_adapter
from kronos_service.model.factory import Bundle
from kronos_service.model.kronos import Kronos
from kronos_service.model.presets import PRESETS
from kronos_shared.adapter_manifest import CANARY_TOLERANCE, Canary


@pytest.fixture
def canary(adapter_of: Callable[[int], Path]) -> Canary:
    return read_adapter(adapter_of(0)).manifest.canary


@pytest.fixture
def model(adapter_of: Callable[[int], Path], bundle: Bundle) -> Kronos:
    return merge(attach(read_adapter(adapter_of(0)), bundle))


def test_it_is_the_same_from_the_same_model_and_discerns_others(
    model: Kronos, canary: Canary, adapter_of: Callable[[int], Path], bundle: Bundle
) -> None:
    assert make_canary(model).tolerance == CANARY_TOLERANCE
    check_canary(model, canary)
    check_canary(model, make_canary(model, seed=3, length=20))
    with pytest.raises(AdapterError, match="logits differ from the trainer's by"):
        check_canary(merge(attach(read_adapter(adapter_of(1)), bundle)), canary)
    broken = copy.deepcopy(model)
    with torch.no_grad():
        next(broken.transformer.parameters()).fill_(float("nan"))
    with pytest.raises(AdapterError, match="logits differ from the trainer's by nan"):
        check_canary(broken, canary)


def test_the_two_halves_of_a_token_may_have_different_numbers_of_bits() -> None:
    torch.manual_seed(0)
    sizes = {**PRESETS["nano"].predictor, "n_layers": 1, "d_model": 32, "n_heads": 2, "ff_dim": 48}
    for s1_bits, s2_bits in ((2, 6), (6, 2)):
        model = Kronos(**{**sizes, "s1_bits": s1_bits, "s2_bits": s2_bits})
        model.attach_event_embedding()
        made = make_canary(model.eval(), length=64)
        assert (len(made.s1_logits), len(made.s2_logits)) == (2**s1_bits, 2**s2_bits)


@pytest.mark.parametrize("part", ["s1", "s2"])
@pytest.mark.parametrize(("away", "holds"), [(9e-4, True), (2e-3, False)])
def test_a_thousandth_is_the_most_that_any_logit_may_differ(
    model: Kronos, canary: Canary, part: str, away: float, holds: bool
) -> None:
    logits = list(getattr(canary, f"{part}_logits"))
    logits[7] += away
    other = canary.model_copy(update={f"{part}_logits": tuple(logits)})
    if holds:
        check_canary(model, other)
        return
    with pytest.raises(AdapterError, match=f"{part} logits differ"):
        check_canary(model, other)


def test_a_model_kept_in_another_precision_is_checked_in_a_copy(model: Kronos, canary: Canary) -> None:
    kept = copy.deepcopy(model).double()
    before = {name: (tensor.dtype, tensor.data_ptr()) for name, tensor in kept.named_parameters()}
    check_canary(kept, canary)
    assert make_canary(kept).s1_logits == pytest.approx(canary.s1_logits, abs=1e-5)
    after = {name: (tensor.dtype, tensor.data_ptr()) for name, tensor in kept.named_parameters()}
    assert after == before


def test_logits_of_another_number_are_refused(model: Kronos, canary: Canary) -> None:
    short = canary.model_copy(update={"s2_logits": canary.s2_logits[:-1]})
    with pytest.raises(AdapterError, match="expected 255 s2 logits, got 256"):
        check_canary(model, short)
