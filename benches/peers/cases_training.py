"""Training steps (forward and backward with dx, dλ_b, dλ_d; no optimiser) and what is kept between the two."""

import torch

import ours
import peers
from abi import KEEP_DELTA, KEEP_LATENT, PACK_BACKWARD, PACK_FORWARD, RECOMPUTE
from bench import case
from cases_eval import layers_of

BF16 = torch.bfloat16
POLICIES = {"KEEP_LATENT": KEEP_LATENT, "KEEP_DELTA": KEEP_DELTA, "RECOMPUTE": RECOMPUTE}


def checked(bench, name, step, wanted, dtype):
    """Compares outputs and every gradient with those of PEFT's last step."""
    step()
    vectors = [parameter.grad for parameter in wanted.parameters]
    pairs = [("dx", step.dx, wanted.x.grad)]
    for place, y in enumerate(wanted.ys):
        pairs += [("y", step.ys[place], y), ("dλ_b", step.dlambda_b[place], vectors[2 * place]),
                  ("dλ_d", step.dlambda_d[place], vectors[2 * place + 1])]
    for what, got, each in pairs:
        bench.agree(f"{name}: {what}", got, each, dtype)


def our_steps(bench, peft, x, dys, policies=POLICIES, contexts=None):
    """A contender for each policy, context and way of holding the base, checked with the eps that PEFT drew."""
    theirs = peft.train(x, dys)
    with peers.captured_noise() as drawn:
        theirs()
    eps = torch.cat(drawn, dim=1)
    steps = {}
    for context_name, context in (contexts or {"": bench.context}).items():
        for pack_name, pack in (("", 0), ("base packed", PACK_FORWARD | PACK_BACKWARD))[:1 + bench.packs_base]:
            layers = layers_of(bench, peft, pack=pack)
            for policy_name, policy in policies.items():
                name = ", ".join(part for part in ("ours", context_name, policy_name, pack_name) if part)
                arguments = (bench.library, context, layers, x, dys, peft.rank, policy)
                checked(bench, name, ours.Training(*arguments, eps=eps), theirs, peft.dtype)
                steps[name] = ours.Training(*arguments)
    return theirs, steps


def train(bench, rows, width, names, targets):
    peft = peers.Pvera(width, names=names)
    x = peft.input(rows)
    dys = [torch.randn(rows, width) for _ in names]
    theirs, steps = our_steps(bench, peft, x, dys)
    others = {"PEFT": theirs}
    if len(names) == 1:
        others["PEFT LoRA r=16 (another method)"] = peers.Lora(width).train(x, dys[0])
    times = bench.race(others | steps)
    work = f"train {'q+v group ' if len(names) > 1 else ''}n={rows} {width}²"
    for name in steps:
        target = next((least for policy, least in targets.items() if policy in name), None)
        bench.versus(work, {key: times[key] for key in (*others, name)}, [name], {"PEFT": target})


_ONE, _GROUP = {"KEEP_LATENT": 1.08, "KEEP_DELTA": 1.18}, {"KEEP_LATENT": 1.30, "KEEP_DELTA": 1.42}
for _rows, _width, _names, _targets in ((1576, 768, ("q",), _ONE), (1576, 768, ("q", "v"), _GROUP),
                                        (197, 768, ("q",), {}), (512, 4096, ("q",), {}), (16, 4096, ("q",), {})):
    case(f"train {'+'.join(_names)} n={_rows} {_width}", _rows, _width, _names, _targets)(train)


@case("bf16 train n=1576 768")
def bf16_train(bench, rows=1576, width=768):
    peft = peers.Pvera(width, dtype=BF16)
    x = peft.input(rows)
    dys = [torch.randn(rows, width).to(BF16)]
    contexts = {"f32 products": bench.context}
    if bench.bf16_context:
        contexts["bf16 base product"] = bench.bf16_context
    policies = {name: POLICIES[name] for name in ("KEEP_LATENT", "KEEP_DELTA")}
    theirs, steps = our_steps(bench, peft, x, dys, policies, contexts)
    times = bench.race({"PEFT": theirs} | steps)
    for name in steps:
        target = 1.15 if "bf16 base product" in name else None
        bench.versus(f"bf16 train n={rows} {width}²", {key: times[key] for key in ("PEFT", name)}, [name],
                     {"PEFT": target})


@case("tape", threads=(1,))
def tape(bench, rows=64):
    """Bytes a row between forward and backward. x and what is frozen count on neither side."""
    for width, names, target in ((768, ("q",), 3.5), (768, ("q", "v"), 7), (4096, ("q",), 10)):
        peft = peers.Pvera(width, names=names)
        x = peft.input(rows)
        dys = [torch.randn(rows, width) for _ in names]
        saved = peft.train(x, dys).saved_bytes() / rows
        for policy_name, policy in POLICIES.items():
            step = ours.Training(bench.library, bench.context, layers_of(bench, peft), x, dys, peft.rank, policy)
            step()
            bench.row(f"kept for backward, {'+'.join(names)} at {width}, {policy_name}: PyTorch", [saved],
                      [step.tape_bytes() / rows], target if policy == KEEP_LATENT else None, unit="bytes/row")
