"""The demo's job in PyTorch: repair a network on transposed digits with a PVeRA adapter, then ask how sure it is.

    python examples/data/prototype.py [SEED ...]      (about 15 s a seed)

The recipe and the numbers that the demo in C is held to are in README.md.
"""

import math
import sys

import numpy as np
import torch
from torch.nn import functional, init

from digits import FOLDER, load, split

RANK = 128
EPOCHS = 200
BATCH = 64
LEARNING_RATE = 0.05
KL_WEIGHT = 1e-3
D_INITIAL = 0.1
LARGEST_LOGVAR = 10.0  # far from the training data, noise feeds on itself from layer to layer until exp overflows
DRAWS = 64


def read_base():
    data = (FOLDER / "base.bin").read_bytes()
    count = int(np.frombuffer(data, "<u4", 1, 8)[0])
    sizes = np.frombuffer(data, "<u4", count, 12).tolist()
    values = torch.from_numpy(np.frombuffer(data, "<f4", -1, 12 + 4 * count).copy())
    layers = []
    for inputs, outputs in zip(sizes, sizes[1:]):
        weight, bias, values = values.split([inputs * outputs, outputs, len(values) - (inputs + 1) * outputs])
        layers.append((weight.reshape(outputs, inputs), bias))
    return layers


class Adapter:
    """A and B as PEFT makes them from projection_prng_key, and each layer's two vectors."""

    def __init__(self, base, key):
        generator = torch.Generator().manual_seed(key)
        in_max = max(weight.shape[1] for weight, _ in base)
        out_max = max(weight.shape[0] for weight, _ in base)
        self.a = init.kaiming_uniform_(torch.empty(2 * RANK, in_max), generator=generator)
        self.b = init.kaiming_uniform_(torch.empty(out_max, RANK), generator=generator)
        self.lambda_b = [torch.zeros(len(bias), requires_grad=True) for _, bias in base]
        self.lambda_d = [torch.full((2 * RANK,), D_INITIAL, requires_grad=True) for _ in base]

    def delta(self, layer, x, sample):
        """The layer's delta, and the mean KL of its latent to the standard normal."""
        lambda_b = self.lambda_b[layer]
        p = x @ self.a[:, : x.shape[-1]].T
        mu, logvar = (self.lambda_d[layer] * p).chunk(2, dim=-1)
        logvar = logvar.clamp(max=LARGEST_LOGVAR)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp() if sample else mu
        kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).mean()
        return lambda_b * (z @ self.b[: len(lambda_b)].T), kl


def forward(base, x, adapter=None, sample=False):
    total_kl = 0.0
    for number, (weight, bias) in enumerate(base):
        y = x @ weight.T + bias
        if adapter:
            delta, kl = adapter.delta(number, x, sample)
            y, total_kl = y + delta, total_kl + kl
        x = y.relu() if number + 1 < len(base) else y
    return x, total_kl


def train(base, images, labels, seed):
    torch.manual_seed(seed)
    adapter = Adapter(base, seed)
    optimiser = torch.optim.AdamW(adapter.lambda_b + adapter.lambda_d, lr=LEARNING_RATE, weight_decay=0.0)
    step, steps = 0, EPOCHS * math.ceil(len(images) / BATCH)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images)).split(BATCH):
            for group in optimiser.param_groups:
                group["lr"] = LEARNING_RATE * (1 + math.cos(math.pi * step / steps)) / 2
            logits, kl = forward(base, images[rows], adapter, sample=True)
            loss = functional.cross_entropy(logits, labels[rows]) + KL_WEIGHT * kl
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            step += 1
    return adapter


def entropy(probability):
    return -(probability * probability.clamp_min(1e-12).log()).sum(-1)


class Belief:
    """What many draws say: mean probability, width of the 90 % interval of the chosen class, mutual information."""

    def __init__(self, base, adapter, x):
        draws = torch.stack([forward(base, x, adapter, sample=True)[0].softmax(-1) for _ in range(DRAWS)])
        self.mean = draws.mean(0)
        self.choice = self.mean.argmax(-1)
        chosen = draws.gather(-1, self.choice.expand(DRAWS, -1)[..., None])[..., 0]
        self.width = chosen.quantile(0.95, 0) - chosen.quantile(0.05, 0)
        self.information = entropy(self.mean) - entropy(draws).mean(0)


def calibration_error(probability, labels, bins=15):
    confidence, choice = probability.max(-1)
    right = (choice == labels).float()
    which = (confidence * bins).ceil().clamp(1, bins)
    gaps = [(right - confidence)[which == b].sum().abs() for b in range(1, bins + 1)]
    return float(sum(gaps) / len(labels))


def auroc(high, low):
    """How often a value of `high` exceeds one of `low`; a tie counts half."""
    difference = high[:, None] - low[None, :]
    return float(((difference > 0).float() + 0.5 * (difference == 0).float()).mean())


def unfamiliar(upright):
    """Inputs of kinds that the adapter never saw, none of them a transposed digit, from the upright test images."""
    x = upright.transpose(1, 2).flatten(1)
    return {
        "scrambled": x[:, (37 * torch.arange(64) + 11) % 64],
        "upright": upright.flatten(1),
        "two at once": (x + x.roll(1, 0)) / 2,
        "inverted": 1 - x,
        "blank": torch.zeros(1, 64),
    }


def line(name, probability, labels):
    right = (probability.argmax(-1) == labels).float().mean()
    print(f"  {name:22s} accuracy {right:.3f}  calibration error {calibration_error(probability, labels):.3f}")


@torch.no_grad()
def report(base, adapter, upright, labels):
    x = upright.transpose(1, 2).flatten(1)
    belief = Belief(base, adapter, x)
    mean = forward(base, x, adapter)[0].softmax(-1)
    line("base", forward(base, x)[0].softmax(-1), labels)
    line("adapted, mean", mean, labels)
    line("adapted, one draw", forward(base, x, adapter, sample=True)[0].softmax(-1), labels)
    line(f"adapted, {DRAWS} draws", belief.mean, labels)
    right = belief.choice == labels
    sure = belief.width.argsort()[: int(0.9 * len(labels))]
    print(f"  accuracy on the 90 % with the narrowest intervals {right[sure].float().mean():.3f}")

    def compare(name, width, information, mean_entropy, others):
        ranks = [auroc(*pair) for pair in zip((width, information, mean_entropy), others)]
        print(
            f"  {name:16s} {len(width):3d}  width {width.mean():.3f}  information {information.mean():.3f}"
            f"  AUROC by width {ranks[0]:.3f}, by information {ranks[1]:.3f}, by entropy of the mean forward {ranks[2]:.3f}"
        )

    known = belief.width, belief.information, entropy(mean)
    compare("right", *(k[right] for k in known), [k[right] for k in known])
    compare("wrong, vs right", *(k[~right] for k in known), [k[right] for k in known])
    for name, inputs in unfamiliar(upright).items():
        strange = Belief(base, adapter, inputs)
        compare(name, strange.width, strange.information, entropy(forward(base, inputs, adapter)[0].softmax(-1)), known)


def main():
    torch.set_num_threads(1)
    images, labels = load()
    training, _, test = split(len(images))
    base = read_base()
    for seed in [int(argument) for argument in sys.argv[1:]] or [1]:
        print(f"seed {seed}")
        transposed = images.transpose(1, 2).flatten(1)
        adapter = train(base, transposed[training], labels[training], seed)
        report(base, adapter, images[test], labels[test])


if __name__ == "__main__":
    main()
