"""Writes the golden cases of this folder: checkpoints by PEFT, inputs and outputs by PyTorch.

    pip install -r tests/peft/requirements.txt
    python tests/golden/generate.py [FOLDER]      (default: the folder of this script)
    python tests/golden/check.py [FOLDER]         (recomputes everything from the formulas)

Running it twice gives the same bytes on the same machine; another processor may differ in last places of the outputs.
What each file and tensor means is in README.md.
"""

import copy
import hashlib
import json
import os
import pathlib
import shutil
import sys

if os.environ.get("PYTHONHASHSEED") != "0":  # PEFT writes target_modules in the order of a Python set
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})

import peft
import torch
import transformers
from peft import PveraConfig, get_peft_model
from peft.tuners.tuners_utils import check_target_module_exists
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

VERSIONS = {"torch": "2.15.0", "peft": "0.21.2", "transformers": "5.23.0"}
FIRST_SEED = 41000  # every case gets its own seed above it, for weights and inputs


class Net(nn.Module):
    """The host: nothing but named layers, called one by one."""

    def __init__(self, **layers):
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)


def linear(inputs, outputs, bias=True):
    return fill(nn.Linear(inputs, outputs, bias=bias), inputs)


def conv1d(inputs, outputs):
    return fill(Conv1D(outputs, inputs), inputs)


@torch.no_grad()
def fill(layer, inputs):
    """Weights that keep the scale of x, so that delta and base are comparable."""
    layer.weight.normal_().mul_(inputs**-0.5)
    if layer.bias is not None:
        layer.bias.normal_().mul_(0.1)
    return layer


@torch.no_grad()
def randomise(model, adapter="default"):
    """A fresh adapter has lambda_b = 0, which would hide every mistake: pretend that it was trained."""
    for name, parameter in model.named_parameters():
        if name.endswith(f"pvera_lambda_b.{adapter}"):
            parameter.copy_(torch.randn(parameter.shape) * 0.5)
        elif name.endswith(f"pvera_lambda_d.{adapter}"):
            parameter.copy_(torch.randn(parameter.shape) * 0.3 + 0.1)


def adapt(net, targets, seed, r, dtype=torch.float32, autocast=True, **settings):
    settings = {"projection_prng_key": seed + 500, **settings}
    config = PveraConfig(r=r, target_modules=targets, **settings)
    model = get_peft_model(net.to(dtype), config, autocast_adapter_dtype=autocast)
    randomise(model)
    return model.eval()


class Watch:
    """Records mu and logvar as PEFT computes them."""

    def __init__(self, layer):
        self.layer = layer
        self.original = layer._reparametrize

    def __enter__(self):
        def reparametrize(mu, logvar, adapter):
            self.mu, self.logvar = mu, logvar
            return self.original(mu, logvar, adapter)

        self.layer._reparametrize = reparametrize
        return self

    def __exit__(self, *_):
        self.layer._reparametrize = self.original


def layer_of(model, name):
    return model.base_model.model.get_submodule(name)


def mean_forward(model, rows, logvar=True, delta_weight=True):
    """x, base, mu, logvar, y_mean and the merged weight's change for every adapted layer."""
    io = {}
    for name in model.targeted_module_names:
        layer = layer_of(model, name)
        x = torch.randn(rows, layer.in_features).to(layer.get_base_layer().weight.dtype)
        with torch.no_grad(), Watch(layer) as watch:
            io[f"{name}/x"] = x
            io[f"{name}/y_mean"] = layer(x)
            io[f"{name}/base"] = layer.get_base_layer()(x)
            io[f"{name}/mu"] = watch.mu
            if logvar:
                io[f"{name}/logvar"] = watch.logvar
            if delta_weight:
                io[f"{name}/delta_weight"] = layer.get_delta_weight("default")
    return io


def noise(model, rows, r):
    """What the layer's own generator, freshly seeded, will draw in its first forward."""
    seed = model.peft_config["default"].generator_seed
    return torch.randn(rows, r, generator=torch.Generator().manual_seed(seed))


