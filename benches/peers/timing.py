"""Interleaved timing: in every round each contender is timed once, in turn, so that all see the same machine."""

import gc
import math
import statistics
import time

import numpy

# Read between calls that are to find nothing in a cache: larger than the largest cache of the machines we know.
STREAMED = numpy.ones(32 << 20, dtype=numpy.float32)
# A hot measurement is the mean over as many calls as take this long.
LEAST_SECONDS = 0.004
# Threads that spin after torch's parallel regions would take a core from whoever comes next.
SETTLE_SECONDS = 0.005
ROUNDS, LONG_ROUNDS, QUICK_ROUNDS = 15, 7, 3
# A call that takes longer is its own warm-up.
LONG_SECONDS = 0.5


def seconds_of(call, count=1):
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def race(contenders, cold=False, quick=False, rounds=None):
    """Milliseconds of every round, by contender: {name: [ms, …]}."""
    lone = {}
    for name, call in contenders.items():
        lone[name] = seconds_of(call)
        if lone[name] < LONG_SECONDS:
            lone[name] = seconds_of(call)
    if quick:
        rounds = QUICK_ROUNDS
    elif rounds is None:
        rounds = LONG_ROUNDS if max(lone.values()) > LONG_SECONDS else ROUNDS
    counts = {name: 1 if cold else max(1, math.ceil(LEAST_SECONDS / seconds)) for name, seconds in lone.items()}
    times = {name: [] for name in contenders}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, call in contenders.items():
                times[name].append(1e3 * _settled(call, counts[name], cold, lone[name]))
    finally:
        gc.enable()
    return times


def _settled(call, count, cold, lone):
    time.sleep(SETTLE_SECONDS)
    if cold:
        STREAMED.sum()
    elif lone < LONG_SECONDS:
        call()  # so that its own data are in the caches, not the last contender's
    return seconds_of(call, count)


def median(values):
    return statistics.median(values)
