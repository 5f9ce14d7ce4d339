#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The inner loops of the GEMM tiles keep their accumulators in registers.

usage: check_tile_loops.py libcadre_kernels.a

A compiler that spills an accumulator writes it to the stack at every step, which costs half of the speed and no test of results sees. This
disassembles the functions tile_* and looks for vector stores inside their innermost loops with multiply-adds. Tiles of integers write sums of
each group of k in the same loop, so there it looks for stores to the stack.
"""
import re
import subprocess
import sys

TILES_MIN = 55   # 7 + 6 tiles of rows, for bf16 and f32, and 12 + 4, for s8 and u4, less what a compiler may fold together

FUNCTION = re.compile(r"^[0-9a-f]+ <(\w+)(?:\.\w+)*>:$")
LINE = re.compile(r"^\s*([0-9a-f]+):\s+(\S+)\s*(.*)$")
STORE = {"floats": re.compile(r"^%[xyz]mm\d+,.*\("), "integers": re.compile(r"^%[xyz]mm\d+,.*\(%r[sb]p")}


def functions(text):
    name, lines = None, []
    for line in text.splitlines():
        start = FUNCTION.match(line)
        if start:
            if name:
                yield name, lines
            name, lines = start.group(1), []
            continue
        instruction = LINE.match(line)
        if instruction:
            address, mnemonic, operands = instruction.groups()
            lines.append((int(address, 16), mnemonic, operands))
    if name:
        yield name, lines


def innermost_loops(lines):
    """Ranges of addresses between the target of a backward jump and the jump, with no such range inside."""
    loops = []
    for address, mnemonic, operands in lines:
        target = re.match(r"([0-9a-f]+) ", operands)
        if mnemonic.startswith("j") and target and int(target.group(1), 16) <= address:
            loops.append((int(target.group(1), 16), address))
    return [a for a in loops if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in loops)]


def main():
    text = subprocess.run(["objdump", "-d", "--no-show-raw-insn", sys.argv[1]], check=True, capture_output=True, text=True).stdout
    seen, faults = 0, []
    for name, lines in functions(text):
        tile = re.match(r"tile_(bf16_rows|bf16|f32|s8|u4)_\d+$", name)
        if not tile:
            continue
        store = STORE["floats" if tile.group(1) in ("bf16", "bf16_rows", "f32") else "integers"]
        for begin, end in innermost_loops(lines):
            body = [line for line in lines if begin <= line[0] <= end]
            if not any(mnemonic.startswith(("vfmadd", "vpdpbusd", "vpmaddubsw")) for _, mnemonic, _ in body):
                continue
            seen += 1
            faults += [f"{name}: {address:x}: {mnemonic} {operands}" for address, mnemonic, operands in body
                       if mnemonic.startswith("vmov") and store.match(operands)]
    print(f"{seen} inner loops")
    for fault in faults:
        print("stores inside its inner loop:", fault)
    if seen < TILES_MIN:
        print(f"fewer than the {TILES_MIN} tiles that should be there: have their names changed?")
    return 1 if faults or seen < TILES_MIN else 0


if __name__ == "__main__":
    sys.exit(main())
