#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# An authority, certificates for the parts of a cluster, and the cluster secret: what docker-compose.yml, the Kubernetes
# manifests and a cluster by hand need to speak TLS everywhere. Needs openssl (1.1.1 or later) and no file of the checkout.
set -euo pipefail
umask 077

usage() {
	cat <<'HELP'
Usage: certificates.sh DIR [--host NAME]... [--days N] [--compose]

Makes in DIR
  authority.pem, authority.key   the authority that signs the rest, for 10 years; keep the key where no service can read it
  placement.pem, placement.key   role node, for the service that answers to 'placement', 'localhost' and 127.0.0.1
  router.pem, router.key         role node, for 'router', 'router-0', 'router-1', 'localhost' and 127.0.0.1
  expert.pem, expert.key         role node
  operator.pem, operator.key     role operator
  client.pem, client.key         role client
  secret                         the cluster secret

  --host NAME                    another name or address by which the placement service or a router is called; may be repeated
  --days N                       how long the certificates are good (365); the authority's end is the latest
  --compose                      for the docker-compose.yml in this folder: names DIR in .env, and the user as which containers can
                                 read it, who owns DIR: you, or 65532 if you are root

When DIR has an authority already, it is kept, with the secret; everything else is made again. Give all --host again, too.
HELP
}

fail() {
	echo "certificates.sh: $1" >&2
	exit "${2:-1}"
}

AUTHORITY_DAYS=3650
IDENTITIES=(placement router expert operator client)

# role_of IDENTITY
role_of() {
	case $1 in
		placement | router | expert) echo node ;;
		*) echo "$1" ;;
	esac
}

# names_of IDENTITY: what its certificate says besides who it is, by which servers are called.
names_of() {
	case $1 in
		placement) echo ",DNS:placement,DNS:localhost,IP:127.0.0.1$HOSTS" ;;
		router) echo ",DNS:router,DNS:router-0,DNS:router-1,DNS:localhost,IP:127.0.0.1$HOSTS" ;;
	esac
}

