#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The field's ways to compute one layer's routed experts, on the GPU that bench_cuda has just measured: torch grouped_mm, a
fused Triton MoE, cuBLAS for each expert, and where it is installed DeepGEMM in FP8.

    bench/gpu/peers.py FOLDER [--shape NAME]    FOLDER has the CSV files of bench_cuda --csv, to which rows are added

Shapes, tokens and floors are bench_cuda's: bytes over the bandwidth that it measured, operations over what cuBLAS reaches here,
whichever takes longer. Each call sits in a CUDA graph with others that are routed to other experts, so that weights come
from memory; routing tables are ready before. A peer that is missing or fails is named, and left out. Exit code 77: there is no
torch, no triton, or no GPU.
"""
import argparse
import csv
import math
import pathlib
import statistics
import sys

# experts here, of all, hidden, ffn, experts of a token: as in bench_cuda.c
SHAPES = {"mixtral-8x7b": (8, 8, 4096, 14336, 2), "qwen3-30b-a3b": (128, 128, 2048, 768, 8), "deepseek-v3": (32, 256, 7168, 2048, 8)}
TOKENS, ROWS_EACH = (1, 8, 64, 512, 4096), 4096
# rows, columns and k of a tile, tiles of rows that share columns, warps, stages; by rows to an expert
TILES = {8: ((16, 64, 128, 1, 4, 4), (16, 128, 128, 1, 4, 3)),
         40: ((16, 128, 128, 1, 4, 3), (32, 128, 128, 4, 4, 3), (64, 128, 64, 8, 4, 4)),
         math.inf: ((64, 128, 64, 8, 4, 4), (128, 128, 64, 8, 8, 4), (128, 256, 64, 8, 8, 3))}
CALLS_MAX, REPEATS, CACHED_BYTES, DEEPGEMM_ROWS = 24, 5, 400e6, 128
SKIPPED = 77   # exit code

parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
parser.add_argument("folder", type=pathlib.Path, help="where bench_cuda --csv wrote")
parser.add_argument("--shape", default="", help="only models whose name contains this")
options = parser.parse_args()

try:
    import torch
    import triton
    import triton.language as tl
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(SKIPPED)
if not torch.cuda.is_available():
    print("skipped: torch finds no GPU")
    sys.exit(SKIPPED)
try:
    import deep_gemm
except ImportError as error:
    deep_gemm = None
    print(f"left out: DeepGEMM: {error}")


# ---- kernels ----

@triton.jit
def activate_kernel(h, out, F: tl.constexpr, n, B: tl.constexpr):
    """out[r][c] = silu(gate) * up, of rows with both."""
    i = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    inside = i < n
    row, column = i // F, i % F
    gate = tl.load(h + row * (2 * F) + column, mask=inside).to(tl.float32)
    up = tl.load(h + row * (2 * F) + F + column, mask=inside).to(tl.float32)
    tl.store(out + i, (gate * tl.sigmoid(gate) * up).to(tl.bfloat16), mask=inside)


@triton.jit
def moe_kernel(x, w, y, slot_row, slot_pair, tile_expert, P, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, TM: tl.constexpr):
    """One tile: BM slots of one expert by BN columns."""
    program = tl.program_id(0)
    columns = tl.cdiv(N, BN)
    first = program // (TM * columns) * TM
    height = min(tl.num_programs(0) // columns - first, TM)
    tile, column = first + program % (TM * columns) % height, program % (TM * columns) // height
    expert = tl.load(tile_expert + tile).to(tl.int64)
    slot = tile * BM + tl.arange(0, BM)
    row, pair = tl.load(slot_row + slot).to(tl.int64), tl.load(slot_pair + slot).to(tl.int64)
    n, k = column * BN + tl.arange(0, BN), tl.arange(0, BK)
    inside = pair < P
    x_at = x + row[:, None] * K + k[None, :]
    w_at = w + expert * N * K + n[None, :].to(tl.int64) * K + k[:, None]
    sums = tl.zeros((BM, BN), dtype=tl.float32)
    for _ in range(0, K, BK):
        sums = tl.dot(tl.load(x_at, mask=inside[:, None], other=0.0), tl.load(w_at), sums)
        x_at += BK
        w_at += BK
    tl.store(y + pair[:, None] * N + n[None, :], sums.to(tl.bfloat16), mask=inside[:, None])


def activate(h, out):
    activate_kernel[(triton.cdiv(out.numel(), 1024),)](h, out, out.shape[1], out.numel(), 1024)


# ---- calls and their time ----

class Route:
    """Rows by expert: as bench_cuda's, by lot or all to all."""

    def __init__(self, shape, tokens, each):
        here, of, _, _, top = shape
        if each:
            expert = torch.arange(here, device="cuda").repeat_interleave(tokens)
            row = torch.arange(tokens, device="cuda").repeat(here)
        else:
            expert = torch.rand(tokens, of, device="cuda").topk(top, dim=1).indices.flatten()
            row = torch.arange(tokens, device="cuda").repeat_interleave(top)
            if not (expert < here).any():
                expert[0] = 0
            row, expert = row[expert < here], expert[expert < here]
        order = torch.argsort(expert, stable=True)
        self.row = row[order].int().contiguous()
        count = torch.bincount(expert, minlength=here)
        self.ends = count.cumsum(0).int().contiguous()
        self.begin = [0, *self.ends.tolist()]
        self.pairs, self.touched = len(order), int((count > 0).sum())

    def tiles(self, height):
        """Rows and pairs of slots, and the expert of each tile: an expert's slots are whole tiles."""
        rows, pairs, experts = [], [], []
        for e, (begin, end) in enumerate(zip(self.begin, self.begin[1:])):
            tiles = -((begin - end) // height)
            pad = (0, tiles * height - (end - begin))
            rows.append(torch.nn.functional.pad(self.row[begin:end], pad))
            pairs.append(torch.nn.functional.pad(torch.arange(begin, end, device="cuda", dtype=torch.int32), pad, value=self.pairs))
            experts += [e] * tiles
        return torch.cat(rows), torch.cat(pairs), torch.tensor(experts, device="cuda", dtype=torch.int32)


def microseconds(run):
    """Of one run(), which may launch much: the median of replays of its graph."""
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    graph.replay()
    times = []
    for _ in range(REPEATS):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e3)
    return statistics.median(times)


