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

# is_address HOST: openssl takes it for one, in a certificate that nobody sees.
is_address() {
	[[ $1 =~ ^[0-9]+(\.[0-9]+){3}$ || $1 =~ ^[0-9A-Fa-f]*:[0-9A-Fa-f:]*:[0-9A-Fa-f.]*$ ]] &&
		openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -config /dev/stdin >/dev/null 2>&1 <<-CONFIG
			[req]
			distinguished_name = name
			prompt = no
			x509_extensions = names
			[name]
			CN = name
			[names]
			subjectAltName = IP:$1
		CONFIG
}

# subject_name HOST: an address or a DNS name (with a star in front, perhaps), as openssl wants it. What ends in a number is no name.
subject_name() {
	local label='[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?'
	if is_address "$1"; then
		echo "IP:$1"
	elif [[ $1 =~ ^(\*\.)?$label(\.$label)*\.?$ && ! ${1%.} =~ (^|\.)[0-9]+$ ]]; then
		echo "DNS:${1%.}"
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

# lock: this run is the only one in DIR, with the folder WORK there for what it makes. A lock of flock ends with its run, WORK may not.
lock() {
	local other="another run makes certificates in $DIR"
	{ mkdir -p "$DIR" && [ -r "$DIR" ] && [ -w "$DIR" ]; } 2>/dev/null || fail "nothing can be written to $DIR"
	WORK=$DIR/.new
	if command -v flock >/dev/null; then
		exec 9<"$DIR"
		flock -n 9 || fail "$other: call this again when it has ended"
		rm -rf "$WORK"
	fi
	mkdir "$WORK" 2>/dev/null || fail "$other: call this again when it has ended; if there is none, remove $WORK first"
	trap 'rm -rf "$WORK"' EXIT
}

make_authority() {
	new_key "$WORK/authority.key"
	cat >"$WORK/.config" <<-CONFIG
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
	run_openssl "making $DIR/authority.pem" req -x509 -new -sha256 -config "$WORK/.config" -key "$WORK/authority.key" \
		-days "$AUTHORITY_DAYS" -out "$WORK/authority.pem"
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

# check_ours: nothing is replaced that this authority has not signed, and nothing that is kept is useless.
check_ours() {
	local name file
	for name in "${IDENTITIES[@]}"; do
		for file in "$DIR/$name.key" "$DIR/$name.pem"; do
			[ -e "$file" ] || continue
			[ -e "$DIR/authority.pem" ] ||
				fail "$file is there, but no authority.pem that signed it: move it away, or choose another folder"
			openssl verify -partial_chain -no_check_time -CAfile "$DIR/authority.pem" "$DIR/$name.pem" >/dev/null 2>&1 ||
				fail "$DIR/$name.pem or its key: they were not signed by the authority of this folder: move them away, or choose another folder"
			{ [ -f "$file" ] && [ -w "$file" ]; } || fail "$file cannot be written by this user"
		done
	done
	[ ! -e "$DIR/secret" ] || { [ -f "$DIR/secret" ] && grep -q '[^[:space:]]' "$DIR/secret"; } 2>/dev/null ||
		fail "$DIR/secret has no secret in it, or cannot be read: move it away, and another run makes one"
}

# issue NAME AUTHORITY: signed by AUTHORITY.pem
issue() {
	local role
	role=$(role_of "$1")
	new_key "$WORK/$1.key"
	run_openssl "asking for $1.pem" req -new -sha256 -config <(printf '[req]\ndistinguished_name = name\nprompt = no\n[name]\nCN = %s\n' "$1") \
		-key "$WORK/$1.key" -out "$WORK/.request"
	cat >"$WORK/.extensions" <<-EXTENSIONS
		basicConstraints = critical, CA:FALSE
		keyUsage = critical, digitalSignature
		extendedKeyUsage = serverAuth, clientAuth
		subjectKeyIdentifier = hash
		authorityKeyIdentifier = keyid
		subjectAltName = URI:cadre://$role/$1$(names_of "$1")
	EXTENSIONS
	run_openssl "signing $1.pem" x509 -req -sha256 -in "$WORK/.request" -CA "$2.pem" -CAkey "$2.key" \
		-set_serial "0x$(openssl rand -hex 16)" -days "$DAYS" -extfile "$WORK/.extensions" -out "$WORK/$1.pem"
}

# publish: what is made, after all of it is. Files that are there keep their owner, and their inode, which is what a container has mounted
# of them. The key goes first: who reads both in between finds that they do not belong together, and keeps the pair that it has.
publish() {
	local name file new output
	trap '' HUP INT TERM
	chmod 644 "$WORK"/*.pem
	for name in "${IDENTITIES[@]}"; do
		for file in "$name.key" "$name.pem"; do
			[ -e "$DIR/$file" ] || continue
			cat "$WORK/$file" >"$DIR/$file"
			rm "$WORK/$file"
		done
	done

	new=("$WORK"/*)
	[ -e "${new[0]}" ] || return 0
	output=$(mv "${new[@]}" "$DIR/" 2>&1) || {
		(cd "$DIR" && rm -f "${new[@]##*/}")
		fail "nothing can be put into $DIR: $output"
	}
}

# set_variable NAME VALUE: in .env, where Compose reads it, beside what else is there, the last line of which may not end.
set_variable() {
	touch .env
	sed -i -e "/^$1=/d" -e "\$a\\" .env
	echo "$1='$2'" >>.env
}

# for_compose: secrets in files reach a container with the owner that they have on the host.
for_compose() {
	[ "$(id -u)" != 0 ] || chown 65532:65532 "$DIR"/{placement,router,expert,operator,client}.{pem,key} "$DIR/secret"
	set_variable CADRE_CERTIFICATES "$DIR"
	set_variable CADRE_USER "$(stat -c %u:%g "$DIR/secret")"
}

DIR='' NAMES=() HOSTS='' DAYS=365 COMPOSE=''
while [ $# -gt 0 ]; do
	case $1 in
		--help | -h)
			usage
			exit
			;;
		--host=* | --days=*)
			set -- "${1%%=*}" "${1#*=}" "${@:2}"
			continue
			;;
		--host | --days) [ $# -ge 2 ] || fail "$1 needs a value" 2 ;;&
		--host)
			NAMES+=("$2")
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
[ -z "$COMPOSE" ] || [[ $DIR != *[\'\\[:cntrl:]]* && $DIR != *"\${"* && $DIR != "~"* ]] ||
	fail "--compose: Compose cannot read ', \\, \${, a control character, or a ~ in front in the name of a folder: choose another one" 2
command -v openssl >/dev/null || fail "openssl is not installed: apt-get install openssl"
for name in ${NAMES[@]+"${NAMES[@]}"}; do HOSTS+=,$(subject_name "$name"); done

lock
AUTHORITY=$DIR/authority
if [ -e "$AUTHORITY.pem" ] || [ -e "$AUTHORITY.key" ]; then check_authority; fi
check_ours
[ -e "$AUTHORITY.pem" ] || {
	AUTHORITY=$WORK/authority
	make_authority
}
for identity in "${IDENTITIES[@]}"; do issue "$identity" "$AUTHORITY"; done
[ -e "$DIR/secret" ] || openssl rand -hex 32 >"$WORK/secret"
publish
[ -z "$COMPOSE" ] || for_compose
echo "$DIR: the certificates of ${IDENTITIES[*]} are good for $DAYS days"
