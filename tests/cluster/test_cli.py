# SPDX-License-Identifier: Apache-2.0
"""cadrectl as a person or a script uses it: output, exit codes, and what it says when something is wrong."""
import concurrent.futures
import json
import os
import signal
import socket
import subprocess
import threading
import time

import grpc
import pytest

import reflect

from cluster import BIN, GOLDEN, Cluster, cadrectl, free_port, metric

MODEL = GOLDEN / 'mixtral-a' / 'model'


@pytest.fixture(scope='module')
def cluster():
    with Cluster(MODEL, experts=2) as running:
        yield running


@pytest.fixture(scope='module')
def answer(cluster, tmp_path_factory):
    """One answer as JSON, and the file that holds it."""
    path = tmp_path_factory.mktemp('answers') / 'answer.json'
    done = cadrectl('generate', '--router', cluster.routers[0].grpc, '--max-tokens', 12, '--ignore-eos', '--save', path, '-o', 'json', 'hello world')
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(path.read_text())
    return json.loads(done.stdout), path


def test_json_has_what_scripts_need(answer):
    result, _ = answer
    assert len(result['token_ids']) == 12 and isinstance(result['text'], str)
    assert result['finish_reason'] == 'length' and len(result['digest']) == 32
    assert result['usage']['generated_tokens'] == 12 and result['capacity']['dropped'] == 0 and result['capacity']['spilled'] == 0
    assert result['request']['text'] == 'hello world' and result['request']['max_tokens'] == 12


def test_text_streams_to_stdout_and_the_rest_to_stderr(cluster, answer):
    done = cadrectl('generate', '--router', cluster.routers[0].grpc, '--max-tokens', 12, '--ignore-eos', 'hello world')
    assert done.returncode == 0
    assert done.stdout == answer[0]['text'] + '\n'
    assert answer[0]['digest'] in done.stderr


def test_tokens_sampling_and_routing(cluster):
    arguments = ['generate', '--router', cluster.routers[0].grpc, '--tokens', '5,6,7', '--max-tokens', 6, '--temperature', 0.9, '--top-k', 40, '--seed', 2**64 - 1, '--routing', '--ignore-eos',
                 '-ojson']
    first, second = (json.loads(cadrectl(*arguments).stdout) for _ in range(2))
    assert first['digest'] == second['digest']
    assert first['request']['seed'] == str(2**64 - 1) and first['request']['temperature'] == 0.9
    assert [token['position'] for token in first['routing']] == list(range(8))   # the last token is not computed any more
    assert all(len(layer['experts']) == 2 and set(layer['nodes']) <= {'expert-0', 'expert-1'} for token in first['routing'] for layer in token['layers'])


def test_routing_for_people_and_for_traces(cluster, tmp_path):
    where = ['generate', '--router', cluster.routers[0].grpc, '--tokens', '5,6,7', '--max-tokens', 6, '--ignore-eos', '--routing']
    done = cadrectl(*where, '--save', tmp_path / 'answer.json')
    lines = done.stderr.splitlines()
    layers = json.loads((tmp_path / 'answer.json').read_text())['routing'][0]['layers']
    assert done.returncode == 0 and 'LAYER' not in done.stdout, done
    assert lines[1].startswith('-- routing of 8 tokens;') and lines[2].startswith('LAYER') and len(lines) == 3 + len(layers), lines
    assert all('expert-0' in line or 'expert-1' in line for line in lines[3:]), lines
    (tmp_path / 'more.json').write_text(2 * cadrectl(*where, '-o', 'json').stdout)
    for phase, tokens in ('all', 24), ('prefill', 9), ('decode', 15):
        done = cadrectl('trace', 'import', tmp_path / 'answer.json', tmp_path / 'more.json', '--phase', phase, '--output', tmp_path / 'trace')
        assert done.returncode == 0 and f': {tokens} tokens of 3 requests, {len(layers)} layers,' in done.stdout, done
    done = cadrectl('trace', 'show', GOLDEN / 'llama-a' / 'model' / 'config.json')
    assert done.returncode == 1 and 'answer 0: it has no routing: generate with --routing' in done.stderr
    done = cadrectl('generate', '--model', GOLDEN / 'llama-a' / 'model', '--tokens', '5,6,7', '--max-tokens', 2, '--routing')
    assert done.returncode == 0 and '-- no routing: this model has no experts' in done.stderr


