"""PathSampler tokens: greedy, filtered, and distributed as the model says."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kronos_service.model.generation.sampling import Sampling, SamplingError, noise, sample

EVERYTHING = Sampling(top_p=1.0)
LAST_BEFORE_ONE = math.nextafter(1.0, 0.0)
units = st.one_of(st.sampled_from([0.0, LAST_BEFORE_ONE]), st.floats(0, 1, exclude_max=True))
logit_rows = st.lists(st.floats(-30, 30), min_size=2, max_size=12)


def draw_many(p: list[float], settings: Sampling, n: int = 4001) -> Tensor:
    """Ids over an even grid of uniform numbers: frequencies are then probabilities to 1/n."""
    uniform = torch.arange(n, dtype=torch.float64) / n
    return sample(torch.tensor(p).log().expand(n, -1), uniform, settings)


def frequencies(p: list[float], settings: Sampling) -> list[float]:
    ids = draw_many(p, settings)
    return (torch.bincount(ids, minlength=len(p)) / len(ids)).tolist()


@given(logits=logit_rows, u=units)
def test_temperature_zero_is_greedy_whatever_the_noise(logits: list[float], u: float) -> None:
    drawn = sample(torch.tensor([logits]), torch.tensor([u]), Sampling(temperature=0, top_k=3, top_p=0.5))
    assert int(drawn) == int(torch.tensor(logits).argmax())


def test_frequencies_are_the_probabilities() -> None:
    assert frequencies([0.1, 0.2, 0.3, 0.4], EVERYTHING) == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=1e-3)


def test_a_token_owns_the_half_open_interval_of_its_probability() -> None:
    even = torch.zeros(3, 2)
    uniform = torch.tensor([0.0, 0.5, LAST_BEFORE_ONE], dtype=torch.float64)
    assert sample(even, uniform, EVERYTHING).tolist() == [0, 1, 1]


def test_temperature_sharpens_and_flattens() -> None:
    assert frequencies([0.2, 0.8], Sampling(temperature=0.5, top_p=1.0))[1] == pytest.approx(
        16 / 17, abs=1e-3
    )
    assert frequencies([0.2, 0.8], Sampling(temperature=2.0, top_p=1.0))[1] == pytest.approx(2 / 3, abs=1e-3)


def test_top_k_keeps_the_k_most_likely() -> None:
    got = frequencies([0.1, 0.2, 0.3, 0.4], Sampling(top_k=2, top_p=1.0))
    assert got == pytest.approx([0, 0, 3 / 7, 4 / 7], abs=1e-3)


def test_top_p_keeps_the_fewest_that_hold_the_share() -> None:
    assert frequencies([0.1, 0.2, 0.3, 0.4], Sampling(top_p=0.65)) == pytest.approx(
        [0, 0, 3 / 7, 4 / 7], abs=1e-3
    )
    assert frequencies([0.1, 0.2, 0.3, 0.4], Sampling(top_p=0.75))[1] > 0


def test_top_k_and_top_p_both_apply() -> None:
    # of the three that top_k leaves, top_p drops one more: 0.4 + 0.3 are 7/9 of their sum
    got = frequencies([0.1, 0.2, 0.3, 0.4], Sampling(top_k=3, top_p=0.75))
    assert got == pytest.approx([0, 0, 3 / 7, 4 / 7], abs=1e-3)


@given(
    logits=logit_rows,
    impossible=st.sets(st.integers(0, 11)),
    u=units,
    temperature=st.sampled_from([0.0, 0.1, 1.0, 5.0]),
    top_k=st.integers(0, 15),
    top_p=st.floats(0.01, 1),
)
def test_an_impossible_token_is_never_drawn(
    logits: list[float], impossible: set[int], u: float, temperature: float, top_k: int, top_p: float
) -> None:
    row = torch.tensor([logits])
    dead = [i for i in impossible if i < len(logits) - 1]
    row[0, dead] = -math.inf
    drawn = sample(
        row,
        torch.tensor([u], dtype=torch.float64),
        Sampling(temperature=temperature, top_k=top_k, top_p=top_p),
    )
    assert int(drawn) not in dead
    if top_k:
        assert (row[0] > row[0, drawn]).sum() < top_k


def test_of_logits_that_give_one_probability_top_k_keeps_the_larger() -> None:
    nearly = torch.tensor([[-1e-38, 0.0]])
    assert int(sample(nearly, torch.zeros(1, dtype=torch.float64), Sampling(top_k=1))) == 1


def test_a_token_is_drawn_from_the_whole_distribution_unless_it_is_cut() -> None:
    rare = torch.tensor([[4.0, 0.0]])
    last = torch.full((1,), 0.99, dtype=torch.float64)
    assert int(sample(rare, last, Sampling())) == 1
    assert int(sample(rare, last, Sampling(top_p=0.9))) == 0


def test_logits_are_left_as_they_were() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0]])
    sample(logits, torch.tensor([0.5]), Sampling(top_k=1))
    assert logits.tolist() == [[0.0, 1.0, 2.0]]


def test_logits_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(SamplingError, match="logits are not finite"):
        sample(torch.tensor([[0.0, math.nan]]), torch.tensor([0.5]), EVERYTHING)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, "temperature must be 0 or a positive number, got -0.1"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"top_k": -1}, "top_k must be 0 \\(off\\) or positive, got -1"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, got 0.0"),
        ({"top_p": 1.1}, "top_p"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(SamplingError, match=message):
        Sampling(**settings)  # type: ignore[arg-type]


@given(
    seeds=st.lists(st.integers(0, 2**63), min_size=1, max_size=3),
    paths=st.integers(1, 4),
    steps=st.integers(1, 4),
)
def test_a_draw_depends_on_seed_path_and_step_only(seeds: list[int], paths: int, steps: int) -> None:
    draws, more = noise(seeds, paths, steps), noise([*seeds, 5], paths + 3, steps + 2)
    assert torch.equal(draws, more[: len(seeds), :paths, :steps])


def test_draws_are_uniform_and_unlike_each_other() -> None:
    draws = noise(range(10), 20, 30)
    assert len(torch.unique(draws)) == draws.numel()
    assert float(draws.min()) >= 0
    assert float(draws.max()) < 1
    observed, _ = np.histogram(draws.numpy(), bins=10, range=(0, 1))
    assert np.abs(observed / draws.numel() - 0.1).max() < 0.012


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(SamplingError, match="seeds must not be negative, got -2"):
        noise([3, -2], 1, 1)
