"""What process.c does in `start`, in Python with PEFT. Usage: start_peft.py CHECKPOINT WEIGHT WIDTH"""

import sys
import warnings

import numpy
import torch
from peft import PeftModel
from torch import nn


def main(checkpoint, weight, width):
    weight = torch.from_numpy(numpy.fromfile(weight, dtype=numpy.float32).reshape(width, width))
    torch.set_num_threads(1)
    with torch.device("meta"):  # the weight is set, not drawn first
        layer = nn.Linear(width, width, bias=False)
    layer.weight = nn.Parameter(weight)
    model = nn.Module()
    model.blocks = nn.ModuleList([nn.ModuleDict({"q": layer})])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the checkpoint's other layers are not here, on purpose
        model = PeftModel.from_pretrained(model, checkpoint)
    with torch.inference_mode():
        y = model.base_model.model.blocks[0].q(torch.sin(torch.arange(width, dtype=torch.float32))[None])
    print(*(f"{value:.9g}" for value in y[0, :4].tolist()), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