def training_step(model, rows, dropout_seed=None, kl=True):
    """Training forward with PyTorch's noise, gradients for a random dy, and the KL term with its own gradients."""
    io = {}
    for name in model.targeted_module_names:
        layer = layer_of(model, name)
        r = layer.r["default"]
        lambda_b, lambda_d = layer.pvera_lambda_b["default"], layer.pvera_lambda_d["default"]
        x = torch.randn(rows, layer.in_features, requires_grad=True)
        dy = torch.randn(rows, layer.out_features)

        def entry(key, value):
            io[f"{name}/{key}"] = value.detach()

        entry("x", x)
        entry("dy", dy)
        entry("y_mean", layer.eval()(x))
        entry("eps", noise(model, rows, r))
        layer.train()
        if dropout_seed is not None:
            torch.manual_seed(dropout_seed)
            entry("mask", layer.pvera_dropout["default"](torch.ones_like(x)))
            torch.manual_seed(dropout_seed)
        with Watch(layer) as watch:
            y = layer(x)
        entry("y_train", y)
        for key, gradient in zip(
            ("dx", "dlambda_b", "dlambda_d"),
            torch.autograd.grad(y, (x, lambda_b, lambda_d), dy, retain_graph=True),
        ):
            entry(key, gradient)
        if kl:
            mean = -0.5 * (1 + watch.logvar - watch.mu**2 - watch.logvar.exp()).mean()
            entry("kl_mean", mean.reshape(1))
            kl_dx, kl_dlambda_d = torch.autograd.grad(mean, (x, lambda_d))
            entry("kl_dx", kl_dx)
            entry("kl_dlambda_d", kl_dlambda_d)
        layer.eval()
    return io


def base_weights(model):
    """The host's weights of the adapted layers; a learned bias is already in them."""
    weights = {}
    for name in model.targeted_module_names:
        layer = layer_of(model, name).get_base_layer()
        weights[f"{name}.weight"] = layer.weight
        if layer.bias is not None:
            weights[f"{name}.bias"] = layer.bias
    return weights


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1) + "\n")


def write_tensors(path, tensors):
    save_file({key: value.detach().contiguous().clone() for key, value in tensors.items()}, path)


def write_case(folder, note, model, io, base=None, **save):
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    model.save_pretrained(folder, **save)
    (folder / "README.md").unlink()  # an empty model card
    write_tensors(folder / "base.safetensors", base_weights(model) if base is None else base)
    write_tensors(folder / "io.safetensors", io)
    write_json(folder / "case.json", {"note": note, "torch": VERSIONS["torch"], "peft": VERSIONS["peft"]})


def seed_only(seed):
    net = Net(q_proj=linear(48, 48), v_proj=linear(48, 16))
    key = 2**32 + 2167745000  # only the low 32 bits seed the generator, and they do not fit a signed int
    model = adapt(net, ["q_proj", "v_proj"], seed, 8, save_projection=False, projection_prng_key=key)
    note = "save_projection=False: regenerate A [16,48], B [48,8] from the low 32 bits of projection_prng_key"
    return note, model, mean_forward(model, 7)


def mixed_shapes(seed):
    net = Net(up=linear(24, 80), down=linear(80, 18), head=linear(33, 7, bias=False))
    model = adapt(net, ["up", "down", "head"], seed, 6)
    return "three shapes, one store, saved projections", model, mean_forward(model, 5)


def conv1d_case(seed):
    model = adapt(Net(c_attn=conv1d(20, 30)), ["c_attn"], seed, 4, fan_in_fan_out=True)
    return "transformers Conv1D: weight is (in, out)", model, mean_forward(model, 4)


def bias_and_head(seed):
    net = Net(q_proj=linear(12, 12), classifier=linear(12, 3))
    model = adapt(net, ["q_proj"], seed, 4, bias="pvera_only", modules_to_save=["classifier"])
    with torch.no_grad():
        layer_of(model, "q_proj").get_base_layer().bias.add_(1.5)
    return "bias='pvera_only' and modules_to_save=['classifier']", model, mean_forward(model, 3)


