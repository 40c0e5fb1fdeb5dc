"""Whether the device computes what upstream's code and a CPU compute."""

import torch
from gpu_steps.lab import Lab
from recomputing import random_bench
from tiny_models import load_golden
from torch import Tensor, nn
from training_step import adapted, random_batch

from kronos_service.finetune.event_conditioned.training.lora import parameter_groups, trainable
from kronos_service.finetune.event_conditioned.training.loss import token_losses
from kronos_service.model.generation.generate import generate
from kronos_service.model.generation.sampling import Sampling
from kronos_service.model.precision import in_bf16

BF16_BOUND = 0.15
"""Largest departure of a bf16 logit, in standard deviations of the logits."""


def run(lab: Lab) -> None:
    for name in ("tiny", "tiny_fixed_time"):
        goldens(lab, name)
    one_step(lab)
    fixed_shapes(lab)


def goldens(lab: Lab, name: str) -> None:
    """Teacher-forced logits of upstream's code, in fp32 within 1e-4 and in bf16 within the bound."""
    golden = load_golden(name)
    model = golden.model.to(lab.device)
    s1, s2, stamp = (golden.cases[part].to(lab.device) for part in ("s1_ids", "s2_ids", "x_stamp"))
    wanted = [golden.cases[f"tf_{part}_logits"] for part in ("s1", "s2")]
    for precision, shown, bound in (("fp32", model, 1e-4), ("bf16", in_bf16(model), BF16_BOUND)):
        with torch.no_grad():
            got = shown(s1[:, :-1], s2[:, :-1], stamp[:, :-1], s1_targets=s1[:, 1:])
        scale = 1.0 if precision == "fp32" else float(wanted[0].std())
        worst = (
            max(float((a.cpu().float() - b).abs().max()) for a, b in zip(got, wanted, strict=True)) / scale
        )
        unit = "" if precision == "fp32" else "deviations"
        lab.add(f"{name}: logits off upstream's, {precision}", worst, unit, f"allowed {bound:g}")
        assert worst <= bound, f"{name} in {precision}: {worst:g} > {bound:g}"


def one_step(lab: Lab) -> None:
    """One AdamW step of LoRA and event embedding, without dropout: CPU against the device."""
    (loss, cpu), (device_loss, other) = (stepped(device) for device in ("cpu", lab.device))
    lab.add("frozen weights after a step", "the same bits")
    lab.add("loss of a batch off the CPU's", abs(device_loss / loss - 1), "", "relative, allowed 1e-5")
    worst = max(float((cpu[name] - other[name]).abs().max() / cpu[name].abs().max()) for name in cpu)
    lab.add("gradients off the CPU's", worst, "", "of each tensor's largest, allowed 1e-3")
    assert abs(device_loss / loss - 1) <= 1e-5
    assert worst <= 1e-3


def stepped(device: str) -> tuple[float, dict[str, Tensor]]:
    """The loss, and the gradients that are not zero; frozen weights must keep their bits."""
    base, model = adapted("nano", device)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    frozen = {name: one.clone() for name, one in base.state_dict().items()}
    batch = random_batch(base, windows=4, bars=128, scored=32, device=device)
    optimizer = torch.optim.AdamW(parameter_groups(model, learning_rate=1e-4, event_learning_rate=3e-4))
    s1, s2 = token_losses(model, batch, events=batch["events"])
    loss = (s1 + s2).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = {name: one.grad.cpu().clone() for name, one in trainable(model) if one.grad is not None}
    optimizer.step()
    assert all(torch.equal(one, frozen[name]) for name, one in base.state_dict().items())
    return float(loss.detach()), {name: one for name, one in gradients.items() if one.any()}


def fixed_shapes(lab: Lab) -> None:
    """Greedy forecasts by fixed shapes, on a CUDA device as graphs, against growing caches."""
    bench = random_bench("nano", bars=96, horizon=9, device=lab.device)

    def bars(static: bool) -> Tensor:
        return generate(
            bench.tokenizer,
            bench.model,
            [bench.history],
            horizon=bench.horizon,
            paths=3,
            sampling=Sampling(temperature=0),
            context=128,
            static=static,
        ).bars

    wanted = bars(False)
    for name in ("captured", "replayed"):
        off = float((bars(True) - wanted).abs().max())
        lab.add(f"forecast by fixed shapes, {name}, off growing caches", off, "", "fp32, allowed 1e-4")
        assert off <= 1e-4
