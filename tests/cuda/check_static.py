#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What can be known of GPU kernels without a GPU, against a table.

    tests/cuda/check_static.py FOLDER    objects of nvcc, with what ptxas said of each (X.o.log), and their PTX (X.ptx)

Registers have a limit, so that shared memory says how many blocks a multiprocessor has. Local memory and spills are
refused, and the instructions that a kernel is written for must be there, as often as the source says. Approximate
functions and single precision that is not rounded to nearest are refused: no CPU has their bits. So are sums and
products that do not say how they are rounded: a driver that compiles the PTX for a later GPU could fuse them. So is what
ptxas says of wgmma when it has to wait between two of them.
"""
import pathlib
import re
import subprocess
import sys

ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90a", "sm_100")
UP_FEW, UP_MANY, DOWN_FEW, DOWN_MANY = ("kn_gemm_kernel<kn_tile_shape<%s" % shape for shape in (
    "1, 8, 2, 1, 4>, true", "2, 64, 2, 4, 2>, true", "1, 8, 4, 1, 4>, false", "1, 64, 2, 4, 3>, false"))
INTEGERS = ", integer_units>"
MMA, LDMATRIX = "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32", "ldmatrix.sync.aligned.m8n8"
FETCH = "cp.async.cg.shared.global"
SUMS = {"cvt.rni.f64.f64": 0, "red.global.add.u64": 0, "red.global.min.u32": 0}  # none of them waits for what was there

# kernel -> registers at most, instructions in its PTX: exactly, or (0) at least one
KERNELS = {
    UP_FEW + INTEGERS: (128, {MMA: 16, LDMATRIX: 24, FETCH: 0}),
    UP_MANY + INTEGERS: (240, {MMA: 64, LDMATRIX: 40, FETCH: 0}),
    DOWN_FEW + INTEGERS: (96, {MMA: 8, LDMATRIX: 16, FETCH: 0, **SUMS}),
    DOWN_MANY + INTEGERS: (128, {MMA: 32, LDMATRIX: 24, FETCH: 0, **SUMS}),
    "kn_quantise_kernel": (40, {"redux.sync.max.u32": 1}),
    "kn_rows_unpack_kernel": (40, {}),
    "kn_combine_kernel": (48, {"redux.sync.or.b32": 2}),
}
F32_FEW, F32_MANY = "1, 8, 1, 4, 4", "2, 64, 4, 8, 3"
FMA = "fma.rn.f32"
# of profile f32, eight links of every chain: columns * rows of a thread
for shape, registers, columns, rows in ((F32_FEW, 64, 2, 4), (F32_MANY, 168, 8, 8)):
    for weights in ("float", "bf16", "f16"):
        WIDEN = {"cvt.f32.f16": 8 * columns} if weights == "f16" else {}
        KERNELS[f"kn_gemm_f32_kernel<kn_f32_shape<{shape}>, {weights}, false>"] = (registers, {FMA: 8 * columns * rows, FETCH: 0, **WIDEN})
        KERNELS[f"kn_gemm_f32_kernel<kn_f32_shape<{shape}>, {weights}, true>"] = (registers, {FMA: 0, FETCH: 0, **WIDEN})
# of profile bf16-sm90, for Hopper alone: a stage is four steps of k
MMA_BF16 = "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"
# integers as bf16: two instructions for one
for shape, registers, products, fragments, more in (("kn_gemm_kernel<kn_tile_shape<1, 8, 4, 1, 4>, true", 96, 8, 16, {}), (UP_MANY, 255, 64, 40, {}), (DOWN_FEW, 128, 8, 16, SUMS), (DOWN_MANY, 168, 32, 24, SUMS)):
    KERNELS[f"{shape}, bf16_units>"] = (registers, {MMA_BF16: 2 * products, LDMATRIX: fragments, FETCH: 0, **more})
KERNELS["kn_probe_kernel"] = (40, {MMA_BF16: 1})
# of profile int8, for Hopper alone too: registers are what a block of 384 threads begins with, before they change hands
WGMMA, BULK, WGMMA_REGISTERS = "wgmma.mma_async.sync.aligned", "cp.async.bulk.shared::cluster.global", 168
WGMMA_SHAPES = {"8, 1, 1, 2, 5, 2, false": (8, (0, 2)), "8, 4, 2, 1, 6, 1, true": (16, (0, 1, 2)), "16, 4, 2, 1, 5, 1, true": (16, (0, 1, 2)),
                "32, 4, 2, 1, 5, 1, true": (16, (0, 1, 2)), "64, 4, 2, 1, 5, 1, false": (16, (0, 2)), "128, 4, 2, 2, 2, 1, false": (80, (0, 2))}
HOPPER = {
    **{f"kn_wgmma_kernel<kn_wgmma_shape<{shape}>, {out}>": (WGMMA_REGISTERS, {WGMMA: products, BULK: 0, **(SUMS if out == 2 else {})})
       for shape, (products, outs) in WGMMA_SHAPES.items() for out in outs},
    "kn_gather_kernel": (40, {"redux.sync.max.u32": 1}),
    "kn_bf16_kernel<kn_tile_shape<1, 8, 4, 1, 6>, true": (64, {MMA_BF16: 4, LDMATRIX: 8, FETCH: 0}),
    "kn_bf16_kernel<kn_tile_shape<2, 64, 4, 2, 4>, true": (128, {MMA_BF16: 32, LDMATRIX: 16, FETCH: 0}),
    "kn_bf16_kernel<kn_tile_shape<1, 8, 4, 1, 6>, false": (64, {MMA_BF16: 4, LDMATRIX: 8, FETCH: 0, **SUMS}),
    "kn_bf16_kernel<kn_tile_shape<1, 64, 2, 4, 6>, false": (96, {MMA_BF16: 16, LDMATRIX: 12, FETCH: 0, **SUMS}),
    "kn_round_kernel": (40, {}),
}
KERNELS.update(HOPPER)
REFUSED = re.compile(r"\.approx|\.ftz|\.local\.|(?:add|mul|fma|div|sqrt)\.r[zmp]\.f32|(?:add|sub|mul)\.f(?:32|64)")


def name_of(mangled):
    plain = subprocess.run(["c++filt", mangled], capture_output=True, text=True, check=True).stdout
    plain = re.sub(r"^void |\((?:int|bool|\(anonymous namespace\)::way_out)\)|\(anonymous namespace\)::", "", plain.strip())
    return next((kernel for kernel in KERNELS if plain.startswith(kernel)), plain)


def reports(log):
    """(kernel, architecture, registers, bytes of stack and spills) of each kernel that ptxas has compiled."""
    for part in re.split(r"Compiling entry function", log.read_text())[1:]:
        mangled, architecture = re.search(r"'(\S+)' for '(\S+)'", part).groups()
        memory = sum(map(int, re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part).groups()))
        yield name_of(mangled), architecture, int(re.search(r"Used (\d+) registers", part).group(1)), memory


def bodies(ptx):
    """(kernel, text) of each."""
    for part in re.split(r"\.entry ", ptx.read_text())[1:]:
        yield name_of(part[:part.index("(")]), part


def check_report(kernel, architecture, registers, memory):
    if kernel not in KERNELS:
        return f"{kernel} has no line in the table"
    if registers > KERNELS[kernel][0]:
        return f"{kernel} takes {registers} registers on {architecture}, {KERNELS[kernel][0]} are allowed"
    return f"{kernel} uses {memory} bytes of local memory on {architecture}" if memory else None


def check_body(kernel, text):
    for instruction, count in KERNELS.get(kernel, (0, {}))[1].items():
        found = text.count(instruction)
        if found != count and (count > 0 or found == 0):
            yield f"{kernel} has {instruction} {found} times, not {count or 'once or more'}"
    for refused in sorted(set(REFUSED.findall(text))):
        yield f"{kernel} has an instruction with {refused}"


def main():
    folder = pathlib.Path(sys.argv[1])
    wrong, seen = [], set()
    print(f"{'kernel':64} {'architecture':12} registers")
    for log in sorted(folder.glob("*.o.log")):
        for report in reports(log):
            print(f"{report[0]:64} {report[1]:12} {report[2]}")
            seen.add(report[:2])
            wrong.append(check_report(*report))
        if "wgmma" in log.read_text() and "serialized" in log.read_text():
            wrong.append(f"{log}: ptxas waits between products of wgmma")
    for ptx in sorted(folder.glob("*.ptx")):
        for kernel, text in bodies(ptx):
            seen.add((kernel, "ptx"))
            wrong += check_body(kernel, text)
    wrong += [f"{kernel} was not compiled for {where}" for kernel in KERNELS for where in (("sm_90a",) if kernel in HOPPER else ARCHITECTURES) + ("ptx",) if (kernel, where) not in seen]
    wrong = [sentence for sentence in wrong if sentence]
    print("\n".join(wrong), f"{len(seen)} kernels, {len(wrong)} wrong", sep="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
