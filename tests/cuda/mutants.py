#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Breaks the CUDA kernels line by line: do the tests notice?

    tests/cuda/mutants.py BUILD [WORD...]    of a build that is complete; only mutants whose names hold one of the words

Each mutant is a file, a text that is in it once, and what stands there instead. It is compiled as the build would, put
into a library of its own, and tested: first the fast build in four orders of threads, then, if that noticed nothing,
the checking one in two. The last column says what noticed it. Exit code 1: some were not noticed. Takes minutes.
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
STAGES, TILE = "kernels/cuda/ffn.h", "kernels/cuda/mma_tile.h"
FFN, SM90, F32, QUANTISE, ROWS, COMBINE = ("kernels/cuda/%s.cu" % name for name in ("ffn", "ffn_sm90", "ffn_f32", "quantise", "rows", "combine"))
EXPERT, SLOTS, STAGING = ("kernels/cuda/%s.cc" % name for name in ("expert", "slots", "staging"))   # of the host: tested by test_cuda_memory
OUT, WARP = "kernels/cuda/out.h", "kernels/cuda/quantise_warp.h"
GPU = {FFN: "80", QUANTISE: "80"}   # which one runs the kernels of a file; else the one that the emulation has without being told
AS_BF16 = "as bf16: "   # how mutants begin of what 10.3 alone runs

