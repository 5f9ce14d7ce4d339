# SPDX-License-Identifier: Apache-2.0
"""The profile `monitoring`, with a Prometheus that scrapes the cluster and is asked everything that the dashboard asks."""
import json
import re
import subprocess
import time
import urllib.parse
import urllib.request

from cluster import ROOT, free_port
from engine import BASE, output
from load import Load

DASHBOARD = ROOT / 'orchestration/deploy/grafana/dashboards/cadre.json'
# Where no image can be pulled: Debian's Prometheus under the name that docker-compose.yml has.
STAND_IN = f'''FROM {BASE}
RUN apt-get update -q && apt-get install -q -y --no-install-recommends prometheus && mkdir /prometheus && chown nobody /prometheus
USER nobody
ENTRYPOINT ["/usr/bin/prometheus"]
'''


def queries():
    return [(panel['title'], target['expr']) for panel in json.loads(DASHBOARD.read_text())['panels'] for target in panel.get('targets', [])]


def provide_image():
    """Its name, and whether it had to be made."""
    name = re.search(r'image: (prom/prometheus:\S+)', (ROOT / 'docker-compose.yml').read_text()).group(1)
    for command in (['docker', 'image', 'inspect', name], ['docker', 'pull', '-q', name]):
        if subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=300).returncode == 0:
            return name, False
    output('docker', 'build', '-q', '-t', name, '-', input=STAND_IN, stderr=subprocess.PIPE)
    return name, True


def ask(address, path, **parameters):
    with urllib.request.urlopen(f'http://{address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}', timeout=10) as answer:
        return json.load(answer)['data']


def until_scraped(address, processes, seconds=60):
    deadline = time.monotonic() + seconds
    while True:
        try:
            targets = ask(address, 'targets', state='active')['activeTargets']
        except OSError:
            targets = []
        if len(targets) == processes and all(target['health'] == 'up' for target in targets):
            return
        assert time.monotonic() < deadline, [(target['scrapeUrl'], target['health'], target['lastError']) for target in targets]
        time.sleep(0.5)


def monitoring(cluster, processes):
    image, made = provide_image()
    try:
        output('docker', 'run', '--rm', '--network', 'none', '--entrypoint', 'promtool', '-v', f'{ROOT}/orchestration/deploy/prometheus:/etc/prometheus:ro', image,
               'check', 'config', '/etc/prometheus/prometheus.yml')
        address = cluster.environment['CADRE_PROMETHEUS'] = f'127.0.0.1:{free_port()}'
        cluster.compose('up', '-d', '--no-deps', 'prometheus')
        until_scraped(address, processes)
        with Load(cluster):
            time.sleep(12)   # rates need two scrapes
            empty = [(title, query) for title, query in queries() if not ask(address, 'query', query=query)['result']]
        assert not empty, f'these panels show nothing: {empty}'
        cluster.compose('rm', '-sf', 'prometheus')
    finally:
        if made:
            subprocess.run(['docker', 'rmi', '-f', image], stdout=subprocess.DEVNULL)
    return f'{processes} processes scraped, {len(queries())} queries of the dashboard answered' + (f", with Debian's Prometheus as {image}" if made else '')
