"""Writes noise_torch.json: standard normals and projections as PyTorch's CPU generator draws them.

Needs torch (made with 2.15.0) and numpy: python3 tests/data/make_torch_normals.py
Numbers are f32 bits. Of long tensors only the first and last `ENDS` are kept. A projection is kept as its first and
last value and as an FNV-1a hash over its 32-bit words; its SHA-256 (over the little-endian bytes) is there for people.
"""
import hashlib
import json
import math
import pathlib

import torch

ENDS = 40
SEEDS = [0, 1, 20261134, 20261138, 2**32 + 5, 2**63 + 12345]
# Each list is one generator: its tensors follow each other.
LENGTHS = [[n] for n in (12, 33, 90, 100, 1000)] + [[3, 20, 2, 17, 1, 16, 15, 5], [1] * 5, [0, 7, 0, 1000, 1]]
EVERY = [[n] for n in range(1, 41)]
PROJECTIONS = [  # key, r, in_max, out_max
    (20261140, 256, 4096, 3072),
    (2167744771, 8, 48, 48),
    (0, 1, 1, 1),
    (2**40 + 7, 5, 13, 3),
]


def bits(tensor):
    return tensor.view(torch.int32).to(torch.int64).remainder(2**32).tolist()


def normals(seed, lengths):
    generator = torch.Generator().manual_seed(seed)
    tensors = []
    for length in lengths:
        tensor = torch.empty(length).normal_(generator=generator)
        tensors.append({
            "length": length,
            "largest": float(tensor.abs().max()) if length else 0.0,
            "first": bits(tensor[:ENDS]),
            "last": bits(tensor[max(ENDS, length - ENDS):]),
        })
    return {"seed": str(seed), "tensors": tensors}


def hashed(tensor):
    value = 0xCBF29CE484222325
    for word in bits(tensor.flatten()):
        value = (value ^ word) * 0x100000001B3 % 2**64
    return str(value)


def projection(key, r, in_max, out_max):
    generator = torch.Generator().manual_seed(key)
    drawn = {"key": str(key), "r": r, "in_max": in_max, "out_max": out_max}
    for name, shape, fan in (("A", (2 * r, in_max), in_max), ("B", (out_max, r), r)):
        # PEFT's _kaiming_init: the bound in Python's floats, then Tensor.uniform_.
        bound = math.sqrt(3.0) * (math.sqrt(2.0) / math.sqrt(fan))
        matrix = torch.empty(shape).uniform_(-bound, bound, generator=generator)
        drawn[name] = {
            "first": bits(matrix.flatten()[:1])[0],
            "last": bits(matrix.flatten()[-1:])[0],
            "fnv1a_words": hashed(matrix),
            "sha256": hashlib.sha256(matrix.numpy().astype("<f4").tobytes()).hexdigest(),
        }
    return drawn


cases = [normals(seed, lengths) for seed in SEEDS for lengths in LENGTHS]
cases += [normals(seed, lengths) for seed in (7, 20261138) for lengths in EVERY]
result = {"torch": torch.__version__, "normals": cases, "projections": [projection(*p) for p in PROJECTIONS]}
path = pathlib.Path(__file__).with_name("noise_torch.json")
lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in result["normals"])
projections = ",\n".join(json.dumps(p) for p in result["projections"])
path.write_text(f'{{"torch": "{result["torch"]}",\n"normals": [\n{lines}\n],\n"projections": [\n{projections}\n]}}\n')
