# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# A cluster of processes on loopback: up, down. Its state is in run/: cluster.json for its users, processes (name, pid, start time)
# for down, log/, and the placement service's state.

source "$ROOT/scripts/setup.sh"

RUN=$(realpath -m -- "${CADRE_RUN:-$ROOT/run}") # absolute: what was started may be started again from elsewhere
BIN=${CADRE_BIN:-$ROOT/build/bin}

# ---- processes ----

# When a process started, in clock ticks since boot; with the pid, this identifies it uniquely. Empty when there is no such process.
start_time() {
	local stat
	stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
	stat=${stat##*) }
	awk '{ print $20 }' <<<"$stat"
}

# is_alive PID START: exactly the process that was started, not another one with its pid, and not a zombie.
is_alive() {
	[ "$(start_time "$1")" = "$2" ] && ! grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null
}

# Closes all files but the first three: whoever called ./cadre may have more open, and wait for their end.
close_files() {
	local file
	for file in "/proc/$BASHPID/fd"/*; do
		file=${file##*/}
		[ "$file" -le 2 ] || exec {file}>&-
	done
}

# launch NAME PROGRAM ARGUMENT...: in a session of its own, so that Ctrl-C in a terminal does not reach it, with its log in run/log/NAME.log.
launch() {
	local name=$1 pid
	shift
	(
		exec </dev/null >"$RUN/log/$name.log" 2>&1
		close_files
		exec setsid "$BIN/$1" "${@:2}"
	) &
	pid=$!
	echo "$name $pid $(start_time $pid)" >>"$RUN/processes"
	printf '%s\n' "$BIN/$1" "${@:2}" | jq -R . | jq -cs . >"$RUN/log/$name.command"
}

# Is any process of the last cluster alive?
any_alive() { [ -f "$RUN/processes" ] && any_alive_named ''; }

# signal_all SIGNAL PREFIX: to the live processes whose names begin with PREFIX.
signal_all() {
	local name pid start
	while read -r name pid start; do
		if [[ $name == "$2"* ]] && is_alive "$pid" "$start"; then kill "-$1" "$pid" 2>/dev/null || true; fi
	done <"$RUN/processes"
}

# ---- down ----

# Is a process alive whose name begins with PREFIX?
any_alive_named() {
	local name pid start
	while read -r name pid start; do
		[[ $name == "$1"* ]] && is_alive "$pid" "$start" && return 0
	done <"$RUN/processes"
	return 1
}

# wait_gone PREFIX SECONDS
wait_gone() {
	local i
	for ((i = 0; i < 20 * $2; i++)); do
		any_alive_named "$1" || return 0
		sleep 0.05
	done
}

# Routers first, so that their requests can end; then expert nodes and the placement service. What does not stop in time is killed.
stop_processes() {
	[ -f "$RUN/processes" ] || return 0
	signal_all CONT ''
	signal_all TERM router
	wait_gone router 12
	signal_all TERM expert
	signal_all TERM placement
	wait_gone '' 12
	if any_alive; then
		say "some processes did not stop in time; killing them"
		signal_all KILL ''
	fi
	rm -f "$RUN/processes" "$RUN/cluster.json"
}

# Also makes the directory. What others keep in one that is not ours must not be taken for old logs, and removed.
lock_run() {
	if [ ! -e "$RUN/lock" ] && [ -e "$RUN/log" ]; then
		fail "'$RUN' has a 'log' that is not of a cluster: give CADRE_RUN a directory of its own"
	fi
	if ! mkdir -p "$RUN/log" 2>/dev/null || ! { : >>"$RUN/lock"; } 2>/dev/null; then
		fail "'$RUN', where a cluster keeps its logs and its state, cannot be written: give another directory, CADRE_RUN=DIR ./cadre ..."
	fi
	exec 9>>"$RUN/lock"
	flock -n 9 || fail "another ./cadre is starting or stopping the cluster"
}

stop_cluster() {
	[ -f "$RUN/processes" ] || [ -f "$RUN/cluster.json" ] || return 0 # and nothing is written, where nothing may be
	lock_run
	if any_alive; then
		stop_processes
		say "the cluster is stopped"
	else
		rm -f "$RUN/processes" "$RUN/cluster.json"
	fi
}

