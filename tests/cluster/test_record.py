# SPDX-License-Identifier: Apache-2.0
"""tests/tools/record_routing.py: what it writes is a trace, of these texts, of the model's own layers, in order of selection."""
import csv
import json
import subprocess
import sys

import pytest

from cluster import BIN, GOLDEN, ROOT

sys.path.append(str(ROOT / 'tests' / 'tools'))
import record_routing    # noqa: E402

MODEL = GOLDEN / 'qwen3moe-a' / 'model'      # its first layer is dense


def test_texts_become_a_trace(tmp_path):
    texts = {'a.txt': 'One document.\fAnother, which is longer than a window: ' + 'x y z ' * 20, 'b.txt': 'int main(void)'}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    out = tmp_path / 'trace.csv'
    subprocess.run([sys.executable, ROOT / 'tests/tools/record_routing.py', MODEL, tmp_path / 'a.txt', tmp_path / 'b.txt', '--output', out, '--cadrectl', BIN / 'cadrectl', '--window', '30'],
                   check=True, timeout=120)
    with open(out, newline='') as f:
        header, *rows = list(csv.reader(f))
    assert header == ['request', 'position', 'layer', 'e0', 'e1', 'e2', 'e3']
    rows = [[int(cell) for cell in row] for row in rows]
    windows = record_routing.windows(BIN / 'cadrectl', MODEL, [tmp_path / 'a.txt', tmp_path / 'b.txt'], 30, tmp_path)
    assert max(map(len, windows)) == 30 and len(windows) > 3
    assert [row[:3] for row in rows] == [[r, p, layer] for r, window in enumerate(windows) for p in range(len(window)) for layer in (1, 2, 3)]

    (tmp_path / 'input').write_text(json.dumps({'sequences': windows, 'greedy_tokens': 0}))
    subprocess.run([BIN / 'cadrectl', 'eval', '--model', MODEL, '--input', tmp_path / 'input', '--output', tmp_path / 'output'], check=True, timeout=120)
    with record_routing.Tensors(tmp_path / 'output') as output:
        for request, window in enumerate(windows):
            (layers, n, k), ids = output.get(f'experts.{request}')
            _, weights = output.get(f'expert_weights.{request}')
            weight = [dict(zip(ids[at:at + k], weights[at:at + k])) for at in range(0, layers * n * k, k)]
            for _, position, layer, *experts in (row for row in rows if row[0] == request):
                told = [weight[(layer - 1) * n + position][e] for e in experts]
                assert len(set(experts)) == k and told == sorted(told, reverse=True)

    subprocess.run([BIN / 'cadrectl', 'trace', 'import', out, '--output', tmp_path / 'trace.ctr', '--experts', '16'], check=True, timeout=60)
    shown = json.loads(subprocess.run([BIN / 'cadrectl', 'trace', 'show', tmp_path / 'trace.ctr', '-o', 'json'], check=True, capture_output=True, text=True, timeout=60).stdout)
    assert (shown['requests'], shown['tokens']) == (len(windows), sum(map(len, windows)))


@pytest.mark.parametrize('name, collapsed_layers', [('demo', []), ('collapsed', [2, 4])])
def test_where_the_load_lies(tmp_path, name, collapsed_layers):
    """The demo model uses all of its experts; its twin sends over 90 % of the rows of two layers to 4 of 32."""
    texts = []
    for path in sorted((ROOT / 'models' / 'demo' / 'heldout').glob('*.txt')):
        texts.append(tmp_path / path.name)
        texts[-1].write_text(path.read_text()[:1500])
    subprocess.run([sys.executable, ROOT / 'tests/tools/record_routing.py', ROOT / 'models' / name, *texts, '--output', tmp_path / 'trace.csv', '--cadrectl', BIN / 'cadrectl'],
                   check=True, timeout=120)
    shown = json.loads(subprocess.run([BIN / 'cadrectl', 'trace', 'show', tmp_path / 'trace.csv', '-o', 'json'], check=True, capture_output=True, text=True, timeout=60).stdout)
    busiest = {layer['layer']: layer['busiest_eighth'] for layer in shown['layers']}
    assert len(busiest) == 6
    for layer, share in busiest.items():
        assert share > 0.9 if layer in collapsed_layers else share < 0.6, busiest
