"""Evaluation: one layer, its delta alone, q and v as a group; the tiny call; one thread beside two."""

import torch

import ours
import peers
from abi import PACK_FORWARD
from bench import case

BF16 = torch.bfloat16
# A small difference of two large times needs more of them.
DIFFERENCE_ROUNDS = 31


def layers_of(bench, peft, weight=True, pack=0, dtype=None):
    """This library's layers with the peer's matrices and vectors; dtype: the element type of the store."""
    pair = ours.store(bench.library, *(tensor.to(dtype or tensor.dtype) for tensor in (peft.a, peft.b)))
    return [ours.linear(bench.library, pair, b, d, peft.inputs, w if weight else None, name, pack)
            for b, d, w, name in zip(peft.lambda_b, peft.lambda_d, peft.weights, ("q", "v"))]


def our_evals(bench, peft, x, wanted, contexts=None):
    """A contender for each way of holding the base weight and each context, checked against the wanted outputs."""
    contenders = {}
    for context_name, context in (contexts or {"": bench.context}).items():
        for pack_name, pack in (("", 0), ("base packed", PACK_FORWARD))[:1 + bench.packs_base]:
            name = ", ".join(part for part in ("ours", context_name, pack_name) if part)
            ys = [torch.full_like(each, 7) for each in wanted]
            call = ours.forward(bench.library, context, layers_of(bench, peft, pack=pack), x, ys)
            call()
            for y, each in zip(ys, wanted):
                bench.agree(name, y, each, peft.dtype)
            contenders[name] = call
    return contenders


def evaluate(bench, rows, width, cold, targets):
    peft = peers.Pvera(width)
    x = peft.input(rows)
    others = {"PEFT": peft.eval(x), "hand torch": peers.Hand(peft).eval(x), "PEFT merged": peft.merged(x)}
    wanted = others["PEFT"]()
    for name in ("hand torch", "PEFT merged"):
        bench.agree(name, others[name]()[0], wanted[0])
    mine = our_evals(bench, peft, x, wanted)
    others["PEFT LoRA r=16 (another method)"] = peers.Lora(width).eval(x)
    others["base alone"] = peft.base(x)
    times = bench.race(others | mine, cold)
    bench.versus(f"eval n={rows} {width}²{' cold' if cold else ''}", times, mine, targets)


for _rows, _width, _targets in ((1576, 768, {"PEFT": 1.35, "hand torch": 1.07}), (197, 768, {}),
                                (16, 4096, {"PEFT": 2.0}), (1, 4096, {"PEFT": 1.4})):
    case(f"eval n={_rows} {_width}", _rows, _width, False, _targets)(evaluate)
    if _width == 4096:
        case(f"eval cold n={_rows} {_width}", _rows, _width, True, {})(evaluate)


def delta(bench, rows, width, cold, bf16_store, target):
    """PEFT has no delta alone: its eval less its base, round by round."""
    peft = peers.Pvera(width, rounded=bf16_store)
    x = peft.input(rows)
    others = {"PEFT": peft.eval(x), "base alone": peft.base(x)}
    wanted = others["PEFT"]()[0] - others["base alone"]()[0]
    y = torch.zeros_like(wanted)
    mine = ours.forward(bench.library, bench.context,
                        layers_of(bench, peft, weight=False, dtype=BF16 if bf16_store else None), x, [y])
    mine()
    bench.agree("delta", y, wanted)
    times = bench.race(others | {"ours": mine}, cold, rounds=DIFFERENCE_ROUNDS)
    work = f"delta only n={rows} {width}²{' cold' if cold else ''}{', bf16 store' if bf16_store else ''}"
    whole, base = times["PEFT"], times["base alone"]
    bench.row(f"{work}: PEFT eval − base", [ms - less for ms, less in zip(whole, base)], times["ours"], target,
              peer_least=min(whole) - min(base))


for _name, *_arguments in (("n=1576 768", 1576, 768, False, False, 1.75), ("n=197 768", 197, 768, False, False, None),
                           ("cold n=16 4096", 16, 4096, True, False, 3.5), ("cold n=1 4096", 1, 4096, True, False, 1.6),
                           ("cold n=16 4096 bf16 store", 16, 4096, True, True, None),
                           ("cold n=1 4096 bf16 store", 1, 4096, True, True, 3.0),
                           ("hot n=16 4096", 16, 4096, False, False, None),
                           ("hot n=1 4096", 1, 4096, False, False, None)):
    case(f"delta {_name}", *_arguments)(delta)


@case("group q+v eval n=1576 768")
def group(bench, rows=1576, width=768):
    peft = peers.Pvera(width, names=("q", "v"))
    x = peft.input(rows)
    others = {"PEFT": peft.eval(x), "hand torch": peers.hand_group(peft, x)}
    wanted = others["PEFT"]()
    for got, each in zip(others["hand torch"](), wanted):
        bench.agree("hand torch", got, each)
    mine = our_evals(bench, peft, x, wanted)
    bench.versus(f"q+v group eval n={rows} {width}²", bench.race(others | mine), mine, {"PEFT": 1.5})


def bf16_eval(bench, rows, width, targets):
    peft = peers.Pvera(width, dtype=BF16)
    x = peft.input(rows)
    others = {"PEFT": peft.eval(x), "hand torch, delta in bf16 too": peers.Hand(peft).eval(x),
              "base alone": peft.base(x)}
    wanted = others["PEFT"]()
    bench.agree("hand torch", others["hand torch, delta in bf16 too"]()[0], wanted[0], BF16)
    contexts = {"f32 products": bench.context}
    if bench.bf16_context:
        contexts["bf16 base product"] = bench.bf16_context
    mine = our_evals(bench, peft, x, wanted, contexts)
    times = bench.race(others | mine)
    for name, target in targets.items():
        chosen = {key: call for key, call in mine.items() if name in key}
        without = {key: values for key, values in times.items() if key in chosen or key in others}
        bench.versus(f"bf16 eval n={rows} {width}²", without, chosen, {"PEFT": target})


for _rows, _width, _f32, _bf16 in ((1576, 768, 1.3, 1.8), (16, 4096, None, None), (1, 4096, None, None)):
    case(f"bf16 eval n={_rows} {_width}", _rows, _width, {"f32 products": _f32, "bf16 base product": _bf16})(bf16_eval)


@case("two threads", threads=(2,))
def two_threads(bench, width=768):
    for rows in (197, 1576):
        peft = peers.Pvera(width)
        x = peft.input(rows)
        wanted = peft.eval(x)()
        contexts = {"one thread": ours.context(bench.library, 1), "two threads": bench.context}
        mine = our_evals(bench, peft, x, wanted, contexts)
        times = bench.race(mine)
        for name in times:
            if "two threads" in name:
                bench.row(f"eval n={rows} {width}², ours with one thread (as peer) and two: {name}",
                          times[name.replace("two threads", "one thread")], times[name], 1.85)
