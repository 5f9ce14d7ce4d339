# SPDX-License-Identifier: Apache-2.0
"""Mistakes that people make: each ends at once, with a sentence that says what to change. Nothing crashes, nothing hangs."""
import os
import resource
import shutil
import subprocess

import pytest

import certificates
from cluster import BIN, GOLDEN, Cluster

MODEL = GOLDEN / 'mixtral-a' / 'model'
ROUTER = ['cadre-router', '--local-experts', '--model', MODEL, '--grpc', '127.0.0.1:0', '--http', '127.0.0.1:0']
PLACEMENT = ['cadre-placement', '--model', MODEL, '--grpc', '127.0.0.1:0', '--http', '127.0.0.1:0']


def run(program, *arguments, seconds=20, **options):
    """(exit code, what it said)"""
    done = subprocess.run([BIN / program, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace', timeout=seconds,
                          **options)
    return done.returncode, done.stdout


@pytest.mark.parametrize('command, code, says', [
    (ROUTER[:-1] + ['127.0.0.1:99999'], 2, 'a port is a number from 0 to 65535'),
    (ROUTER[:-1] + ['127.0.0.1:http'], 2, 'a port is a number from 0 to 65535'),
    (ROUTER + ['--id', 'a b'], 2, "--id is 'a b'"),
    (ROUTER + ['--id', 64 * 'x'], 2, 'at most 63 letters'),
    (ROUTER + ['--token-file', '/tmp'], 1, "the token file '/tmp' is a directory"),
    (['cadre-router', '--local-experts', '--model', ''], 2, '--model is empty'),
    (['cadre-expert', '--model', MODEL, '--placement', '127.0.0.1:1', '--exchange', '7420'], 2, "--exchange: '7420' is not an address: give HOST:PORT"),
    (['cadre-expert', '--model', MODEL, '--placement', '127.0.0.1:1', '--exchange', '0.0.0.0:0'], 2, 'give the address of one interface'),
    (['cadre-expert', '--model', MODEL, '--placement', '127.0.0.1:1', '--exchange', '[::1]:0', '--check-config'], 2, 'UCX does not use this address'),
    (['cadre-expert', '--model', MODEL, '--placement', '127.0.0.1:1', '--advertise', '192.0.2.1:1'], 2, 'leave --advertise out'),
    (['cadre-router', '--model', MODEL, '--placement', '127.0.0.1:1', '--exchange', '203.0.113.9:0'], 2, 'no interface of this machine has that address'),
    (PLACEMENT + ['--cluster-network', 'nope'], 2, "--cluster-network: 'nope': there is no such interface; the interfaces of this machine: lo 127.0.0.1"),
    (['cadrectl', 'health', '--cluster-network', '203.0.113.0/24', '--http', ':1'], 2, 'no interface has an address in there'),
    (PLACEMENT + ['--cluster-network', 'lo:'], 2, "--cluster-network: 'lo:': there is no such interface"),
    (['cadrectl', 'health', '--grpc', ':'], 2, "--grpc: ':' is not an address: give HOST:PORT"),
    (['cadrectl', 'health', '--http', ':99999'], 2, "--http: ':99999' is not an address: a port is a number from 0 to 65535"),
    (['cadrectl', 'health', '--grpc', '::1:17100'], 2, "'::1:17100' is not an address: an IPv6 address needs brackets: write [::1]:17100"),
    (['cadrectl', 'generate', '--router', 'a:1,::1:17100', 'x'], 2, "--router: '::1:17100' is not an address: an IPv6 address needs brackets: write [::1]:17100"),
    (['cadrectl', 'status', '--placement', 'a b:7300', '--check-config'], 2, "--placement: 'a b:7300' is not an address: a host has"),
    (PLACEMENT + ['--state', '/tmp'], 1, 'Is a directory'),
    (PLACEMENT + ['--state', '/nonexistent/state.db'], 1, 'No such file or directory'),
], ids=str)
def test_wrong_options(command, code, says):
    ended, text = run(*command)
    assert ended == code, text
    assert says in text


def one_process():
    """No threads, then; root has no such limit."""
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
    if os.geteuid() == 0:
        os.setuid(65534)


@pytest.mark.parametrize('command', [ROUTER, PLACEMENT], ids=['router', 'placement'])
def test_a_system_that_gives_no_threads(command):
    try:
        code, text = run(*command, preexec_fn=one_process)
    except PermissionError:
        pytest.skip('nobody else may run these programs')
    assert code == 1, text
    assert 'see ulimit -u' in text


def damaged(tmp_path, golden, file, change):
    """A copy of a golden model with one file changed, or gone."""
    directory = tmp_path / 'model'
    shutil.copytree(GOLDEN / golden / 'model', directory)
    path = directory / file
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))
    return directory


