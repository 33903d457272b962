#!/usr/bin/env python3
"""PyTorch on the shapes of `cargo bench --bench cuda`, on the same GPU: the base layer alone, and PVeRA by hand (half of A
in mean mode). Microseconds a call, queued one after the other and as a CUDA graph; f32 products in f32 ("highest") unless
the row says tf32."""

import math
import time

import torch
import torch.nn.functional as F

RANK = 256
CALLS, ROUNDS = 20, 5


def least(run):
    times = []
    for _ in range(ROUNDS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(CALLS):
            run()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 1e6 / CALLS)
    return min(times)


def report(what, run, graph=True):
    for _ in range(3):
        run()
    queued, replayed = least(run), math.nan
    if graph:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            run()
        torch.cuda.current_stream().wait_stream(stream)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            run()
        replayed = least(captured.replay)
    print(f"{what:<40} {queued:>12.1f} {replayed:>12.1f}", flush=True)


def by_hand(x, weight, a, b, lambda_d, lambda_b, eps):
    p = F.linear(x, a)
    mu, logvar = (lambda_d * p).chunk(2, -1)
    z = mu + eps * torch.exp(0.5 * logvar)
    return F.linear(x, weight) + lambda_b * F.linear(z, b)


def measure(rows, width, dtype, tf32):
    torch.backends.cuda.matmul.allow_tf32 = tf32
    make = lambda *shape: torch.randn(*shape, device="cuda", dtype=dtype)
    x, weight, dy = make(rows, width), make(width, width) / math.sqrt(width), make(rows, width)
    a, b = make(2 * RANK, width) / math.sqrt(width), make(width, RANK) / math.sqrt(RANK)
    lambda_d, lambda_b = make(2 * RANK).mul_(0.1), make(width).mul_(0.1)
    what = f"{rows}x{width} {str(dtype)[6:]}{' tf32' if tf32 else ''}"
    with torch.inference_mode():
        report(f"{what}: base alone", lambda: F.linear(x, weight))
        mean = lambda: F.linear(x, weight) + lambda_b * F.linear(lambda_d[:RANK] * F.linear(x, a[:RANK]), b)
        report(f"{what}: eval by hand", mean)
        sample = lambda: by_hand(x, weight, a, b, lambda_d, lambda_b, torch.randn(rows, RANK, device="cuda", dtype=dtype))
        report(f"{what}: one sample by hand", sample)

        def draws():
            base, p = F.linear(x, weight), F.linear(x, a)
            mu, logvar = (lambda_d * p).chunk(2, -1)
            z = mu + torch.randn(16, rows, RANK, device="cuda", dtype=dtype) * torch.exp(0.5 * logvar)
            return base + lambda_b * F.linear(z, b)

        report(f"{what}: 16 samples by hand", draws)
    trained = [tensor.clone().requires_grad_() for tensor in (x, lambda_d, lambda_b)]

    def train():
        eps = torch.randn(rows, RANK, device="cuda", dtype=dtype)
        y = by_hand(trained[0], weight, a, b, trained[1], trained[2], eps)
        torch.autograd.grad(y, trained, dy)

    report(f"{what}: forward and backward by hand", train)


def main():
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    print(f"{'us a call, r = 256':<40} {'queued':>12} {'graph':>12}")
    for rows, width in [(1, 4096), (16, 4096), (512, 4096), (197, 768), (1576, 768)]:
        measure(rows, width, torch.float32, False)
        if rows > 100:
            measure(rows, width, torch.float32, True)
        measure(rows, width, torch.bfloat16, False)


if __name__ == "__main__":
    main()
