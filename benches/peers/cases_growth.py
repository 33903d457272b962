"""How time grows with rows, rank, draws and width, beside PEFT."""

import torch

import ours
import peers
from bench import case
from cases_eval import layers_of
from cases_sampling import our_draws

ROWS, RANK, WIDTH = 197, 256, 768


def growing_eval(bench, what, settings):
    for value, (rows, width, rank) in settings:
        peft = peers.Pvera(width, rank=rank)
        x = peft.input(rows)
        theirs = peft.eval(x)
        wanted = theirs()[0]
        y = torch.empty_like(wanted)
        mine = ours.forward(bench.library, bench.context, layers_of(bench, peft), x, [y])
        mine()
        bench.agree(f"{what} {value}", y, wanted)
        times = bench.race({"PEFT": theirs, "ours": mine})
        bench.row(f"{what} {value}: PEFT", times["PEFT"], times["ours"])


@case("growth rows", table=f"Growth with rows: eval, {WIDTH}², r={RANK}")
def by_rows(bench):
    growing_eval(bench, "rows", [(n, (n, WIDTH, RANK)) for n in (1, 2, 4, 8, 16, 32, 64, 197, 512, 1576)])


@case("growth rank", table=f"Growth with rank: eval, n={ROWS}, {WIDTH}²")
def by_rank(bench):
    growing_eval(bench, "rank", [(rank, (ROWS, WIDTH, rank)) for rank in (16, 32, 64, 128, 256, 512)])


@case("growth width", table=f"Growth with width: eval, n={ROWS}, r={RANK}")
def by_width(bench):
    growing_eval(bench, "width", [(width, (ROWS, width, RANK)) for width in (256, 512, 768, 1024, 2048, 4096)])


@case("growth draws", table=f"Growth with draws: samples of one layer, n={ROWS}, {WIDTH}², r={RANK}")
def by_draws(bench):
    for draws in (1, 2, 4, 8, 16, 32, 64):
        peft = peers.Pvera(WIDTH, rank=RANK)
        x = peft.input(ROWS)
        mine = our_draws(bench, peft, x, draws)[0]["ours"]
        times = bench.race({"PEFT": peft.draws(x, draws), "ours": mine})
        bench.row(f"draws {draws}: PEFT", times["PEFT"], times["ours"])