MUTANTS = (
    ("no barrier after the rows", STAGES, "row_index[pair] : pair);\n\t}\n\t__syncthreads();", "row_index[pair] : pair);\n\t}"),
    ("no barrier before a stage", STAGES, "ptx_cp_async_wait<S::stages - 2>();\n\t\t__syncthreads();", "ptx_cp_async_wait<S::stages - 2>();"),
    ("no barrier before the stages are used for the way out", FFN, "multiply<S, U>(from, acc); });\n\t__syncthreads();", "multiply<S, U>(from, acc); });"),
    ("no barrier on the way out", TILE, "first_column + static_cast<size_t>(column), i);\n\t\t\t}\n\t__syncthreads();",
     "first_column + static_cast<size_t>(column), i);\n\t\t\t}"),
    ("waits for a group too few", STAGES, "ptx_cp_async_wait<S::stages - 2>()", "ptx_cp_async_wait<S::stages - 1>()"),
    ("a stage is fetched too early", STAGES, "ptx_cp_async_wait<S::stages - 2>();\n\t\t__syncthreads();\n\t\tif (next < count)",
     "if (next < count)"),
    ("a group is left out", STAGES, "for (size_t i = 0; i < count; i++) {", "for (size_t i = count > 1; i < count; i++) {"),
    ("A: halves of k change places", FFN, "32 * step + lane / 16 * CHUNK_BYTES", "32 * step + (1 - lane / 16) * CHUNK_BYTES"),
    ("A: the same eight columns twice", FFN, "kn_int8_at(KN_PANEL_ROWS, first + lane % 16,", "kn_int8_at(KN_PANEL_ROWS, first + lane % 8,"),
    ("B: registers change places", FFN, "b0[1] = r[1], b1[0] = r[2]", "b0[1] = r[2], b1[0] = r[1]"),
    ("the order of chunks on the way in alone", FFN, "ptx_ldmatrix_x2(b, x + kn_int8_at(ROWS, first + lane % 8, 32 * step + lane / 8 % 2 * CHUNK_BYTES));",
     "ptx_ldmatrix_x2(b, x + step / 4 * ROWS * KN_HALF + (first + lane % 8) * KN_HALF + step % 4 * 32 + lane / 8 % 2 * CHUNK_BYTES);"),
    ("the weights of another panel", FFN, "p < panels ? p : 0", "p < panels ? 0 : 0"),
    ("columns of an element change places", TILE, "outputs<UP>::weights + lane / 4 + 8 * (i / 2)", "outputs<UP>::weights + lane / 4 + 8 * (1 - i / 2)"),
    ("rows of an element change places", TILE, "lane % 4 * 2 + i % 2", "lane % 4 * 2 + 1 - i % 2"),
    ("the scale of another weight", FFN, "w->scales[first + lane / 4 + 8 * (i / 2)]", "w->scales[(first + lane / 4 + 8 * (i / 2)) ^ 1]"),
    ("scales one after the other", FFN, "fmaf(static_cast<float>(dot[d][i]), scale, acc[a][d][i])",
     "fmaf(static_cast<float>(dot[d][i]) * s->x_scales[row_of<S>(d, i)], w->scales[first + lane / 4 + 8 * (i / 2)], acc[a][d][i] + 0 * scale)"),
    ("rounded before it is added", FFN, "fmaf(static_cast<float>(dot[d][i]), scale, acc[a][d][i])", "static_cast<float>(dot[d][i]) * scale + acc[a][d][i]"),
    (AS_BF16 + "bytes change places in a alone", FFN, "two_bf16(a[1] >> shift)", "two_bf16(a[1] >> (16 - shift))"),
    (AS_BF16 + "the lower half twice", FFN, "half_step(d, a, b, 16);", "half_step(d, a, b, 0);"),
    (AS_BF16 + "without signs", FFN, "low = static_cast<int8_t>(bytes)", "low = static_cast<uint8_t>(bytes)"),
    ("gate and up change places", TILE, "return kn_cuda_activate(view, g, u);", "return kn_cuda_activate(view, u, g);"),
    ("one row too many goes out", OUT, "i < pairs * FOURS", "i < (pairs + 1) * FOURS"),
    ("rows that are not there are read", STAGES, "row[r] = r >= t.rows ? -1 :", "row[r] = r > t.rows ? -1 :"),
    ("sums: one row too many", OUT, "i < pairs * COLUMNS", "i < (pairs + 1) * COLUMNS"),
    ("sums: of the first columns", OUT, "column + i % COLUMNS, tile", "i % COLUMNS, tile"),
    ("sums: of another pair", OUT, "kn_cuda_add(out, first_pair + i / COLUMNS,", "kn_cuda_add(out, i / COLUMNS,"),
    ("sums: padding is added", OUT, "if (column >= out.n)\n\t\treturn;", ""),
    ("sums: of the pair's number", OUT, "out.row_index ? out.row_index[pair] : pair", "pair"),
    ("sums: the weight of another pair", OUT, "out.weight[pair]", "out.weight[pair / 2 * 2]"),
    ("sums: rounded in single precision", OUT, "static_cast<double>(out.weight[pair]) * static_cast<double>(y) * out.inverse",
     "static_cast<double>(out.weight[pair] * y) * out.inverse"),
    ("sums: cut off, not rounded", OUT, "rint(", "trunc("),
    ("sums: the limit is let in", OUT, "< 0x1p53", "< 0x1p63"),
    ("sums: infinity and NaN have an integer", OUT, "if (fabs(q) < 0x1p53)", "if (!(fabs(q) >= 0x1p53))"),
    ("sums: not atomic", OUT, "atomicAdd(reinterpret_cast<unsigned long long *>(&out.sums[row * out.n + column]),\n\t\t\tstatic_cast<unsigned long long>(static_cast<int64_t>(q)));",
     "out.sums[row * out.n + column] += static_cast<int64_t>(q);"),
    ("sums: the last pair poisons", OUT, "atomicMin(&out.poison[row], pair);", "out.poison[row] = pair;"),
    ("sums: nothing poisons", OUT, "atomicMin(&out.poison[row], pair);", ";"),
    ("tiles of many rows are forgotten", FFN, "launch<kn_down_many, false>(q, down, p.many, p.many_count);", ""),
    ("f32: k in another order", F32, "for (int i = 0; i < 4; i++)\n#pragma unroll\n\t\t\tfor (int half", "for (int i = 3; i >= 0; i--)\n#pragma unroll\n\t\t\tfor (int half"),
    ("f32: rounded before it is added", F32, "fmaf(x[r].v[i], wide, acc[r][half][c])", "x[r].v[i] * wide + acc[r][half][c]"),
    ("f32: gate and up change places", F32, "kn_cuda_activate(view, g, u)", "kn_cuda_activate(view, u, g)"),
    ("f32: columns of y side by side", F32, "c / 8 * 16 + c % 8", "c"),
    ("f32: one row too many goes out", F32, "if (row >= t.rows)", "if (row > t.rows)"),
    ("f32: a panel that is not there goes out", F32, "if (panel_of<S>() < panels)", "if (true)"),
    ("f32: the weights of another panel", F32, "(p < panels ? p : 0)", "(p < panels ? 0 : 0)"),
    ("f32: tiles of many rows are forgotten", F32, "launch<kn_f32_many, T, UP>(q, g, p.many, p.many_count);", ""),
    ("f32: bf16 is widened as f16", F32, "return __uint_as_float(static_cast<uint32_t>(w.bits) << 16);", "return ptx_f32_of_f16(w.bits);"),
    ("wgmma: a stage is fetched before it is given back", SM90, "ptx_mbarrier_wait(&s->empty[at.place], at.parity ^ 1);", ""),
    ("wgmma: the other phase of an empty stage", SM90, "&s->empty[at.place], at.parity ^ 1", "&s->empty[at.place], at.parity"),
    ("wgmma: a stage is not waited for", SM90, "ptx_mbarrier_wait(&s->full[at->place], at->parity);", ""),
    ("wgmma: the other phase of a full stage", SM90, "&s->full[at->place], at->parity", "&s->full[at->place], at->parity ^ 1"),
    ("wgmma: the parity changes a stage too late", SM90, "parity ^= place == 0", "parity ^= place == 1"),
    ("wgmma: too few bytes are announced", SM90, "(last ? scales_bytes : 0)", "(last ? scales_bytes - 16 : 0)"),
    ("wgmma: scales are announced twice", SM90, "(last ? scales_bytes : 0)", "scales_bytes"),
    ("wgmma: whole groups are given back too early", SM90, "ptx_wgmma_wait<0>();\n\t\t\t\t\tscale<S, ROWS>(from, first + p, d, acc[p]);",
     "scale<S, ROWS>(from, first + p, d, acc[p]);"),
    ("wgmma: half groups are given back too early", SM90, "if constexpr (S::halves == 1) {\n\t\t\t\tptx_wgmma_wait<0>();", "if constexpr (S::halves == 1) {"),
    ("wgmma: half groups wait for all but one product", SM90, "if constexpr (S::halves == 1) {\n\t\t\t\tptx_wgmma_wait<0>();",
     "if constexpr (S::halves == 1) {\n\t\t\t\tptx_wgmma_wait<1>();"),
    ("wgmma: no commit", SM90, "ptx_wgmma_commit();", ""),
    ("wgmma: no fence before products", SM90, "ptx_wgmma_fence();", ""),
    ("wgmma: lanes that still read", SM90, "__syncwarp();", ""),
    ("wgmma: all lanes give a stage back", SM90, "if (lane == 0)\n\t\t\t\tptx_mbarrier_arrive(", "ptx_mbarrier_arrive("),
    ("wgmma: one warp too few gives a stage back", SM90, "ptx_mbarrier_init(&s->empty[i], S::warpgroups * WARPGROUP / LANES)",
     "ptx_mbarrier_init(&s->empty[i], S::warpgroups * WARPGROUP / LANES - 1)"),
    ("wgmma: barriers that copies do not see", SM90, "ptx_mbarrier_fence_init();", ""),
    ("wgmma: no barrier after the beginning", SM90, "ptx_fence_async();\n\t}\n\t__syncthreads();", "ptx_fence_async();\n\t}"),
    ("wgmma: zeros that wgmma does not see", SM90, "ptx_fence_async();", ""),
    ("wgmma: rows that are not there stay as they are", SM90, "clear_rows(&s->stages[i], rows);", ""),
    ("wgmma: a product begins with the last one", SM90, "part > 0 || i > 0", "true"),
    ("wgmma: half a group is left out", SM90, "part > 0 || i > 0", "i > 0"),
    ("wgmma: weights of the first half twice", SM90, "+ i / STEPS * KN_HALF_BYTES)", ")"),
    ("wgmma: a step of k twice", SM90, "ptx_wgmma_operand(from.x[i / STEPS]) +\n\t\t\t\t\t\t\t2 * static_cast<uint64_t>(i % STEPS)",
     "ptx_wgmma_operand(from.x[i / STEPS]) +\n\t\t\t\t\t\t\t2 * static_cast<uint64_t>(i % STEPS | 1)"),
    ("wgmma: the half of another stage", SM90, "block->q + half * KN_HALF_BYTES", "block->q + (S::halves == 1) * (half ^ 1) * KN_HALF_BYTES"),
    ("wgmma: rows of a tile as if it were full", SM90, "rows_bytes(padded(t.rows)) * group", "rows_bytes(8) * group"),
    ("wgmma: panels of the first pass twice", SM90, "first_panel + pass * S::panels + static_cast<size_t>(p)", "first_panel + static_cast<size_t>(p)"),
    ("wgmma: panels past the last", SM90, "(panel < g.panels ? panel : g.panels - 1) * g.groups", "panel * g.groups"),
    ("wgmma: the order of chunks of rows", SM90, "kn_int8_at(static_cast<int>(rows), static_cast<int>(r),", "kn_int8_at(static_cast<int>(rows), static_cast<int>(r ^ 1),"),
    ("wgmma: halves of rows change places", SM90, "kn_four_bytes(v, 4 * half, s)", "kn_four_bytes(v, 4 - 4 * half, s)"),
    ("wgmma: the scale of another weight", SM90, "w1 = w[8]", "w1 = w[0]"),
    ("wgmma: the scale of another row", SM90, "fmaf(static_cast<float>(d[1]), two.y * w0", "fmaf(static_cast<float>(d[1]), two.x * w0"),
    ("wgmma: the scales of another panel", SM90, "from.w_scales[panel] + warp * 16", "from.w_scales[panel ^ (S::panels > 1)] + warp * 16"),
    ("wgmma: scales one after the other", SM90, "fmaf(static_cast<float>(d[3]), two.y * w1, c[3])", "fmaf(static_cast<float>(d[3]) * two.y, w1, c[3])"),
    ("wgmma: columns of h in another order", SM90, "weight / 16 * 8 + weight % 8", "weight / 16 * 8 + (weight % 8 ^ 1)"),
    ("wgmma: gate and up change places", SM90, "kn_cuda_activate(view, v, u)", "kn_cuda_activate(view, u, v)"),
    ("wgmma: one row too many goes out", SM90, "if (row < rows)\n", "if (row <= rows)\n"),
    ("wgmma: rows that an instruction does not have", SM90, "rows <= 64", "rows <= 72"),
    ("wgmma: h is quantised before it is there", SM90, "ptx_named_sync(1, S::warpgroups * WARPGROUP);", ""),
    ("wgmma: columns past the last are quantised", SM90, "r < t.rows && group * KN_GROUP + k < g.columns", "r < t.rows"),
    ("wgmma: a row too many is gathered", SM90, "if (r < t.rows) {", "if (r <= t.rows) {"),
    ("wgmma: tiles of an expert overlap", SM90, "first += most;", "first += most - 1;"),
    ("the largest without the last value", WARP, "for (int i = 0; i < KN_LANE_VALUES; i++) {\n\t\tuint32_t bits", "for (int i = 0; i < KN_LANE_VALUES - 1; i++) {\n\t\tuint32_t bits"),
    ("values past the row", QUANTISE, "k < n && i < LANE_VALUES", "i < LANE_VALUES"),
    ("rounds to the middle of other integers", WARP, "0x1.8p23f", "0x1.8p22f"),
    ("q8: scales of the next group", ROWS, "i / CADRE_ROW_GROUP * sizeof(float)", "(i + 1) / CADRE_ROW_GROUP * sizeof(float)"),
    ("no zeros after a row", ROWS, "(n + 63) / 64 * 64;", "n;"),
    ("no barrier in the reduction", COMBINE, "s->low[warp] = low;\n\t}\n\t__syncthreads();", "s->low[warp] = low;\n\t}"),
    ("no barrier before a row goes out", COMBINE, "width);\n\t__syncthreads();\n\tfor", "width);\n\tfor"),
    ("no barrier after a part of a row", COMBINE, "s->chunks[i];\n\t__syncthreads();", "s->chunks[i];"),
    ("the last chunk is left out", COMBINE, "i * CHUNK_BYTES < count * width", "(i + 1) * CHUNK_BYTES <= count * width"),
    ("a chunk's end is not written", COMBINE, "i < kn_round_up(count, CHUNK_BYTES)", "i < count"),
    ("parts of a row on top of each other", COMBINE, "p.data + row * p.stride + first * width", "p.data + row * p.stride"),
    ("three bytes in the other order", COMBINE, "data[3 * i + b]", "data[3 * i + 2 - b]"),
    ("a row of the next width", COMBINE, "most < 1u << 23 ? 3", "most < 1u << 22 ? 3"),
    ("a poisoned row is not said to be", COMBINE, "head.poisoned = poison != NONE;", ""),
    ("widths of the first warp alone", COMBINE, "for (uint32_t w = 0; w < WARPS; w++)", "for (uint32_t w = 0; w < 1; w++)"),
    ("a buffer is filled again too early", STAGING, "\t(void)kn_cuda_staging_wait(buffer);\n", ""),
    ("a fetch is not waited for", STAGING, "error == cudaSuccess ? kn_cuda_staging_wait(buffer) : error", "error"),
    ("the event is before the copy", STAGING, "cudaError_t error = cudaMemcpyAsync(to, buffer->bytes, bytes, cudaMemcpyHostToDevice, staging->stream);\n"
     "\treturn error == cudaSuccess ? cudaEventRecord(buffer->copied, staging->stream) : error;",
     "cudaError_t error = cudaEventRecord(buffer->copied, staging->stream);\n"
     "\treturn error == cudaSuccess ? cudaMemcpyAsync(to, buffer->bytes, bytes, cudaMemcpyHostToDevice, staging->stream) : error;"),
    ("one buffer for two", STAGING, "staging->count--;", "staging->count -= staging->count > 1;"),
    ("the last copy is not waited for", EXPERT, "error = kn_cuda_staging_wait(buffer);", ";"),
    ("an expert that goes keeps its slot", EXPERT, "\t\tkn_cuda_slot_give(kn_cuda_device_of(device), e->memory);\n\tfree(e);", "\t\t;\n\tfree(e);"),
    ("one slot for two", SLOTS, "slots->unused[--slots->unused_count] : nullptr", "slots->unused[slots->unused_count - 1] : nullptr"),
    ("slots overlap", SLOTS, "chunk + i * bytes", "chunk + i * (bytes - KN_SLOT_ALIGNMENT)"),
    ("a slot goes back to the device", SLOTS, "if (!is_slot(slots, slot)) {", "if (true) {"),
    ("what is no slot becomes one", SLOTS, "if (!is_slot(slots, slot)) {", "if (!slot) {"),
    ("half reserved", SLOTS, "\telse\n\t\tgive_back(slots);", ""),
)
BF16 = "kernels/cuda/ffn_bf16_sm90.cu"
MUTANTS += (
    ("bf16: no barrier before the stages are used for the way out", BF16, "multiply<S>(from, acc); });\n\t__syncthreads();", "multiply<S>(from, acc); });"),
    ("bf16: steps of k from the last to the first", BF16, "for (int step = 0; step < STEPS; step++) {", "for (int step = STEPS; step-- > 0;) {"),
    ("stages of k in an order of their own", STAGES, "multiply(&stages[i % S::stages]);", "if (i % 2 == 0) multiply(&stages[i % S::stages]);"),
    ("bf16: A: halves of k change places", BF16, "KN_SM90_BLOCK * step + lane / 16 * CHUNK", "KN_SM90_BLOCK * step + (1 - lane / 16) * CHUNK"),
    ("bf16: B: registers change places", BF16, "b0[1] = r[1], b1[0] = r[2]", "b0[1] = r[2], b1[0] = r[1]"),
    ("bf16: what is past h is read", BF16, "rows[r] >= 0 && k < g.k", "rows[r] >= 0"),
    ("bf16: rows are cut", BF16, "kn_bf16_of(low) |", "(__float_as_uint(low) >> 16) |"),
    ("the bias of the column beside", TILE, "g + view.gate_bias[column]", "g + view.gate_bias[column ^ 1]"),
    ("bf16: the last rows are left out", BF16, "if (row < rows)", "if (row + 1 < rows)"),
)


