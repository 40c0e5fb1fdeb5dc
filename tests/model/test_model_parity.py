"""The network against what the upstream code computed with the same weights."""

import torch
import torch.nn.functional as F
from tiny_models import Golden
from torch import Tensor
from uncached_generation import uncached_paths

from kronos_service.model.generation.candle_decoder import path_candles
from kronos_service.model.generation.generate import History, generate
from kronos_service.model.generation.rollout import PathSampler, TokenHistory
from kronos_service.model.generation.sampling import Sampling, noise

GREEDY = Sampling(temperature=0)


def assert_near(got: Tensor, want: Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(got, want, rtol=0, atol=tolerance)


def slid(golden: Golden, history: TokenHistory, draws: Tensor) -> Tensor:
    """Greedy paths (N, H, 2) whose window slides past the context limit, as upstream's does."""
    context = golden.settings["max_context"]
    return uncached_paths(
        golden.model, history, draws, sampling=GREEDY, context=context, upstream_decode=True
    ).tokens


def test_state_dicts_have_exactly_the_released_names(golden: Golden) -> None:
    assert golden.tokenizer.state_dict().keys() == golden.states["tokenizer"].keys()
    assert golden.model.state_dict().keys() == golden.states["predictor"].keys()


def test_token_ids_are_equal(golden: Golden) -> None:
    s1, s2 = golden.tokenizer.encode(golden.cases["x"])
    assert torch.equal(s1, golden.cases["s1_ids"])
    assert torch.equal(s2, golden.cases["s2_ids"])


def test_decoded_candles_and_reconstructions_agree(golden: Golden) -> None:
    cases = golden.cases
    assert_near(golden.tokenizer.decode(cases["s1_ids"], cases["s2_ids"]), cases["decoded"])
    out = golden.tokenizer(cases["x"])
    assert_near(out.recon, cases["recon"])
    assert_near(out.recon_s1, cases["recon_s1_only"])


def test_teacher_forced_logits_and_cross_entropies_agree(golden: Golden) -> None:
    cases = golden.cases
    s1, s2, stamp = cases["s1_ids"], cases["s2_ids"], cases["x_stamp"]
    s1_logits, s2_logits = golden.model(s1[:, :-1], s2[:, :-1], stamp[:, :-1], s1_targets=s1[:, 1:])
    assert_near(s1_logits, cases["tf_s1_logits"])
    assert_near(s2_logits, cases["tf_s2_logits"])
    ce_s1 = F.cross_entropy(s1_logits.flatten(0, 1), s1[:, 1:].flatten())
    ce_s2 = F.cross_entropy(s2_logits.flatten(0, 1), s2[:, 1:].flatten())
    assert_near(ce_s1, cases["tf_ce_s1"], 1e-5)
    assert_near(ce_s2, cases["tf_ce_s2"], 1e-5)


def test_single_step_logits_agree_with_upstream_decode(golden: Golden) -> None:
    cases = golden.cases
    h = golden.model.hidden(cases["s1_ids"], cases["s2_ids"], cases["x_stamp"])
    assert_near(h, cases["context"])
    assert_near(golden.model.s1_logits(h[:, -1]), cases["decode_s1_logits_last"])
    pick = cases["decode_s2_pick"]
    last = torch.full_like(pick, h.shape[1] - 1)
    upstream = golden.model.s2_logits(h, pick, last, upstream_decode=True)
    assert_near(upstream[:, 0], cases["decode_s2_logits_last_upstream"])
    assert not torch.allclose(golden.model.s2_logits(h, pick, last), upstream, atol=1e-4)


def test_greedy_rollouts_are_equal_token_for_token(golden: Golden) -> None:
    cases, horizon = golden.cases, golden.settings["pred_len"]
    history = torch.stack((cases["s1_ids"], cases["s2_ids"]), dim=-1)
    stamps = torch.cat((cases["x_stamp"], cases["y_stamp"]), dim=1)
    drawing = PathSampler(model=golden.model, sampling=GREEDY, upstream_decode=True)
    for i, tokens in enumerate(history):
        known = TokenHistory(tokens=tokens, stamps=stamps[i, :-1], events=None)
        draws = noise([0], 2, horizon)
        path = slid(golden, known, draws[0])[0]
        with torch.no_grad():
            cached = drawing.roll_out([drawing.read(known)], draws)[0, 0]
        assert torch.equal(path[:, 0], cases["greedy_s1_upstream"][i])
        assert torch.equal(path[:, 1], cases["greedy_s2_upstream"][i])
        assert golden.settings["slides_past_max_context"] or torch.equal(cached, path)


def test_greedy_forecasts_agree_inside_and_past_the_context_limit(golden: Golden) -> None:
    cases, settings = golden.cases, golden.settings
    past = cases["x"].shape[1] + settings["pred_len"] > settings["max_context"]
    assert past == settings["slides_past_max_context"]
    for i, want in enumerate(cases["greedy_forecast_upstream"]):
        tokens = torch.stack((cases["s1_ids"][i], cases["s2_ids"][i]), dim=-1)
        stamps = torch.cat((cases["x_stamp"][i], cases["y_stamp"][i, :-1]))
        slid_path = slid(
            golden, TokenHistory(tokens=tokens, stamps=stamps, events=None), torch.zeros(1, len(want), 2)
        )
        shown = tokens[-(settings["max_context"] - len(want)) :]
        with torch.no_grad():
            assert_near(path_candles(golden.tokenizer, [shown], slid_path[None])[0, 0], want)
    if past:
        return
    forecast = generate(
        golden.tokenizer,
        golden.model,
        [
            History(x=x, stamps=stamps, future_stamps=future, events=None, seed=0)
            for x, stamps, future in zip(cases["x"], cases["x_stamp"], cases["y_stamp"], strict=True)
        ],
        horizon=settings["pred_len"],
        paths=2,
        sampling=GREEDY,
        context=settings["max_context"],
        upstream_decode=True,
    )
    for path in range(2):
        assert_near(forecast.bars[:, path], cases["greedy_forecast_upstream"])
