"""The peers' side: PEFT's PVeRA (as it is and merged), PEFT's LoRA, and the best PyTorch that we could write."""

import contextlib
import copy
import warnings

import torch
import torch.nn.functional as F
from peft import LoraConfig, PveraConfig, get_peft_model
from torch import nn


def host(names, inputs, outputs, dtype):
    """The smallest model with these linear layers, without biases."""
    model = nn.Module()
    for name in names:
        model.add_module(name, nn.Linear(inputs, outputs, bias=False).to(dtype))
    return model


def adapted(model, config):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return get_peft_model(model, config)


def randomise(layer, adapter="default"):
    """Vectors as after some training: a new adapter's λ_b is zero, and would hide every mistake."""
    with torch.no_grad():
        layer.pvera_lambda_b[adapter].normal_(0, 0.5)
        layer.pvera_lambda_d[adapter].uniform_(0.05, 0.35)


class Pvera:
    """PEFT layers of one input, with the tensors that the other sides need."""

    def __init__(self, inputs, outputs=None, rank=256, dtype=torch.float32, names=("q",), rounded=False):
        torch.manual_seed(0)
        outputs = outputs or inputs
        self.inputs, self.outputs, self.rank, self.dtype = inputs, outputs, rank, dtype
        self.config = PveraConfig(r=rank, target_modules=list(names))
        self.model = adapted(host(names, inputs, outputs, dtype), self.config)
        self.layers = [getattr(self.model.base_model.model, name) for name in names]
        for layer in self.layers:
            randomise(layer)
        if rounded:  # as from a bf16 checkpoint: the same values on both sides
            for pair in (self.layers[0].pvera_A, self.layers[0].pvera_B):
                pair["default"].copy_(pair["default"].bfloat16())
        self.layer = self.layers[0]
        self.a, self.b = self.layer.pvera_A["default"], self.layer.pvera_B["default"]
        self.weights = [layer.base_layer.weight.detach() for layer in self.layers]
        self.lambda_b = [layer.pvera_lambda_b["default"].detach() for layer in self.layers]
        self.lambda_d = [layer.pvera_lambda_d["default"].detach() for layer in self.layers]

    def input(self, rows):
        return torch.randn(rows, self.inputs).to(self.dtype)

    def set_sampling(self, sampling):
        for layer in self.layers:
            layer.sample_at_inference["default"] = sampling

    def eval(self, x):
        """The mean forward of every layer: a list of outputs."""
        self.model.eval()
        return inference(lambda: [layer(x) for layer in self.layers])

    def base(self, x):
        bases = [layer.base_layer for layer in self.layers]
        return inference(lambda: [base(x) for base in bases])

    def draws(self, x, count):
        """Repeated sampled forwards of the first layer."""
        self.model.eval()
        self.set_sampling(True)
        return inference(lambda: [self.layer(x) for _ in range(count)])

    def merged(self, x):
        layer = copy.deepcopy(self.layer).eval()
        layer.merge()
        return inference(lambda: [layer(x)])

    def train(self, x, dys):
        """Forward and backward with the gradients of x and of every vector."""
        self.model.train()
        parameters = [vector["default"] for layer in self.layers
                      for vector in (layer.pvera_lambda_b, layer.pvera_lambda_d)]
        return Step(self.layers, x, dys, parameters)