@pytest.mark.parametrize('golden, file, change, says', [
    ('mixtral-a', 'model.safetensors', lambda b: b[100:], 'this is not a safetensors file'),
    ('mixtral-a', 'model.safetensors', lambda b: b[:-1000], 'truncated'),
    ('mixtral-a', 'model.safetensors', lambda b: b'', 'too few for a safetensors file'),
    ('mixtral-a', 'model.safetensors', None, 'has neither model.safetensors nor'),
    ('mixtral-a', 'config.json', lambda b: b[:100], 'config.json is not valid JSON'),
    ('mixtral-a', 'generation_config.json', lambda b: b'{', 'model/generation_config.json is not valid JSON'),
    ('mixtral-a', 'tokenizer.json', lambda b: b[:1000], 'premature end of input'),
    ('mixtral-a', 'tokenizer.json', None, 'give the prompt as token ids'),
    ('olmoe-b', 'model.safetensors.index.json', lambda b: b[:100], 'index.json is not valid JSON'),
    ('olmoe-b', 'model.safetensors.index.json', lambda b: b.replace(b'00002-of', b'00009-of'), 'model-00009-of-00003.safetensors does not exist'),
    ('olmoe-b', 'model-00002-of-00003.safetensors', lambda b: b[:-1], 'truncated'),
])
def test_damaged_checkpoints(tmp_path, golden, file, change, says):
    code, text = run('cadrectl', 'generate', '--model', damaged(tmp_path, golden, file, change), '--max-tokens', 1, 'hello')
    assert code == 1, text
    assert says in text


def test_a_node_that_cannot_serve_does_not_join():
    with Cluster(MODEL, experts=1) as cluster:
        expert = ['cadre-expert', '--model', MODEL, '--placement', cluster.placement_grpc, '--id', 'expert-9']
        code, text = run(*expert, '--memory', '10K')
        assert code == 1 and 'one expert of this model takes 49152' in text
        code, text = run(*expert, '--exchange', '127.0.0.2:0')
        assert code == 2 and "that of 'lo' is 127.0.0.1" in text
        code, text = run(*expert, '--memory', '1000T', '--http', cluster.placement_http)
        assert code == 1 and 'Address already in use' in text
        assert '--memory exceeds the free memory' in text


@pytest.fixture(scope='module')
def small():
    with Cluster(MODEL, experts=1) as cluster:
        yield cluster


@pytest.mark.parametrize('command, address, says', [
    ('generate', lambda c: c.placement_grpc, "is that a router's --grpc address?"),
    ('status', lambda c: c.routers[0].grpc, "is that a placement service's --grpc address?"),
    ('wait', lambda c: c.routers[0].grpc, "is that a placement service's --grpc address?"),
    ('generate', lambda c: c.routers[0].http, 'an HTTP server answers there, not gRPC'),
    ('status', lambda c: c.placement_http, 'an HTTP server answers there, not gRPC'),
    ('health', lambda c: c.placement_http, 'an HTTP server answers there, not gRPC'),
    ('generate', lambda c: '127.0.0.1:1', 'does a router serve there, without TLS?'),
    ('status', lambda c: '127.0.0.1:1', 'does a placement service serve there, without TLS?'),
    ('status --tls', lambda c: c.placement_grpc, 'the server does not speak TLS'),
])
def test_an_address_of_somebody_else(small, command, address, says):
    """The sentence says so, and nothing stands before it."""
    option = {'generate': '--router', 'health': '--grpc'}.get(command, '--placement')
    more = {'generate': ['hello'], 'wait': ['--timeout', '0.2s']}.get(command, [])
    code, text = run('cadrectl', *command.split(), option, address(small), *more)
    assert code in (1, 3) and says in text, text
    assert text.startswith(f'cadrectl {command.split()[0]}: '), text


def test_a_router_that_dies_is_told_from_one_that_is_not_there():
    with Cluster(MODEL, experts=1) as cluster:
        command = [BIN / 'cadrectl', 'generate', '--router', cluster.routers[0].grpc, '--tokens', '5,6,7', '--max-tokens', '4000', '--ignore-eos']
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors='replace')
        assert process.stdout.read(1)
        cluster.routers[0].process.kill()
        _, said = process.communicate(timeout=20)
        assert process.returncode == 1 and 'the answer is cut off here' in said


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """What scripts/certificates.sh makes, and files that are something else."""
    directory = tmp_path_factory.mktemp('files')
    certificates.cluster(directory)
    certificates.issue(directory, 'late', days=-1)
    for name, text in {'short': '0123456789\n', 'token': '0123456789abcdef\n', 'twice': 2 * '0123456789abcdef\n', 'king': '0123456789abcdef king alice\n', 'empty': ''}.items():
        (directory / name).write_text(text)
        (directory / name).chmod(0o600)
    (directory / 'unreadable').symlink_to('/proc/self/mem')   # nobody can read its beginning, root neither
    return directory