def test_a_plan_from_little_says_so(tmp_path):
    trace = tmp_path / 'trace'
    few = 'the plan is made from 2000 tokens; made from fewer than 10000 it may not hold for others'
    for tokens, nodes, says in (2000, 4, [few]), (2000, 20, [few, 'there are 20 nodes for the 16 experts']), (10000, 4, []):
        assert cadrectl('trace', 'generate', '--output', trace, '--experts', 16, '--top-k', 2, '--layers', 2, '--tokens', tokens).returncode == 0
        done = cadrectl('plan', '--trace', trace, '--nodes', nodes, '--rounds', 1, '-o', 'json')
        warnings = done.stderr.splitlines()
        assert done.returncode == 0 and len(warnings) == len(says), done.stderr
        assert all(line.startswith(f'cadrectl plan: warning: {word}') for line, word in zip(warnings, says)), warnings
        assert [f'cadrectl plan: warning: {text}' for text in json.loads(done.stdout)['warnings']] == warnings


def test_the_environment_does_not_choose_who_computes(cluster, answer, tmp_path):
    """CADRE_MODEL is there for services; whoever set it for them asks the cluster all the same."""
    for model in MODEL, '/nonexistent':
        env = {**os.environ, 'CADRE_MODEL': str(model), 'CADRE_ROUTER': cluster.routers[0].grpc}
        done = cadrectl('generate', '--max-tokens', 12, '--ignore-eos', '-o', 'json', 'hello world', env=env)
        assert done.returncode == 0 and json.loads(done.stdout)['computed_by'] == f'router {cluster.routers[0].grpc}', done
        done = cadrectl('verify', '-o', 'json', answer[1], env=env)
        assert done.returncode == 0 and json.loads(done.stdout)['computed_by'] == f'router {cluster.routers[0].grpc}', done
        done = cadrectl('generate', 'x', env={**os.environ, 'CADRE_MODEL': str(model)}, cwd=tmp_path)
        assert done.returncode == 2 and done.stderr.endswith('; CADRE_MODEL in the environment does not choose that\n'), done
    assert '(not taken from the environment)' in cadrectl('generate', '--help').stdout


@pytest.mark.parametrize('name, value, command, says', [
    ('CADRE_ROUTER', '127.0.0.1:1', ['cadrectl', 'generate', 'x'], '(--router is from CADRE_ROUTER in the environment)'),
    ('CADRE_ROUTER', '127.0.0.1:1,127.0.0.1:2', ['cadrectl', 'generate', 'x'], '(--router is from CADRE_ROUTER in the environment)'),
    ('CADRE_PLACEMENT', '127.0.0.1:1', ['cadrectl', 'wait', '--timeout', '100ms'], '(--placement is from CADRE_PLACEMENT in the environment)'),
    ('CADRE_ROUTER', '127.0.0.1', ['cadrectl', 'generate', 'x'], "--router: '127.0.0.1' is not an address: give HOST:PORT (--router is from CADRE_ROUTER in the environment)"),
    ('CADRE_PLACEMENT', '127.0.0.1:1', ['cadrectl', 'status'], '(--placement is from CADRE_PLACEMENT in the environment)'),
    ('CADRE_TRACE', '/nonexistent', ['cadrectl', 'plan', '--nodes', '2'], '/nonexistent does not exist (--trace is from CADRE_TRACE in the environment)'),
    ('CADRE_MODEL', '/nonexistent', ['cadre-router', '--local-experts', '--http', '127.0.0.1:0'], '(--model is from CADRE_MODEL in the environment)'),
    ('CADRE_MODEL', '/nonexistent', ['cadre-expert', '--placement', '127.0.0.1:1', '--check-config'], '(--model is from CADRE_MODEL in the environment)'),
], ids=str)
def test_messages_name_the_environment(name, value, command, says, tmp_path):
    done = subprocess.run([BIN / command[0], *command[1:]], env={**os.environ, name: value}, capture_output=True, text=True, timeout=30, cwd=tmp_path)
    assert done.returncode != 0 and says in done.stderr, done.stderr


