#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What nvcc has made of each kernel, for three families of GPUs, and how many of its blocks a multiprocessor holds: the table of
docs/GPU.md.

    tests/cuda/machine_code.py BUILD [--write]    of a build that is complete; --write: the page gets the table

Without --write, the page must have it already. Registers are what ptxas says, threads and shared memory what the backend launches
on the emulated GPU, instructions what cuobjdump finds; it and nvdisasm come with the packages of tests/cuda/requirements.txt.
"""
import collections
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from check_static import name_of, reports

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "GPU.md"
BEGIN, END = "<!-- by tests/cuda/machine_code.py -->\n", "<!-- end -->\n"
# Of a multiprocessor: warps, blocks, bytes of shared memory. All have 65,536 registers, and each block takes 1 KiB more.
GPUS = {"sm_80": (64, 32, 164 << 10), "sm_90a": (64, 32, 228 << 10), "sm_100": (64, 32, 228 << 10)}
FAMILIES = (80, 90, 103)   # of which the emulated GPU launches kernels
KINDS = ("IMMA", "IGMMA", "HMMA", "HGMMA", "LDGSTS", "UBLKCP", "UBLKRED", "LDSM", "RED", "REDG", "ATOMG", "REDUX")


def launches(build):
    """kernel -> (threads, bytes of shared memory), the largest that the operators' cases launch."""
    library = build / "lib" / "cadre" / "libcadre-emu.so"
    symbols = {}
    for line in subprocess.run(["nm", library], capture_output=True, text=True, check=True).stdout.splitlines():
        if re.match(r"[0-9a-f]+ [tT] ", line):
            address, _, name = line.split()
            symbols[int(address, 16)] = name
    found = collections.defaultdict(lambda: (0, 0))
    with tempfile.NamedTemporaryFile("r") as file:
        for family in FAMILIES:
            environment = {**os.environ, "CADRE_EMU_LAUNCHES": file.name, "CADRE_EMU_SM": str(family)}
            subprocess.run([build / "tests" / "test_cuda_device"], cwd=ROOT, env=environment, check=True, capture_output=True)
        for line in set(file):
            address, threads, shared = (int(word, 0) for word in line.split())
            name = name_of(symbols[address])
            found[name] = max(found[name], (threads, shared))
    return found


def instructions(folder, architecture, cuobjdump):
    """kernel -> how often each opcode is in its machine code."""
    found = {}
    for path in sorted(folder.glob("*.cu.o")):
        text = subprocess.run([cuobjdump, "-sass", "-arch", architecture, path], capture_output=True, text=True, check=True).stdout
        for part in text.split("Function : ")[1:]:
            opcodes = re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?([A-Z][A-Z0-9]+)", part, re.M)
            found[name_of(part.split()[0])] = collections.Counter(opcodes)
    return found


def resident(architecture, registers, threads, shared):
    """Blocks that a multiprocessor holds, and what limits them."""
    warps_most, blocks_most, shared_most = GPUS[architecture]
    warps = -(-threads // 32)
    by_registers = 65536 // (-(-registers // 8) * 8 * 32) // 4 * 4 // warps   # of each of its four parts as many
    limits = {"threads": warps_most // warps, "registers": by_registers, "shared memory": shared_most // (shared + 1024), "blocks": blocks_most}
    limit = min(limits, key=limits.get)
    return limits[limit], limit


def table(build, cuobjdump):
    folder = build / "kernels" / "cuda" / "nvcc"
    shapes = launches(build)
    code = {architecture: instructions(folder, architecture, cuobjdump) for architecture in GPUS}
    lines = []
    for log in sorted(folder.glob("*.o.log")):
        for kernel, architecture, registers, _ in reports(log):
            if architecture in GPUS and kernel in shapes:
                threads, shared = shapes[kernel]
                blocks, limit = resident(architecture, registers, threads, shared)
                kinds = ", ".join(f"{code[architecture][kernel][kind]} {kind}" for kind in KINDS if code[architecture][kernel][kind])
                order = list(GPUS).index(architecture)
                lines.append((kernel, order, f"| `{kernel}` | {architecture} | {registers} | {threads} | {shared / 1024:.1f} KiB | {blocks} ({limit}) | {kinds} |"))
    head = ["| kernel | for | registers | threads | shared memory | blocks at once (limited by) | of its machine code |", "|---|---|---|---|---|---|---|"]
    return "\n".join(head + [line for _, _, line in sorted(lines)]) + "\n"


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    cuobjdump = shutil.which("nvdisasm") and shutil.which("cuobjdump")   # which runs the other
    if not cuobjdump or not list((build / "kernels" / "cuda" / "nvcc").glob("*.cu.o")):
        print("skipped: machine code: " + ("this build has none" if cuobjdump else "there is no cuobjdump, or no nvdisasm"))
        return 0
    text, made = PAGE.read_text(), table(build, cuobjdump)
    begin = text.index(BEGIN) + len(BEGIN)
    if "--write" in sys.argv:
        PAGE.write_text(text[:begin] + made + text[text.index(END):])
    elif text[begin:text.index(END)] != made:
        print(made + f"FAIL machine code: this is not the table of {PAGE}: tests/cuda/machine_code.py BUILD --write")
        return 1
    print("ok machine code")
    return 0


if __name__ == "__main__":
    sys.exit(main())