PROGRAMS = {
    'cadre-placement': ['--grpc', '127.0.0.1:0'],
    'cadre-router': ['--placement', '127.0.0.1:1', '--grpc', '127.0.0.1:0'],
    'cadre-expert': ['--placement', '127.0.0.1:1'],
}


def tls(certificate='router.pem', key='router.key', authority='authority.pem', prefix='--tls'):
    return [f'{prefix}-certificate', certificate, f'{prefix}-key', key, f'{prefix}-authority', authority]


# Names in words that begin with '--' are options', all others files' (in the fixture's folder, without '/'); for all three services but where it says so.
@pytest.mark.parametrize('options, says', [
    (['--secret-file', 'nothing'], "cannot open the cluster secret '/nothing': No such file or directory"),
    (['--secret-file', '.'], "the cluster secret '/.' is a directory, but must be a file"),
    (['--secret-file', 'short'], "the cluster secret '/short' must have at least 16 bytes of text"),
    (['--secret-file', 'unreadable'], "cannot read the cluster secret '/unreadable': Input/output error"),
    (tls(certificate='nothing'), "cannot read the certificate of TLS from '/nothing': No such file or directory"),
    (tls(certificate='.'), "cannot read the certificate of TLS from '/.': Is a directory"),
    (tls(certificate='unreadable'), "cannot read the certificate of TLS from '/unreadable': Input/output error"),
    (tls(certificate='token'), "'/token' holds no certificate in PEM form"),
    (tls(certificate='expert.pem'), "the key '/router.key' does not belong to the certificate '/expert.pem'"),
    (tls(certificate='late.pem', key='late.key'), "the certificate '/late.pem' has expired, on 20"),
    (tls(key='nothing'), "cannot read the key of TLS from '/nothing': No such file or directory"),
    (tls(key='router.pem'), "'/router.pem' holds no private key in PEM form without a password"),
    (tls(authority='nothing'), "cannot read the certificate authority of TLS from '/nothing': No such file or directory"),
    (tls(authority='authority.key'), "'/authority.key' holds no certificate of an authority in PEM form"),
    (tls(authority='expert.pem'), "'/expert.pem' holds no certificate of an authority: what it holds may not sign others"),
    (tls(authority='/dev/null'), "'/dev/null' holds no certificate of an authority in PEM form"),
    (['cadre-router', '--token-file', 'empty'], "the token file '/empty'"),
    (['cadre-router', '--token-file', 'short'], '/short'),
    (['cadre-router', '--token-file', 'twice'], '/twice'),
    (['cadre-placement', '--token-file', 'king'], "/king', line 1: the role after the token is not one of"),
    (['cadre-placement', '--token-file', 'nothing'], "cannot open the token file '/nothing'"),
    (['cadre-router', '--token-file', 'unreadable'], "cannot read the token file '/unreadable'"),
    (['cadre-router', '--placement-token-file', 'short'], '/short'),
    (['cadre-expert', '--placement-token-file', 'nothing'], "cannot open the token file '/nothing'"),
    (['cadre-router', *tls(authority='token', prefix='--placement-tls')], "'/token' holds no certificate of an authority in PEM form"),
    (['cadre-router', *tls(key='expert.key', prefix='--placement-tls')], "the key '/expert.key' does not belong to the certificate '/router.pem'"),
], ids=str)
def test_bad_files_are_found(files, options, says):
    """At the start, before anything else is done, and by --check-config, with the same sentence."""
    programs, options = ([options[0]], options[1:]) if options[0] in PROGRAMS else (list(PROGRAMS), options)
    options = [word if word[0] in '-/' else f'{files}/{word}' for word in options]
    for program in programs:
        command = [program, '--model', MODEL, '--http', '127.0.0.1:0', *PROGRAMS[program], *options]
        for more, code in ([], 1), (['--check-config'], 2):
            ended, text = run(*command, *more)
            assert ended == code and says in text.replace(str(files), ''), (command, text)


@pytest.mark.parametrize('command', [['status'], ['health', '--grpc', '127.0.0.1:1'], ['wait'], ['generate'], ['verify']], ids=lambda command: command[0])
def test_cadrectl_checks_its_files_too(files, command):
    for option, file, says in (('--tls-authority', 'nothing', "cannot read the certificate authority of TLS from"), ('--tls-authority', 'authority.key', 'holds no certificate of an authority'),
                               ('--token-file', 'nothing', 'cannot open the token file'), ('--token-file', 'short', '/short'), ('--tls-authority', 'authority.pem', None), ('--token-file', 'token', None)):
        if option == '--token-file' and command[0] == 'health':
            continue
        code, text = run('cadrectl', *command, option, files / file, '--check-config')
        assert (code, says in text) == (2, True) if says else code == 0, text


