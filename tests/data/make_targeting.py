"""Writes targeting_peft.json: which modules PEFT 0.21.2 itself adapts, for many configurations of three small models.

Run with torch and peft==0.21.2 installed: python tests/data/make_targeting.py
"""

import json
import pathlib
import warnings

import peft
import torch
from peft import PveraConfig, get_peft_model
from peft.tuners.tuners_utils import NoMatchingPeftModuleError
from transformers import PretrainedConfig, PreTrainedModel

assert peft.__version__ == "0.21.2", peft.__version__
warnings.simplefilter("ignore")

BLOCK = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"]
LARGE = (
    ["lm_head", "q_proj", "score", "model.embed_tokens", "model.norm", "model.layers.0.experts.q_proj"]
    + [f"model.layers.{block}.{name}" for block in (0, 1, 2, 10, 11) for name in BLOCK]
    + [f"model.layers.{block}.mlp.experts.{expert}.up_proj" for block in (3, 4) for expert in (0, 1)]
    + ["layers.0.experts.1.q_proj", "h.3.attn.c_attn", "transformer.h.3.attn.c_attn", "transformer.h.03.attn.c_attn"]
    + ["vision.blocks.2.q_proj", "text.blocks.2.q_proj", "a+b.q_proj", "model.language_model.layers.7.q_proj"]
    + ["classifier.dense", "classifier.out_proj", "my_classifier.dense", "encoder.layer.0.query", "encoder.layer.1.value"]
    + ["model.Layers.1.Q_proj", "model.x_layers.1.q_proj", "model.größe.1.q_proj", "model.größe.1.x²_proj"]
)
SMALL = ["lm_head", "score", "model.layers.0.q_proj", "model.layers.1.q_proj", "model.layers.1.mlp.up_proj", "model.norm"]


def layer(path):
    if path.endswith("embed_tokens"):
        return torch.nn.Embedding(4, 4)
    if path.endswith("norm"):
        return torch.nn.LayerNorm(4)
    return torch.nn.Linear(4, 4, bias=False)


def grow(root, paths):
    for path in paths:
        *parents, name = path.split(".")
        parent = root
        for part in parents:
            if part not in parent._modules:
                parent._modules[part] = torch.nn.Module()
            parent = parent._modules[part]
        parent._modules[name] = layer(path)
    return root


class WithHead(PreTrainedModel):
    """A transformers model, whose output head all-linear leaves out."""

    config_class = PretrainedConfig

    def get_output_embeddings(self):
        return self.lm_head


def build(model, model_type):
    if model == "with_head":
        return grow(WithHead(PretrainedConfig()), LARGE)
    root = grow(torch.nn.Module(), LARGE if model == "large" else SMALL)
    if model_type:
        root.config = {"model_type": model_type}
    return root


def describe(model):
    root = build(model, None)
    head = root.lm_head if model == "with_head" else None
    return [
        {"path": path, "linear": isinstance(module, torch.nn.Linear), "output_head": module is head}
        for path, module in root.named_modules()
        if path
    ]


def case(config, model="large", model_type=None):
    """One row: the modules that PEFT adapts, or the error that it raises."""
    row = {"model": model, "model_type": model_type, "config": config}
    try:
        adapted = get_peft_model(build(model, model_type), PveraConfig(r=2, **json.loads(json.dumps(config))))
        return row | {"targeted": adapted.base_model.targeted_module_names}
    except NoMatchingPeftModuleError:
        return row | {"targeted": []}
    except Exception as error:
        if "No layers types compatible" in str(error):  # PEFT sizes its projections before it looks for a match
            return row | {"targeted": []}
        return row | {"error": f"{type(error).__name__}: {error}".split("\n")[0][:120]}


