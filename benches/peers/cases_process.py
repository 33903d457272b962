"""Whole processes: a call on a tiny layer without Python in the way, cold start and resident memory, packing."""

import ctypes
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

import numpy
import torch
from torch import nn

import ours
import peers
import timing
from abi import PACK_BACKWARD, PACK_FORWARD, matrix
from bench import case

HERE = pathlib.Path(__file__).resolve().parent
WIDTH = 768


def compiled(bench, folder):
    """process.c against the header beside this folder and the library under test."""
    compiler = next((found for found in map(shutil.which, ("cc", "gcc", "clang")) if found), None)
    if compiler is None:
        sys.exit("no C compiler; wanted cc, gcc or clang")
    program = pathlib.Path(folder) / "process"
    subprocess.run([compiler, "-O2", "-std=c11", "-I", HERE.parent.parent / "include", HERE / "process.c",
                    "-o", program, bench.path, f"-Wl,-rpath,{bench.path.parent}", "-lm"], check=True)
    return program


@case("call", threads=(1,))
def call(bench, size=16, rank=16):
    with tempfile.TemporaryDirectory() as folder:
        lines = subprocess.run([compiled(bench, folder), "call", str(size), str(rank), "15"], check=True,
                               capture_output=True, text=True).stdout
    mine = [float(line) / 1e3 for line in lines.split()]
    peft = peers.Pvera(size, rank=rank)
    times = bench.race({"PEFT": peft.eval(peft.input(1))})
    bench.row(f"a call on a {size}×{size} layer, n=1, r={rank}, from C: PEFT", [1e3 * ms for ms in times["PEFT"]], mine,
              ceiling=1, unit="µs")


def checkpoint(folder):
    """A PEFT checkpoint of 12 blocks, q and v adapted at 768 with rank 256, and the base weight of one layer."""
    torch.manual_seed(0)
    model = nn.Module()
    model.blocks = nn.ModuleList(
        nn.ModuleDict({name: nn.Linear(WIDTH, WIDTH, bias=False) for name in ("q", "v")}) for _ in range(12))
    config = peers.PveraConfig(r=256, target_modules=["q", "v"])
    model = peers.adapted(model, config)
    for block in model.base_model.model.blocks:
        for layer in block.values():
            peers.randomise(layer)
    model.save_pretrained(folder)
    weight = folder / "weight.f32"
    model.base_model.model.blocks[0]["q"].base_layer.weight.detach().numpy().astype(numpy.float32).tofile(weight)
    return [str(folder), str(weight), str(WIDTH)]


def started(command):
    """Milliseconds to the first answer, the answer, and the megabytes then resident."""
    begun = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        answer = process.stdout.readline()
        elapsed = 1e3 * (time.perf_counter() - begun)
        if not answer:
            sys.exit(f"{command[0]} gave no answer")
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    resident = int(re.search(r"VmRSS:\s*(\d+) kB", status)[1]) / 1024
    return elapsed, resident, torch.tensor([float(value) for value in answer.split()])


@case("start", threads=(1,))
def start(bench):
    """Cold means a new process; the files are in the page cache on both sides."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        arguments = checkpoint(folder)
        commands = {"PEFT": [sys.executable, str(HERE / "start_peft.py"), *arguments],
                    "ours": [str(compiled(bench, folder)), "start", *arguments]}
        results = {side: [] for side in commands}
        for _ in range(1 + (timing.QUICK_ROUNDS if bench.quick else timing.LONG_ROUNDS)):
            for side, command in commands.items():
                results[side].append(started(command))
    bench.agree("first answer", results["ours"][0][2], results["PEFT"][0][2])
    for place, (what, unit) in enumerate((("cold start to first answer", "ms"), ("resident memory then", "MiB"))):
        peft, mine = ([result[place] for result in results[side][1:]] for side in ("PEFT", "ours"))
        bench.row(f"{what}, 12 blocks of q and v at {WIDTH}, r=256: Python with PEFT", peft, mine, 50, unit=unit)


@case("packing", threads=(1,), table="Packing: how long it takes and what it holds; nothing else packs")
def packing(bench):
    library = bench.library
    for width in (WIDTH, 4096):
        peft = peers.Pvera(width)
        pair = library.make("store", "pvera_store_from_matrices", ctypes.byref(matrix(peft.a)),
                            ctypes.byref(matrix(peft.b)), None)
        bench.row(f"store of {width}, r=256, as it came", None,
                  [library.size("pvera_store_bytes", pair.pointer) / 2**20], unit="MiB")
        both = ctypes.c_uint32(PACK_FORWARD | PACK_BACKWARD)
        if library.has("pvera_store_pack"):
            milliseconds = 1e3 * timing.seconds_of(library.prepared("pvera_store_pack", pair.pointer, both))
            bench.row(f"packing its A and B for forward and backward, {width}", None, [milliseconds])
            bench.row(f"store of {width} when packed", None,
                      [library.size("pvera_store_bytes", pair.pointer) / 2**20], unit="MiB")
        if bench.packs_base:
            layer = ours.linear(library, pair, peft.lambda_b[0], peft.lambda_d[0], width, peft.weights[0])
            for uses, what in ((PACK_FORWARD, "forward"), (PACK_BACKWARD, "backward")):
                packed = library.prepared("pvera_linear_pack_base", layer.pointer, ctypes.c_uint32(uses))
                bench.row(f"packing a base weight of {width}² for {what}", None, [1e3 * timing.seconds_of(packed)])
