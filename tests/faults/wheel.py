# SPDX-License-Identifier: Apache-2.0
"""Another UCX than the system's, from PyPI, beside the virtual environment."""
import functools
import subprocess
import sys

from cluster import ROOT

PACKAGE = 'libucx-cu13==1.22.0'
FOLDER = ROOT / '.venv' / 'other-ucx'


def library_folder():
    return next(iter(FOLDER.glob('libucx/lib')), None)


@functools.cache
def no_other_ucx():
    if library_folder() is None:
        done = subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', '--disable-pip-version-check', '--no-deps', '--target', FOLDER, PACKAGE], capture_output=True, text=True)
        if library_folder() is None:
            return f'{PACKAGE} cannot be installed from PyPI: {(done.stderr.strip() or "?").splitlines()[-1]}'
    return None


def other_ucx():
    return library_folder()
