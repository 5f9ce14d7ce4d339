# SPDX-License-Identifier: Apache-2.0
"""A damaged state file costs nothing but itself: it is set aside, and the nodes say what they hold."""
import random
import time

from cluster import GOLDEN, Cluster, http, metric

MODEL = GOLDEN / 'qwen3moe-a' / 'model'


def torn(good):
    """Every second page has a second half of another time."""
    bad = bytearray(good)
    for page in range(1, len(bad) // 4096, 2):
        bad[page * 4096 + 2048:(page + 1) * 4096] = bytes(2048)
    return bytes(bad)


WAYS = {
    'truncated': lambda good: good[:len(good) // 2],
    'garbage': lambda good: random.Random(5).randbytes(len(good)),
    'not a database': lambda good: b'this is no database. ' * 1000,
    'zero bytes': lambda good: b'',
    'header of another thing': lambda good: b'\x89PNG\r\n\x1a\n' + good[8:],
    'torn pages': torn,
}


def restart(cluster):
    """Starts placement again, and waits until every process is back and every expert has its place."""
    cluster.placement.start()
    end = time.monotonic() + 30
    while True:
        try:
            http(cluster.placement_http, '/readyz')
            status = cluster.status()
            if sum(n['state'] == 'live' for n in status['nodes']) == 3 and not status['experts_unplaced']:
                return status
        except Exception:
            pass
        assert cluster.placement.alive() and time.monotonic() < end, cluster.logs()
        time.sleep(0.02)


def test_damaged_state_is_set_aside_and_rebuilt():
    with Cluster(MODEL, experts=2) as cluster:
        file, router = cluster.directory / 'placement.db', cluster.routers[0]
        digest = router.generate(tokens=[1, 2, 3], max_tokens=8, ignore_eos=True).digest
        held = {n['id']: n['experts'] for n in cluster.status()['nodes']}
        for way, damage in WAYS.items():
            assert cluster.placement.stop() == 0
            before = {p.name for p in cluster.directory.iterdir()}
            bad = damage(file.read_bytes())
            file.write_bytes(bad)
            epoch = metric(router.http, 'cadre_router_map_epoch')
            began = time.monotonic()
            status = restart(cluster)
            print(f'{way}: whole again after {time.monotonic() - began:.2f} s; {status["state_loss"]}')

            aside = [p for p in cluster.directory.iterdir() if p.name not in before and '.damaged-' in p.name and not p.name.endswith('-wal')]
            assert len(aside) == 1 and aside[0].read_bytes() == bad, way
            assert 'is damaged' in status['state_loss'] and aside[0].name in status['state_loss'], way
            assert metric(cluster.placement_http, 'cadre_placement_state_lost') == 1
            assert cluster.placement.log.read_text().count(aside[0].name) >= 1
            assert {n['id']: n['experts'] for n in status['nodes']} == held, way
            assert metric(cluster.placement_http, 'cadre_placement_frees_ordered_total') == 0, way
            assert status['epoch'] > epoch
            assert router.generate(tokens=[1, 2, 3], max_tokens=8, ignore_eos=True).digest == digest, way

        assert cluster.placement.stop() == 0
        status = restart(cluster)
        assert status['state_loss'] == '' and metric(cluster.placement_http, 'cadre_placement_state_lost') == 0


def test_file_of_another_cluster_is_left_alone(tmp_path):
    with Cluster(MODEL, experts=1) as cluster:
        pass
    file = cluster.directory / 'placement.db'
    good = file.read_bytes()
    cluster.placement.arguments += ['--cluster', 'another']
    cluster.placement.start()
    assert cluster.placement.popen.wait(20) == 1
    assert "belongs to cluster 'cadre', this is cluster 'another'" in cluster.placement.log.read_text()
    assert file.read_bytes() == good and not [p for p in cluster.directory.iterdir() if '.damaged-' in p.name]
