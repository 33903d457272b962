"""Monte Carlo passes through a network of ViT-B's size: 12 blocks at width 768 on one image of 197 tokens.

A block is h + q(h) ∘ sigmoid(v(h)), normalised (LayerNorm without weights). It holds the layers that PVeRA adapts in
ViT-B and none of attention, k, the output projection and the MLP, which are the same for all and would dilute the
ratios. What lies between adapted layers, and every layer that is not adapted, is the same PyTorch code on all sides.

PEFT repeats the whole network for each pass. Ours and the hand-written one take passes as extra rows, CHUNK of them at a
time, run what comes before the first adapted block once, and in that block do the base and A once.
"""

import torch
import torch.nn.functional as F
from torch import nn

import ours
import peers
from abi import MODE_SAMPLE
from bench import case

BLOCKS, WIDTH, RANK, TOKENS = 12, 768, 256, 197
NAMES = ("q", "v")
CHUNK = 16
# 64 or 256 passes are repeats in themselves.
LONG_ROUNDS = 3


TABLE = f"Passes through {BLOCKS} blocks of q and v ({WIDTH}², r={RANK}, {TOKENS} tokens), no attention, no MLP"


def combine(h, q, v):
    return F.layer_norm(h + q * torch.sigmoid(v), (WIDTH,))


class PeftNetwork:
    """Blocks from first on are adapted."""

    def __init__(self, first):
        torch.manual_seed(0)
        model = nn.Module()
        model.blocks = nn.ModuleList(
            nn.ModuleDict({name: nn.Linear(WIDTH, WIDTH, bias=False) for name in NAMES}) for _ in range(BLOCKS))
        config = peers.PveraConfig(r=RANK, target_modules=list(NAMES), sample_at_inference=True,
                                   layers_to_transform=list(range(first, BLOCKS)), layers_pattern="blocks")
        self.first = first
        self.model = peers.adapted(model, config).eval()
        self.blocks = [[block[name] for name in NAMES] for block in self.model.base_model.model.blocks]
        for layer in (layer for block in self.blocks[first:] for layer in block):
            peers.randomise(layer)
        self.frozen = self.blocks[-1][0]

    def one_pass(self, h):
        for q, v in self.blocks:
            h = combine(h, q(h), v(h))
        return h

    def prefix(self, h):
        for q, v in self.blocks[:self.first]:
            h = combine(h, q(h), v(h))
        return h

    def passes(self, x, count):
        """The mean over passes; every side ends with it."""
        def run():
            total = torch.zeros_like(x)
            for _ in range(count):
                total += self.one_pass(x)
            return total / count
        return peers.inference(run)


class Batched:
    """What ours and the hand-written network share: the prefix once, then chunks of passes as extra rows."""

    def __init__(self, peft):
        self.peft = peft
        self.adapted = peft.blocks[peft.first:]

    def passes(self, x, count, eps=None):
        """eps: a tensor [count · TOKENS, 2 · RANK] for each adapted block, or None to draw."""
        def run():
            prefix = self.peft.prefix(x)
            total = torch.zeros_like(x)
            for begun in range(0, count, CHUNK):
                size = min(CHUNK, count - begun)
                rows = slice(begun * TOKENS, (begun + size) * TOKENS)
                h = None
                for place in range(len(self.adapted)):
                    given = None if eps is None else eps[place][rows]
                    if h is None:
                        q, v = self.first_block(prefix, begun, size, given)
                        h = prefix.expand(size, TOKENS, WIDTH).reshape(size * TOKENS, WIDTH)
                    else:
                        q, v = self.block(place, h, begun, size, given)
                    h = combine(h, q, v)
                total += h.view(size, TOKENS, WIDTH).sum(0)
            return total / count
        return peers.inference(run)


