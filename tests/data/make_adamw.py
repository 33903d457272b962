"""Writes adamw.json: what torch.optim.AdamW does in 50 steps, for src/optimizer.rs to be held to.

Run with PyTorch installed: python tests/data/make_adamw.py
"""

import json
import pathlib

import torch

STEPS = 50
START = [1.0, -0.5, 3e-4, 250.0, 0.0, -2e-7]
CASES = [
    dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2),  # PyTorch's defaults
    dict(lr=0.03, betas=(0.3, 0.95), eps=1e-3, weight_decay=0.1),  # beta1 < 0.5 takes lerp's other branch
]


def gradients(case):
    generator = torch.Generator().manual_seed(case)
    drawn = torch.randn(STEPS, len(START), generator=generator)
    drawn *= torch.tensor([1.0, 1e-3, 1e-6, 1e4, 1.0, 1e-8])  # from below epsilon to far above it
    drawn[::3, 4] = 0.0
    return drawn


def run(case, options):
    parameter = torch.nn.Parameter(torch.tensor(START))
    optimizer = torch.optim.AdamW([parameter], foreach=False, fused=False, **options)
    given = gradients(case)
    reached = []
    for gradient in given:
        parameter.grad = gradient.clone()
        optimizer.step()
        reached.append(parameter.detach().clone())
    state = optimizer.state[parameter]
    return {
        "learning_rate": options["lr"],
        "beta1": options["betas"][0],
        "beta2": options["betas"][1],
        "epsilon": options["eps"],
        "weight_decay": options["weight_decay"],
        "start": numbers(torch.tensor(START)),
        "gradients": [numbers(row) for row in given],
        "parameters": [numbers(row) for row in reached],
        "first": numbers(state["exp_avg"]),
        "second": numbers(state["exp_avg_sq"]),
    }


def numbers(row):
    return [float(f"{value:.9g}") for value in row.tolist()]  # nine digits name every f32


cases = [run(case, options) for case, options in enumerate(CASES)]
rows = ",\n".join(json.dumps(case).replace('], [', '],\n [').replace('"gradients"', '\n"gradients"') for case in cases)
target = pathlib.Path(__file__).with_name("adamw.json")
target.write_text(f'{{"torch": "{torch.__version__}", "cases": [\n{rows}\n]}}\n')