def bias_all(seed):
    net = Net(q_proj=linear(14, 14), norm=nn.LayerNorm(14))
    model = adapt(net, ["q_proj"], seed, 4, bias="all")
    with torch.no_grad():
        layer_of(model, "norm").bias.normal_()
    return "bias='all': norm.bias is in the file too", model, mean_forward(model, 3)


def half_precision(dtype, everything):
    def build(seed):
        model = adapt(Net(q_proj=linear(64, 96)), ["q_proj"], seed, 16, dtype, autocast=not everything)
        short = {torch.bfloat16: "bf16", torch.float16: "f16"}[dtype]
        note = (
            f"everything {short}"
            if everything
            else f"{short} base and activations, float32 vectors; projections stored float32 but already rounded to the base type"
        )
        return note, model, mean_forward(model, 6)

    return build


def dinov2_base_layer(seed):
    net = Net(query=linear(768, 768), value=linear(768, 768))
    model = adapt(net, ["query", "value"], seed, 256, save_projection=False)
    note = "768x768, r=256, seed only; base.safetensors is empty: use io BASE + delta"
    io = mean_forward(model, 11, logvar=False, delta_weight=False)
    return note, model, io, {"none": torch.zeros(1)}


def train_step(seed):
    net = Net(q_proj=linear(40, 56), v_proj=linear(40, 24))
    model = adapt(net, ["q_proj", "v_proj"], seed, 10, generator_seed=seed + 600)
    note = "training forward with torch noise from generator_seed, gradients for dy, KL (mean over all) and its gradients"
    return note, model, training_step(model, 9)


def dropout_step(seed):
    model = adapt(Net(q_proj=linear(28, 36)), ["q_proj"], seed, 6, pvera_dropout=0.25, generator_seed=seed + 600)
    note = "training step with pvera_dropout=0.25: mask is the scaled dropout mask on x"
    return note, model, training_step(model, 10, dropout_seed=seed + 700, kl=False)


def sample_at_inference(seed):
    net = Net(tiny=linear(9, 5), wide=linear(9, 21))
    model = adapt(net, ["tiny", "wide"], seed, 3, sample_at_inference=True, generator_seed=seed + 600)
    io = {}
    for name, rows in (("tiny", 4), ("wide", 11)):
        io[f"{name}/x"] = torch.randn(rows, 9)
        io[f"{name}/eps"] = noise(model, rows, 3)
        io[f"{name}/y_sample"] = layer_of(model, name)(io[f"{name}/x"])
    note = "eval forward that samples; eps from generator_seed, 12 normals (the short path) and 33"
    return note, model, io


def two_adapters(seed):
    net = Net(q_proj=linear(32, 40))
    config = PveraConfig(r=8, target_modules=["q_proj"], projection_prng_key=seed + 500)
    model = get_peft_model(net, config, adapter_name="first")
    model.add_adapter("second", copy.deepcopy(config))
    for adapter in ("first", "second"):
        randomise(model, adapter)
    model.eval()
    layer = layer_of(model, "q_proj")
    x = torch.randn(8, 32)
    io = {"q_proj/x": x, "q_proj/y_none": layer.get_base_layer()(x)}
    for key, active in (("first", ["first"]), ("second", ["second"]), ("both", ["first", "second"])):
        model.base_model.set_adapter(active)
        io[f"q_proj/y_{key}"] = layer(x)
    return "checkpoints in first/ and second/; y_both has both active and summed", model, io


CASES = {
    "seed_only": seed_only,
    "mixed_shapes": mixed_shapes,
    "conv1d": conv1d_case,
    "bias_and_head": bias_and_head,
    "bias_all": bias_all,
    "base_bf16": half_precision(torch.bfloat16, everything=False),
    "base_f16": half_precision(torch.float16, everything=False),
    "all_bf16": half_precision(torch.bfloat16, everything=True),
    "all_f16": half_precision(torch.float16, everything=True),
    "dinov2_base_layer": dinov2_base_layer,
    "train_step": train_step,
    "dropout_step": dropout_step,
    "sample_at_inference": sample_at_inference,
    "two_adapters": two_adapters,
}