class HandNetwork(Batched):
    """One product with A for q and v, λ_b folded into B."""

    def __init__(self, peft):
        super().__init__(peft)
        self.a, b = peft.frozen.pvera_A["default"], peft.frozen.pvera_B["default"]
        self.folded = [[(layer.base_layer.weight, layer.pvera_lambda_d["default"],
                         (layer.pvera_lambda_b["default"][:, None] * b).t()) for layer in block]
                       for block in self.adapted]

    def first_block(self, h, begun, size, eps):
        return self._block(0, h, size, eps)

    def block(self, place, h, begun, size, eps):
        return self._block(place, h, 1, eps)

    def _block(self, place, h, times, eps):
        p, outputs = F.linear(h, self.a), []
        for number, (weight, lambda_d, b) in enumerate(self.folded[place]):
            mu, logvar = (p * lambda_d).chunk(2, dim=-1)
            std = torch.exp(0.5 * logvar)
            if eps is None:
                noise = torch.randn(times, *std.shape)
            else:
                noise = eps[:, number * RANK:(number + 1) * RANK].view(times, *std.shape)
            z = torch.addcmul(mu, noise, std).view(-1, RANK)
            base = F.linear(h, weight)
            outputs.append((base if times == 1 else base.repeat(times, 1)).addmm_(z, b))
        return outputs


class OurNetwork(Batched):
    """q and v as a group; in the first adapted block each by pvera_sample."""

    def __init__(self, bench, peft):
        super().__init__(peft)
        self.bench = bench
        pair = ours.store(bench.library, peft.frozen.pvera_A["default"], peft.frozen.pvera_B["default"])
        self.layers = [[ours.linear(bench.library, pair, layer.pvera_lambda_b["default"].detach(),
                                    layer.pvera_lambda_d["default"].detach(), WIDTH,
                                    layer.base_layer.weight.detach(), f"blocks.{peft.first + place}.{name}")
                        for name, layer in zip(NAMES, block)] for place, block in enumerate(self.adapted)]
        self.identities = torch.arange(TOKENS).repeat(CHUNK)

    def first_block(self, h, begun, size, eps):
        outputs = [torch.empty(size * TOKENS, WIDTH) for _ in NAMES]
        for number, (layer, y) in enumerate(zip(self.layers[0], outputs)):
            given = None if eps is None else eps[:, number * RANK:(number + 1) * RANK]
            rows = ours.rows_of(sample_base=begun)
            ours.sample(self.bench.library, self.bench.context, layer, h, size, y, given, rows=rows)()
        return outputs

    def block(self, place, h, begun, size, eps):
        outputs = [torch.empty(size * TOKENS, WIDTH) for _ in NAMES]
        samples = torch.arange(begun, begun + size, dtype=torch.int32).repeat_interleave(TOKENS)
        rows = ours.rows_of(identities=self.identities[:size * TOKENS], samples=samples)
        ours.forward(self.bench.library, self.bench.context, self.layers[place], h, outputs, MODE_SAMPLE, eps, rows)()
        return outputs


def captured(peft, x, count):
    """PEFT's mean over passes and the eps that it drew, a tensor for each adapted block."""
    with peers.captured_noise() as drawn:
        mean = peft.passes(x, count)()
    blocks = BLOCKS - peft.first
    per_block = [[torch.cat(drawn[2 * (each * blocks + place):2 * (each * blocks + place) + 2], dim=1)
                  for each in range(count)] for place in range(blocks)]
    return mean, [torch.cat(eps) for eps in per_block]


def monte_carlo(bench, first, count):
    peft = PeftNetwork(first)
    x = torch.randn(TOKENS, WIDTH)
    sides = {"hand torch": HandNetwork(peft), "ours": OurNetwork(bench, peft)}
    wanted, eps = captured(peft, x, CHUNK + 1)  # one chunk and a part of one
    for name, side in sides.items():
        bench.agree(name, side.passes(x, CHUNK + 1, eps)(), wanted)
    contenders = {"PEFT": peft.passes(x, count)} | {name: side.passes(x, count) for name, side in sides.items()}
    times = bench.race(contenders, rounds=LONG_ROUNDS if count > 16 else None)
    adapted = "all layers adapted" if first == 0 else f"last {BLOCKS - first} blocks adapted, prefix once"
    bench.versus(f"{adapted}, {count} passes", times, ["ours"], {})


for _first, _which in ((0, "all"), (BLOCKS - 2, "last two")):
    for _count in (16, 64, 256):
        case(f"network {_which} {_count}", _first, _count, table=TABLE)(monte_carlo)