# subject_name HOST: an address or a DNS name (with a star in front, perhaps), as openssl wants it.
subject_name() {
	if [[ $1 =~ ^[0-9]+(\.[0-9]+){3}$ || $1 =~ ^[0-9A-Fa-f]*:[0-9A-Fa-f:]*:[0-9A-Fa-f.]*$ ]]; then
		echo "IP:$1"
	elif [[ $1 =~ ^(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*$ ]]; then
		echo "DNS:$1"
	else
		fail "--host '$1' is neither a name nor an address: only letters, digits, '-' and '.', without a port" 2
	fi
}

# run_openssl WHAT ARGUMENT...: quiet unless it fails
run_openssl() {
	local what=$1 output
	shift
	output=$(openssl "$@" 2>&1) || fail "$what failed: openssl $1 says: $output"
}

# new_key FILE
new_key() { run_openssl "making $1" genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }

make_authority() {
	new_key "$WORK/authority.key"
	cat >"$WORK/config" <<-CONFIG
		[req]
		distinguished_name = name
		prompt = no
		x509_extensions = authority
		[name]
		CN = Cadre cluster authority
		[authority]
		basicConstraints = critical, CA:TRUE, pathlen:0
		keyUsage = critical, keyCertSign, cRLSign
		subjectKeyIdentifier = hash
	CONFIG
	run_openssl "making $DIR/authority.pem" req -x509 -new -sha256 -config "$WORK/config" -key "$WORK/authority.key" \
		-days "$AUTHORITY_DAYS" -out "$WORK/authority.pem"
	publish authority
}

# check_authority: that of an earlier run is whole, and lives longer than what it signs.
check_authority() {
	local certificate=$DIR/authority.pem key=$DIR/authority.key file
	for file in "$key" "$certificate"; do
		[ -e "$file" ] || fail "$file is missing, while the other half of the authority is there: bring it back, or choose another folder"
		[ -r "$file" ] || fail "$file cannot be read by this user"
	done
	openssl x509 -noout -in "$certificate" 2>/dev/null || fail "$certificate is no certificate"
	[ "$(openssl x509 -noout -pubkey -in "$certificate")" = "$(openssl pkey -pubout -in "$key" 2>/dev/null)" ] ||
		fail "$key is not the key of $certificate"
	openssl x509 -noout -checkend $((DAYS * 86400)) -in "$certificate" >/dev/null ||
		fail "$certificate ends in less than $DAYS days: begin with a new authority in another folder, or give fewer --days"
}

# check_ours: nothing is replaced that this authority has not signed.
check_ours() {
	local name
	for name in "${IDENTITIES[@]}"; do
		[ ! -e "$DIR/$name.pem" ] && [ ! -e "$DIR/$name.key" ] && continue
		openssl verify -partial_chain -no_check_time -CAfile "$DIR/authority.pem" "$DIR/$name.pem" >/dev/null 2>&1 ||
			fail "$DIR/$name.pem or its key: they were not signed by the authority of this folder: move them away, or choose another folder"
	done
}

# publish NAME: its files. Those that are there keep their owner, and their inode, which is what a container has mounted of them. The key
# goes first: who reads both in between finds that they do not belong together, and keeps the pair that it has.
publish() {
	local file
	for file in "$1.key" "$1.pem"; do
		if [ -e "$DIR/$file" ]; then cat "$WORK/$file" >"$DIR/$file"; else mv "$WORK/$file" "$DIR/$file"; fi
	done
	chmod 644 "$DIR/$1.pem"
}

# issue NAME
issue() {
	local role
	role=$(role_of "$1")
	new_key "$WORK/$1.key"
	run_openssl "asking for $1.pem" req -new -sha256 -config <(printf '[req]\ndistinguished_name = name\nprompt = no\n[name]\nCN = %s\n' "$1") \
		-key "$WORK/$1.key" -out "$WORK/request"
	cat >"$WORK/extensions" <<-EXTENSIONS
		basicConstraints = critical, CA:FALSE
		keyUsage = critical, digitalSignature
		extendedKeyUsage = serverAuth, clientAuth
		subjectKeyIdentifier = hash
		authorityKeyIdentifier = keyid
		subjectAltName = URI:cadre://$role/$1$(names_of "$1")
	EXTENSIONS
	run_openssl "signing $1.pem" x509 -req -sha256 -in "$WORK/request" -CA "$DIR/authority.pem" -CAkey "$DIR/authority.key" \
		-set_serial "0x$(openssl rand -hex 16)" -days "$DAYS" -extfile "$WORK/extensions" -out "$WORK/$1.pem"
	publish "$1"
}

make_secret() {
	openssl rand -hex 32 >"$WORK/secret"
	mv -f "$WORK/secret" "$DIR/secret"
}

# set_variable NAME VALUE: in .env, where Compose reads it, beside what else is there.
set_variable() {
	touch .env
	sed -i "/^$1=/d" .env
	echo "$1=$2" >>.env
}

# for_compose: secrets in files reach a container with the owner that they have on the host.
for_compose() {
	[ "$(id -u)" != 0 ] || chown 65532:65532 "$DIR"/{placement,router,expert,operator,client}.{pem,key} "$DIR/secret"
	set_variable CADRE_CERTIFICATES "$DIR"
	set_variable CADRE_USER "$(stat -c %u:%g "$DIR/secret")"
}

DIR='' HOSTS='' DAYS=365 COMPOSE=''
while [ $# -gt 0 ]; do
	case $1 in
		--help | -h)
			usage
			exit
			;;
		--host | --days) [ $# -ge 2 ] || fail "$1 needs a value" 2 ;;&
		--host)
			HOSTS+=,$(subject_name "$2")
			shift
			;;
		--days)
			[[ $2 =~ ^[1-9][0-9]{0,3}$ && $2 -le $AUTHORITY_DAYS ]] || fail "--days '$2' is not a number from 1 to $AUTHORITY_DAYS" 2
			DAYS=$2
			shift
			;;
		--compose) COMPOSE=yes ;;
		-*) fail "there is no option '$1': --host NAME, --days N, --compose" 2 ;;
		*)
			[ -z "$DIR" ] || fail "one folder is enough: '$DIR' and '$1'" 2
			DIR=$1
			;;
	esac
	shift
done
[ -n "$DIR" ] || {
	usage >&2
	exit 2
}
[ -z "$COMPOSE" ] || [ -e docker-compose.yml ] || fail "--compose: there is no docker-compose.yml in this folder" 2
command -v openssl >/dev/null || fail "openssl is not installed: apt-get install openssl"

WORK=$(mkdir -p "$DIR" 2>/dev/null && mktemp -d "$DIR/.new.XXXXXX" 2>/dev/null) || fail "nothing can be written to $DIR"
trap 'rm -rf "$WORK"' EXIT

if [ -e "$DIR/authority.pem" ] || [ -e "$DIR/authority.key" ]; then check_authority; fi
check_ours
[ -e "$DIR/authority.pem" ] || make_authority
for identity in "${IDENTITIES[@]}"; do issue "$identity"; done
[ -e "$DIR/secret" ] || make_secret
[ -z "$COMPOSE" ] || for_compose
echo "$DIR: the certificates of ${IDENTITIES[*]} are good for $DAYS days"
