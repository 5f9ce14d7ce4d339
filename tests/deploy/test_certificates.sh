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

# ---- a new folder ----

"$script" made --host 10.8.0.5 --host '*.cadre.example.org' >/dev/null
has_names made/placement.pem "URI:cadre://node/placement,DNS:placement,DNS:localhost,IPAddress:127.0.0.1,IPAddress:10.8.0.5,DNS:*.cadre.example.org"
has_names made/router.pem "URI:cadre://node/router,DNS:router,DNS:router-0,DNS:router-1,DNS:localhost,IPAddress:127.0.0.1,IPAddress:10.8.0.5,DNS:*.cadre.example.org"
has_names made/expert.pem URI:cadre://node/expert
has_names made/operator.pem URI:cadre://operator/operator
has_names made/client.pem URI:cadre://client/client
for name in placement router expert operator client; do
	openssl verify -x509_strict -purpose sslclient -CAfile made/authority.pem made/$name.pem >/dev/null || fail "$name.pem is not signed by the authority"
	openssl x509 -in made/$name.pem -noout -checkend $((364 * 86400)) >/dev/null || fail "$name.pem ends within a year"
	[ "$(openssl x509 -in made/$name.pem -noout -pubkey)" = "$(openssl pkey -in made/$name.key -pubout)" ] || fail "$name.key is not the key of $name.pem"
done
[ "$(cd made && stat -c '%n=%a' ./* | tr '\n' ' ')" = "./authority.key=600 ./authority.pem=644 ./client.key=600 ./client.pem=644 ./expert.key=600 ./expert.pem=644 ./operator.key=600 ./operator.pem=644 ./placement.key=600 ./placement.pem=644 ./router.key=600 ./router.pem=644 ./secret=600 " ] ||
	fail "files or their modes: $(cd made && stat -c '%n=%a' ./* | tr '\n' ' ')"
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

# ---- for Compose ----

mkdir compose
cd compose
touch docker-compose.yml
printf 'CADRE_MODEL=/models/m\nCADRE_USER=1:1\n' >.env
"$script" made --compose >/dev/null
user=$(id -u):$(id -g)
[ "$user" != 0:0 ] || user=65532:65532
[ "$(cat .env)" = "CADRE_MODEL=/models/m
CADRE_CERTIFICATES=made
CADRE_USER=$user" ] || fail ".env: $(cat .env)"
inode=$(stat -c %i made/router.key)
"$script" made >/dev/null
[ "$(stat -c '%u:%g %a' made/router.key made/secret | sort -u)" = "$user 600" ] || fail "another run changed the owner: $(stat -c '%u:%g %a %n' made/*)"
[ "$(stat -c %i made/router.key)" = "$inode" ] || fail "another run made another file, which no container has"
cd ..

# ---- refused ----

cp -r made mended
refused 2 "Usage: certificates.sh DIR"
refused 2 "--host needs a value" made --host
refused 2 "'router-0:7100' is neither a name nor an address" made --host router-0:7100 --host router-1
refused 2 "'a,DNS:b' is neither a name nor an address" made --host a,DNS:b
refused 2 "--days '0' is not a number from 1 to 3650" made --days 0
refused 2 "there is no option '--hosts'" made --hosts a
refused 2 "there is no docker-compose.yml in this folder" made --compose
refused 2 "one folder is enough" made other
refused 1 "nothing can be written to /proc/none" /proc/none
mkdir no-openssl
ln -s "$(command -v bash)" no-openssl/
SEARCH=$PWD/no-openssl refused 1 "openssl is not installed" made
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

"$script" other >/dev/null
rm other/authority.pem other/authority.key
cp -r other foreign
refused 1 "foreign/placement.pem or its key: they were not signed" foreign
diff -r other foreign || fail "a refused run changed something"

[ $failures = 0 ] && echo "the certificates are as they should be"
exit $failures