def included(source):
    """The project's headers that a file includes, and those that they do."""
    headers = set(re.findall(r'#include "(kernels/cuda/[^"]+)"', pathlib.Path(source).read_text()))
    return headers.union(*(included(ROOT / header) for header in headers))


class Build:
    """One of the two builds, with a file in another text."""

    def __init__(self, build, check):
        self.build = build
        self.suffix, self.device = ("-check", "cadre_cuda_device_check") if check else ("", "cadre_cuda_device")
        self.seeds = (0, 2) if check else (0, 1, 2, 3)
        commands = json.loads((build / "compile_commands.json").read_text())
        emu, library = ("cadre_emu_check", "cadre_emu_library_check") if check else ("cadre_emu", "cadre_emu_library")
        self.commands = {entry["file"]: entry for entry in commands if any(f"{target}.dir" in entry["command"] for target in (self.device, library))}
        folder = build / "kernels" / "cuda" / "CMakeFiles"
        self.objects = [path for target in (emu, library, "cadre_cuda_c", self.device) for path in (folder / f"{target}.dir").rglob("*.o")]

    def link(self, file, text, folder):
        """libcadre-emu.so of it in the folder; what the compiler says when it will not."""
        changed = folder / file
        changed.parent.mkdir(parents=True)
        changed.write_text(text)
        made = []
        for source, entry in self.commands.items():
            if source == str(ROOT / file):
                source = str(changed)
            elif file not in included(source):
                continue
            made.append(folder / f"{pathlib.Path(source).name}.o")
            words = [word for word in entry["command"].split() if word not in ("ccache", "-Werror", "-Wall", "-Wextra")]
            words[words.index("-o") + 1], words[words.index("-c") + 1] = str(made[-1]), source
            done = subprocess.run([words[0], f"-I{folder}", *words[1:]], cwd=entry["directory"], capture_output=True, text=True)
            if done.returncode:
                return done.stderr.splitlines()[0]
        others = [path for path in self.objects if path.name not in {path.name for path in made}]
        subprocess.run(["g++", "-shared", "-o", folder / "libcadre-emu.so", *made, *others, "-ldl"], check=True)
        return None

    def notices(self, program, folder, gpu):
        """What the test says, in one of the orders; None: nothing."""
        for seed in self.seeds:
            try:
                done = subprocess.run([self.build / "tests" / program], cwd=ROOT, capture_output=True, text=True, timeout=300,
                                      env={**os.environ, **gpu, "CADRE_BACKENDS": str(folder), "CADRE_EMU_SEED": str(seed)})
            except subprocess.TimeoutExpired:
                return "time"
            said = [line for line in done.stderr.splitlines() if line.startswith("emu: ") and not line.startswith("emu:  ")]
            if done.returncode:
                return said[0][len("emu: "):].split(":")[0] if said else "values"
        return None


def noticed(builds, name, file, text):
    for build in builds:
        with tempfile.TemporaryDirectory() as temporary:
            folder = pathlib.Path(temporary)
            refused = build.link(file, text, folder)
            program, sm = "test_cuda_memory" if file.endswith(".cc") else "test_cuda_device", "103" if name.startswith(AS_BF16) else GPU.get(file)
            gpu = {"CADRE_EMU_SM": sm} if sm else {}
            found = f"does not compile: {refused}" if refused else build.notices(program, folder, gpu)
        if found:
            return f"{'checking' if build.suffix else 'fast':10} {found}"
    return None


def main():
    build, words = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2:]
    builds, missed = (Build(build, False), Build(build, True)), 0
    for name, file, old, new in MUTANTS:
        if words and not any(word in name for word in words):
            continue
        text = (ROOT / file).read_text()
        assert text.count(old) == 1, f"{name}: the text is in {file} {text.count(old)} times"
        found = noticed(builds, name, file, text.replace(old, new))
        missed += found is None
        print(f"{name:56} {found or 'NOT NOTICED'}", flush=True)
    print(f"{missed} not noticed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