@pytest.mark.parametrize('path, says', [('/nonexistent/answer.json', 'No such file or directory'), ('', 'it is a directory, not a file'), ('/dev/null', 'it is a device or the like, not a file')])
def test_where_to_write_is_checked_before(cluster, tmp_path, path, says):
    """Nothing is computed that would be lost."""
    path = path or tmp_path
    before = metric(cluster.routers[0].http, 'cadre_router_requests_total')
    done = cadrectl('generate', '--router', cluster.routers[0].grpc, '--tokens', '1,2', '--save', path)
    assert (done.returncode, done.stdout, done.stderr) == (1, '', f'cadrectl generate: {path} cannot be written: {says}\n')
    assert metric(cluster.routers[0].http, 'cadre_router_requests_total') == before
    (tmp_path / 'in.json').write_text('{"sequences": [[1, 2]]}')
    done = cadrectl('eval', '--model', MODEL, '--input', tmp_path / 'in.json', '--output', path)
    assert (done.returncode, done.stdout, done.stderr) == (1, '', f'cadrectl eval: {path} cannot be written: {says}\n')
    assert [file.name for file in tmp_path.iterdir()] == ['in.json']


def test_verify_on_the_cluster_and_in_one_process(cluster, answer):
    result, path = answer
    for where in (['--router', cluster.routers[0].grpc], ['--model', MODEL], ['--model', MODEL, '--isa', 'ref', '--threads', 2]):
        done = cadrectl('verify', *where, '-o', 'json', path)
        assert done.returncode == 0, done.stderr + done.stdout
        assert json.loads(done.stdout)['equal'] is True
    for change in ({'digest': '0' * 32}, {'token_ids': result['token_ids'][:-1] + [0]}):
        done = cadrectl('verify', '--model', MODEL, '-', input=json.dumps({**result, **change}))
        assert done.returncode == 1 and done.stdout.startswith('DIFFERENT')
    assert result['settings'].startswith('profile=f32 router=f32 wire=fix16 weights=f32 kv=f32 quanta=')
    done = cadrectl('verify', '--model', MODEL, '--kv', 'bf16', path)
    assert done.returncode == 1 and f"computed with '{result['settings']}', now with '{result['settings'].replace('kv=f32', 'kv=bf16')}'" in done.stdout, done.stdout
    done = cadrectl('verify', '--model', MODEL, '-', input='{"a": 1}')
    assert done.returncode == 1 and "the output of 'cadrectl generate -o json' is needed" in done.stderr


def test_next_router_takes_over(cluster, answer):
    nobody = f'127.0.0.1:{free_port()}'
    done = cadrectl('generate', '--router', f'{nobody},{cluster.routers[0].grpc}', '--max-tokens', 12, '--ignore-eos', '-o', 'json', 'hello world')
    assert done.returncode == 0 and json.loads(done.stdout)['digest'] == answer[0]['digest']
    assert nobody in done.stderr and 'trying the next' in done.stderr
    done = cadrectl('generate', '--router', nobody, 'hello')
    assert done.returncode == 1 and nobody in done.stderr


def test_stop_string_gives_the_same_here_and_there(cluster, answer):
    stop = answer[0]['text'][4:6]
    ids = json.loads(cadrectl('generate', '--model', MODEL, '--tokens', '1,2', '--stop', 'x', '--max-tokens', 1, '-o', 'json').stdout)
    assert ids['request']['stop'] == 'x'
    there, here = (json.loads(cadrectl('generate', *where, '--max-tokens', 12, '--ignore-eos', '--stop', stop, '-o', 'json', 'hello world').stdout)
                   for where in (['--router', cluster.routers[0].grpc], ['--model', MODEL]))
    assert there['finish_reason'] == 'stop' and stop not in there['text'] and answer[0]['text'].startswith(there['text'])
    assert {k: there[k] for k in ('text', 'token_ids', 'digest')} == {k: here[k] for k in ('text', 'token_ids', 'digest')}


