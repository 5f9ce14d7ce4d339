# SPDX-License-Identifier: Apache-2.0
"""Clusters on models/demo in which faults happen, in several surroundings."""
import shutil
import subprocess
import time

from cluster import BIN, ROOT, Cluster, http

MODEL = ROOT / 'models' / 'demo'


def until(condition, seconds, what):
    """Waits until condition() holds. Its exceptions count as no."""
    end = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except Exception:   # a service that is away, or does not have everything yet
            pass
        assert time.monotonic() < end, f'{what}: not after {seconds} s'
        time.sleep(0.01)


class World(Cluster):
    """Everything on loopback."""
    NEEDS = ()

    def __init__(self, copies=1, experts=3, routers=1, secret=False, resumes=False, cadrectl=False, model=MODEL, placement_options=(), **options):
        self.resumes, self.cadrectl, self.secret_file = resumes, cadrectl, None   # resumes: clients go on at another router; cadrectl: it is the client
        super().__init__(model, experts, routers, placement_options=['--copies-min', copies, *placement_options], start=False, **options)
        self.core = self.processes()   # those that must be there at the end; what a row adds need not
        self.struck = set()            # streams that the fault hits directly: the others' gaps are told apart
        self.since = 0.0               # from when on gaps count, if that is later than the fault
        self.told = ''                 # what else a row has measured
        if secret:
            self.share_secret()

    def share_secret(self):
        self.secret_file = self.directory / 'secret'
        self.secret_file.write_text('a secret of the right kind\n')
        self.secret_file.chmod(0o600)
        for process in self.core:
            program = process.name.split('-')[0]
            if accepts(BIN / f'cadre-{program}', '--secret-file'):
                process.arguments += ['--secret-file', str(self.secret_file)]

    def __enter__(self):
        for process in self.core:
            process.start()
        self.start = True
        return super().__enter__()

    def __exit__(self, *_):
        for process in self.processes():
            if process.alive():
                process.kill(18)   # SIGCONT
        super().__exit__()

    def forget(self):
        """Removes its logs and state."""
        shutil.rmtree(self.directory, ignore_errors=True)

    # ---- for rows ----

    def restart(self, process):
        """As its supervisor would: at once."""
        process.popen.wait()
        process.start()

    def newcomer(self, add, change=None, libraries=None):
        """One more process (`add` is add_expert or add_router), with its arguments as `change` makes them, and libraries of another folder."""
        self.start = False
        added = add()
        self.start = True
        process = getattr(added, 'process', added)
        if self.secret_file:
            process.arguments += ['--secret-file', str(self.secret_file)]
        if change:
            process.arguments = change(process.arguments)
        if libraries:
            process.env = {**(process.env or {}), 'LD_LIBRARY_PATH': str(libraries)}
        process.start()
        return added

    def live(self, role):
        return sum(node['state'] == 'live' and node['role'] == role for node in self.status()['nodes'])

    def holds_nothing(self, name):
        return sum(node['experts'] for node in self.status()['nodes'] if node['id'] == name) == 0

    def all_live(self):
        return self.live('expert') >= 3 and self.status()['experts_unplaced'] == 0

    def ended_badly(self):
        """Sentences about processes that ended though nobody killed them."""
        return [f'{p.name} ended with {p.popen.returncode}' for p in self.core if not p.alive() and p.popen.returncode not in (0, -9)]


def is_ready(http_address):
    try:
        http(http_address, '/readyz')
        return True
    except OSError:
        return False


def accepts(program, option):
    return option in subprocess.run([program, '--help'], capture_output=True, text=True, check=True).stdout


def without(arguments, option):
    """Arguments without an option and its value."""
    at = arguments.index(option)
    return arguments[:at] + arguments[at + 2:]


def replaced(arguments, option, value):
    return [*without(arguments, option), option, str(value)]
