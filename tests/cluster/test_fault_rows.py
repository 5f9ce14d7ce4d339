# SPDX-License-Identifier: Apache-2.0
"""The table of faults (./cadre test faults) takes an hour; here are some of its rows that have no goal in time: nothing fails, and digests are equal."""
import os
import subprocess
import sys

from cluster import BIN, ROOT


def faults(*arguments):
    return subprocess.run([sys.executable, ROOT / 'tests' / 'faults' / 'run.py', *arguments], capture_output=True, text=True, timeout=400, env={**os.environ, 'CADRE_BIN': str(BIN)})


def test_a_row_that_is_not_there():
    done = faults('nothing', 'nonsense')
    assert done.returncode == 2 and "there is no row 'nonsense'; --list names them all" in done.stderr


def test_some_rows():
    rows = ['nothing', 'kill-all-nodes-1', 'kill-all-routers', 'loss-2pct']   # the last one needs root, and is skipped without
    done = faults(*rows, '--repeat', '1')
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f'| `{row}` |' in done.stdout or f'{row} is skipped' in done.stdout for row in rows), done.stdout
