"""Sets this library beside PyTorch and PEFT: compares both sides' numbers, then times them in turn.

    python main.py --library PATH/libpvera.so [--only PATTERN] [--threads 1,2] [--quick] [--json FILE] [--list]

Prints Markdown. Any difference between the sides beyond 1e-4 of the largest value (bf16: 2e-2) stops the program.
"""

import argparse
import importlib
import json
import os
import pathlib
import platform
import re
import sys

import numpy
import peft
import torch

from abi import Library, LibraryError
from bench import CASES, Bench

MODULES = ["eval", "sampling", "training", "adapters", "growth", "network", "process"]
HEADINGS = ["work", "peer ms", "ours ms", "ratio", "target", "met?"]


def machine(library, quick):
    """What the numbers depend on, one line each."""
    text = pathlib.Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else ""
    model = re.search(r"model name\s*: (.*)", text)
    return [
        f"CPU: {model[1] if model else platform.processor()}, {len(os.sched_getaffinity(0))} cores for this process, "
        f"load {os.getloadavg()[0]:.1f} at the start",
        f"Peers: PyTorch {torch.__version__} (capability {torch.backends.cpu.get_cpu_capability()}, MKL "
        f"{'yes' if torch.backends.mkl.is_available() else 'no'}), PEFT {peft.__version__}, numpy {numpy.__version__}, "
        f"Python {platform.python_version()}",
        f"Ours: pvera {library.version()}; " + ("A and B packed ahead" if library.has("pvera_store_pack")
                                                else "nothing packed: this library does not pack"),
        "Times: median (least) over interleaved rounds" + ("; quick: few rounds, not to be quoted" if quick else ""),
    ]


def table(rows):
    lines = [HEADINGS, ["---"] * len(HEADINGS)] + [row.cells() for row in rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def tables(bench):
    """A table for the rows of each heading."""
    heading = f"{bench.threads} thread{'s' if bench.threads > 1 else ''}"
    for name in dict.fromkeys(row.table for row in bench.rows):
        rows = [row for row in bench.rows if row.table == name]
        print(f"\n## {', '.join(part for part in (name, heading) if part)}\n\n{table(rows)}", flush=True)


def run(bench, pattern):
    for name, (function, arguments, only, heading) in CASES.items():
        if re.search(pattern, name) and (only is None or bench.threads in only):
            print(f"{name}, threads {bench.threads}", file=sys.stderr, flush=True)
            bench.table = heading
            function(bench, *arguments)


def main():
    for module in MODULES:  # each registers its cases
        importlib.import_module(f"cases_{module}")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=pathlib.Path, help="the shared library")
    parser.add_argument("--only", default="", metavar="PATTERN", help="cases whose name has this regular expression")
    parser.add_argument("--threads", default="1,2", help="numbers of threads, the calling one included")
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it runs")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="also write the results there")
    parser.add_argument("--list", action="store_true", help="print the names of the cases and stop")
    options = parser.parse_args()
    if options.list:
        print("\n".join(CASES))
        return
    if options.library is None:
        parser.error("--library is needed")
    library = Library(options.library.resolve())
    header = machine(library, options.quick)
    print("\n".join(f"- {line}" for line in header), flush=True)
    rows = []
    for threads in map(int, options.threads.split(",")):
        torch.set_num_threads(threads)
        bench = Bench(library, threads, options.quick, options.library.resolve())
        run(bench, options.only)
        tables(bench)
        rows += bench.rows
    if not rows:
        sys.exit(f"no case matches '{options.only}'; --list names them")
    if options.json:
        results = {"machine": header, "quick": options.quick, "rows": [row.record() for row in rows]}
        options.json.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    try:
        main()
    except LibraryError as error:
        sys.exit(str(error))