Q = ["q_proj"]
LISTS = [
    Q, ["q_proj", "v_proj"], ["proj"], ["self_attn.q_proj"], ["layers.1.self_attn.v_proj"], ["model.layers.10.self_attn.q_proj"],
    ["Q_proj"], ["a+b.q_proj"], ["größe.1.q_proj"], ["dense"], ["x²_proj"], ["lm_head", "q_proj"], [".q_proj"], ["q_proj", "q_proj"],
]
STRINGS = [
    "q_proj", ".*q_proj", r".*\.q_proj", r".*\.(q|v)_proj", r"model\.layers\.(?!0\.)\d+\.self_attn\.k_proj", r".*(?<!_attn)\.q_proj",
    r".*(?<=mlp\.)up_proj", r"(?i).*\.Q_PROJ", r"(?i:.*\.Q)_proj", r".*\.q_proj\Z", r"^.*\.q_proj$", r"\A.*\.[qk]_proj\Z", r".*\.[^qkvo]_proj",
    r".*layers\.(?P<block>\d+)\.mlp\.experts\.(?!(?P=block))\d+\.up_proj", r".*\.(\d)\1\.self_attn\.[q-v]_proj", r".*\.1{2}\..*_proj",
    r".*\.\d{2,}\.[^.]+\.q_proj", r".*\.\d{,1}\.self_attn\.q_proj", r".*?\.\w+_proj", r".*\.\w²_proj", r"a\+b\.q_proj", r"a[+&&b]b\.q_proj",
    r".*[[.]q_proj", r".*[]._]q_proj", r"[\w.]+\.q_proj", r"[^\W\d]+\.layers\.\d\.[a-z_]+\.q_proj", r"(?:model|text)\..*q_proj", r"q_proj|.*\.v_proj",
    r"(?>model|model\.layers)\.norm_", r".*+q_proj", r"(?#comment).*q_proj", r"model\.layers\.[\x30-\x31]\.self_attn\.q_proj", r".*\bq_proj\b",
    r".*\Bq_proj", r".*\.größe\..*", r".*\.gr..e\.1\.q_proj", r"\p{L}+", r"[[:alpha:]]+_proj", r"\h+", r".*(?=q_proj$)q_proj", r"(?s).*q_proj",
    r"(a|b", r"a)", r"*a", r"a**", r"[a", r"[z-a]", r"a{3,2}", r"(?P<x>a)(?P<x>b)", r"\2(a)", r"(?<=a+)b", r"(?P=none)", r"a\y", r"q(?i)_proj",
    r"(?Z)a", r"{,}", r"\1", r"(?P<1>a)", r"a\Q", "", "all-linea", "a{2}{3}", "(\\1)", "q_proj\\", "model{}", r"(?<=(?:ab|c))d", r"^*a", r"[\d-z]",
    ".*", r".*norm|q_proj", r".*_proj(?<!up_proj)(?<!down_proj)", r".*\.\147_proj|.*\.\x71_proj", r".*\.(?:q|k)_proj(?:\.default)?", r"(?-i:q)_proj",
]
PATTERNS = [
    None, "", [], "layers", ["layers"], ["layers", "h"], ["text.blocks", "layers"], "h|layers", "(layers|h)", "(?:layers|blocks)", "blocks",
    "model.layers", r"model\.layers", "l.*s", "layers.", "experts", "x_layers", [r"\w+"], "(?P<idx>layers)", "layers(", ["layers", "["], "größe",
    "(?i:layers)", "(?i)layers", "Layers|model", ".*", ["nothing"], r".*\.layers",
]
INDICES = [1, 0, [1], [0, 11], [2, 3], [], 3, [7], [-1], 12]

cases = [case({"target_modules": names}) for names in LISTS]
cases += [case({"target_modules": pattern}) for pattern in STRINGS]
cases += [
    case({"target_modules": ["q_proj", "c_attn", "up_proj"], "layers_to_transform": indices, "layers_pattern": pattern})
    for pattern in PATTERNS
    for indices in INDICES
]
cases += [case({"target_modules": Q, "layers_pattern": pattern}) for pattern in PATTERNS]
cases += [
    case({"target_modules": ".*q_proj", "layers_to_transform": 1}),
    case({"target_modules": ["model.layers.0.self_attn.q_proj", "k_proj"], "layers_to_transform": 1}),
]
cases += [
    case({"target_modules": target, "modules_to_save": saved})
    for target in (["q_proj", "dense", "score"], r".*(dense|q_proj)")
    for saved in (["classifier"], ["score", "lm_head"], ["model"], ["mod.l"], ["layers.1"], ["self_attn"], [], ["a|b"], ["("], ["dense"], ["q_pr"])
]
cases += [case({"target_modules": text}, model) for model in ("large", "small", "with_head") for text in ("all-linear", "All-Linear")]
cases += [case({"target_modules": "all-linear", "modules_to_save": ["score"]}, model) for model in ("small", "with_head")]
cases += [case({"target_modules": "all-linear", "layers_to_transform": block}) for block in (1, [0, 3])]
MODEL_TYPES = ["llama", "gemma4", "phi", "dinov2", "bert", "gpt2", "t5", "rwkv7", "blip-2", "nemotron_h", "btlm", "unheard-of", None, "vit"]
cases += [case({"target_modules": None}, model_type=name) for name in MODEL_TYPES]
cases += [case({"target_modules": None, "layers_to_transform": 1}, model_type="llama")]

model_types = peft.utils.TRANSFORMERS_MODELS_TO_PVERA_TARGET_MODULES_MAPPING
table = {"model_types": model_types, "models": {model: describe(model) for model in ("large", "small", "with_head")}, "cases": cases}
rows = ",\n  ".join(json.dumps(row) for row in cases)
models = ",\n  ".join(f"{json.dumps(name)}: {json.dumps(modules)}" for name, modules in table["models"].items())
types = ",\n  ".join(f"{json.dumps(name)}: {json.dumps(targets)}" for name, targets in model_types.items())
text = f'{{\n "model_types": {{\n  {types}\n }},\n "models": {{\n  {models}\n }},\n "cases": [\n  {rows}\n ]\n}}\n'
assert json.loads(text) == table
pathlib.Path(__file__).with_name("targeting_peft.json").write_text(text)
print(len(cases), "cases,", sum("error" in row for row in cases), "of them errors")
