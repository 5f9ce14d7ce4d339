#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# usage: deb.sh install|cuda|units|cluster|purge
# Inside of a fresh Debian 12, as root, one after the other: run.sh calls it. No systemd runs there: the cluster is started by what the units
# would start, as the user that they name.
set -eu

DIGEST=dcc6c3fefb63f238dc66ee309c0e2247 # of models/demo, as in the README
PIDS=''
UNITS='cadre-placement cadre-router cadre-router@ cadre-expert cadre-expert@'

fail() {
	echo "$*"
	exit 1
}

# start UNIT [INSTANCE]: what the unit would start
start() {
	command=$(sed -n 's/^ExecStart=//p' "/usr/lib/systemd/system/$1.service" | sed "s/%i/${2:-}/g")
	user=$(sed -n 's/^User=//p' "/usr/lib/systemd/system/$1.service")
	# shellcheck disable=SC2086  # words
	setpriv --reuid "$user" --regid "$user" --init-groups $command >"/tmp/$1${2:-}.log" 2>&1 &
	PIDS="$PIDS $!"
}

# configure FILE EXAMPLE SED-COMMAND...: as the example says, but small, and with a secret
configure() {
	file=/etc/cadre/$1 example=/usr/share/doc/cadre/examples/$2
	shift 2
	sed -e 's/^memory: .*/memory: 1G/' -e 's/^kv-memory: .*/kv-memory: 64M/' -e 's/^# secret-file:/secret-file:/' "$@" "$example" >"$file"
}

generates() {
	cadrectl generate --router 127.0.0.1:7100 --max-tokens 24 --temperature 0.6 --seed 1 --ignore-eos 'CREATE TABLE t1 (' >/tmp/answer 2>&1 || true
	grep -q "digest $DIGEST" /tmp/answer || fail "the answer has not the digest $DIGEST: $(cat /tmp/answer /tmp/*.log)"
}

install_package() {
	touch /root/before
	apt-get update -q
	DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends /root/cadre.deb
	getent passwd cadre || fail "there is no user cadre"
	for program in cadre-placement cadre-router cadre-expert cadrectl; do
		"$program" --version
		[ -s "/usr/share/man/man1/$program.1.gz" ] || fail "$program has no man page"
		bash -n "/usr/share/bash-completion/completions/$program"
	done
	! find /etc/systemd -name 'cadre*' | grep . || fail "a unit is enabled"
	[ ! -e /etc/cadre ] || fail "the package wrote to /etc"
}

# The package with the library for GPUs: that, and what Debian wants of every package. It is of one version with the programs, and here without a driver.
cuda() {
	dpkg -i /root/cadre-cuda.deb
	files=$(dpkg -L cadre-cuda | while read -r file; do [ -d "$file" ] || echo "$file"; done | sort | xargs)
	wanted='/usr/lib/cadre/libcadre-cuda.so /usr/share/doc/cadre-cuda/changelog.Debian.gz /usr/share/doc/cadre-cuda/copyright'
	[ "$files" = "$wanted" ] || fail "cadre-cuda has $files"
	[ "$(dpkg-query -W -f '${Depends}' cadre-cuda | grep -o 'cadre (= [^)]*)')" = "cadre (= $(dpkg-query -W -f '${Version}' cadre))" ] ||
		fail "cadre-cuda does not depend on cadre of its own version"
	! ldd /usr/lib/cadre/libcadre-cuda.so | grep -E 'not found|libcuda|libcudart' || fail "the library needs CUDA"
	dpkg -P cadre-cuda
	[ ! -e /usr/lib/cadre ] || fail "cadre-cuda left /usr/lib/cadre"
}

units() {
	for unit in $UNITS; do
		systemd-analyze verify --man=no "/usr/lib/systemd/system/$unit.service" >/tmp/verify 2>&1 || fail "$unit: $(cat /tmp/verify)"
		[ ! -s /tmp/verify ] || fail "$unit: $(cat /tmp/verify)"
	done
}

cluster() {
	mkdir -p /etc/cadre
	head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >/etc/cadre/secret
	chown cadre /etc/cadre/secret
	chmod 400 /etc/cadre/secret
	install -d -o cadre -g cadre -m 700 /var/lib/cadre # StateDirectory
	configure placement.yaml placement.yaml
	configure router.yaml router.yaml
	configure expert.yaml expert.yaml
	configure expert-b.yaml expert.yaml -e 's/expert-a/expert-b/' -e 's/7411/7412/' -e 's/7420/7440/'
	start cadre-placement
	start cadre-expert
	start cadre-expert@ b
	start cadre-router
	cadrectl wait --placement 127.0.0.1:7300 --experts 2 --timeout 30s || fail "the cluster is not ready: $(cat /tmp/*.log)"
	generates

	DEBIAN_FRONTEND=noninteractive apt-get install -q -y /root/cadre-newer.deb
	generates
	for pid in $PIDS; do kill "$pid" || fail "the upgrade ended a process"; done
	wait
}

purge() {
	apt-get remove -q -y cadre
	[ -d /var/lib/cadre ] || fail "a removal deleted the state"
	apt-get purge -q -y cadre
	left=$(find / -xdev -cnewer /root/before -name '*cadre*' ! -path '/root/*' ! -path '/tmp/*' ! -path '/proc/*' ! -path '/var/cache/*')
	[ "$left" = /etc/cadre ] || fail "left behind: $left"
}

case $1 in
	install) install_package ;;
	cuda | units | cluster | purge) "$1" ;;
esac