cluster_down() {
	[ $# = 0 ] || fail_usage "down takes no options"
	any_alive || say "no cluster is running"
	stop_cluster
}

# ---- programs ----

# Is a source newer than this file?
sources_newer() {
	[ -n "$(cd "$ROOT" && find CMakeLists.txt cmake common embedded expert-svc kernels orchestration proto router-svc \
		\( -name '*.[ch]' -o -name '*.cu' -o -name '*.cc' -o -name '*.proto' -o -name CMakeLists.txt -o -name '*.cmake' -o -name '*.in' \) -newer "$1" -print -quit)" ]
}

# What is run: built when it is not there, and again when its sources have changed since. What CADRE_BIN names is the caller's.
prepare_programs() {
	local program newest="$BIN/cadrectl" stamp="$ROOT/build/.programs"
	if [ -n "${CADRE_BIN:-}" ]; then
		for program in cadre-router cadre-expert cadre-placement cadrectl; do
			[ -x "$BIN/$program" ] || fail "there is no program $program in '$BIN', which CADRE_BIN names"
			[ ! "$BIN/$program" -nt "$newest" ] || newest=$BIN/$program # a build that was up to date links only some of them
		done
		if [[ $(realpath -m -- "$BIN") == "$ROOT"/* ]] && sources_newer "$newest"; then
			say "the programs in '$BIN' may be older than their sources: build them again if those have changed"
		fi
	elif [ ! -x "$BIN/cadre-router" ] || [ ! -x "$BIN/cadrectl" ]; then
		build release "${PROGRAMS[@]}"
		touch "$stamp"
	elif [ ! -e "$stamp" ] || sources_newer "$stamp"; then
		if [ ! -w "$ROOT/build" ]; then
			say "the programs may be older than their sources, and cannot be built again: '$ROOT/build' cannot be written"
			return
		fi
		say "making sure that the programs are not older than their sources"
		build release "${PROGRAMS[@]}"
		touch "$stamp"
	fi
	command -v jq >/dev/null || fail "jq is missing: './cadre setup' installs what is needed"
}

# ---- up ----

# identity NAME: sets IDENTITY to the options that show its certificate of --certificates; to none without.
identity() {
	IDENTITY=()
	[ -z "$CERTIFICATES" ] || IDENTITY=("--tls-certificate=$CERTIFICATES/$1.pem" "--tls-key=$CERTIFICATES/$1.key" "--tls-authority=$CERTIFICATES/authority.pem")
}

# TLS on every hop, with the files of scripts/certificates.sh, and the secret that it made.
take_certificates() {
	[ -n "$CERTIFICATES" ] || return 0
	[ -f "$CERTIFICATES/authority.pem" ] || fail "--certificates '$CERTIFICATES' has no authority.pem: make one with scripts/certificates.sh $CERTIFICATES"
	CERTIFICATES=$(cd "$CERTIFICATES" && pwd)
	local -a secret=()
	if [ -f "$CERTIFICATES/secret" ]; then
		! has_option --secret-file "${PLACEMENT_OPTIONS[@]}" "${EXPERT_OPTIONS[@]}" "${ROUTER_OPTIONS[@]}" ||
			fail_usage "up: --certificates brings the cluster secret $CERTIFICATES/secret: leave --secret-file out"
		secret=("--secret-file=$CERTIFICATES/secret")
	fi
	identity placement
	PLACEMENT_OPTIONS=("${IDENTITY[@]}" "${secret[@]}" "${PLACEMENT_OPTIONS[@]}")
	identity expert
	EXPERT_OPTIONS=("${IDENTITY[@]}" "${secret[@]}" "${EXPERT_OPTIONS[@]}")
	identity router
	ROUTER_OPTIONS=("${IDENTITY[@]}" "${secret[@]}" "${ROUTER_OPTIONS[@]}")
}

# nth_address OPTION N [STEP]: where processes listen. Any free port on loopback, unless it is given; others of a kind take the ports after it.
declare -A ADDRESSES=()
nth_address() {
	local address=${ADDRESSES[$1]:-127.0.0.1:0} port
	port=${address##*:}
	if [[ $port =~ ^[1-9][0-9]{0,4}$ ]]; then echo "${address%:*}:$((port + ${3:-1} * $2))"; else echo "$address"; fi
}
EXCHANGE_PORTS=16 # UCX takes one of so many (CAD_UCX_PORTS)

# Sorts the options of up. Sets MODEL, EXPERTS, ROUTERS, CERTIFICATES, ADDRESSES and the arrays PLACEMENT_OPTIONS, EXPERT_OPTIONS, ROUTER_OPTIONS.
parse_up() {
	MODEL='' EXPERTS=3 ROUTERS=1 CERTIFICATES='' ADDRESSES=()
	PLACEMENT_OPTIONS=() EXPERT_OPTIONS=() ROUTER_OPTIONS=()
	local name value
	local -a words
	while [ $# -gt 0 ]; do
		[[ $1 == --* ]] || fail_usage "up: '$1' is not an option"
		name=${1%%=*}
		words=("$1")
		if [[ $1 == *=* ]]; then
			value=${1#*=}
		elif [ $# -gt 1 ] && [[ $2 != --* ]]; then
			value=$2
			words+=("$2")
			shift
		else
			value=true
			case $name in
				--model | --experts | --routers | --certificates | --grpc | --http | --placement-grpc | --placement-http | --expert-http | --expert-exchange)
					fail_usage "up: $name needs a value"
					;;
			esac
		fi
		shift
		case $name in
			--model) MODEL=$value ;;
			--experts) EXPERTS=$value ;;
			--routers) ROUTERS=$value ;;
			--certificates) CERTIFICATES=$value ;;
			# Routers alone would have it, and then not reach the placement service.
			--tls-authority) fail_usage "up: give --certificates DIR, of which each process takes its own certificate and the authority" ;;
			--numerics | --router-numerics | --wire | --weights | --kv | --copies-min | --shuffle | --lease | --grace | --rejoin | --settle | --free-grace | --level-on-join | --bytes-per-second | --move-stall | --copies | --rebalance | --lease-ms | --grace-ms | --rejoin-ms) PLACEMENT_OPTIONS+=("$name=$value") ;;
			--isa | --threads | --ucx-devices | --ucx-transports | --drain | --log-level | --log-format)
				ROUTER_OPTIONS+=("$name=$value")
				EXPERT_OPTIONS+=("$name=$value")
				;;
			--secret-file)
				PLACEMENT_OPTIONS+=("$name=$value")
				ROUTER_OPTIONS+=("$name=$value")
				EXPERT_OPTIONS+=("$name=$value")
				;;
			--grpc | --http | --placement-grpc | --placement-http | --expert-http | --expert-exchange) ADDRESSES[${name#--}]=$value ;;
			--cluster-network) fail_usage "up: its processes are all on loopback; start the programs by hand for $name" ;;
			# Options of their own: not --token-file and --tls-* of the placement service.
			--placement-token-file)
				ROUTER_OPTIONS+=("$name=$value")
				EXPERT_OPTIONS+=("$name=$value")
				;;
			--placement-tls-*) fail_usage "up: give --certificates DIR, of which each process takes its own certificate and the authority" ;;
			--expert-*) EXPERT_OPTIONS+=("--${name#--expert-}=$value") ;;
			--placement-*) PLACEMENT_OPTIONS+=("--${name#--placement-}=$value") ;;
			*) ROUTER_OPTIONS+=("${words[@]}") ;;
		esac
	done
	[ -n "$MODEL" ] || fail_usage "up needs --model DIR${ROUTER_OPTIONS[*]:+; ${ROUTER_OPTIONS[*]} would go to routers}"
	[ -f "$MODEL/config.json" ] || fail "'$MODEL' is not a checkpoint: it has no config.json"
	[[ $EXPERTS =~ ^[0-9]+$ && $ROUTERS =~ ^[1-9][0-9]*$ ]] || fail_usage "--experts and --routers take numbers, and at least one router is needed"
	MODEL=$(cd "$MODEL" && pwd)
	take_certificates
}

# All processes of a role share the cores, unless --threads says otherwise.
share_threads() {
	local count=$(($1 > 0 ? $1 : 1)) threads
	threads=$(($(cores) / 2 / count))
	echo --threads=$((threads > 0 ? threads : 1))
}

has_option() {
	local wanted=$1 option
	shift
	for option in "$@"; do [[ $option == "$wanted" || $option == "$wanted"=* ]] && return 0; done
	return 1
}

# The value of a field in the first line of a log that has the message: log_field FILE MESSAGE FIELD
log_field() {
	sed -n "s/.* msg=$2 .*$3=\\([^ ]*\\).*/\\1/p" "$1" 2>/dev/null | head -n 1
}

# "1 router", "2 routers".
counted() { [ "$1" = 1 ] && echo "1 $2" || echo "$1 ${2}s"; }

# Fails, with the end of its log, if one of the processes has ended.
check_alive() {
	local name pid start
	while read -r name pid start; do
		is_alive "$pid" "$start" && continue
		say "$name has ended:"
		tail -n 5 "$RUN/log/$name.log" >&2
		exit 1
	done <"$RUN/processes"
}

# Fails with the placement service's own words if all expert nodes have joined, but their memory can never suffice.
check_room() {
	local why
	why=$("$BIN/cadrectl" health --http "$1" --ready -o json 2>/dev/null) && return
	why=$(jq -r .why <<<"$why")
	[[ $why == *"not fit on $EXPERTS expert node"* || ($EXPERTS == 0 && $why == *'there is no expert node'*) ]] || return 0
	fail "$why"
}

# Waits until COMMAND prints something and returns that in REPLY; reports from time to time what it waits for.
wait_for() {
	local what=$1 waited=0
	shift
	until REPLY=$("$@" 2>/dev/null) && [ -n "$REPLY" ]; do
		check_alive
		sleep 0.05
		waited=$((waited + 1))
		[ $((waited % 100)) != 0 ] || say "waiting for $what"
	done
}

# wait_ready PLACEMENT PLACEMENT_HTTP ACCESS...: until every process has joined, every expert is held, and every router is ready.
wait_ready() {
	local answer waited=0
	until answer=$("$BIN/cadrectl" wait --placement "$1" "${@:3}" --experts "$EXPERTS" --routers "$ROUTERS" --timeout 500ms -o json 2>/dev/null); do
		check_alive
		check_room "$2"
		waited=$((waited + 1))
		[ $((waited % 10)) != 0 ] || say "waiting: $(jq -r .why <<<"$answer")"
	done
}

# run/cluster.json from the status: written under another name and renamed, so that it is complete or absent. `command` starts a process again where it was.
write_cluster_json() {
	local commands
	commands=$(cd "$RUN/log" && for file in *.command; do jq -c --arg name "${file%.command}" '{($name): .}' "$file"; done | jq -s add)
	jq --arg grpc "$2" --arg http "$3" --argjson pid "$4" --argjson commands "$commands" --arg certificates "$CERTIFICATES" '
		def at_home(process): . as $words | [range(length) | if . > 0 then
			{"--grpc": process.grpc, "--http": process.http}[$words[. - 1]] // $words[.] else $words[.] end];
		def process: {id, grpc: .grpc_address, exchange: .exchange_address, http: .http_address, pid} | with_entries(select(.value != "")) |
			. as $process | .command = ($commands[.id] | at_home($process));
		{placement: ({grpc: $grpc, http: $http, pid: $pid} | . as $process | .command = ($commands.placement | at_home($process))),
		 routers: [.nodes[] | select(.role == "router" and .state == "live") | process],
		 experts: [.nodes[] | select(.role == "expert" and .state == "live") | process],
		 model: .model_directory} + if $certificates == "" then {} else
		{tls: ($certificates | {authority: "\(.)/authority.pem", certificate: "\(.)/operator.pem", key: "\(.)/operator.key"})} end' <<<"$1" >"$RUN/cluster.json.new"
	mv "$RUN/cluster.json.new" "$RUN/cluster.json"
}

# Stops what was started if up does not finish: after a failure, or Ctrl-C.
give_up() {
	local code=$?
	trap - EXIT
	if [ $code != 0 ]; then
		stop_processes
		[ $code -lt 128 ] || say "interrupted; everything is stopped"
	fi
	exit $code
}

# Sets PLACEMENT_COMMAND; with a number, EXPERT_COMMAND and ROUTER_COMMAND of the N-th: programs and options, but for the placement service's address.
placement_command() {
	PLACEMENT_COMMAND=(cadre-placement --model "$MODEL" --grpc "$(nth_address placement-grpc 0)" --http "$(nth_address placement-http 0)" --state "$RUN/state.db" --experts-min "$EXPERTS" "${PLACEMENT_OPTIONS[@]}")
}
expert_command() {
	EXPERT_COMMAND=(cadre-expert --model "$MODEL" --id "expert-$1" --exchange "$(nth_address expert-exchange "$1" $EXCHANGE_PORTS)" --http "$(nth_address expert-http "$1")" --memory-nodes "$((EXPERTS > 0 ? EXPERTS : 1))" "${EXPERT_OPTIONS[@]}")
}
router_command() {
	ROUTER_COMMAND=(cadre-router --model "$MODEL" --id "router-$1" --grpc "$(nth_address grpc "$1")" --http "$(nth_address http "$1")" "${ROUTER_OPTIONS[@]}")
}

# Before a cluster that runs is stopped for this one: each program looks at its options.
check_options() {
	placement_command
	expert_command 0
	router_command 0
	"$BIN/${PLACEMENT_COMMAND[0]}" "${PLACEMENT_COMMAND[@]:1}" --check-config >/dev/null
	"$BIN/${EXPERT_COMMAND[0]}" "${EXPERT_COMMAND[@]:1}" --placement 127.0.0.1:1 --check-config >/dev/null
	"$BIN/${ROUTER_COMMAND[0]}" "${ROUTER_COMMAND[@]:1}" --placement 127.0.0.1:1 --check-config >/dev/null
}

start_processes() {
	local i placement_pid placement_http
	rm -rf "$RUN/log" "$RUN"/state.db*
	mkdir -p "$RUN/log"
	: >"$RUN/processes"
	placement_command
	launch placement "${PLACEMENT_COMMAND[@]}"
	wait_for "the placement service" log_field "$RUN/log/placement.log" serving grpc
	PLACEMENT=$REPLY
	placement_http=$(log_field "$RUN/log/placement.log" serving http)
	has_option --threads "${EXPERT_OPTIONS[@]}" || EXPERT_OPTIONS+=("$(share_threads "$EXPERTS")")
	has_option --speed "${EXPERT_OPTIONS[@]}" || EXPERT_OPTIONS+=(--speed=1)
	has_option --threads "${ROUTER_OPTIONS[@]}" || ROUTER_OPTIONS+=("$(share_threads "$ROUTERS")")
	for ((i = 0; i < EXPERTS; i++)); do
		expert_command "$i"
		launch "expert-$i" "${EXPERT_COMMAND[@]}" --placement "$PLACEMENT"
	done
	for ((i = 0; i < ROUTERS; i++)); do
		router_command "$i"
		launch "router-$i" "${ROUTER_COMMAND[@]}" --placement "$PLACEMENT"
	done
	identity operator
	wait_ready "$PLACEMENT" "$placement_http" "${IDENTITY[@]}"
	placement_pid=$(awk '$1 == "placement" { print $2 }' "$RUN/processes")
	write_cluster_json "$("$BIN/cadrectl" status --placement "$PLACEMENT" "${IDENTITY[@]}" -o json)" "$PLACEMENT" "$placement_http" "$placement_pid"
}

cluster_up() {
	parse_up "$@"
	prepare_programs
	lock_run
	check_options
	if any_alive; then
		say "stopping the cluster that is running"
		stop_processes
	fi
	trap give_up EXIT
	trap 'trap "" INT TERM; exit 130' INT
	trap 'trap "" INT TERM; exit 143' TERM
	start_processes
	trap - EXIT INT TERM
	say "ready: $(counted "$EXPERTS" 'expert node'), $(counted "$ROUTERS" router) at $(jq -r '[.routers[].grpc] | join(", ")' "$RUN/cluster.json"); './cadre down' stops them${CADRE_RUN:+ (with the same CADRE_RUN)}"
	exec 9>&-
}
