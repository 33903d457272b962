"""Reads the GGUF adapters that the tool exports of every case of tests/golden with PyPI's gguf, and holds their tensors to the LoRA.

    python tests/gguf/read.py TOOL

Each case is exported in each element type, as it is and with the rows of q and k permuted as llama.cpp's converter does. A tensor has
to have the name, shape and values of the LoRA's, bit for bit. Prints one line a file; exits with 1 if anything differs, or nothing was
read. Needs tests/gguf/requirements.txt.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import gguf
import numpy as np

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"
PREFIX = "base_model.model."
# Names that llama.cpp gives to layers like those of the cases.
TENSORS = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "c_attn": "attn_qkv", "up": "ffn_up", "down": "ffn_down"}


def run(tool, *arguments):
    subprocess.run([tool, *map(str, arguments), "--quiet"], check=True, stdout=subprocess.DEVNULL)


def beside(case, name):
    path = case / name
    return path if path.exists() else case.parent / name


def tensors_of(path):
    """A safetensors file as its element types and bytes: numpy has no bf16."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    part = lambda entry: data[8 + length :][slice(*entry["data_offsets"])]
    return {name: (entry["dtype"], entry["shape"], part(entry)) for name, entry in header.items()}


def permuted(rows, heads):
    """LlamaModel.permute of llama.cpp's convert_hf_to_gguf.py."""
    return rows.reshape(heads, 2, len(rows) // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def heads_of(outputs):
    """Of an even number of rows each; 0 where there can be none, and rows are kept."""
    return 4 if outputs % 8 == 0 else 1 - outputs % 2


def check(name, path, lora, names, rank, architecture):
    reader = gguf.GGUFReader(path)
    field = lambda key: reader.get_field(key).contents()
    told = {key: field(key) for key in ("general.type", "adapter.type", "general.architecture", "adapter.lora.alpha")}
    wanted_fields = ["adapter", "lora", architecture, rank]
    good = list(told.values()) == wanted_fields
    if not good:
        print(f"{name}: fields {told}; wanted {wanted_fields}")
    found = {tensor.name: tensor for tensor in reader.tensors}
    for key, (dtype, shape, data) in lora.items():
        module, _, factor = key.removeprefix(PREFIX).removesuffix(".weight").rpartition(".lora_")
        tensor = found.pop(f"{names[module]}.lora_{factor.lower()}", None)
        size = {"F32": 4, "F16": 2, "BF16": 2}[dtype]
        wanted = np.frombuffer(data, np.uint8).reshape(*shape, size)
        if factor == "B" and architecture == "llama" and ".attn_q." in names[module] and heads_of(shape[0]):
            wanted = permuted(wanted, heads_of(shape[0]))
        if tensor is None or tensor.tensor_type.name != dtype or list(tensor.shape) != shape[::-1]:
            print(f"{name}: {key} is not there, or is {tensor}")
            good = False
        elif not np.array_equal(np.ascontiguousarray(tensor.data).view(np.uint8).ravel(), wanted.ravel()):
            print(f"{name}: {key} has other values")
            good = False
    if found:
        print(f"{name}: there are {sorted(found)}, too")
    print(f"{name}: {len(lora)} tensors {'agree' if good and not found else 'DIFFER'}")
    return good and not found


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    tool, good, count = sys.argv[1], True, 0
    for case in sorted(path.parent for path in GOLDEN.rglob("adapter_config.json")):
        base = beside(case, "base.safetensors")
        sizes = ["--model", base] if any(key.endswith(".weight") for key in tensors_of(base)) else ["--inputs", "768"]
        rank = json.loads((case / "adapter_config.json").read_text())["r"]
        for dtype in ("f32", "f16", "bf16"):
            with tempfile.TemporaryDirectory() as folder:
                folder = pathlib.Path(folder)
                run(tool, "export", "lora", case, folder / "lora", *sizes, "--dtype", dtype, "--mean")
                lora = {key: value for key, value in tensors_of(folder / "lora/adapter_model.safetensors").items() if ".lora_" in key}
                modules = sorted({key.removeprefix(PREFIX).split(".lora_")[0] for key in lora})
                # A module without a namesake in llama.cpp stands for some layer of the feed-forward part.
                names = {module: f"blk.{i}.{TENSORS.get(module, 'ffn_gate')}.weight" for i, module in enumerate(modules)}
                tell = [word for module in modules for word in ("--tensor", f"{module}={names[module]}")]
                heads = [heads_of(shape[0]) for key, (_, shape, _) in lora.items() if "q_proj.lora_B" in key] or [1]
                for architecture in ("qwen2", "llama"):
                    path = folder / f"{architecture}.gguf"
                    extra = ["--architecture", architecture, "--heads", heads[0], "--dtype", dtype]
                    extra += [] if heads[0] else ["--rope", "keep"]
                    run(tool, "export", "gguf", case, path, *sizes, *tell, *extra, "--mean", "--leave-out")
                    name = f"{'_'.join(case.relative_to(GOLDEN).parts)} {dtype} {architecture}"
                    good = check(name, path, lora, names, rank, architecture) and good
                    count += 1
    print(f"{count} files")
    sys.exit(0 if good and count else 1)


if __name__ == "__main__":
    main()
