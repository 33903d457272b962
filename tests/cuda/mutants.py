#!/usr/bin/env python3
"""Mutants of the embedded PTX: do the tests notice?

    mutants.py --double FOLDER --kernels-test PROGRAM [--then COMMAND]... [--sample 3000] [--seed 1]

The double of libcuda in FOLDER changes one instruction of one kernel when it loads its PTX. The tests of that kernel are
asked first, then the commands of --then, one after the other, and the first that fails has killed the mutant. A sample takes
as many mutants of each class from each kernel, as far as there are so many; --sample 0 takes all.

Survivors are printed. What changes nothing that can be seen is explained in mutants.txt, a line each, separated by tabs: the
kernel and the change among its neighbours ("… | original -> mutated | …", AROUND lines on both sides) as regular expressions,
then why. Fails for a survivor that nobody explained, for an explanation of a mutant that was killed, and where fewer than
95 % are killed.
"""

import argparse
import concurrent.futures
import os
import pathlib
import random
import re
import shlex
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
    """What may kill a mutant."""

    def __init__(self, double, kernels_test, then):
        self.double, self.kernels_test, self.then = double, kernels_test, [shlex.split(command) for command in then]

    def of(self, mutant):
        library = str(self.double / "libcuda.so.1")
        yield [self.kernels_test, "--library", library, "--kernel", mutant.kernel, "--first", mutant.file]
        yield from self.then

    def fails(self, command, mutant):
        environment = dict(os.environ, LD_LIBRARY_PATH=str(self.double), PVERA_DOUBLE_STEPS=str(STEPS))
        if mutant is not None:
            environment["PVERA_DOUBLE_MUTANT"] = f"{mutant.kernel}:{mutant.number}"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        try:
            return subprocess.run(command, env=environment, timeout=LIMIT, check=False, **quiet).returncode != 0
        except subprocess.TimeoutExpired:
            return True

    def killer(self, mutant):
        """The number of the first test that fails over the mutant, or None."""
        return next((number for number, command in enumerate(self.of(mutant)) if self.fails(command, mutant)), None)

    def broken(self, mutants):
        """A command that fails without any mutant: then nothing can be said."""
        commands = {tuple(command): command for mutant in mutants for command in self.of(mutant)}
        return next((command for command in commands.values() if self.fails(command, None)), None)


def listed(double):
    """Every mutant of every kernel."""
    files = sorted(PTX.glob("*.ptx"))
    sources = {str(path): [" ".join(line.split()) for line in path.read_text().splitlines()] for path in files}
    output = subprocess.run([double / "mutants", *files], check=True, capture_output=True, text=True).stdout
    return [Mutant(line, sources) for line in output.splitlines()]


def sampled(mutants, count, seed):
    """In the order of the list."""
    if count == 0 or count >= len(mutants):
        return mutants
    groups = {}
    for mutant in mutants:
        groups.setdefault((mutant.kernel, mutant.kind), []).append(mutant)
    for name, group in groups.items():
        random.Random(f"{seed} {name}").shuffle(group)
    rounds = max(len(group) for group in groups.values())
    turns = [group[turn] for turn in range(rounds) for group in groups.values() if turn < len(group)]
    chosen = set(turns[:count])
    return [mutant for mutant in mutants if mutant in chosen]


def table(chosen, killers, stages, reasons):
    print(f"{'class':<12} {'mutants':>8} {'killed by kernel':>17} {'by whole calls':>15} {'explained':>10} {'alive':>6}")
    for kind in sorted({mutant.kind for mutant in chosen}) + [None]:
        of_kind = [mutant for mutant in chosen if kind in (None, mutant.kind)]
        first = sum(killers[mutant] == 0 for mutant in of_kind)
        later = sum(killers[mutant] is not None and killers[mutant] > 0 for mutant in of_kind)
        explained = sum(reasons.get(mutant) is not None for mutant in of_kind)
        left = len(of_kind) - first - later - explained
        later = later if stages > 1 else "-"
        print(f"{kind or 'all':<12} {len(of_kind):>8} {first:>17} {later:>15} {explained:>10} {left:>6}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--double", type=pathlib.Path, required=True)
    parser.add_argument("--kernels-test", type=pathlib.Path, required=True)
    parser.add_argument("--then", action="append", default=[])
    parser.add_argument("--sample", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kernel", default=".*", help="only kernels that match")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    lines = (HERE / "mutants.txt").read_text().splitlines()
    rules = [Rule(line) for line in lines if line and not line.startswith("#")]
    tests = Tests(options.double.resolve(), options.kernels_test.resolve(), options.then)
    mutants = [mutant for mutant in listed(options.double.resolve()) if re.fullmatch(options.kernel, mutant.kernel)]
    chosen = sampled(mutants, options.sample, options.seed)
    broken = tests.broken(chosen)
    if broken or not chosen:
        print(f"without a mutant this fails: {broken}" if broken else "there is no mutant")
        return 1

    with concurrent.futures.ThreadPoolExecutor(options.workers) as pool:
        killers = dict(zip(chosen, pool.map(tests.killer, chosen)))
    explained = {mutant: next((rule.why for rule in rules if rule.explains(mutant)), None) for mutant in chosen}
    alive = {mutant: explained[mutant] for mutant in chosen if killers[mutant] is None}
    wrongly = [mutant for mutant in chosen if killers[mutant] is not None and explained[mutant]]
    for mutant, why in alive.items():
        print(f"alive   {mutant}\n        {why or 'NOT EXPLAINED'}")
    for mutant in wrongly:
        print(f"killed  {mutant}\n        though explained: {explained[mutant]}")
    table(chosen, killers, 1 + len(options.then), alive)
    rate = 1 - len(alive) / len(chosen)
    seen = len(chosen) - sum(why is not None for why in alive.values())
    print(f"{rate:.2%} of {len(chosen)} mutants are killed, of {len(mutants)} that there are (seed {options.seed});")
    print(f"of the {seen} that can be seen, {(len(chosen) - len(alive)) / max(1, seen):.2%}")
    return 1 if rate < WANTED or None in alive.values() or wrongly else 0


if __name__ == "__main__":
    sys.exit(main())
