"""Loads checkpoints that this library saved into PEFT and compares PEFT's outputs with the library's.

    python tests/peft/read_ours.py FOLDER...

A folder holds adapter_config.json and adapter_model.safetensors, with base.safetensors (MODULE.weight, MODULE.bias) and
io.safetensors (MODULE/x and MODULE/y_mean, optionally MODULE/base for a layer without weights in base.safetensors).
Prints one line a module; exits with 1 if an output differs, a tensor was not taken over, or nothing was compared.
"""

import json
import pathlib
import sys
import warnings

import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn
from transformers.pytorch_utils import Conv1D

# Relative to the largest output: float32 sums in another order; one rounding of the 16-bit types.
TOLERANCE = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
PREFIX = "base_model.model."


def place(root, path, module):
    """Puts a module at a dotted path, with empty modules on the way."""
    *parents, name = path.split(".")
    for parent in parents:
        if parent not in root._modules:
            root.add_module(parent, nn.Module())
        root = root._modules[parent]
    root.add_module(name, module)


def host_layer(weight, bias, learns_bias, fan_in_fan_out):
    """A layer with the given weight. A bias that the adapter learns starts at zero: PEFT must take it from the file."""
    if fan_in_fan_out:
        layer = Conv1D(weight.shape[1], weight.shape[0])
    else:
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer = layer.to(weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(torch.zeros_like(bias) if learns_bias else bias)
    return layer


def host(config, adapter, base, io):
    """The smallest torch model that the adapter fits on: layers of base, and what the adapter alone names."""
    root = nn.Module()
    method = config["peft_type"].lower()  # pvera or vera
    adapted = {key.split(f".{method}_")[0].removeprefix(PREFIX) for key in adapter if f".{method}_lambda_" in key}
    for key in base:
        if key.endswith(".weight"):
            path = key.removesuffix(".weight")
            learns_bias = config["bias"] == "all" or (config["bias"] == f"{method}_only" and path in adapted)
            layer = host_layer(base[key], base.get(f"{path}.bias"), learns_bias, config["fan_in_fan_out"])
            place(root, path, layer)
    for path in adapted - paths(root):  # no weights are given: the base's output stands in for them
        outputs = len(adapter[f"{PREFIX}{path}.{method}_lambda_b"])
        inputs = io[f"{path}/x"].shape[1]
        place(root, path, host_layer(torch.zeros(outputs, inputs), None, False, False))
    plain = {key.removeprefix(PREFIX).rpartition(".")[0] for key in adapter if key.startswith(PREFIX)}
    for path in plain - adapted - paths(root):
        weight, bias = (adapter.get(f"{PREFIX}{path}.{kind}") for kind in ("weight", "bias"))
        if path.endswith(".base_layer"):
            continue
        if weight is not None and weight.dim() == 2:
            place(root, path, host_layer(torch.zeros_like(weight), bias, True, False))
        else:  # a bias alone, or with a vector of weights: a normalisation
            place(root, path, nn.LayerNorm(len(bias if weight is None else weight)))
    return root


def paths(root):
    return {path for path, _ in root.named_modules()}


def loaded(model, key):
    """PEFT's tensor for a key of adapter_model.safetensors, wherever PEFT keeps it."""
    path, _, kind = key.removeprefix(PREFIX).rpartition(".")
    tensors = model.state_dict()
    places = [f"{key}.default", key, f"{PREFIX}{path}.modules_to_save.default.{kind}"]
    places.sort(key=lambda place: "modules_to_save" not in place)
    return next((tensors[place] for place in places if place in tensors), None)


def check(folder):
    config = json.loads((folder / "adapter_config.json").read_text())
    adapter, base, io = (
        load_file(folder / f"{name}.safetensors") for name in ("adapter_model", "base", "io")
    )
    whole = all(tensor.dtype != torch.float32 for tensor in adapter.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT warns of every restore from the seed
        model = PeftModel.from_pretrained(host(config, adapter, base, io), folder, autocast_adapter_dtype=not whole)
    model.eval()

    good = True
    for key, wanted in sorted(adapter.items()):
        found = loaded(model, key)
        if found is None or not torch.equal(found, wanted):
            print(f"{folder.name}: {key} was {'not loaded' if found is None else 'changed'}")
            good = False

    modules = sorted(key.removesuffix("/y_mean") for key in io if key.endswith("/y_mean"))
    if not modules:
        print(f"{folder.name}: io.safetensors has no MODULE/y_mean to compare")
    for path in modules:
        layer = model.base_model.model.get_submodule(path)
        if config["peft_type"] == "PVERA":
            layer.sample_at_inference["default"] = False
        wanted = io[f"{path}/y_mean"]
        with torch.no_grad():
            found = layer(io[f"{path}/x"])
            if f"{path}.weight" not in base:
                found = io[f"{path}/base"] + found
        difference = (found.double() - wanted.double()).abs().max().item()
        largest = wanted.double().abs().max().item()
        agrees = difference <= TOLERANCE[wanted.dtype] * (4 if whole else 1) * largest
        print(f"{folder.name}: {path} {'agrees' if agrees else 'DIFFERS'}: {difference:.1e} of {largest:.1e}")
        good = good and agrees
    return good and bool(modules)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    results = [check(pathlib.Path(argument)) for argument in sys.argv[1:]]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
