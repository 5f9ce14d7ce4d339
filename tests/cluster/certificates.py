# SPDX-License-Identifier: Apache-2.0
"""An authority, and certificates of its own: authority.pem, NAME.pem and NAME.key in a folder."""
import pathlib
import subprocess

import grpc

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / 'scripts' / 'certificates.sh'


def openssl(directory, *arguments):
    subprocess.run(['openssl', *arguments], cwd=directory, check=True, capture_output=True)


def authority(directory):
    openssl(directory, 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', 'authority.key', '-out', 'authority.pem', '-days', '1', '-subj', '/CN=authority')


def issue(directory, name, names=None, days=1, subject=None):
    """names: the certificate's subjectAltName. days -1: it has expired. subject: else /CN=name."""
    openssl(directory, 'req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', f'{name}.key', '-out', f'{name}.csr', '-subj', subject or f'/CN={name}')
    extension = []
    if names:
        (directory / 'names').write_text(f'subjectAltName={names}')
        extension = ['-extfile', 'names']
    openssl(directory, 'x509', '-req', '-in', f'{name}.csr', '-CA', 'authority.pem', '-CAkey', 'authority.key', '-CAcreateserial', '-days', str(days), '-out', f'{name}.pem', *extension)


def cluster(directory, *names):
    """What scripts/certificates.sh makes, as Cluster's `tls` wants it; and certificates of other clients, by name."""
    subprocess.run([SCRIPT, directory], check=True, capture_output=True)
    for name in names:
        issue(directory, name, f'URI:cadre://client/{name}')


# ---- how they are shown ----

def shown(directory, name):
    """Options of all programs."""
    return ['--tls-certificate', directory / f'{name}.pem', '--tls-key', directory / f'{name}.key']


def identity(directory, name):
    """Options that show it, and trust the folder's authority."""
    return [*shown(directory, name), '--tls-authority', directory / 'authority.pem']


def credentials(directory, name=None):
    """The same for a channel of gRPC's; without a name it shows none."""
    files = ['authority.pem', *([f'{name}.key', f'{name}.pem'] if name else [])]
    return grpc.ssl_channel_credentials(*[(directory / file).read_bytes() for file in files])
