"""Trains the demo's base network on upright digits and writes base.bin. README.md describes the format.

    python examples/data/train_base.py

Seeds are fixed and one thread is used, so a second run on the same machine gives the same bytes.
"""

import numpy as np
import torch
from torch import nn

from digits import FOLDER, load, split

SIZES = (64, 128, 128, 10)
EPOCHS = 60
BATCH = 64


def train(images, labels):
    layers = []
    for inputs, outputs in zip(SIZES, SIZES[1:]):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    network = nn.Sequential(nn.Flatten(), *layers[:-1])
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images)).split(BATCH):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(images[rows]), labels[rows]).backward()
            optimiser.step()
    return network.eval()


def write(network):
    parts = [b"MLP\0\0\0\0\1", np.array([len(SIZES), *SIZES], dtype="<u4").tobytes()]
    for layer in network:
        if isinstance(layer, nn.Linear):
            parts += [layer.weight.detach().numpy().astype("<f4").tobytes()]
            parts += [layer.bias.detach().numpy().astype("<f4").tobytes()]
    (FOLDER / "base.bin").write_bytes(b"".join(parts))


@torch.no_grad()
def accuracy(network, images, labels):
    return (network(images).argmax(1) == labels).float().mean().item()


def main():
    torch.set_num_threads(1)
    torch.manual_seed(1)
    images, labels = load()
    training, _, test = split(len(images))
    network = train(images[training], labels[training])
    write(network)
    print(f"test accuracy, upright:    {accuracy(network, images[test], labels[test]):.3f}")
    print(f"test accuracy, transposed: {accuracy(network, images[test].transpose(1, 2), labels[test]):.3f}")


if __name__ == "__main__":
    main()
