# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# A whole cluster, seen from outside: prompts in, text out, a table, and everything is stopped at the end.

source "$ROOT/scripts/cluster.sh"

# One prompt for each kind of text that the model was trained on.
PROMPTS=(
	"The following command can be used to"
	$'.TH LS 1\n.SH NAME\n'
	"Diese Option legt fest, ob"
	"Cette fonction renvoie"
	"Эта команда используется для"
	"このオプションを指定すると"
	$'static int\nread_header (struct'
	$'class Parser:\n    def __init__(self,'
	"func (s *Server)"
	"CREATE TABLE t1 ("
)
SAMPLING=(--temperature 0.6 --seed 1)
MAX_TOKENS=48

cadrectl() { "$BIN/cadrectl" "$@"; }

demo_stop() {
	local code=$?
	trap - EXIT
	jobs -p | xargs -r kill 2>/dev/null || true
	stop_cluster
	rm -rf "${ANSWERS:-}"
	exit $code
}

# demo_start OPTION...: a cluster that is stopped whatever happens.
demo_start() {
	ANSWERS=${ANSWERS:-$(mktemp -d)}
	trap demo_stop EXIT
	trap 'trap "" INT TERM; exit 130' INT
	trap 'trap "" INT TERM; exit 143' TERM
	(cluster_up --model "$MODEL" "${NUMERICS[@]}" "$@")
	ROUTER=$(jq -r '.routers[0].grpc' "$RUN/cluster.json")
}

# One line of the table from an answer's JSON. Nodes per token: how many nodes a row was sent to, the mean over tokens and MoE layers.
table_line() {
	jq -r '
		def round1: . * 10 | round / 10;
		.usage as $u | ($u.total_us - $u.first_token_us) as $decode |
		[($u.prompt_tokens | tostring), ($u.generated_tokens | tostring),
		 (if $decode > 0 then ($u.generated_tokens - 1) / ($decode / 1e6) | round1 | tostring else "-" end),
		 ($u.first_token_us / 1e3 | round1 | tostring),
		 (if $u.routed_rows > 0 then $u.nodes_touched / $u.routed_rows * 100 | round / 100 | tostring else "-" end),
		 ($u.bytes_sent | tostring), ($u.bytes_received | tostring), .digest] | @tsv' "$1" |
		while IFS=$'\t' read -r -a cells; do printf '%7s %10s %10s %12s %12s %12s %12s  %s\n' "${cells[@]}"; done
}

demo_generate() {
	local i
	for i in "${!PROMPTS[@]}"; do
		printf '\n> %s\n' "${PROMPTS[$i]}"
		cadrectl generate --router "$ROUTER" --max-tokens "$MAX_TOKENS" --ignore-eos "${SAMPLING[@]}" --save "$ANSWERS/$i.json" "${PROMPTS[$i]}" 2>/dev/null
	done
	printf '\n%7s %10s %10s %12s %12s %12s %12s  %s\n' prompt generated tokens/s 'first (ms)' nodes/token 'bytes out' 'bytes back' digest
	for i in "${!PROMPTS[@]}"; do table_line "$ANSWERS/$i.json"; done
	printf '\nThe same in one process, without a cluster:\n'
	cadrectl verify --model "$MODEL" "${NUMERICS[@]}" "$ANSWERS/0.json"
}

# neighbours COUNT: requests that keep the router busy with other rows.
neighbours() {
	local i
	for ((i = 0; i < $1; i++)); do
		cadrectl generate --router "$ROUTER" --tokens "$((i + 3)),$((2 * i + 5)),$((3 * i + 7))" --max-tokens 2000 --ignore-eos >/dev/null 2>&1 &
	done
}

# paradox_pair NAME POLICY-OPTION...: one prompt alone and beside others, in a cluster of its own.
paradox_pair() {
	local name=$1
	shift
	demo_start "$@"
	cadrectl generate --router "$ROUTER" --max-tokens "$MAX_TOKENS" --ignore-eos -o json "${PROMPTS[0]}" >"$ANSWERS/alone.json"
	neighbours 8
	until [ "$(cadrectl status -o json --placement "$(jq -r .placement.grpc "$RUN/cluster.json")" | jq '[.nodes[].sequences] | add')" -ge 8 ]; do sleep 0.05; done
	cadrectl generate --router "$ROUTER" --max-tokens "$MAX_TOKENS" --ignore-eos -o json "${PROMPTS[0]}" >"$ANSWERS/company.json"
	jobs -p | xargs -r kill 2>/dev/null || true
	wait || true
	printf '\n%s\n' "$name"
	jq -rn --slurpfile alone "$ANSWERS/alone.json" --slurpfile company "$ANSWERS/company.json" '
		def line(who): "  \(who)digest \(.digest)  dropped \(.capacity.dropped)";
		($alone[0] | line("alone:      ")), ($company[0] | line("in company: ")),
		(if $alone[0].digest == $company[0].digest then "  equal digests: the answer depends on its prompt alone" else "  different digests: the answer depends on its neighbours" end)'
	[ "$(jq -r .digest "$ANSWERS/alone.json")" = "$(jq -r .digest "$ANSWERS/company.json")" ] && PAIR=equal || PAIR=different
	PAIR_DROPS="$(jq .capacity.dropped "$ANSWERS/alone.json") $(jq .capacity.dropped "$ANSWERS/company.json")"
}

# Fails if the answers do not show what it claims.
demo_paradox() {
	printf 'The same prompt ("%s"), once alone and once beside eight others.\n' "${PROMPTS[0]}"
	paradox_pair 'capacity policy drop, factor 1.0' --capacity-policy drop --capacity-factor 1.0
	[ "$PAIR" = different ] || fail "the digests under the policy are equal: did the other requests arrive too late?"
	[[ $PAIR_DROPS != '0 '* && $PAIR_DROPS != *' 0' ]] || fail "an answer under the policy reports no drops: $PAIR_DROPS"
	paradox_pair 'capacity policy none'
	[ "$PAIR" = equal ] || fail "the digests without a policy differ"
	[ "$PAIR_DROPS" = '0 0' ] || fail "an answer without a policy reports drops: $PAIR_DROPS"
}

demo() {
	local paradox=
	MODEL=$ROOT/models/demo NUMERICS=()   # options for the cluster, and for who computes an answer again
	while [ $# -gt 0 ]; do
		case $1 in
			paradox) paradox=yes ;;
			--model)
				[ $# -gt 1 ] || fail_usage "demo: --model needs a directory"
				MODEL=$2
				shift
				;;
			--numerics | --router-numerics)
				[ $# -gt 1 ] || fail_usage "demo: $1 needs a value, as in $1 int8"
				NUMERICS+=("$1=$2")
				shift
				;;
			--numerics=* | --router-numerics=*) NUMERICS+=("$1") ;;
			*) fail_usage "demo takes 'paradox', --model DIR, --numerics and --router-numerics, not '$1'" ;;
		esac
		shift
	done
	prepare_programs
	if [ -n "$paradox" ]; then
		demo_paradox
	else
		demo_start
		demo_generate
	fi
}