def bf16_peak():
    """TFLOP/s that cuBLAS reaches here."""
    best = 0
    for m, k, n in ((8192, 8192, 8192), (8192, 4096, 14336), (16384, 8192, 8192)):
        x, w = torch.randn(m, k, device="cuda", dtype=torch.bfloat16), torch.randn(n, k, device="cuda", dtype=torch.bfloat16)
        best = max(best, 2 * m * k * n / microseconds(lambda: x @ w.t()) / 1e6)
    return best


class Layer:
    def __init__(self, shape):
        here, _, hidden, ffn, _ = self.shape = shape
        self.up = torch.randn(here, 2 * ffn, hidden, device="cuda", dtype=torch.bfloat16) / math.sqrt(hidden)
        self.down = torch.randn(here, hidden, ffn, device="cuda", dtype=torch.bfloat16) / math.sqrt(ffn)

    def rows(self, tokens, pairs):
        _, _, hidden, ffn, _ = self.shape
        self.x = torch.randn(tokens, hidden, device="cuda", dtype=torch.bfloat16)
        self.gathered, self.h, self.a, self.y = (torch.empty(pairs, n, device="cuda", dtype=torch.bfloat16) for n in (hidden, 2 * ffn, ffn, hidden))

    def grouped(self, route):
        torch.index_select(self.x, 0, route.row, out=self.gathered[:route.pairs])
        h = torch._grouped_mm(self.gathered[:route.pairs], self.up.transpose(1, 2), offs=route.ends)
        activate(h, self.a[:route.pairs])
        torch._grouped_mm(self.a[:route.pairs], self.down.transpose(1, 2), offs=route.ends)

    def cublas(self, route):
        torch.index_select(self.x, 0, route.row, out=self.gathered[:route.pairs])
        spans = [(e, begin, end) for e, (begin, end) in enumerate(zip(route.begin, route.begin[1:])) if end > begin]
        for e, begin, end in spans:
            torch.mm(self.gathered[begin:end], self.up[e].t(), out=self.h[begin:end])
        activate(self.h[:route.pairs], self.a[:route.pairs])
        for e, begin, end in spans:
            torch.mm(self.a[begin:end], self.down[e].t(), out=self.y[begin:end])

    def triton(self, tile, routes):
        height, width, depth, together, warps, stages = tile
        tiles = {route: route.tiles(height) for route in routes}

        def run(route):
            rows, pairs, experts = tiles[route]
            for x, w, y, source in ((self.x, self.up, self.h, rows), (self.a, self.down, self.y, pairs)):
                n, k = w.shape[1:]
                moe_kernel[(experts.numel() * triton.cdiv(n, width),)](x, w, y, source, pairs, experts, route.pairs, n, k, height, width, depth, together,
                                                                      num_warps=warps, num_stages=stages)
                if w is self.up:
                    activate(self.h[:route.pairs], self.a[:route.pairs])
        return run

    def deepgemm(self, routes):
        """Its two products alone, on rows that are quantised already: the least that it takes."""
        here, _, hidden, ffn, _ = self.shape
        slots = {route: route.tiles(DEEPGEMM_ROWS)[2].repeat_interleave(DEEPGEMM_ROWS) for route in routes}
        most = max(len(slot) for slot in slots.values())
        kept = []
        for n, k in ((2 * ffn, hidden), (hidden, ffn)):
            x = (torch.ones(most, k, device="cuda").to(torch.float8_e4m3fn), torch.ones(most, k // 128, device="cuda"))
            w = (torch.ones(here, n, k, device="cuda", dtype=torch.bfloat16).to(torch.float8_e4m3fn), torch.ones(here, -(-n // 128), k // 128, device="cuda"))
            kept.append((x, w, torch.empty(most, n, device="cuda", dtype=torch.bfloat16)))

        def run(route):
            count = len(slots[route])
            for x, w, y in kept:
                deep_gemm.m_grouped_fp8_gemm_nt_contiguous((x[0][:count], x[1][:count]), w, y[:count], slots[route])
        return run


def peers(layer, routes):
    """(name, numbers, what runs a route)"""
    mean = statistics.mean(route.pairs / route.touched for route in routes)
    yield "torch grouped_mm", "bf16", lambda: layer.grouped
    yield "cuBLAS per expert", "bf16", lambda: layer.cublas
    for tile in next(tiles for most, tiles in TILES.items() if mean <= most):
        yield f"Triton fused {tile[0]}x{tile[1]}", "bf16", lambda tile=tile: layer.triton(tile, routes)
    if deep_gemm:
        yield "DeepGEMM, products alone", "fp8", lambda: layer.deepgemm(routes)


def measure(name, shape, layer, tokens, each, ceilings, writer):
    """How many peers it could measure."""
    here, _, hidden, ffn, _ = shape
    first = Route(shape, tokens, each)
    bytes_of = 3 * hidden * ffn
    calls = max(2, min(CALLS_MAX, math.ceil(CACHED_BYTES / (first.touched * bytes_of))))
    routes = [first] + [Route(shape, tokens, each) for _ in range(calls - 1)]
    pairs, touched = (statistics.mean(getattr(route, what) for route in routes) for what in ("pairs", "touched"))
    layer.rows(tokens, max(route.pairs for route in routes))
    measured = 0
    for peer, numbers, make in peers(layer, routes):
        width = {"bf16": 2, "fp8": 1}[numbers]
        read_us = (touched * bytes_of + (tokens + pairs) * hidden) * width / ceilings["read"] * 1e-3
        compute_us = 2 * pairs * bytes_of / (ceilings["bf16"] * 2 / width) * 1e-6
        floor, bound = max((read_us, "read"), (compute_us, numbers))
        try:
            run = make()
            us = microseconds(lambda: [run(route) for route in routes]) / calls
        except Exception as error:
            torch.cuda.synchronize()
            print(f"left out: {name}, {tokens} tokens, {peer}: {str(error).splitlines()[0][:150]}")
            continue
        print(f"{name:14} {tokens:6}{' each' if each else '     '} {peer:26} {us:10.1f} us, floor {floor:9.1f} ({bound}), ratio {floor / us:.2f}", flush=True)
        writer.writerow([name, tokens, "each" if each else "routed", f"{pairs:.1f}", f"{touched:.1f}", peer, numbers, f"{us:.2f}", "", f"{floor:.2f}", bound, f"{floor / us:.3f}"])
        measured += 1
    return measured


def main():
    files = {path.name.removeprefix("gpu-ceilings-"): path for path in options.folder.glob("gpu-ceilings-*.csv")}
    if len(files) != 1:
        sys.exit(f"{options.folder} has {len(files)} files gpu-ceilings-DEVICE.csv: give the folder of one run of bench_cuda --csv")
    (device, path), = files.items()
    measured = 0
    with path.open() as file:
        ceilings = {row["what"]: float(row["value"]) for row in csv.DictReader(file)}
    ceilings["bf16"] = bf16_peak()
    print(f"at best: {ceilings['read']:.0f} GB/s read, {ceilings['bf16']:.0f} TFLOP/s of bf16 by cuBLAS", flush=True)
    with path.open("a") as file:
        file.write(f"bf16 by cuBLAS,{ceilings['bf16']:.1f},TFLOP/s\n")
    with (options.folder / f"gpu-{device}").open("a") as file:
        writer = csv.writer(file, lineterminator="\n")
        for name, shape in SHAPES.items():
            if options.shape in name:
                layer = Layer(shape)
                for tokens in TOKENS:
                    measured += measure(name, shape, layer, tokens, False, ceilings, writer)
                measured += measure(name, shape, layer, ROWS_EACH, True, ceilings, writer)
                del layer
                torch.cuda.empty_cache()
    if measured == 0:
        sys.exit("nothing could be measured")


main()