def large_projections():
    """Too large to keep: only their sums."""
    key, r, in_max, out_max = FIRST_SEED + 999, 256, 4096, 3072
    config = PveraConfig(r=r, target_modules=["wide"], projection_prng_key=key)
    model = get_peft_model(Net(wide=nn.Linear(in_max, out_max)), config).base_model
    a, b = model.pvera_A["default"], model.pvera_B["default"]

    def sha256(tensor):
        return hashlib.sha256(tensor.numpy().astype("<f4").tobytes()).hexdigest()

    def ends(tensor):
        return [tensor.flatten()[0].item(), tensor.flatten()[-1].item()]

    return {
        "projection_prng_key": key,
        "r": r,
        "in_max": in_max,
        "out_max": out_max,
        "sha256_A_f32_le": sha256(a),
        "sha256_B_f32_le": sha256(b),
        "A_first_last": ends(a),
        "B_first_last": ends(b),
    }


def targeting():
    """Which of many module paths PEFT adapts, for many configurations."""
    attention = [f"{p}_proj" for p in "qkvo"]
    paths = ["lm_head", "q_proj", "model.embed_tokens", "model.norm", "classifier", "classifier.dense"]
    paths += [f"model.layers.{i}.self_attn.{p}" for i in (0, 1, 2, 11) for p in attention]
    paths += [f"model.layers.{i}.mlp.experts.{e}.up_proj" for i in (0, 1) for e in (0, 1)]
    paths += ["layers.0.experts.1.q_proj", "h.3.attn.c_attn", "transformer.h.3.attn.c_attn"]
    paths += ["vision.blocks.2.q_proj", "text.blocks.2.q_proj"]
    configs = [
        {"target_modules": ["q_proj"]},
        {"target_modules": ["q_proj", "v_proj"], "layers_to_transform": 1},
        {"target_modules": ["q_proj"], "layers_to_transform": [0, 11]},
        {"target_modules": ["q_proj"], "layers_to_transform": []},
        {"target_modules": ["c_attn"], "layers_to_transform": 3, "layers_pattern": "h"},
        {"target_modules": ["q_proj", "up_proj"], "layers_to_transform": [1], "layers_pattern": ["layers"]},
        {"target_modules": ["q_proj"], "layers_to_transform": [2], "layers_pattern": ["text.blocks", "layers"]},
        {"target_modules": ["q_proj"], "layers_to_transform": [2], "layers_pattern": "(?:text|vision)\\.blocks"},
        {"target_modules": ["q_proj"], "layers_to_transform": [2], "layers_pattern": []},
        {"target_modules": ["up_proj"], "layers_to_transform": [1], "layers_pattern": "experts"},
        {"target_modules": ".*\\.(q|v)_proj"},
        {"target_modules": "model\\.layers\\.(?!0\\.)\\d+\\.self_attn\\.k_proj"},
        {"target_modules": ".*(?<=attn\\.)[qk]_proj"},
        {"target_modules": "q_proj"},
        {"target_modules": ".*q_proj", "layers_to_transform": 1},
        {"target_modules": ["classifier", "q_proj"], "modules_to_save": ["classifier"]},
        {"target_modules": ".*_proj", "modules_to_save": ["mlp", "text"]},
        {"target_modules": ["self_attn.q_proj"]},
        {"target_modules": ["proj"]},
        {"target_modules": ["layers.1.self_attn.v_proj"]},
    ]
    cases = []
    for settings in configs:
        config = PveraConfig(**settings)
        cases.append({"config": settings, "targeted": [p for p in paths if check_target_module_exists(config, p)]})
    return {"paths": paths, "cases": cases}


def main():
    for module in (torch, peft, transformers):
        found = module.__version__.split("+")[0]
        if found != VERSIONS[module.__name__]:
            sys.exit(f"{module.__name__} {found} is installed; these cases are defined by {VERSIONS[module.__name__]}")
    torch.set_num_threads(1)
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent)
    for number, (name, build) in enumerate(CASES.items()):
        torch.manual_seed(FIRST_SEED + number)
        write_case(root / name, *build(FIRST_SEED + number))
    write_json(root / "large_projections.json", large_projections())
    write_json(root / "targeting.json", targeting())


if __name__ == "__main__":
    main()
