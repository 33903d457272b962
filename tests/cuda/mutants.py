#!/usr/bin/env python3
"""Mutants of the embedded PTX: do the tests notice?

    mutants.py --double FOLDER --kernels-test PROGRAM [--sample 3000] [--seed 1] [--kernel NAMES]

The double of libcuda in FOLDER changes one instruction of one kernel when it loads its PTX; the tests of that kernel fail, or
the mutant survives. A sample takes as many mutants of each class from each kernel, as far as there are so many; --sample 0
takes all.

Classes: arithmetic (another operation, operands exchanged, a term left out, a negation left out), comparison (the bound in or
out, the other way round), branch (taken where it was not), constant (one more, one less, the last bit), address (4 bytes more
or less), rounding (to zero), effect (a store left out, an atomic that only reads), barrier (left out). No mutant of their own
have moves between registers, the widening of integers, of f16 and of f32, the spaces of addresses (cvta), jumps without a
condition and ret: what they carry is changed where it is computed or used. Of shifts and mul.wide only a constant is changed,
of a load only the address.

Survivors are printed. What changes nothing that can be seen is explained in mutants.txt, a line each, separated by tabs: the
kernel and the change among its neighbours ("… | original -> mutated | …", AROUND lines on both sides) as regular expressions,
then why. Fails for a survivor that nobody explained, for an explanation of a mutant that was killed, and where fewer than
95 % would be killed of all that there are: each class of a kernel counts as much as it has mutants.
"""

import argparse
import concurrent.futures
import os
import pathlib
import random
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
PTX = HERE.parent.parent / "src/backend/cuda/kernels/ptx"
WANTED = 0.95

# Instructions of a launch: some times what the largest of the tests takes. A mutant that never ends is seen soon.
STEPS = 300_000_000
# Seconds, for a command that hangs.
LIMIT = 600

# Lines that explanations see before and after a change.
AROUND = 8


class Mutant:
    def __init__(self, line, sources):
        self.file, self.kernel, number, _, self.kind, at, original, becomes = line.split("\t")
        self.number, self.line = int(number), int(at)
        self.change = f"{original} -> {becomes}"
        # The change among what surrounds it.
        lines, here = sources[self.file], self.line - 1
        before, after = lines[max(0, here - AROUND) : here], lines[here + 1 : here + 1 + AROUND]
        self.context = " | ".join(before + [self.change] + after)

    def __str__(self):
        return f"{self.kernel}:{self.number} {self.kind}, line {self.line}: {self.change}"


class Rule:
    """An explanation, and the mutants that it is for."""

    def __init__(self, line):
        kernel, context, self.why = line.split("\t")
        self.kernel, self.context = re.compile(kernel), re.compile(context)

    def explains(self, mutant):
        return bool(self.kernel.fullmatch(mutant.kernel) and self.context.search(mutant.context))


class Tests:
    """What may kill a mutant: the tests of its kernel."""

    def __init__(self, double, kernels_test):
        self.double, self.kernels_test = double, kernels_test

    def of(self, kernel, file):
        library = str(self.double / "libcuda.so.1")
        return [self.kernels_test, "--library", library, "--kernel", kernel, "--first", file]

    def fail(self, command, mutant=None):
        environment = dict(os.environ, LD_LIBRARY_PATH=str(self.double), PVERA_DOUBLE_STEPS=str(STEPS))
        if mutant is not None:
            environment["PVERA_DOUBLE_MUTANT"] = f"{mutant.kernel}:{mutant.number}"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        try:
            return subprocess.run(command, env=environment, timeout=LIMIT, check=False, **quiet).returncode != 0
        except subprocess.TimeoutExpired:
            return True

    def kill(self, mutant):
        return self.fail(self.of(mutant.kernel, mutant.file), mutant)

    def broken(self, mutants):
        """A kernel whose tests fail without any mutant: then nothing can be said."""
        kernels = sorted({(mutant.kernel, mutant.file) for mutant in mutants})
        return next((kernel for kernel, file in kernels if self.fail(self.of(kernel, file))), None)


