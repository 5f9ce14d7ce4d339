# SPDX-License-Identifier: Apache-2.0
"""Rows of the table of moves (./cadre test moves), in short: nothing fails, and digests are equal."""
import os
import subprocess
import sys

from cluster import BIN, ROOT


def moves(*arguments):
    return subprocess.run([sys.executable, ROOT / 'tests' / 'moves' / 'run.py', *arguments], capture_output=True, text=True, timeout=200, env={**os.environ, 'CADRE_BIN': str(BIN)})


def test_a_row_that_is_not_there():
    done = moves('nonsense')
    assert done.returncode == 2 and "there is no row 'nonsense'; --list names them all" in done.stderr


def test_some_rows():
    rows = ['experts-move', 'node-drains']
    done = moves(*rows, '--repeat', '1', '--window', '0.5', '--pace', '0.5')
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f'| `{row}` |' in done.stdout for row in rows), done.stdout