def test_status(cluster):
    status = cluster.status()
    assert status['experts_unplaced'] == 0 and status['epoch'] >= 1
    experts = [node for node in status['nodes'] if node['role'] == 'expert']
    assert [node['id'] for node in experts] == ['expert-0', 'expert-1']
    assert sum(node['experts'] for node in experts) == status['moe_layers'] * status['experts_per_layer']
    done = cadrectl('status', '--placement', cluster.placement_grpc)
    assert done.returncode == 0 and 'expert-1' in done.stdout and 'router-0' in done.stdout


def test_interrupt_ends_it_and_frees_the_sequence(cluster):
    router = cluster.routers[0]
    process = subprocess.Popen([BIN / 'cadrectl', 'generate', '--router', router.grpc, '--tokens', '1,2,3', '--max-tokens', '4000', '--ignore-eos'],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.read(1)   # it streams
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=20)[1]   # reads on: a pipe closed before the signal is seen would be a failure of its own
    assert process.returncode == 130
    assert 'interrupted' in errors
    end = time.monotonic() + 20
    while metric(router.http, 'cadre_router_sequences_running') != 0:
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize('arguments, code, says', [
    (['--help'], 0, 'model inspect'),
    (['generate', '--help'], 0, '--max-tokens'),
    ([], 2, 'Commands:'),
    (['map', '--help'], 0, '  map apply '),
    (['auto', '-h'], 0, '  auto status '),
    (['trace'], 2, '  trace record '),
    (['trace', '--help'], 0, '  trace import '),
    (['model', '--help'], 0, '  model pack '),
    (['trace', 'help'], 0, '  trace import '),
    (['help', 'model'], 0, '  model pack '),
    (['help', 'plan', 'explain'], 0, 'Usage: cadrectl plan explain'),
    (['help', 'generate'], 0, '--max-tokens'),
    (['help', 'frobnicate'], 2, "'cadrectl --help' lists them"),
    (['plan', '--help'], 0, '  plan explain '),
    (['stauts'], 2, "did you mean 'status'"),
    (['model', 'inspekt'], 2, "did you mean 'model inspect'"),
    (['frobnicate'], 2, "'cadrectl --help' lists them"),
    (['generate', '--max-tokns', '3', 'x'], 2, 'did you mean --max-tokens'),
    (['generate', '--router', '127.0.0.1:1', '--model', 'x', 'y'], 2, 'exclude each other'),
    (['generate', '--model', str(MODEL)], 2, 'give a prompt'),
    (['generate', '--model', str(MODEL), '--tokens', '1,b'], 2, "'b' does not begin with a token id"),
    (['generate', '--model', str(MODEL), '--max-tokens', '99999999999', 'x'], 2, 'out of range: at most 4294967295'),
    (['generate', '--model', str(MODEL), '--tokens', '100000'], 1, 'vocabulary'),
    (['generate', '--model', '/nonexistent', 'x'], 1, '/nonexistent'),
    (['generate', 'x'], 2, '--router'),
    (['status'], 2, '--placement'),
    (['status', '--placement', '127.0.0.1:1'], 1, '127.0.0.1:1'),
    (['verify', '/nonexistent'], 1, '/nonexistent'),
    (['model', 'inspect', '/nonexistent'], 1, '/nonexistent'),
    (['model', 'size'], 2, "give a checkpoint's directory, or a config.json"),
    (['model', 'size', '/nonexistent'], 1, '/nonexistent'),
    (['model', 'size', str(GOLDEN / 'README.md')], 1, 'README.md is not valid JSON'),
    (['model', 'size', str(MODEL), '--weights', 'int8', '--machine', 'xeon-2.5ghz-2'], 1, 'was not measured with weights in int8'),
    (['model', 'size', str(MODEL), '--weights', 'int3'], 2, 'int4'),
    (['tokenize', '--tokenizer', '/nonexistent', '--input', '-', '--output', '-'], 1, '/nonexistent'),
])
def test_exit_codes_and_sentences(arguments, code, says, tmp_path):
    done = cadrectl(*arguments, input='', cwd=tmp_path)
    assert done.returncode == code
    assert says in done.stdout + done.stderr


