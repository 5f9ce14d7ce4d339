# SPDX-License-Identifier: Apache-2.0
"""What routers and expert nodes report of their work, and who is told of it: figures that agree with the usage of answers, recordings, `cadrectl top`,
and the switch by which nothing is known of single tokens and experts."""
import json
import os
import pty
import re
import select
import signal
import subprocess
import threading
import time

import grpc
import pytest

from cluster import BIN, GOLDEN, Cluster, cadrectl, code_of, http, until

MODEL = GOLDEN / 'mixtral-a' / 'model'


def ask(cluster, count, tokens=24):
    """Requests to all routers; the sums of what their answers say."""
    results = []
    for i in range(count):
        router = cluster.routers[i % len(cluster.routers)]
        results.append(router.generate(tokens=[1 + i, 2, 3 + i], max_tokens=tokens, ignore_eos=True))
    total = {field: sum(getattr(r.usage, field) for r in results) for field in ('nodes_touched', 'routed_rows', 'bytes_sent', 'bytes_received')}
    # the last token that is generated is never computed
    total['tokens'] = sum(r.usage.prompt_tokens + r.usage.generated_tokens - 1 for r in results)
    return total


@pytest.fixture(scope='module')
def cluster():
    with Cluster(MODEL, experts=3, routers=2) as cluster:
        yield cluster


def test_figures_are_what_the_answers_say(cluster):
    said = ask(cluster, 6)

    def all_told():
        status = cluster.status()
        if status['sample']['seen'] < said['tokens']:
            return None
        minute = status['figures'][1]   # usage has what rows cost, the figures whole messages
        return all(1 <= minute[f'bytes_{way}_per_token'] * said['routed_rows'] / said[f'bytes_{way}'] < 3 for way in ('sent', 'received')) and status
    status = until(all_told, 10)
    sample, figures = status['sample'], {f['window_s']: f for f in status['figures']}
    assert sample['seen'] == sample['sampled'] == sample['kept'] == said['tokens'] and sample['lost'] == 0
    assert sorted(figures) == [10, 60, 600]
    assert figures[60]['tokens'] == said['tokens']
    assert figures[60]['nodes_per_token'] == pytest.approx(said['nodes_touched'] / said['routed_rows'], rel=1e-9)
    assert figures[60]['load_max_over_mean'] >= 1 and figures[60]['activated_max_over_mean'] >= 1
    assert {(t['router'], t['node']) for t in status['traffic']} == {(f'router-{r}', f'expert-{e}') for r in range(2) for e in range(3)}
    assert status['hottest'][0]['over_fair'] >= status['hottest'][-1]['over_fair'] > 0
    assert sum(n['work']['rows_per_second'] for n in status['nodes'] if n['role'] == 'expert') > 0

    def metrics_agree():
        lines = dict(line.rsplit(' ', 1) for line in http(cluster.placement_http, '/metrics').splitlines() if line[0] != '#')
        return float(lines['cadre_placement_nodes_per_token{window="600s"}']) == figures[600]['nodes_per_token'] and \
            float(lines['cadre_placement_routing_tokens_total{outcome="sampled"}']) == said['tokens']
    until(metrics_agree, 10)


def test_recordings_are_traces(cluster, tmp_path):
    output = tmp_path / 'live.ctr'
    done = {}
    recorder = threading.Thread(target=lambda: done.update(r=cluster.command('trace', 'record', '--output', output, '--tokens', 120, '-o', 'json')))
    recorder.start()
    until(lambda: 'method=RecordTrace' in cluster.placement.log.read_text(), 10)   # in the audit log
    said = {'tokens': 0}
    while recorder.is_alive():
        said['tokens'] += ask(cluster, 2)['tokens']
    recorder.join()
    told = json.loads(done['r'].stdout)
    assert (told['tokens'], told['lost'], told['complete']) == (120, 0, True) and told['seen'] >= 120
    assert output.stat().st_mode & 0o777 == 0o600

    shown = json.loads(cadrectl('trace', 'show', output, '-o', 'json', code=0).stdout)
    assert shown['tokens'] == 120 and shown['requests'] >= 4
    assert re.search(r"confidential, as prompts are: live routing of cluster 'cadre', routers router-[01](, router-[01])?, from 20\S+Z to 20\S+Z, recorded by \S+: 120 tokens of \d+",
                     shown['provenance'])
    assert str(MODEL) in shown['model']
    plan = json.loads(cadrectl('plan', '--trace', output, '--nodes', 2, '--rounds', 1, '-o', 'json', code=0).stdout)
    assert plan['layers']


