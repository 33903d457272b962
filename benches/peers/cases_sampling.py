"""Draws of one layer's output, its exact moments, and noise itself."""

import ctypes

import torch

import ours
import peers
from abi import PACK_FORWARD
from bench import case
from cases_eval import layers_of

DRAWS = 16


def our_draws(bench, peft, x, draws):
    """Checked with the eps that PEFT drew, then timed with noise of its own."""
    with peers.captured_noise() as drawn:
        wanted = torch.cat(peft.draws(x, draws)())
    eps, mine = torch.cat(drawn), {}
    for name, pack in (("ours", 0), ("ours, base packed", PACK_FORWARD))[:1 + bench.packs_base]:
        layer = layers_of(bench, peft, pack=pack)[0]
        y = torch.empty(draws * x.shape[0], peft.outputs)
        ours.sample(bench.library, bench.context, layer, x, draws, y, eps)()
        bench.agree("draws", y, wanted)
        mine[name] = ours.sample(bench.library, bench.context, layer, x, draws, y)
    return mine, eps, wanted


def draw(bench, rows, width, targets):
    peft = peers.Pvera(width)
    x = peft.input(rows)
    mine, eps, wanted = our_draws(bench, peft, x, DRAWS)
    hand = peers.Hand(peft)
    in_place, hand_eps = hand.draws_in_place(x, DRAWS)
    hand_eps.copy_(eps.view_as(hand_eps))
    bench.agree("hand torch, memory reused", in_place(False).view_as(wanted), wanted)
    fresh = hand.draws(x, DRAWS)
    bench.agree("hand torch", fresh(hand_eps).view_as(wanted), wanted)
    times = bench.race({"PEFT": peft.draws(x, DRAWS), "hand torch": fresh, "hand torch, memory reused": in_place}
                       | mine)
    bench.versus(f"{DRAWS} samples n={rows} {width}²", times, mine, targets)


for _rows, _width, _peft, _hand in ((1576, 768, 5.3, 1.6), (16, 4096, 17, 1.5), (1, 4096, 15, 1.5),
                                     (197, 768, None, None)):
    case(f"samples n={_rows} {_width}", _rows, _width, {"PEFT": _peft, "hand torch": _hand})(draw)


@case("one sample n=1576 768")
def one_sample(bench, rows=1576, width=768):
    peft = peers.Pvera(width)
    x = peft.input(rows)
    mine, eps, wanted = our_draws(bench, peft, x, 1)
    hand = peers.Hand(peft).draws(x, 1)
    bench.agree("hand torch", hand(eps[None])[0], wanted)
    times = bench.race({"PEFT": peft.draws(x, 1), "hand torch": hand} | mine)
    bench.versus(f"one sample n={rows} {width}²", times, mine, {})


@case("moments n=1576 768")
def moments(bench, rows=1576, width=768):
    """Exact moments have no peer in PEFT but drawing; 16 draws know a variance to a third of itself."""
    peft = peers.Pvera(width)
    x = peft.input(rows)
    mean, variance = torch.empty(rows, width), torch.empty(rows, width)
    mine = ours.moments(bench.library, bench.context, layers_of(bench, peft)[0], x, mean, variance)
    hand = peers.Hand(peft).moments(x)
    mine()
    for name, got, wanted in zip(("mean", "variance"), (mean, variance), hand()):
        bench.agree(name, got, wanted)
    bench.agree("mean", mean, peft.eval(x)()[0])
    times = bench.race({f"{DRAWS} samples of PEFT": peft.draws(x, DRAWS), "hand torch": hand, "ours": mine})
    bench.versus(f"exact moments n={rows} {width}²", times, ["ours"], {f"{DRAWS} samples of PEFT": 16})


@case("noise", threads=(1,))
def noise(bench, count=1 << 20):
    """Nanoseconds a normal; the streams differ by design, so their first two moments are what is compared."""
    values, drawn = torch.empty(count), torch.empty(count)
    mine = bench.library.prepared(
        "pvera_keyed_normals", ctypes.c_uint64(1), b"q", ctypes.c_uint64(2), ctypes.c_uint64(3), ctypes.c_uint32(4),
        ctypes.c_bool(False), ctypes.c_size_t(count), ctypes.c_void_p(values.data_ptr()), keep=values)
    mine()
    for name, moment in (("mean", values.mean()), ("variance", values.var() - 1)):
        assert abs(moment) < 6 * (2 / count) ** 0.5, f"the {name} of the normals is off by {moment}"
    times = bench.race({"torch": drawn.normal_, "ours": mine})
    nanoseconds = {name: [1e6 * ms / count for ms in each] for name, each in times.items()}
    bench.row("a keyed normal: torch.normal_", nanoseconds["torch"], nanoseconds["ours"], ceiling=2, unit="ns")