def size(config, *options):
    done = cadrectl('model', 'size', GOLDEN.parent / 'configs' / config, '--machine', 'epyc-zen4-2', *options, '-o', 'json')
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_size_of_what_is_not_there():
    """671 B parameters by a config.json alone: how much, on how many nodes, how fast."""
    whole = size('deepseek-v3.json', '--memory', '128G', '--weights', 'bf16')
    assert not whole['files'] and whole['architecture'] == 'deepseek_v3'
    assert round(whole['parameters']['total'] / 1e9, 1) == 671.0 and round(whole['parameters']['active'] / 1e9, 1) == 37.6
    assert whole['kv'] == {'values_per_token': 576 * 61, 'values_per_token_expanded': 128 * 320 * 61, 'bytes_per_token': 4 * 576 * 61}
    experts, memory = whole['experts'], whole['memory']
    assert experts == {'total': 58 * 256, 'nodes': 10, 'per_node': 1485, 'per_layer': 256}
    assert memory['expert'] == 3 * 7168 * 2048 * 2 and memory['experts'] == experts['total'] * memory['expert']
    assert whole['fit']['nodes'] == {'memory': 128 << 30, 'experts_room': 1560, 'nodes_least': 10, 'fits': True}
    assert whole['fit']['router']['kv_tokens'] == ((128 << 30) - memory['router']) // whole['kv']['bytes_per_token']

    small = size('deepseek-v3.json', '--memory', '128G', '--nodes', '2', '--weights', 'int4', '--router-weights', 'int8', '--kv', 'bf16')
    assert small['fit']['nodes'] == {'memory': 128 << 30, 'experts_room': (128 << 30) // small['memory']['expert'], 'nodes_least': 3, 'fits': False}
    assert 0.25 < small['memory']['expert'] / memory['expert'] < 0.28 and 0.5 < small['memory']['router'] / memory['router'] < 0.66
    assert small['kv']['bytes_per_token'] == 2 * 576 * 61
    assert all(a['seconds'] > b['seconds'] > 0 for a, b in zip(whole['steps'], small['steps']))   # fewer bytes, fewer calls

    longer = size('deepseek-v3.json', '--context', '4096', '--weights', 'bf16')
    assert longer['steps'][0]['keys_seconds'] == pytest.approx(4 * whole['steps'][0]['keys_seconds'])
    assert [step['rows'] for step in longer['steps']] == [1, 4, 16, 64, 256, 512] and longer['fit'] == {'nodes': None, 'router': None}


def test_size_of_what_is_there(tmp_path):
    """The same with files as by their config.json; and a table for people, with what this machine was measured to do."""
    done = cadrectl('model', 'size', MODEL, '--memory', '1M', '--threads', 1)
    assert done.returncode == 0, done.stderr
    assert 'by config.json alone' not in done.stdout and 'over the rates of here' in done.stdout and 'fit on ' in done.stdout
    (tmp_path / 'config.json').write_text((MODEL / 'config.json').read_text())
    results = [json.loads(cadrectl('model', 'size', where, '--machine', 'epyc-zen4-2', '-o', 'json').stdout) for where in (MODEL, tmp_path)]
    assert [result.pop('files') for result in results] == [True, False]
    assert all(result.pop('model') for result in results) and results[0] == results[1]


@pytest.mark.parametrize('program, says, not_of_it', [
    ('cadre-router', ['to show to clients', "the placement service's, which is then reached"], ['7401']),
    ('cadre-placement', ['which is then called over TLS', 'those who call'], ['7401', 'show to']),
    ('cadre-expert', ['empty: port 7401', 'to show to the placement service'], ['clients', 'those who call']),   # which nobody calls
])
def test_help_is_of_the_program(program, says, not_of_it):
    text = subprocess.run([BIN / program, '--help'], check=True, capture_output=True, text=True).stdout
    assert all(words in text for words in says) and not any(words in text for words in not_of_it), text


# ---- what others wrote ----

HOSTILE = '\x1b[31mE\nATTENTION: all is lost\r\x9b2J\u202eX\u2066Y'
SHOWN = '?[31mE?ATTENTION: all is lost??2J?X?Y'


def test_status_shows_no_escapes_of_strangers(cluster):
    """Of processes that knock, which the placement service refuses."""
    server = reflect.Server(cluster.placement_grpc)
    report, order = server.message('cadre.v1.NodeReport').__class__, server.message('cadre.v1.NodeOrder').__class__
    right = {'id': 'stranger', 'role': 2, 'exchange_version': 3, 'model_fingerprint': cluster.status()['model_fingerprint'], 'exchange_address': '127.0.0.1:1'}
    join = server.channel.stream_stream('/cadre.v1.Placement/Join', report.SerializeToString, order.FromString)
    for field in ('id', 'cluster', 'exchange_address', 'http_address', 'grpc_address', 'isa', 'version', 'settings', 'model_fingerprint', 'kernels_fingerprint', 'router_checksum'):
        with pytest.raises(grpc.RpcError) as refused:
            next(join(iter([report(hello=right | {field: HOSTILE, 'id': HOSTILE if field == 'id' else f'stranger-{field}'})]), timeout=20))
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT and SHOWN in refused.value.details(), refused.value
    server.close()
    why = [refusal['why'] for refusal in cluster.status()['refused']]
    assert len([w for w in why if SHOWN in w]) == 11 and all(w.isprintable() for w in why), why


def hostile_placement(real):
    """A server whose status has HOSTILE in every text, and its address."""
    asked = reflect.Server(real)
    status, request = asked.message('cadre.v1.ClusterStatus').__class__, asked.message('cadre.v1.GetStatusRequest').__class__
    asked.close()
    node = {name: HOSTILE for name in ('id', 'exchange_address', 'http_address', 'grpc_address', 'isa', 'problem', 'absence')}
    said = status(nodes=[node | {'role': 1, 'state': 1}, node | {'role': 2, 'state': 1}], refused=[{'id': HOSTILE, 'why': HOSTILE}], traffic=[{'router': HOSTILE, 'node': HOSTILE}],
                  settings={name: HOSTILE for name in ('profile', 'router_profile', 'wire', 'weights', 'kv', 'fingerprint')},
                  **{name: HOSTILE for name in ('cluster', 'model_directory', 'model_fingerprint', 'architecture', 'state_loss', 'router_checksum')})
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: said, request.FromString, status.SerializeToString)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler('cadre.v1.Placement', {'GetStatus': handler})])
    address = f'127.0.0.1:{server.add_insecure_port("127.0.0.1:0")}'
    server.start()
    return server, address


