"""What cases are made with: the registry, agreement before timing, rows of the table."""

import dataclasses
import math
import sys

import torch

import ours
import timing
from abi import LibraryError

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
# A median this much above the least is not to be trusted.
NOISY = 1.2
CASES = {}


def case(name, *arguments, threads=None, table=""):
    """Registers function(bench, *arguments) as a case. threads: the only numbers of threads that it makes sense for;
    table: the heading of the table that its rows go to, where that is not the first."""
    def register(function):
        assert name not in CASES, name
        CASES[name] = (function, arguments, threads, table)
        return function
    return register


@dataclasses.dataclass
class Row:
    """Peer beside ours, in measurements of one unit; a target is a least ratio, a ceiling the most that ours may be."""

    work: str
    peer: list
    ours: list
    target: float = None
    ceiling: float = None
    unit: str = "ms"
    threads: int = 1
    table: str = ""
    peer_least: float = None  # where it is not the least of peer

    def ratio(self):
        if not self.peer:
            return None
        mine = timing.median(self.ours)
        return timing.median(self.peer) / mine if mine else math.inf

    def met(self):
        if self.ceiling is not None:
            return timing.median(self.ours) <= self.ceiling
        return None if self.target is None else self.ratio() >= self.target

    def noisy(self):
        """Somebody else used the machine: a median far above the least, of either side."""
        sides = [(self.ours, min(self.ours))] + ([(self.peer, self.peer_least or min(self.peer))] if self.peer else [])
        return any(timing.median(values) > NOISY * least for values, least in sides if least > 0)

    def wanted(self):
        if self.ceiling is not None:
            return f"≤ {self.ceiling:g} {self.unit}"
        return "" if self.target is None else f"≥ {self.target:g}"

    def cells(self):
        ratio = self.ratio()
        ratio = "" if ratio is None else "∞" if math.isinf(ratio) else f"{ratio:.2f}"
        met = {None: "", True: "yes", False: "no"}[self.met()]
        if self.noisy():
            met = f"{met} (noisy)".strip()
        peer = _shown(self.peer, self.unit, self.peer_least)
        return [self.work, peer, _shown(self.ours, self.unit), ratio, self.wanted(), met]

    def record(self):
        def numbers(values, least=None):
            least = min(values, default=None) if least is None else least
            return {"median": timing.median(values), "min": least, "rounds": len(values)} if values else None
        ratio = None if self.ratio() == math.inf else self.ratio()
        return {"table": self.table, "work": self.work, "threads": self.threads, "unit": self.unit,
                "peer": numbers(self.peer, self.peer_least), "ours": numbers(self.ours), "ratio": ratio,
                "target": self.target, "ceiling": self.ceiling, "met": self.met(), "noisy": self.noisy()}


def _digits(value):
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


def _shown(values, unit, least=None):
    if not values:
        return ""
    if unit.startswith("bytes"):
        return f"{timing.median(values):.0f} {unit}"
    text = _digits(timing.median(values))
    if len(values) > 1:
        text += f" ({_digits(min(values) if least is None else least)})"
    return text if unit == "ms" else f"{text} {unit}"


class Bench:
    """One run with one number of threads."""

    def __init__(self, library, threads, quick, path):
        self.library, self.threads, self.quick, self.path = library, threads, quick, path
        self.context = ours.context(library, threads)
        self.rows, self.table = [], ""
        self.packs_base = library.has("pvera_linear_pack_base")
        self.bf16_context = self._bf16_context()

    def _bf16_context(self):
        """A context whose products of bf16 matrices are in bf16 arithmetic; None where there is no such thing."""
        try:
            return ours.context(self.library, self.threads, bf16_products=True)
        except LibraryError as error:
            print(f"no bf16 products: {error}", file=sys.stderr)
            return None

    def agree(self, what, got, wanted, dtype=torch.float32):
        """Stops the program if two sides differ: their times would mean nothing."""
        got, wanted = got.detach().double(), wanted.detach().double()
        largest = wanted.abs().max().item()
        difference = (got - wanted).abs().max().item()
        if not (largest > 0 and difference <= TOLERANCE[dtype] * largest):
            sys.exit(f"{what}: the sides differ by {difference:.3g}, the largest value is {largest:.3g}")
        print(f"  {what}: agree to {difference / largest:.1e} of the largest", file=sys.stderr)

    def race(self, contenders, cold=False, rounds=None):
        return timing.race(contenders, cold, self.quick, rounds)

    def row(self, work, peer, mine, target=None, ceiling=None, unit="ms", peer_least=None):
        row = Row(work, peer or [], mine, target, ceiling, unit, self.threads, self.table, peer_least)
        self.rows.append(row)
        print("  " + " | ".join(row.cells()), file=sys.stderr, flush=True)

    def versus(self, work, times, mine, targets):
        """A row for every peer in times, each beside each of our contenders; targets: {peer: least ratio}.

        A target belongs to the best of our contenders, so it is set beside each and met by one or none of them."""
        for name in mine:
            for peer in times:
                if peer not in mine:
                    variant = name.removeprefix("ours").removeprefix(", ")
                    self.row(", ".join(part for part in (work, variant) if part) + f": {peer}", times[peer],
                             times[name], targets.get(peer))
