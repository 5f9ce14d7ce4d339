#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# usage: test_certificates.sh CERTIFICATES.SH
# What scripts/certificates.sh makes: who may read it, whom it names, that another run keeps the authority and the secret;
# and what it refuses, with a sentence.
set -eu

script=$1
if ! command -v openssl >/dev/null; then
	echo "skipped: there is no openssl"
	exit
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
failures=0

fail() {
	echo "FAIL: $*"
	failures=$((failures + 1))
}

# refused CODE SENTENCE ARGUMENT...
refused() {
	local code=$1 sentence=$2 output got=0
	shift 2
	output=$(PATH=${SEARCH-$PATH} "$script" "$@" 2>&1) || got=$?
	[ $got = "$code" ] || fail "'$*' ended with $got, not $code: $output"
	[[ $output == *"$sentence"* ]] || fail "'$*' said '$output', not '$sentence'"
	[ "$(wc -l <<<"$output")" = 1 ] || [[ $output == Usage* ]] || fail "'$*' needs more than a line: $output"
}

names() { openssl x509 -in "$1" -noout -ext subjectAltName | tail -n 1 | tr -d ' '; }

# has_names CERTIFICATE NAMES
has_names() { [ "$(names "$1")" = "$2" ] || fail "$1 names $(names "$1"), not $2"; }

# is_pair NAME: its certificate and key belong together.
is_pair() { [ "$(openssl x509 -in "$1.pem" -noout -pubkey)" = "$(openssl pkey -in "$1.key" -pubout)" ] || fail "$1.key is not the key of $1.pem"; }

# without TOOL: a folder for PATH which has what the script calls, but not TOOL.
without() {
	SEARCH=$(mktemp -d "$work/without.XXXXXX")
	for tool in bash cat chmod flock grep mkdir mv openssl rm; do
		[ $tool = "$1" ] || ln -s "$(command -v $tool)" "$SEARCH/"
	done
}

# pretend TOOL LINE: the same with LINE, of a shell, in the place of TOOL.
pretend() {
	without "$1"
	printf '#!/bin/sh\n%s\n' "$2" >"$SEARCH/$1"
	chmod +x "$SEARCH/$1"
}

# ---- a new folder ----

"$script" made --host 10.8.0.5 --host='*.cadre.example.org.' --days=365 >/dev/null
has_names made/placement.pem "URI:cadre://node/placement,DNS:placement,DNS:localhost,IPAddress:127.0.0.1,IPAddress:10.8.0.5,DNS:*.cadre.example.org"
has_names made/router.pem "URI:cadre://node/router,DNS:router,DNS:router-0,DNS:router-1,DNS:localhost,IPAddress:127.0.0.1,IPAddress:10.8.0.5,DNS:*.cadre.example.org"
has_names made/expert.pem URI:cadre://node/expert
has_names made/operator.pem URI:cadre://operator/operator
has_names made/client.pem URI:cadre://client/client
for name in placement router expert operator client; do
	openssl verify -x509_strict -purpose sslclient -CAfile made/authority.pem made/$name.pem >/dev/null || fail "$name.pem is not signed by the authority"
	openssl x509 -in made/$name.pem -noout -checkend $((364 * 86400)) >/dev/null || fail "$name.pem ends within a year"
	is_pair made/$name
done
[ "$(cd made && stat -c '%n=%a' ./* | tr '\n' ' ')" = "./authority.key=600 ./authority.pem=644 ./client.key=600 ./client.pem=644 ./expert.key=600 ./expert.pem=644 ./operator.key=600 ./operator.pem=644 ./placement.key=600 ./placement.pem=644 ./router.key=600 ./router.pem=644 ./secret=600 " ] ||
	fail "files or their modes: $(cd made && stat -c '%n=%a' ./* | tr '\n' ' ')"
is_pair made/authority
[ "$(find made -mindepth 1 -name '.*')" = "" ] || fail "something temporary is left"
grep -qxE '[0-9a-f]{64}' made/secret || fail "the secret is not 32 random bytes"

# ---- again ----

cp -r made before
"$script" made --days 2 >/dev/null
for file in authority.pem authority.key secret; do cmp -s made/$file before/$file || fail "another run changed $file"; done
for name in placement router expert operator client; do
	! cmp -s made/$name.pem before/$name.pem || fail "another run kept $name.pem"
	! cmp -s made/$name.key before/$name.key || fail "another run kept $name.key"
done
openssl verify -CAfile before/authority.pem made/router.pem >/dev/null || fail "the old authority does not know the new router.pem"
! openssl x509 -in made/router.pem -noout -checkend $((3 * 86400)) >/dev/null || fail "--days 2 is not obeyed"

# ---- two at once ----

