# SPDX-License-Identifier: Apache-2.0
"""The dashboard asks for metrics that exist, of the source that is provisioned, and its panels lie beside each other."""
import itertools
import json
import re

import certificates
from cluster import ROOT, Cluster, http

DEPLOY = ROOT / 'orchestration/deploy'
PANELS = json.loads((DEPLOY / 'grafana/dashboards/cadre.json').read_text())['panels']
EXPRESSIONS = [target['expr'] for panel in PANELS for target in panel.get('targets', [])]


def test_metrics_exist(tmp_path):
    certificates.cluster(tmp_path)
    with Cluster(ROOT / 'models/demo', experts=1, tls=tmp_path) as cluster:
        addresses = [cluster.placement_http, cluster.experts[0].http, cluster.routers[0].http]
        known = {name for address in addresses for name in re.findall(r'^([a-z_]+)[{ ]', http(address, '/metrics'), re.M)}
    for expression in EXPRESSIONS:
        names = re.findall(r'\b(?:cadre|process)_[a-z_]+', expression)
        assert set(names) <= known, f'{expression}: no process has {set(names) - known}'


def test_panels():
    source = re.search(r'uid: (\w+)', (DEPLOY / 'grafana/provisioning/datasources/prometheus.yml').read_text()).group(1)
    assert len({panel['id'] for panel in PANELS}) == len(PANELS)
    for panel in PANELS:
        assert panel['type'] == 'row' or panel['targets'] and panel['datasource'] == {'type': 'prometheus', 'uid': source}, panel['title']
        assert panel['gridPos']['x'] + panel['gridPos']['w'] <= 24, panel['title']
    for a, b in itertools.combinations([panel['gridPos'] for panel in PANELS], 2):
        assert a['x'] + a['w'] <= b['x'] or b['x'] + b['w'] <= a['x'] or a['y'] + a['h'] <= b['y'] or b['y'] + b['h'] <= a['y'], (a, b)
