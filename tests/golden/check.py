"""Recomputes every golden case from the method's formulas in numpy float64, projections and noise from their seeds included.

    python tests/golden/check.py [FOLDER ...]      (default: the folder of this script)

Prints the worst error of each case, relative to the largest expected entry, and fails beyond the tolerance.
"""

import hashlib
import json
import pathlib
import sys

import numpy as np
import torch
from safetensors.torch import load_file

TOLERANCE = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}  # one rounding of the stored type
ALL_HALF = 4  # a case computed in 16 bits throughout rounds at every step
ROUND = {"bf16": torch.bfloat16, "f16": torch.float16}


class Words:
    """MT19937 as torch.manual_seed seeds it."""

    def __init__(self, seed):
        self.generator = np.random.MT19937()
        self.generator._legacy_seeding(seed & 0xFFFFFFFF)

    def uniform(self, count):
        return (self.generator.random_raw(count) & 0xFFFFFF) * 2.0**-24

    def uniform_53(self):
        high, low = (int(word) for word in self.generator.random_raw(2))
        return ((high << 32 | low) & (2**53 - 1)) * 2.0**-53

    def kaiming(self, rows, cols):
        bound = np.float32(np.sqrt(3) * (np.sqrt(2) / np.sqrt(cols)))
        width = np.float32(bound - -bound)
        values = self.uniform(rows * cols) * np.float64(width) - np.float64(bound)
        return values.astype(np.float32).reshape(rows, cols)

    def normal(self, rows, cols):
        count = rows * cols
        if count < 16:
            return self.short_normal(count).reshape(rows, cols)
        data = self.uniform(count)
        for start in range(0, count - 15, 16):
            data[start : start + 16] = box_muller(data[start : start + 16])
        if count % 16:
            data[-16:] = box_muller(self.uniform(16))
        return data.reshape(rows, cols)

    def short_normal(self, count):
        values = []
        while len(values) < count:
            u1, u2 = self.uniform_53(), self.uniform_53()
            radius = np.sqrt(-2 * np.log1p(-u2))
            values += [radius * np.cos(2 * np.pi * u1), radius * np.sin(2 * np.pi * u1)]
        return np.array(values[:count])


def box_muller(block):
    radius = np.sqrt(-2 * np.log(1 - block[:8]))
    angle = 2 * np.pi * block[8:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])


def read(path):
    return load_file(path) if path.exists() else {}


def double(tensor):
    return tensor.double().numpy()


def projections(case, config, file, shapes):
    """A and B, from the file and (rounded as the host's base was) from the key: they must agree bit for bit."""
    in_max, out_max = (max(sizes) for sizes in zip(*shapes))
    words = Words(config["projection_prng_key"])
    a = words.kaiming(2 * config["r"], in_max)
    b = words.kaiming(out_max, config["r"])
    half = ROUND.get(case.name.split("_")[-1])
    if half:
        a, b = (torch.from_numpy(m).to(half).float().numpy() for m in (a, b))
    if config["save_projection"]:
        assert np.array_equal(a, file["base_model.pvera_A"].float().numpy()), "A is not what the key gives"
        assert np.array_equal(b, file["base_model.pvera_B"].float().numpy()), "B is not what the key gives"
    return a.astype(np.float64), b.astype(np.float64)


class Layer:
    """One adapted layer, in the words of the method."""

    def __init__(self, adapter, name, a, b, r):
        self.lambda_b = double(adapter[f"base_model.model.{name}.pvera_lambda_b"])
        self.lambda_d = double(adapter[f"base_model.model.{name}.pvera_lambda_d"])
        self.a, self.b, self.r = a, b[: len(self.lambda_b)], r

    def latent(self, x):
        self.p = x @ self.a[:, : x.shape[1]].T
        m = self.lambda_d * self.p
        return m[:, : self.r], m[:, self.r :]

    def delta(self, z):
        return self.lambda_b * (z @ self.b.T)

    def delta_weight(self, inputs):
        r = self.r
        return (self.lambda_b[:, None] * self.b) @ (self.lambda_d[:r, None] * self.a[:r, :inputs])

    def into_latent(self, dm, inputs):
        """dx and dlambda_d for a gradient dm of [mu, logvar]."""
        return (self.lambda_d * dm) @ self.a[:, :inputs], (dm * self.p).sum(0)