# Of what this machine has, all is known without a network.
@pytest.mark.parametrize('program, options, says', [
    ('cadre-placement', ['--grpc', '203.0.113.9:7300', '--grpc-plaintext-anywhere'], '--grpc 203.0.113.9:7300: this machine cannot listen there: Cannot assign requested address'),
    ('cadre-router', ['--grpc', '[2001:db8::9]:7100', '--grpc-plaintext-anywhere'], '--grpc [2001:db8::9]:7100: this machine cannot listen there: '),
    ('cadre-expert', ['--http', '[2001:db8::9]:7401', '--http-plaintext-anywhere'], '--http [2001:db8::9]:7401: this machine cannot listen there: '),
    ('cadre-expert', ['--exchange', '[::1]:0'], 'UCX does not use this address'),
    ('cadre-router', ['--exchange', '[2001:db8::9]:0'], 'no interface of this machine has that address'),
    ('cadre-expert', ['--ucx-devices', 'nope0'], "UCX: cannot start with transports 'tcp' on devices 'nope0': No such device"),
    ('cadre-router', ['--ucx-devices', 'nope0'], "UCX: cannot start with transports 'tcp' on devices 'nope0': No such device"),
    ('cadre-router', ['--ucx-transports', 'pigeons'], "UCX: cannot start with transports 'pigeons' on devices 'lo': No such device"),
    ('cadre-expert', ['--device', 'cuda:99'], "device 'cuda"),   # without the library, without a driver, without so many GPUs
    ('cadre-expert', ['--memory', '10K'], '--memory is 10240 bytes, and one expert of this model takes '),
    ('cadre-placement', ['--state', '/tmp'], '--state /tmp: Is a directory'),
    ('cadre-placement', ['--state', '/dev/null/state.db'], '--state /dev/null/state.db: '),
], ids=str)
def test_check_config_knows_this_machine(program, options, says):
    given = dict(zip(PROGRAMS[program][::2], PROGRAMS[program][1::2])) | ({options[0]: options[1]} if options[0] in ('--grpc', '--http') else {})
    more = options[2:] if options[0] in ('--grpc', '--http') else options
    given.setdefault('--http', '127.0.0.1:0')
    code, text = run(program, '--model', MODEL, *[word for pair in given.items() for word in pair], *more, '--check-config')
    assert code == 2 and says in text, text


def test_check_config_beside_the_process(tmp_path):
    """Ports that are in use, by that very process, are no mistake; nor is a node that can hold one expert in the smallest profile alone."""
    with Cluster(MODEL, experts=1) as cluster:
        for process in cluster.experts[0], cluster.routers[0].process, cluster.placement:
            done = subprocess.run([*process.arguments, '--check-config'], capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done
    code, text = run('cadre-expert', '--model', MODEL, '--placement', '127.0.0.1:1', '--memory', '10K', '--check-config')
    least = int(text.split('of this model takes ')[1].split(',')[0])
    assert run('cadre-expert', '--model', MODEL, '--placement', '127.0.0.1:1', '--memory', least, '--check-config')[0] == 0
    assert run('cadre-expert', '--model', MODEL, '--placement', '127.0.0.1:1', '--memory', least - 1, '--check-config')[0] == 2


def test_what_check_config_looks_at(files, tmp_path):
    """It accepts what is right; and the model is looked at, too."""
    for program, options in PROGRAMS.items():
        own, either = ['--placement-token-file', files / 'token'], ['--token-file', files / 'token', '--tls-clients', 'optional']
        own = {'cadre-placement': either, 'cadre-expert': own, 'cadre-router': own + either}[program]
        command = [program, '--http', '127.0.0.1:0', *options, *own, '--secret-file', files / 'secret', *[w if w.startswith('--') else files / w for w in tls()], '--check-config']
        code, text = run(*command, '--model', MODEL)
        assert code == 0 and 'the configuration is valid' in text, text
        for file, change, says in [('config.json', lambda b: b'{', 'config.json is not valid JSON'), ('model.safetensors', None, 'has neither model.safetensors nor')]:
            directory = tmp_path / program / file
            code, text = run(*command, '--model', damaged(directory, 'mixtral-a', file, change))
            assert code == 2 and says in text, text
    code, text = run(*command, '--model', '/nonexistent')
    assert code == 2 and '/nonexistent' in text, text
