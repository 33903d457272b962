"""Many tenants: 64 adapters of one store, one row each."""

import torch
import torch.nn.functional as F

import ours
import peers
from abi import PACK_FORWARD
from bench import case

COUNT = 64


def peft_rows(peft, x, names):
    """PEFT takes one adapter at a time. Its public set_adapter walks over all adapters; the attribute that it sets is
    set directly here, which is the cheapest way that PEFT has."""
    layer = peft.layer
    parts = x.split(1)

    def run():
        outputs = []
        for name, part in zip(names, parts):
            layer._active_adapter = name
            outputs.append(layer(part))
        return outputs

    peft.model.eval()
    return peers.inference(run)


def with_adapters(width):
    peft = peers.Pvera(width)
    names = [f"adapter{number}" for number in range(COUNT)]
    for name in names:
        peft.model.add_adapter(name, peft.config)
        peers.randomise(peft.layer, name)
        peft.layer.pvera_A[name], peft.layer.pvera_B[name] = peft.a, peft.b  # one pair in memory, as on our side
    lambda_b, lambda_d = (torch.stack([vectors[name].detach() for name in names])
                          for vectors in (peft.layer.pvera_lambda_b, peft.layer.pvera_lambda_d))
    return peft, names, lambda_b, lambda_d


def adapters(bench, width, targets):
    peft, names, lambda_b, lambda_d = with_adapters(width)
    x = peft.input(COUNT)
    slots = torch.arange(COUNT, dtype=torch.int32)
    index = slots.long()
    mean_a, mean_d = peft.a[:peft.rank].contiguous(), lambda_d[:, :peft.rank].contiguous()
    weight, b = peft.weights[0], peft.b

    def batched():
        z = F.linear(x, mean_a).mul_(mean_d[index])
        return F.linear(x, weight).addcmul_(lambda_b[index], F.linear(z, b))

    others = {"PEFT, 64 calls": peft_rows(peft, x, names), "hand torch": peers.inference(batched)}
    wanted = torch.cat(others["PEFT, 64 calls"]())
    bench.agree("hand torch", others["hand torch"](), wanted)
    pair = ours.store(bench.library, peft.a, peft.b)
    mine = {}
    for name, pack in (("ours", 0), ("ours, base packed", PACK_FORWARD))[:1 + bench.packs_base]:
        served = ours.Served(bench.library, pair, lambda_b, lambda_d, width, weight, pack)
        y = torch.empty_like(wanted)
        mine[name] = ours.forward(bench.library, bench.context, [served], x, [y], rows=ours.rows_of(slots))
        mine[name]()
        bench.agree(name, y, wanted)
    bench.versus(f"{COUNT} adapters, one row each, {width}²", bench.race(others | mine), mine, targets)


for _width, _peft, _hand in ((4096, 12, 1.5), (768, 8, 1.2)):
    case(f"adapters {_width}", _width, {"PEFT, 64 calls": _peft, "hand torch": _hand})(adapters)
