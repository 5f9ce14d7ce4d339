# SPDX-License-Identifier: Apache-2.0
"""How an expert node proves that it knows the cluster secret, as common/cluster/proof.h has it."""
import hashlib
import hmac


def proof(secret, hello, member_nonce, service_nonce):
    texts = b''.join(len(text).to_bytes(4, 'little') + text for text in (hello.id.encode(), b'expert', hello.cluster.encode(), hello.exchange_address.encode()))
    return hmac.digest(secret, b'cadre member'.ljust(16, b'\0') + member_nonce + service_nonce + texts, hashlib.sha256)
