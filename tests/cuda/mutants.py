#!/usr/bin/env python3
"""Mutants of the embedded PTX: does somebody notice?

    mutants.py --double FOLDER --sample 200 --quick 'c_cuda works' --thorough 'cuda --ignored --test-threads=1'

The double of libcuda in FOLDER applies one mutation to one kernel when it loads its PTX. A mutant is killed when the quick
command fails over it, or the thorough one, which is asked about those that the quick one lets live. The sample takes as many
mutations of each class from each kernel, spread evenly; --sample 0 takes all. Survivors are listed; those that change nothing
that can be seen are explained in mutants.txt (kernel, class and instruction as regular expressions, then why). Fails below 95 % of
the mutants that can be seen, and for a survivor that nobody explained.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import shlex
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
PTX = HERE.parent.parent / "src/backend/cuda/kernels/ptx"
WANTED = 0.95


class Mutant:
    def __init__(self, line):
        fields = line.rstrip("\n").split("\t")
        self.entry, self.number, self.kind, self.line = fields[1], int(fields[2]), fields[4], fields[5]
        self.original, self.becomes = fields[6], fields[7]

    def text(self):
        return f"{self.entry}:{self.number} {self.kind}, line {self.line}: {self.original}  ->  {self.becomes}"


def listed(double):
    files = sorted(str(path) for path in PTX.glob("*.ptx"))
    output = subprocess.run([double / "mutants", *files], check=True, capture_output=True, text=True).stdout
    return [Mutant(line) for line in output.splitlines()]


def sampled(mutants, count):
    if count == 0 or count >= len(mutants):
        return mutants
    groups = {}
    for mutant in mutants:
        groups.setdefault((mutant.entry, mutant.kind), []).append(mutant)
    each = max(1, count // len(groups))
    return [group[place * len(group) // min(each, len(group))] for group in groups.values() for place in range(min(each, len(group)))]


def fails(command, double, mutant, limit):
    environment = dict(os.environ, LD_LIBRARY_PATH=str(double), PVERA_DOUBLE_MUTANT=f"{mutant.entry}:{mutant.number}")
    try:
        done = subprocess.run(shlex.split(command), env=environment, timeout=limit, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return True
    return done.returncode != 0


def explanations():
    lines = (HERE / "mutants.txt").read_text().splitlines()
    rules = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return [(re.compile(entry), re.compile(kind), re.compile(original), why) for entry, kind, original, why in rules]


def why_alive(mutant, rules):
    for entry, kind, original, why in rules:
        if entry.fullmatch(mutant.entry) and kind.fullmatch(mutant.kind) and original.search(mutant.original + " -> " + mutant.becomes):
            return why
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--double", type=pathlib.Path, required=True)
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--quick", required=True)
    parser.add_argument("--thorough", required=True)
    parser.add_argument("--entry", default=".*", help="only kernels that match")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--limit", type=float, default=300.0, help="seconds a command may take")
    options = parser.parse_args()
    double, rules = options.double.resolve(), explanations()
    mutants = [mutant for mutant in listed(double) if re.fullmatch(options.entry, mutant.entry)]
    chosen = sampled(mutants, options.sample)

    def killed(mutant):
        return fails(options.quick, double, mutant, options.limit) or fails(options.thorough, double, mutant, options.limit)

    with concurrent.futures.ThreadPoolExecutor(options.workers) as pool:
        dead = dict(zip(chosen, pool.map(killed, chosen)))
    alive = [mutant for mutant in chosen if not dead[mutant]]
    reasons = {mutant: why_alive(mutant, rules) for mutant in alive}
    for mutant in alive:
        print(f"alive   {mutant.text()}\n        {reasons[mutant] or 'NOT EXPLAINED'}")
    kinds = sorted({mutant.kind for mutant in chosen})
    print(f"{'class':<12} {'mutants':>8} {'killed':>8} {'explained':>10} {'alive':>6}")
    for kind in kinds + [None]:
        of_kind = [mutant for mutant in chosen if kind in (None, mutant.kind)]
        explained = sum(reasons.get(mutant) is not None for mutant in of_kind)
        gone = sum(dead[mutant] for mutant in of_kind)
        print(f"{kind or 'all':<12} {len(of_kind):>8} {gone:>8} {explained:>10} {len(of_kind) - gone - explained:>6}")
    visible = sum(dead.values()) + sum(reason is None for reason in reasons.values())
    rate = sum(dead.values()) / max(1, visible)
    print(f"{rate:.1%} of {visible} mutants that can be seen are killed ({len(mutants)} exist, {len(chosen)} were tried)")
    return 0 if rate >= WANTED and None not in reasons.values() and chosen else 1


if __name__ == "__main__":
    sys.exit(main())
