#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A network of namespaces whose links can be cut, slowed and made to lose packets, where the kernel has no netem.

    relay.py HOST_ADDRESS NAME=ADDRESS ...

makes a network namespace for each NAME, with a TUN device that has the address, and one such device in the namespace of the caller.
It carries every IPv4 packet from one device to another, as the rules say that it reads from standard input:

    cut A B          nothing gets from A to B ('host' is the caller); the other way is not touched
    delay A B MS     every packet from A to B arrives so many milliseconds later
    lose A B PERCENT every packet from A to B is lost with this probability
    heal             no rule is left

It prints 'NAME /proc/PID/fd/N' for each namespace (for `nsenter --net=`), then 'ready', and answers each rule with 'ok'. At the end of its
input it ends, and since nothing else holds namespaces and devices, they go as well, once the processes in them have ended.
"""
import ctypes
import fcntl
import heapq
import os
import random
import selectors
import signal
import struct
import subprocess
import sys
import time

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
DEVICE, HOST = 'cadre0', 'host'
MTU = 9000
LIBC = ctypes.CDLL(None, use_errno=True)


def check(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def make_device(address):
    """A TUN device in the present namespace; it lives as long as the descriptor."""
    tun = os.open('/dev/net/tun', os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack('16sH22x', DEVICE.encode(), IFF_TUN | IFF_NO_PI))
    for command in (f'ip address add {address}/24 dev {DEVICE}', f'ip link set {DEVICE} mtu {MTU} up'):
        subprocess.run(command.split(), check=True)
    return tun


def make_namespace(address):
    """(its descriptor, its device). The caller is back in its own namespace afterwards."""
    home = os.open('/proc/self/ns/net', os.O_RDONLY)
    check(LIBC.unshare(CLONE_NEWNET))
    namespace = os.open('/proc/self/ns/net', os.O_RDONLY)
    subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)
    tun = make_device(address)
    check(LIBC.setns(home, CLONE_NEWNET))
    os.close(home)
    return namespace, tun


class Relay:
    def __init__(self, host_address, members):
        self.names, self.devices, self.rules, self.late = {}, {}, {}, []
        self.selector = selectors.DefaultSelector()
        self.add(HOST, host_address, make_device(host_address))
        for name, address in members:
            namespace, tun = make_namespace(address)
            self.add(name, address, tun)
            print(name, f'/proc/{os.getpid()}/fd/{namespace}')
        os.set_blocking(0, False)
        self.selector.register(0, selectors.EVENT_READ)
        self.input = b''
        print('ready', flush=True)

    def add(self, name, address, tun):
        key = bytes(map(int, address.split('.')))
        self.names[name], self.devices[key] = key, tun
        self.selector.register(tun, selectors.EVENT_READ)

    # ---- rules ----

    def obey(self, verb, *words):
        if verb == 'heal':
            self.rules.clear()
        else:
            rule = self.rules.setdefault((self.names[words[0]], self.names[words[1]]), {'lose': 0.0, 'delay': 0.0})
            if verb == 'cut':
                rule['lose'] = 1.0
            else:
                rule[verb] = float(words[2]) / {'lose': 100, 'delay': 1000}[verb]
        print('ok', flush=True)

    def read_input(self):
        """False at its end."""
        got = os.read(0, 4096)
        *lines, self.input = (self.input + got).split(b'\n')
        for line in lines:
            self.obey(*line.decode().split())
        return bool(got)

    # ---- packets ----

    def carry(self, packet):
        source, target = packet[12:16], packet[16:20]
        device = self.devices.get(target)
        if device is None or packet[0] >> 4 != 4:
            return
        rule = self.rules.get((source, target))
        if rule is None:
            deliver(device, packet)
        elif random.random() >= rule['lose']:
            if rule['delay']:
                heapq.heappush(self.late, (time.monotonic() + rule['delay'], device, packet))
            else:
                deliver(device, packet)

    def drain(self, device):
        try:
            while True:
                self.carry(os.read(device, MTU))
        except BlockingIOError:
            pass

    def run(self):
        while True:
            wait = max(0, self.late[0][0] - time.monotonic()) if self.late else None
            for key, _ in self.selector.select(wait):
                if key.fd != 0:
                    self.drain(key.fd)
                elif not self.read_input():
                    return
            while self.late and self.late[0][0] <= time.monotonic():
                deliver(*heapq.heappop(self.late)[1:])


def deliver(device, packet):
    try:
        os.write(device, packet)
    except OSError:   # a full queue drops packets, as networks do
        pass


if __name__ == '__main__':
    signal.signal(signal.SIGINT, signal.SIG_IGN)   # Ctrl-C is for the caller, which then closes the input
    Relay(sys.argv[1], [word.split('=') for word in sys.argv[2:]]).run()