for folder in fresh fresh before before; do
	"$script" $folder >>at-once 2>&1 || true &
done
wait
! grep -vE "another run makes certificates in (fresh|before): call|are good for 365 days" at-once || fail "two runs at once said that"
for folder in fresh before; do
	for name in authority placement router expert operator client; do is_pair $folder/$name; done
done
if command -v flock >/dev/null; then
	flock made "$script" made >at-once 2>&1 && fail "a run did not heed the lock"
	grep -q "another run makes certificates in made" at-once || fail "the lock: $(cat at-once)"
	mkdir made/.new
	"$script" made >/dev/null || fail "what a run that was killed has left is in the way"
fi

# ---- for Compose ----

mkdir compose
cd compose
touch docker-compose.yml
printf 'CADRE_USER=1:1\nCADRE_MODEL=/models/m' >.env
"$script" made --compose >/dev/null
user=$(id -u):$(id -g)
[ "$user" != 0:0 ] || user=65532:65532
[ "$(cat .env)" = "CADRE_MODEL=/models/m
CADRE_CERTIFICATES='made'
CADRE_USER='$user'" ] || fail ".env: $(cat .env)"
inode=$(stat -c %i made/router.key)
"$script" made >/dev/null
[ "$(stat -c '%u:%g %a' made/router.key made/secret | sort -u)" = "$user 600" ] || fail "another run changed the owner: $(stat -c '%u:%g %a %n' made/*)"
[ "$(stat -c %i made/router.key)" = "$inode" ] || fail "another run made another file, which no container has"
for folder in "it's" 'a\b' "\${a}" '~a'; do
	refused 2 "--compose: Compose cannot read" "$folder" --compose
done
"$script" "my certs \$x #y" --compose >/dev/null
grep -qxF "CADRE_CERTIFICATES='my certs \$x #y'" .env || fail ".env: $(cat .env)"
cd ..

# ---- refused ----

cp -r made mended
refused 2 "Usage: certificates.sh DIR"
refused 2 "--host needs a value" made --host
refused 2 "'router-0:7100' is neither a name nor an address" made --host router-0:7100 --host router-1
refused 2 "'a,DNS:b' is neither a name nor an address" made --host a,DNS:b
for host in 10.0.0.256 999.1.1.1 10.0.0 a::b::c fe80::12345 10.0.0.5:7100 a..b .; do
	refused 2 "'$host' is neither a name nor an address" none --host $host
done
[ ! -e none ] || fail "something was written before --host was looked at"
refused 2 "'' is neither a name nor an address" made --host=
refused 2 "--days 'x' is not a number" made --days=x
refused 2 "--days '0' is not a number from 1 to 3650" made --days 0
refused 2 "there is no option '--hosts'" made --hosts a
refused 2 "there is no docker-compose.yml in this folder" made --compose
refused 2 "one folder is enough" made other
refused 1 "nothing can be written to /proc/none" /proc/none
without openssl
refused 1 "openssl is not installed" made
without flock
mkdir made/.new
refused 1 "another run makes certificates in made: call this again when it has ended; if there is none, remove made/.new first" made
rmdir made/.new
unset SEARCH
refused 1 "ends in less than 3650 days" made --days 3650
mv made/authority.key .
refused 1 "made/authority.key is missing" made
cp before/client.key made/authority.key
refused 1 "made/authority.key is not the key of made/authority.pem" made
mv authority.key made/
cp made/client.key made/authority.pem
refused 1 "made/authority.pem is no certificate" made
cp before/authority.pem made/
diff -r made mended || fail "a refused run changed something"

cp -r fresh foreign
cp made/authority.* foreign/
cp -r foreign same
refused 1 "foreign/placement.pem or its key: they were not signed" foreign
diff -r foreign same || fail "a refused run changed something"
mkdir lone
touch lone/client.key
refused 1 "lone/client.key is there, but no authority.pem that signed it" lone
rm lone/client.key
touch lone/secret
refused 1 "lone/secret has no secret in it" lone
rm lone/secret
mkdir lone/secret
refused 1 "lone/secret has no secret in it" lone
[ "$(ls -A lone)" = secret ] || fail "a refused run made something: $(ls -A lone)"

# ---- failing in the middle ----

pretend mv "$(command -v mv) \"\$1\" half/; echo disk full; exit 1"
refused 1 "nothing can be put into half: disk full" half
pretend openssl "case \$* in *expert.pem) exit 1 ;; esac; exec $(command -v openssl) \"\$@\""
refused 1 "signing expert.pem failed" half
[ -z "$(ls -A half)" ] || fail "a run that failed has left $(ls -A half)"

[ $failures = 0 ] && echo "the certificates are as they should be"
exit $failures
