"""Holds PEFT to the LoRAs that the tool exports of every case of tests/golden, and PEFT's merge of them to the tool's.

    python tests/peft/read_lora.py TOOL

The outputs are compared with the adapter's own, as the tool computes them from the checkpoint. Prints one line a module; exits
with 1 if an output differs, a tensor was not taken over, or nothing was compared. Needs tests/peft/requirements.txt.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import warnings

import torch
from peft import PeftModel
from safetensors.torch import load_file

from read_ours import TOLERANCE, host, loaded

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"


def beside(case, name):
    """A file of the case; of two adapters on one base, the parent's."""
    path = case / name
    return path if path.exists() else case.parent / name


def by_tool(tool, case, path, base, io):
    """The mean forward of one layer, from the checkpoint itself."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "y.safetensors"
        arguments = [tool, "replay", case, "--layer", path, "--input", beside(case, "io.safetensors"), "--tensor", f"{path}/x"]
        if f"{path}.weight" in base:
            arguments += ["--with-base", "--model", beside(case, "base.safetensors")]
        else:
            arguments += ["--inputs", str(io[f"{path}/x"].shape[1])]
        run(*arguments, "--mode", "mean", "--out", out)
        return load_file(out)["y"]


def run(tool, *arguments):
    subprocess.run([tool, *arguments, "--quiet"], check=True, stdout=subprocess.DEVNULL)


def check(tool, case, folder):
    name = "_".join(case.relative_to(GOLDEN).parts)
    lora, merged, base_path = folder / "lora", folder / "merged", beside(case, "base.safetensors")
    config = json.loads((case / "adapter_config.json").read_text())
    adapter = load_file(case / "adapter_model.safetensors")
    base, io = (load_file(beside(case, f"{kind}.safetensors")) for kind in ("base", "io"))
    whole = any(key.endswith(".weight") for key in base)
    sizes = ["--model", base_path] if whole else ["--inputs", str(next(iter(io.values())).shape[1])]
    run(tool, "export", "lora", case, lora, "--mean", *sizes)
    exported = load_file(lora / "adapter_model.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # PEFT warns of keys that are missing or unknown
        model = PeftModel.from_pretrained(host(config, adapter, base, io), lora)
    model.eval()

    good = True
    for key, wanted in sorted(exported.items()):
        found = loaded(model, key)
        if found is None:
            found = loaded(model, key.replace(".weight", ".default.weight"))
        if found is None or not torch.equal(found.to(wanted.dtype), wanted):
            print(f"{name}: {key} was {'not loaded' if found is None else 'changed'}")
            good = False

    modules = sorted({key.split(".lora_")[0].removeprefix("base_model.model.") for key in exported if ".lora_" in key})
    for path in modules:
        x = io[f"{path}/x"]
        layer = model.base_model.model.get_submodule(path)
        with torch.no_grad():
            found = layer(x)
        wanted = by_tool(tool, case, path, base, io)
        good = compare(f"{name}: {path}", found, wanted, TOLERANCE[found.dtype]) and good
    if whole:
        run(tool, "merge", case, base_path, merged, "--mean", "--leave-out")
        unloaded = model.merge_and_unload()
        file = load_file(merged / base_path.name)
        for path in modules:
            wanted = file[f"{path}.weight"]
            found = unloaded.get_submodule(path).weight
            # Of 16 bits, PEFT rounds the delta before it adds.
            limit = TOLERANCE[found.dtype] * (2 if found.dtype != torch.float32 else 1)
            good = compare(f"{name}: {path} merged", found, wanted, limit) and good
    return good and bool(modules)


def compare(what, found, wanted, limit):
    difference = (found.double() - wanted.double()).abs().max().item()
    largest = wanted.double().abs().max().item()
    agrees = found.shape == wanted.shape and difference <= limit * largest
    print(f"{what} {'agrees' if agrees else 'DIFFERS'}: {difference:.1e} of {largest:.1e}")
    return agrees


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    cases = sorted(path.parent for path in GOLDEN.rglob("adapter_config.json"))
    good = bool(cases)
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            good = check(sys.argv[1], case, pathlib.Path(folder)) and good
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
