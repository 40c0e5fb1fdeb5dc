"""A fresh event embedding changes no bit; each tap does what its name says."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import count_parameters, random_inputs, tiny_predictor

from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_service.model.event_embedding import EventEmbedding


@settings(max_examples=30)
@given(
    channels=st.lists(st.floats(-1e6, 1e6, width=32), min_size=20, max_size=20),
    training=st.booleans(),
    autocast=st.booleans(),
    taps=st.sampled_from([("input",), ("output",), ("input", "output")]),
)
def test_a_fresh_one_changes_no_bit_whatever_the_events(
    channels: list[float], training: bool, autocast: bool, taps: tuple[str, ...]
) -> None:
    model, inputs = tiny_predictor().train(training), random_inputs(0, 1, 6)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        plain = model(inputs.s1, inputs.s2, inputs.stamp, s1_targets=inputs.s1_targets)
        model.attach_event_embedding(taps)
        events = torch.tensor(channels).expand(1, 6, 20)
        wrapped = model(inputs.s1, inputs.s2, inputs.stamp, events=events, s1_targets=inputs.s1_targets)
    for a, b in zip(plain, wrapped, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("taps", "expected"), [(("input", "output"), 712_640), (("input",), 284_992), (("output",), 498_816)]
)
def test_parameter_counts_at_the_width_of_the_base_preset(taps: tuple[str, ...], expected: int) -> None:
    assert count_parameters(EventEmbedding(832, taps, n_channels=len(DEFAULT_TAXONOMY.channels))) == expected


def test_only_the_taps_asked_for_exist_and_all_start_at_zero() -> None:
    assert EventEmbedding(8, ("input",), n_channels=3).to_output is None
    assert EventEmbedding(8, ("output",), n_channels=3).to_input is None
    both = EventEmbedding(8, n_channels=20)
    for tap in (both.to_input, both.to_output):
        assert tap is not None
        assert all(torch.count_nonzero(p) == 0 for p in tap.parameters())
    assert torch.count_nonzero(both.fc_in.weight) > 0


@pytest.mark.parametrize("taps", [(), ("middle",), ("input", "middle")])
def test_unknown_or_no_taps_are_refused(taps: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="one or both of input, output"):
        EventEmbedding(8, taps, n_channels=3)


def test_the_output_tap_scales_and_shifts() -> None:
    embedding = EventEmbedding(4, ("output",), n_channels=20)
    assert embedding.to_output is not None
    with torch.no_grad():
        embedding.to_output.bias.copy_(torch.tensor([1.0, 1, 1, 1, 5, 6, 7, 8]))
    h = torch.full((1, 1, 4), 10.0)
    out = embedding.modulate_output(h, embedding.features(torch.zeros(1, 1, 20)))
    assert out.flatten().tolist() == [25, 26, 27, 28]
    assert torch.equal(embedding.add_to_input(h, torch.zeros(1, 1, 256)), h)


def test_both_taps_learn_from_the_first_step() -> None:
    model, inputs = tiny_predictor(), random_inputs(0, 1, 6)
    model.requires_grad_(False)
    embedding = model.attach_event_embedding()
    s1, s2 = model(inputs.s1, inputs.s2, inputs.stamp, events=inputs.events, s1_targets=inputs.s1_targets)
    (s1.square().sum() + s2.square().sum()).backward()
    for name in ("to_input.weight", "to_input.bias", "to_output.weight", "to_output.bias"):
        gradient = embedding.get_parameter(name).grad
        assert gradient is not None
        assert torch.count_nonzero(gradient) > 0
    assert [name for name, p in model.named_parameters() if p.grad is not None] == [
        f"event_emb.{name}" for name, _ in embedding.named_parameters()
    ]


@pytest.mark.parametrize("seed", range(3))
def test_a_tap_learns_a_constant_from_zeroed_channels_with_all_its_weights(seed: int) -> None:
    torch.manual_seed(seed)
    embedding = EventEmbedding(8, n_channels=20)
    features = embedding.features(torch.zeros(1, 5, 20))
    scale_shift = embedding.modulate_output(torch.ones(1, 5, 8), features)
    total = (embedding.add_to_input(torch.zeros(1, 5, 8), features) + scale_shift).sum()
    assert embedding.to_input is not None
    assert embedding.to_output is not None
    for gradient in torch.autograd.grad(total, (embedding.to_input.weight, embedding.to_output.weight)):
        assert (gradient != 0).all()
