#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""All operator cases on the emulated GPU: both builds, GPUs of three families, six orders of threads.

    tests/cuda/orders.py BUILD    of a build that is complete; as many at once as there are cores

A line `ok NAME (seconds)` or `FAIL NAME` for each; what a failed one said follows it. Exit code 1: some failed.
"""
import concurrent.futures
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SEEDS = range(6)
FAMILIES = (80, 90, 103)   # compute capability: mma.sync, wgmma, integers as bf16
TIMEOUT_S = 600


def run(build, family, checking, seed):
    """The line about one run, and whether it is a good one."""
    name = f"sm {family}, {'checking' if checking else 'fast'} build, order {seed}"
    begun = time.monotonic()
    environment = {**os.environ, "CADRE_BACKENDS": str(build / "lib" / ("cadre-check" if checking else "cadre")),
                   "CADRE_EMU_SM": str(family), "CADRE_EMU_SEED": str(seed)}
    try:
        done = subprocess.run([build / "tests" / "test_cuda_device"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=TIMEOUT_S)
        code, said = done.returncode, done.stdout
    except subprocess.TimeoutExpired as error:
        code, said = "none", str(error)
    if code == 0:
        return f"ok {name} ({time.monotonic() - begun:.0f} s)", True
    return f"FAIL {name}: exit code {code}\n{said[-3000:]}", False


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    runs = [(build, family, checking, seed) for checking in (True, False) for family in FAMILIES for seed in SEEDS]
    good = True
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for line, passed in pool.map(lambda arguments: run(*arguments), runs):
            print(line, flush=True)
            good &= passed
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
