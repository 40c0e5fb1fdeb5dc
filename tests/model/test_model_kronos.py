"""The predictor: causal in both modes, the same at a subset of positions, initialised as upstream."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import PREDICTOR, Inputs, random_inputs, tiny_predictor
from torch import Tensor

from kronos_service.model.kronos import Kronos, take_positions

BARS = 20


def with_trained_events(model: Kronos) -> Kronos:
    """An event embedding whose taps are no longer zero."""
    torch.manual_seed(1)
    for parameter in model.attach_event_embedding().parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def logits(model: Kronos, inputs: Inputs, **options: Any) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        out: tuple[Tensor, Tensor] = model(
            inputs.s1, inputs.s2, inputs.stamp, events=inputs.events, s1_targets=inputs.s1_targets, **options
        )
    return out


def splice(before: Inputs, after: Inputs, t: int) -> Inputs:
    """`before` up to position t, `after` from then on."""
    return Inputs(
        *(
            torch.cat((getattr(before, f)[:, : t + 1], getattr(after, f)[:, t + 1 :]), dim=1)
            for f in ("s1", "s2", "stamp", "events", "s1_targets")
        )
    )


@pytest.mark.parametrize("training", [False, True])
def test_bars_after_t_change_no_logit_at_or_before_t(model: Kronos, training: bool) -> None:
    with_trained_events(model).train(training)
    inputs, other = random_inputs(0, 2, BARS), random_inputs(1, 2, BARS)
    full = logits(model, inputs)
    for t in range(BARS - 1):
        spliced = logits(model, splice(inputs, other, t))
        for a, b in zip(full, spliced, strict=True):
            assert torch.equal(a[:, : t + 1], b[:, : t + 1])
            assert not torch.equal(a[:, t + 1 :], b[:, t + 1 :])


def test_s2_depends_on_the_s1_it_is_given(model: Kronos) -> None:
    inputs = random_inputs(0, 1, BARS)
    with torch.no_grad():
        h = model.hidden(inputs.s1, inputs.s2, inputs.stamp)
        one, two = (model.s2_logits(h, torch.full_like(inputs.s1, s1)) for s1 in (3, 4))
    assert not torch.allclose(one, two, atol=1e-3)


@settings(max_examples=25)
@given(positions=st.lists(st.integers(0, BARS - 1), min_size=1, max_size=BARS + 5))
def test_logits_at_some_positions_equal_those_of_all(positions: list[int]) -> None:
    model = with_trained_events(tiny_predictor())
    inputs = random_inputs(0, 2, BARS)
    chosen = torch.tensor([positions, positions[::-1]])
    some, full = logits(model, inputs, positions=chosen), logits(model, inputs)
    for a, b in zip(some, full, strict=True):
        torch.testing.assert_close(a, take_positions(b, chosen), rtol=0, atol=1e-5)


def test_padding_on_the_right_changes_nothing_before_it(model: Kronos) -> None:
    long, short = random_inputs(0, 1, BARS), splice(random_inputs(0, 1, BARS), random_inputs(5, 1, BARS), 11)
    cut = Inputs(*(getattr(long, f)[:, :12] for f in ("s1", "s2", "stamp", "events", "s1_targets")))
    with_trained_events(model)
    for padded, alone in zip(logits(model, short), logits(model, cut), strict=True):
        torch.testing.assert_close(padded[:, :12], alone, rtol=0, atol=1e-5)


def test_single_step_decoding_equals_the_teacher_forced_forward(model: Kronos) -> None:
    inputs = random_inputs(0, 2, BARS)
    with torch.no_grad():
        _, forced = model(inputs.s1, inputs.s2, inputs.stamp, s1_targets=inputs.s1_targets)
        h = model.hidden(inputs.s1, inputs.s2, inputs.stamp)
        last = torch.full((2, 1), BARS - 1)
        step = model.s2_logits(h, inputs.s1_targets[:, -1:], last)
    torch.testing.assert_close(step, forced[:, -1:], rtol=0, atol=1e-5)


def test_events_without_an_event_embedding_are_refused(model: Kronos) -> None:
    with pytest.raises(ValueError, match="no event embedding: attach one first"):
        logits(model, random_inputs(0, 1, 4))


def test_initialisation_is_upstreams() -> None:
    model = tiny_predictor(d_model=64, s1_bits=10)
    assert model.embedding.emb_s1.weight.std().item() == pytest.approx(64**-0.5, rel=0.05)
    ffn = model.transformer[0].get_submodule("ffn.w1").get_parameter("weight")
    assert ffn.std().item() == pytest.approx((2 / (64 + 48)) ** 0.5, rel=0.05)
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    assert biases
    assert all(torch.count_nonzero(p) == 0 for p in biases)


def test_fixed_time_tables_survive_initialisation() -> None:
    table = tiny_predictor(learn_te=False).get_parameter("time_emb.hour_embed.emb.weight")
    assert not table.requires_grad
    torch.testing.assert_close(table[:, 0], torch.arange(24.0).sin())


def test_the_constructor_arguments_are_kept(model: Kronos) -> None:
    assert model.config == PREDICTOR
    assert model.event_emb is None


def test_dropout_acts_in_training_only() -> None:
    model = tiny_predictor(token_dropout_p=0.5, resid_dropout_p=0.5, ffn_dropout_p=0.5)
    inputs = random_inputs(0, 1, 8)

    def s1(training: bool) -> Tensor:
        model.train(training)
        with torch.no_grad():
            return model.s1_logits(model.hidden(inputs.s1, inputs.s2, inputs.stamp))

    assert torch.equal(s1(False), s1(False))
    assert not torch.equal(s1(True), s1(True))
