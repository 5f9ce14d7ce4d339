# SPDX-License-Identifier: Apache-2.0
"""The README's Python works as it stands there."""
import json
import re
import subprocess
import sys

import pytest

from cluster import GOLDEN, ROOT, Cluster


def test_python_snippet(tmp_path):
    pytest.importorskip('grpc_reflection', reason='the snippet needs the package grpcio-reflection, which is on PyPI alone')
    snippet, = re.findall(r'```python\n(.*?)```', (ROOT / 'README.md').read_text(), re.DOTALL)
    with Cluster(GOLDEN / 'mixtral-a' / 'model', experts=1) as cluster:
        (tmp_path / 'run').mkdir()
        (tmp_path / 'run' / 'cluster.json').write_text(json.dumps({'routers': [{'grpc': cluster.routers[0].grpc}]}))
        done = subprocess.run([sys.executable, '-c', snippet], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        want = cluster.routers[0].generate(text='Once upon a time', max_tokens=24, ignore_eos=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f'{want.text}\n24 tokens, digest {want.digest}\n'