def expected(io, name, layer, weight, bias, config):
    """Every tensor of the module that the formulas determine."""
    get = lambda key: double(io[f"{name}/{key}"])
    x = get("x")
    out = {}
    base = get("base") if weight is None else x @ weight.T + bias
    mu, logvar = layer.latent(x)
    out.update(base=base, mu=mu, logvar=logvar, y_mean=base + layer.delta(mu))
    transpose = config["fan_in_fan_out"]
    out["delta_weight"] = layer.delta_weight(x.shape[1]).T if transpose else layer.delta_weight(x.shape[1])
    if f"{name}/eps" in io:
        out["eps"] = Words(config["generator_seed"]).normal(len(x), layer.r)
        eps = get("eps")
        out["y_sample"] = base + layer.delta(mu + eps * np.exp(logvar / 2))
    if f"{name}/dy" not in io:
        return out

    mask = get("mask") if f"{name}/mask" in io else 1.0
    mu, logvar = layer.latent(x * mask)
    z = mu + eps * np.exp(logvar / 2)
    dy = get("dy")
    g = (layer.lambda_b * dy) @ layer.b
    dm = np.concatenate([g, g * eps * np.exp(logvar / 2) / 2], axis=1)
    dx, out["dlambda_d"] = layer.into_latent(dm, x.shape[1])
    out["dx"] = dx * mask + dy @ weight
    out["dlambda_b"] = (dy * (z @ layer.b.T)).sum(0)
    out["y_train"] = base + layer.delta(z)
    out["kl_mean"] = np.array([-0.5 * np.mean(1 + logvar - mu**2 - np.exp(logvar))])
    kl_dm = np.concatenate([mu, (np.exp(logvar) - 1) / 2], axis=1) / mu.size
    out["kl_dx"], out["kl_dlambda_d"] = layer.into_latent(kl_dm, x.shape[1])
    return out


def error(found, wanted):
    return np.abs(double(found) - wanted).max() / np.abs(wanted).max()


def load(folder):
    config = json.loads((folder / "adapter_config.json").read_text())
    return config, read(folder / "adapter_model.safetensors")


def check_case(case):
    """The worst error of the case in units of its tolerance, and how many tensors were compared."""
    base, io = read(case / "base.safetensors"), read(case / "io.safetensors")
    names = sorted({key.split("/")[0] for key in io})
    config, adapter = load(case)
    weights = {}
    for name in names:
        weight = base.get(f"{name}.weight")
        if weight is not None:
            weight = double(weight).T if config["fan_in_fan_out"] else double(weight)
        bias = double(base[f"{name}.bias"]) if f"{name}.bias" in base else 0.0
        weights[name] = weight, bias
    shapes = [
        (io[f"{name}/x"].shape[1], len(adapter[f"base_model.model.{name}.pvera_lambda_b"])) for name in names
    ]
    a, b = projections(case, config, adapter, shapes)
    worst, compared = 0.0, 0
    for name in names:
        layer = Layer(adapter, name, a, b, config["r"])
        wanted = expected(io, name, layer, *weights[name], config)
        for key in sorted(k.split("/")[1] for k in io if k.startswith(f"{name}/")):
            if key in ("x", "dy", "mask") or (key == "base" and weights[name][0] is None):
                continue
            found = io[f"{name}/{key}"]
            tolerance = TOLERANCE[io[f"{name}/x"].dtype if key == "y_mean" else found.dtype]
            if case.name.startswith("all_"):
                tolerance *= ALL_HALF
            relative = error(found, wanted[key])
            assert relative <= tolerance, f"{case.name}: {name}/{key} is off by {relative:.1e}"
            worst, compared = max(worst, relative), compared + 1
    return worst, compared


def check_two_adapters(case):
    base, io = read(case / "base.safetensors"), read(case / "io.safetensors")
    x = double(io["q_proj/x"])
    none = x @ double(base["q_proj.weight"]).T + double(base["q_proj.bias"])
    deltas = {}
    for name in ("first", "second"):
        config, adapter = load(case / name)
        a, b = projections(case, config, adapter, [(x.shape[1], none.shape[1])])
        layer = Layer(adapter, "q_proj", a, b, config["r"])
        deltas[name] = layer.delta(layer.latent(x)[0])
    wanted = {"none": none, "both": none + deltas["first"] + deltas["second"]}
    wanted.update({name: none + delta for name, delta in deltas.items()})
    worst = max(error(io[f"q_proj/y_{key}"], value) for key, value in wanted.items())
    assert worst <= TOLERANCE[torch.float32], f"{case.name}: off by {worst:.1e}"
    return worst, len(wanted)


def check_large(path):
    case = json.loads(path.read_text())
    words = Words(case["projection_prng_key"])
    for name, shape in (("A", (2 * case["r"], case["in_max"])), ("B", (case["out_max"], case["r"]))):
        matrix = words.kaiming(*shape)
        assert hashlib.sha256(matrix.astype("<f4").tobytes()).hexdigest() == case[f"sha256_{name}_f32_le"], name
        assert [matrix[0, 0], matrix[-1, -1]] == case[f"{name}_first_last"], name


def main():
    roots = [pathlib.Path(argument) for argument in sys.argv[1:]] or [pathlib.Path(__file__).parent]
    for root in roots:
        cases = sorted(path.parent for path in root.glob("*/case.json"))
        assert len(cases) == 14, f"{root} holds {len(cases)} cases, not 14"
        for case in cases:
            worst, compared = (check_two_adapters if case.name == "two_adapters" else check_case)(case)
            print(f"{case.name:22s} {compared:3d} tensors, worst relative error {worst:.1e}")
        check_large(root / "large_projections.json")
        print(f"{root}: all {len(cases)} cases and the large projections agree with the formulas")


if __name__ == "__main__":
    main()