class Step:
    """A training step without the optimiser: y, dx and gradients stay in ys, x.grad and the parameters."""

    def __init__(self, layers, x, dys, parameters):
        self.layers, self.dys, self.parameters = layers, dys, parameters
        self.x = x.clone().requires_grad_()
        for parameter in parameters:
            parameter.requires_grad_()

    def __call__(self):
        self.x.grad = None
        for parameter in self.parameters:
            parameter.grad = None
        self.ys = self.forward()
        torch.autograd.backward(self.ys, self.dys)

    def forward(self):
        return [layer(self.x) for layer in self.layers]

    def saved_bytes(self):
        """What autograd keeps for backward beside x, parameters and the frozen matrices."""
        known = {self.x.untyped_storage().data_ptr()}
        for layer in self.layers:
            for tensor in list(layer.parameters()) + [*layer.pvera_A.values(), *layer.pvera_B.values()]:
                known.add(tensor.untyped_storage().data_ptr())
        kept = {}

        def pack(tensor):
            place = tensor.untyped_storage()
            if place.data_ptr() not in known:
                # Halves of p share a storage with it; a storage counts once.
                kept[place.data_ptr()] = (place.nbytes(), tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            ys = self.forward()
        size = sum(nbytes for nbytes, _ in kept.values())
        del ys
        return size


class Lora:
    """PEFT's LoRA of rank 16 on one layer: another method, smaller work."""

    def __init__(self, inputs, dtype=torch.float32, rank=16):
        torch.manual_seed(0)
        model = adapted(host(["q"], inputs, inputs, dtype), LoraConfig(r=rank, target_modules=["q"]))
        self.model, self.layer = model, model.base_model.model.q
        nn.init.normal_(self.layer.lora_B["default"].weight, 0, 0.1)

    def eval(self, x):
        self.model.eval()
        return inference(lambda: [self.layer(x)])

    def train(self, x, dy):
        self.model.train()
        parameters = [self.layer.lora_A["default"].weight, self.layer.lora_B["default"].weight]
        return Step([self.layer], x, [dy], parameters)


class Hand:
    """Plain PyTorch with half of A where that is enough, folded vectors, the base product once."""

    def __init__(self, peft, place=0):
        rank = peft.rank
        self.rank = rank
        self.weight, self.a, self.b = peft.weights[place], peft.a, peft.b
        self.lambda_b, self.lambda_d = peft.lambda_b[place], peft.lambda_d[place]
        dtype = peft.dtype
        self.folded_a = (self.lambda_d[:, None] * peft.a).to(dtype)
        self.folded_b = (self.lambda_b[:, None] * peft.b).to(dtype)

    def eval(self, x):
        mean_a, b = self.folded_a[:self.rank].contiguous(), self.folded_b.t()
        return inference(lambda: [F.linear(x, self.weight).addmm_(F.linear(x, mean_a), b)])

    def draws(self, x, count):
        """Sampled forwards with the base and A once, each into new memory, as PyTorch code is mostly written."""
        rows, rank = x.shape[0], self.rank

        def run(eps=None):
            base = F.linear(x, self.weight)
            mu, logvar = F.linear(x, self.folded_a).chunk(2, dim=-1)
            eps = torch.randn(count, rows, rank) if eps is None else eps
            z = torch.addcmul(mu, eps, torch.exp(0.5 * logvar))
            return F.linear(z, self.folded_b).add_(base)

        return inference(run)

    def draws_in_place(self, x, count):
        """The same into memory that stays; also gives the place of eps, which is drawn unless draw is false."""
        rows, rank, b = x.shape[0], self.rank, self.folded_b.t()
        eps = torch.empty(count, rows, rank)
        y = torch.empty(count, rows, b.shape[1])

        def run(draw=True):
            base = F.linear(x, self.weight)
            mu, logvar = F.linear(x, self.folded_a).chunk(2, dim=-1)
            if draw:
                eps.normal_()
            z = torch.addcmul(mu, eps, torch.exp(0.5 * logvar))
            y.copy_(base.expand_as(y))
            y.view(-1, y.shape[-1]).addmm_(z.view(-1, rank), b)
            return y

        return inference(run), eps

    def moments(self, x):
        mean_b, variance_b = self.folded_b.t(), self.folded_b.square().t().contiguous()

        def run():
            mu, logvar = F.linear(x, self.folded_a).chunk(2, dim=-1)
            return F.linear(x, self.weight).addmm_(mu, mean_b), torch.exp(logvar) @ variance_b

        return inference(run)


def hand_group(peft, x):
    """The mean of several layers of one input: one product with half of A, vectors of the layers after it."""
    mean_a, rank = peft.a[:peft.rank].contiguous(), peft.rank
    folded = [(w, d[:rank], (b[:, None] * peft.b).t()) for w, d, b in zip(peft.weights, peft.lambda_d, peft.lambda_b)]

    def run():
        p = F.linear(x, mean_a)
        return [F.linear(x, weight).addmm_(p * d, b) for weight, d, b in folded]

    return inference(run)


def inference(function):
    def run(*arguments):
        with torch.inference_mode():
            return function(*arguments)
    return run


@contextlib.contextmanager
def captured_noise():
    """Collects the eps that PEFT draws: its forward calls torch.randn_like once a sampled layer."""
    drawn, real = [], torch.randn_like

    def randn_like(tensor, *arguments, **options):
        drawn.append(real(tensor, *arguments, **options).detach())
        return drawn[-1]

    torch.randn_like = randn_like
    try:
        yield drawn
    finally:
        torch.randn_like = real
