"""Writes the golden cases of VeRA in the folder vera/, as generate.py does those of PVeRA.

    python tests/golden/vera.py [FOLDER]      (default: vera/ beside this script)
"""

import pathlib
import sys

import torch
from generate import FIRST_SEED, Net, VERSIONS, base_weights, conv1d, layer_of, linear, write_json, write_tensors
from peft import VeraConfig, get_peft_model


@torch.no_grad()
def adapt(net, targets, seed, r, **settings):
    settings = {"projection_prng_key": seed + 500, **settings}
    model = get_peft_model(net, VeraConfig(r=r, target_modules=targets, **settings))
    for name, parameter in model.named_parameters():  # pretend that it was trained
        if "vera_lambda_b" in name:
            parameter.copy_(torch.randn(parameter.shape) * 0.5)
        elif "vera_lambda_d" in name:
            parameter.copy_(torch.randn(parameter.shape) * 0.3 + 0.1)
    return model.eval()


def step(model, rows, dropout_seed=None):
    """The forward at inference and in training, and gradients of the latter for a random dy."""
    io = {}
    for name in model.targeted_module_names:
        layer = layer_of(model, name)
        lambda_b, lambda_d = layer.vera_lambda_b["default"], layer.vera_lambda_d["default"]
        x = torch.randn(rows, layer.in_features, requires_grad=True)
        dy = torch.randn(rows, layer.out_features)
        found = {"x": x, "dy": dy, "y_mean": layer.eval()(x), "delta_weight": layer.get_delta_weight("default")}
        layer.train()
        if dropout_seed is not None:
            torch.manual_seed(dropout_seed)
            found["mask"] = layer.vera_dropout["default"](torch.ones_like(x))
            torch.manual_seed(dropout_seed)
        y = found["y_train"] = layer(x)
        gradients = torch.autograd.grad(y, (x, lambda_b, lambda_d), dy)
        found.update(zip(("dx", "dlambda_b", "dlambda_d"), gradients))
        io.update({f"{name}/{key}": value.detach() for key, value in found.items()})
        layer.eval()
    return io


def shapes(seed):
    net = Net(up=linear(12, 20), down=linear(20, 7))
    model = adapt(net, ["up", "down"], seed, 5)
    return "two shapes on one store, saved projections", model, step(model, 6)


def seed_only(seed):
    net = Net(q_proj=linear(24, 24), v_proj=linear(24, 8))
    model = adapt(net, ["q_proj", "v_proj"], seed, 6, save_projection=False)
    return "save_projection=False: A [6, 24], then B [24, 6] from projection_prng_key", model, step(model, 5)


def dropout(seed):
    model = adapt(Net(c_attn=conv1d(10, 14)), ["c_attn"], seed, 4, fan_in_fan_out=True, vera_dropout=0.25)
    return "vera_dropout=0.25 on a Conv1D: mask is the scaled dropout mask on x", model, step(model, 8, seed + 700)


def bias_and_head(seed):
    net = Net(q_proj=linear(9, 9), classifier=linear(9, 3))
    model = adapt(net, ["q_proj"], seed, 3, bias="vera_only", modules_to_save=["classifier"], d_initial=0.05)
    with torch.no_grad():
        layer_of(model, "q_proj").get_base_layer().bias.add_(1.5)
    return "bias='vera_only' and modules_to_save=['classifier']", model, step(model, 4)


CASES = {"shapes": shapes, "seed_only": seed_only, "dropout": dropout, "bias_and_head": bias_and_head}


def main():
    torch.set_num_threads(1)
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "vera")
    for number, (name, build) in enumerate(CASES.items()):
        seed = FIRST_SEED + 100 + number
        torch.manual_seed(seed)
        note, model, io = build(seed)
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(folder)
        (folder / "README.md").unlink()  # an empty model card
        write_tensors(folder / "base.safetensors", base_weights(model))
        write_tensors(folder / "io.safetensors", io)
        write_json(folder / "case.json", {"note": note, "torch": VERSIONS["torch"], "peft": VERSIONS["peft"]})


if __name__ == "__main__":
    main()
