#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""clang-tidy over C files, without the findings that are answered in scripts/clang-tidy.txt.

    scripts/tidy.py BUILD-DIRECTORY FILE...    prints what is not answered, and answers without a finding; exits 1 if there are any

An answer is a line `check:path` below a comment that gives its reason; it holds for every finding of that check in that file,
since lines move.
"""
import concurrent.futures
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FINDING = re.compile(r"^(/\S+?):(\d+):\d+: (?:warning|error): .* \[([^\]]+)\]$")


def answers():
    """{(check, path)} of clang-tidy.txt; a block of answers without a comment above it is a mistake."""
    found, reason = set(), False
    with open(os.path.join(ROOT, "scripts", "clang-tidy.txt"), encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            line = line.strip()
            if line.startswith("#"):
                reason = True
            elif not line:
                reason = False
            elif not reason:
                sys.exit(f"scripts/clang-tidy.txt:{number}: an answer without a reason above it")
            else:
                check, _, path = line.partition(":")
                found.add((check, path))
    return found


def findings(build, path):
    """[(check, path, text with its notes)] of one file and the headers it includes."""
    run = subprocess.run(["clang-tidy", "--quiet", "-p", build, path], cwd=ROOT, capture_output=True, text=True)
    found = []
    for line in run.stdout.splitlines():
        match = FINDING.match(line)
        if match:
            name = os.path.relpath(match.group(1), ROOT)
            if name.startswith(".."):
                name = path   # a system header is right: what does not agree with it is here
            found.append([match.group(3).split(",")[0], name, line.replace(ROOT + "/", "")])
        elif found:
            found[-1][2] += "\n" + line.replace(ROOT + "/", "")
    if run.returncode and not found:
        found.append(["clang-tidy", path, f"{path}: clang-tidy failed:\n{run.stderr}"])
    return [tuple(one) for one in found]


def main():
    build, paths = sys.argv[1], sys.argv[2:]
    answered, used, open_ones = answers(), set(), {}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for found in pool.map(lambda path: findings(build, path), paths):
            for check, path, text in found:
                used.add((check, path))
                if (check, path) not in answered:
                    open_ones[text.split("\n")[0]] = text   # a header's finding comes once for each that includes it
    for text in open_ones.values():
        print(text)
    unused = sorted(answer for answer in answered - used if answer[1] in paths)
    for check, path in unused:
        print(f"scripts/clang-tidy.txt: {check}:{path} has no finding any more")
    print(f"{len(paths)} files, {len(open_ones)} findings, {len(answered & used)} answered kinds", file=sys.stderr)
    return 1 if open_ones or unused else 0


if __name__ == "__main__":
    sys.exit(main())
