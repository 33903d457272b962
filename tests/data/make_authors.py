"""Writes tests/data/authors_projections.json: projections as the method's authors draw them (models/models.py of
github.com/leofillioux/pvera), with PyTorch.

    python tests/data/make_authors.py
"""

import json
import pathlib

import torch

INPUTS, RANK, SEED, HEADS = 6, 4, 3, 2

torch.manual_seed(SEED)
heads = []
shapes = {
    "q_downsample": (INPUTS, 2 * RANK),
    "v_downsample": (INPUTS, 2 * RANK),
    "q_upsample": (RANK, INPUTS),
    "v_upsample": (RANK, INPUTS),
}
for _ in range(HEADS):
    head = {}
    for name, shape in shapes.items():
        head[name] = torch.nn.init.kaiming_uniform_(torch.empty(shape)).flatten().tolist()
    heads.append(head)
out = pathlib.Path(__file__).parent / "authors_projections.json"
out.write_text(json.dumps({"inputs": INPUTS, "rank": RANK, "seed": SEED, "heads": heads}, indent=1) + "\n")