def listed(double):
    """Every mutant of every kernel."""
    files = sorted(PTX.glob("*.ptx"))
    sources = {str(path): [" ".join(line.split()) for line in path.read_text().splitlines()] for path in files}
    output = subprocess.run([double / "mutants", *files], check=True, capture_output=True, text=True).stdout
    return [Mutant(line, sources) for line in output.splitlines()]


def grouped(mutants):
    """By kernel and class."""
    groups = {}
    for mutant in mutants:
        groups.setdefault((mutant.kernel, mutant.kind), []).append(mutant)
    return groups


def sampled(mutants, count, seed):
    """In the order of the list."""
    if count == 0 or count >= len(mutants):
        return mutants
    groups = grouped(mutants)
    for name, group in groups.items():
        random.Random(f"{seed} {name}").shuffle(group)
    rounds = max(len(group) for group in groups.values())
    turns = [group[turn] for turn in range(rounds) for group in groups.values() if turn < len(group)]
    chosen = set(turns[:count])
    return [mutant for mutant in mutants if mutant in chosen]


def table(chosen, killed, reasons):
    print(f"{'class':<12} {'mutants':>8} {'killed':>8} {'alive, explained':>17} {'not explained':>14}")
    for kind in sorted({mutant.kind for mutant in chosen}) + [None]:
        of_kind = [mutant for mutant in chosen if kind in (None, mutant.kind)]
        dead = sum(killed[mutant] for mutant in of_kind)
        explained = sum(reasons.get(mutant) is not None for mutant in of_kind)
        left = len(of_kind) - dead - explained
        print(f"{kind or 'all':<12} {len(of_kind):>8} {dead:>8} {explained:>17} {left:>14}")


def rate_of_all(mutants, killed):
    """Of all mutants, as far as a sample tells."""
    chosen = grouped(killed)
    sizes = {name: len(group) for name, group in grouped(mutants).items() if name in chosen}
    rates = {name: sum(killed[mutant] for mutant in group) / len(group) for name, group in chosen.items()}
    return sum(sizes[name] * rates[name] for name in sizes) / sum(sizes.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--double", type=pathlib.Path, required=True)
    parser.add_argument("--kernels-test", type=pathlib.Path, required=True)
    parser.add_argument("--sample", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kernel", default=".*", help="only kernels that match")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    lines = (HERE / "mutants.txt").read_text().splitlines()
    rules = [Rule(line) for line in lines if line and not line.startswith("#")]
    tests = Tests(options.double.resolve(), options.kernels_test.resolve())
    mutants = [mutant for mutant in listed(options.double.resolve()) if re.fullmatch(options.kernel, mutant.kernel)]
    chosen = sampled(mutants, options.sample, options.seed)
    broken = tests.broken(chosen)
    if broken or not chosen:
        print(f"without a mutant the tests of {broken} fail" if broken else "there is no mutant")
        return 1

    with concurrent.futures.ThreadPoolExecutor(options.workers) as pool:
        killed = dict(zip(chosen, pool.map(tests.kill, chosen)))
    explained = {mutant: next((rule.why for rule in rules if rule.explains(mutant)), None) for mutant in chosen}
    alive = {mutant: explained[mutant] for mutant in chosen if not killed[mutant]}
    wrongly = [mutant for mutant in chosen if killed[mutant] and explained[mutant]]
    for mutant, why in alive.items():
        print(f"alive   {mutant}\n        {why or 'NOT EXPLAINED'}")
    for mutant in wrongly:
        print(f"killed  {mutant}\n        though explained: {explained[mutant]}")
    table(chosen, killed, alive)
    rate, dead = rate_of_all(mutants, killed), sum(killed.values())
    seen = len(chosen) - sum(why is not None for why in alive.values())
    print(f"{dead} of {len(chosen)} mutants are killed (seed {options.seed}): {dead / len(chosen):.2%};")
    print(f"of the {seen} that are not explained, {dead / max(1, seen):.2%};")
    print(f"of the {len(mutants)} that there are, each class of a kernel by its size, {rate:.2%}")
    return 1 if rate < WANTED or None in alive.values() or wrongly else 0


if __name__ == "__main__":
    sys.exit(main())