def test_a_recording_ends_with_its_time_or_ctrl_c(cluster, tmp_path):
    record = ['trace', 'record', '--output', tmp_path / 'live.ctr']
    until(lambda: cluster.status()['sample']['newest_ms'] > 1500, 10)   # nothing is on its way
    assert 'no token was routed in the time' in cluster.command(*record, '--duration', '1200ms', code=1).stderr
    assert '/nonexistent/live.ctr' in cluster.command(*record[:-1], '/nonexistent/live.ctr', '--tokens', 5, code=1).stderr   # before it waits
    assert not list(tmp_path.iterdir())
    assert not (tmp_path / 'live.ctr').exists()
    assert '--tokens N' in cluster.command(*record, code=2).stderr

    before = cluster.placement.log.read_text().count('method=RecordTrace')
    process = subprocess.Popen([BIN / 'cadrectl', *map(str, record), '--placement', cluster.placement_grpc, '--tokens', '100000'], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: cluster.placement.log.read_text().count('method=RecordTrace') > before, 10)
    seen = cluster.status()['sample']['seen']
    said = ask(cluster, 2)
    until(lambda: cluster.status()['sample']['seen'] == seen + said['tokens'], 10)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130, process.stderr.read()
    assert json.loads(cadrectl('trace', 'show', tmp_path / 'live.ctr', '-o', 'json', code=0).stdout)['tokens'] == said['tokens']


def test_top_fits_the_screen(cluster):
    ask(cluster, 2)
    text = cluster.command('top', '--once').stdout
    assert max(map(len, text.splitlines())) <= 80 and '\033' not in text
    assert all(name in text for name in ('expert-0', 'expert-1', 'expert-2', 'router-0', 'HOTTEST EXPERTS'))
    top = cluster.operate('top', '--once')
    work = next(n['work'] for n in top['nodes'] if n['id'] == 'router-0')
    assert work['tokens_per_second'] > 0 and work['calls_per_second'] > work['hedged_per_second'] >= 0
    assert {n['id'] for n in top['nodes']} == {'expert-0', 'expert-1', 'expert-2', 'router-0', 'router-1'} and top['hottest']
    assert 'give --once' in cluster.command('top', '-o', 'json', code=2).stderr


def test_top_leaves_the_terminal_as_it_was(cluster):
    """In a terminal: frames in place, by three sequences alone, until Ctrl-C."""
    master, slave = pty.openpty()
    process = subprocess.Popen([BIN / 'cadrectl', 'top', '--every', '100ms', '--placement', cluster.placement_grpc], stdout=slave, stderr=slave, stdin=slave)
    os.close(slave)
    text = ''
    while text.count('\033[J') < 3:
        assert select.select([master], [], [], 20)[0]
        text += os.read(master, 4096).decode()
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    os.close(master)
    assert text.startswith('\033[H\033[2J') and set(re.findall(r'\033\[[^A-Za-z]*[A-Za-z]', text)) == {'\033[H', '\033[2J', '\033[K', '\033[J'}
    assert max(len(re.sub(r'\033\[\d*[A-Z]', '', line)) for line in text.replace('\r', '').split('\n')) <= 80


def test_aggregates_say_nothing_of_tokens_and_experts(tmp_path):
    with Cluster(MODEL, experts=1, placement_options=['--routing-detail', 'aggregate']) as cluster:
        router = cluster.routers[0]
        said = ask(cluster, 2)
        status = until(lambda: (s := cluster.status())['sample']['seen'] >= said['tokens'] and s, 10)
        assert status['routing_detail'] == 'aggregate' and status['hottest'] == []
        assert status['sample']['sampled'] == status['sample']['kept'] == status['sample']['kept_max'] == 0
        assert {f['window_s']: f for f in status['figures']}[60]['nodes_per_token'] == 1
        assert 'cadre_router_expert_rows_total' not in http(router.http, '/metrics')
        code, why = code_of(router.stream(tokens=[1, 2], max_tokens=1, return_routing=True))
        assert code == grpc.StatusCode.FAILED_PRECONDITION and '--routing-detail aggregate' in why
        refused = cluster.command('trace', 'record', '--output', tmp_path / 't', '--tokens', 1, code=1)
        assert '--routing-detail aggregate' in refused.stderr and not (tmp_path / 't').exists()