def test_no_server_writes_to_the_terminal(cluster):
    """Whatever it says, the table has its lines and no others, and JSON has it all."""
    server, address = hostile_placement(cluster.placement_grpc)
    done = cadrectl('status', '--placement', address)
    assert done.returncode == 0 and done.stderr == '', done
    lines = done.stdout.split('\n')
    assert len(lines) == 17 and all(line.isprintable() for line in lines), done.stdout
    assert lines[3:8] == [f'ATTENTION: {SHOWN}', *4 * [f'ATTENTION: {SHOWN}: {SHOWN}']] and lines[8].endswith(f' ago: {SHOWN}'), done.stdout
    assert lines[11].startswith(f'{SHOWN} {SHOWN} ') and lines[14].startswith(SHOWN) and lines[14].endswith(SHOWN), done.stdout
    top = cadrectl('top', '--once', '--placement', address).stdout.split('\n')
    assert all(line.isprintable() and len(line) <= 80 for line in top), top
    assert json.loads(cadrectl('status', '--placement', address, '-o', 'json').stdout)['nodes'][0]['problem'] == HOSTILE
    server.stop(None)


def test_no_process_writes_to_the_terminal():
    listener = socket.create_server(('127.0.0.1', 0))

    def answer():
        for _ in range(2):
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b'HTTP/1.1 503 Service Unavailable\r\n\r\n' + HOSTILE.replace('\n', '').replace('\r', '').encode() + b'\xff\n')

    thread = threading.Thread(target=answer)
    thread.start()
    address, shown = f'127.0.0.1:{listener.getsockname()[1]}', '?[31mEATTENTION: all is lost?2J?X?Y?'
    done = cadrectl('health', '--http', address)
    assert (done.returncode, done.stdout) == (3, f'{address} is not healthy: {shown}\n'), done
    assert json.loads(cadrectl('health', '--http', address, '-o', 'json').stdout)['why'] == shown
    thread.join()
    listener.close()
