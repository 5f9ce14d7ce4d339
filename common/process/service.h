/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every service has beside its work: the option rows that services share and what is checked
 * of them, an id, the secrets, metrics, the HTTP port, the event loop and the signals that end it.
 * SIGHUP makes it read the log level, the token files and the TLS files again; what is damaged
 * stays as it was.
 *
 * A main embeds the two structs: `struct options` begins with a struct cad_service_options, whose
 * rows it takes from the macros below, and `struct program` has a struct cad_service. Calls come
 * from the main thread, in the order in which they stand here; they may block on files and
 * allocate. What has been created is read freely.
 */
#ifndef CADRE_COMMON_PROCESS_SERVICE_H
#define CADRE_COMMON_PROCESS_SERVICE_H

#include "common/base/address.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/process/access.h"
#include "common/process/admin.h"
#include "common/process/audit.h"
#include "common/process/bearer.h"
#include "common/process/options.h"
#include "common/process/process.h"

#include <stdatomic.h>
#include <uv.h>

/* ---- options ---- */

enum cad_tls_clients { CAD_TLS_CLIENTS_REQUIRED, CAD_TLS_CLIENTS_OPTIONAL };
extern const struct cad_choice cad_tls_clients_choices[];

/* Of a group whose rows a program does not have, strings are NULL. */
struct cad_service_options {
	/* CAD_SERVICE_OPTIONS */
	const char *model, *http, *cluster_network;
	bool http_plaintext_anywhere;
	enum cad_log_level log_level;
	enum cad_log_format log_format;
	/* CAD_SERVICE_GRPC_OPTIONS */
	const char *grpc;
	bool plaintext_anywhere;
	/* CAD_SERVICE_TLS_OPTIONS */
	const char *tls_certificate, *tls_key, *tls_authority;
	/* CAD_SERVICE_ACCESS_OPTIONS */
	const char *token_file;
	enum cad_tls_clients tls_clients;
	/* CAD_SERVICE_SECRET_OPTION, which is one of CAD_SERVICE_MEMBER_OPTIONS */
	const char *secret_file;
	/* CAD_SERVICE_MEMBER_OPTIONS */
	const char *placement, *placement_token_file, *id, *exchange, *ucx_devices, *ucx_transports;
	uint64_t drain_ns;
	/* CAD_SERVICE_PLACEMENT_TLS_OPTIONS */
	const char *placement_tls_certificate, *placement_tls_key, *placement_tls_authority;
};

/* Lines of an option table; `member` is a struct cad_service_options inside `owner`. Help that is
 * not the same for all programs is theirs: the end of --http's, and what TLS files are for. */
#define CAD_SERVICE_OPTIONS(owner, member, http_default, http_help) \
	CAD_OPTION_DIRECTORY( \
		owner, member.model, "model", NULL, "directory of the checkpoint; the same files on every node"), \
		CAD_OPTION_STRING(owner, member.cluster_network, "cluster-network", "", \
			"network of the cluster, INTERFACE or ADDRESS/BITS: this machine's address there is the HOST of addresses that have none; empty: loopback"), \
		CAD_OPTION_STRING(owner, member.http, "http", http_default, \
			"where to serve /metrics, /healthz and /readyz, [HOST]:PORT; port 0: any" http_help), \
		CAD_OPTION_BOOL(owner, member.http_plaintext_anywhere, "http-plaintext-anywhere", "false", \
			"allow HTTP, which knows neither TLS nor callers, on addresses other than loopback"), \
		CAD_OPTION_ENUM(owner, member.log_level, "log-level", "info", cad_log_level_choices, \
			"lowest level that is logged"), \
		CAD_OPTION_ENUM(owner, member.log_format, "log-format", "logfmt", cad_log_format_choices, \
			"format of log lines")

#define CAD_SERVICE_GRPC_OPTIONS(owner, member, grpc_default) \
	CAD_OPTION_STRING(owner, member.grpc, "grpc", grpc_default, "where to serve gRPC, [HOST]:PORT; port 0: any"), \
		CAD_OPTION_BOOL(owner, member.plaintext_anywhere, "grpc-plaintext-anywhere", "false", \
			"allow gRPC without TLS on addresses other than loopback")

/* Who it is, and whom it trusts; shown and asked for by its gRPC server, and towards the placement
 * service. */
#define CAD_SERVICE_TLS_OPTIONS(owner, member, certificate_help, authority_help) \
	CAD_OPTION_FILE(owner, member.tls_certificate, "tls-certificate", "", \
		"PEM file with the certificate of this process" certificate_help), \
		CAD_OPTION_FILE(owner, member.tls_key, "tls-key", "", "PEM file with its private key"), \
		CAD_OPTION_FILE(owner, member.tls_authority, "tls-authority", "", \
			"PEM file of the certificate authorities that must have signed " authority_help)

/* Who may call its gRPC server. */
#define CAD_SERVICE_ACCESS_OPTIONS(owner, member) \
	CAD_OPTION_ENUM(owner, member.tls_clients, "tls-clients", "required", cad_tls_clients_choices, \
		"with --tls-authority: whether callers must show a certificate; optional: who has none may send a token instead"), \
		CAD_OPTION_FILE(owner, member.token_file, "token-file", "", \
			"file of the bearer tokens by which callers are known; lines TOKEN [ROLE [NAME]], the role client, node, operator or inspect; empty: none")

/* Everybody in a cluster. */
#define CAD_SERVICE_SECRET_OPTION(owner, member) \
	CAD_OPTION_FILE(owner, member.secret_file, "secret-file", "", \
		"file with the cluster secret, which the placement service, routers and expert nodes must share; empty: none")

/* Routers and expert nodes: members of a cluster, on the token exchange. placement_default: NULL
 * where the option is required. */
#define CAD_SERVICE_MEMBER_OPTIONS(owner, member, placement_default) \
	CAD_OPTION_STRING(owner, member.placement, "placement", placement_default, \
		"address of the placement service, HOST:PORT"), \
		CAD_OPTION_FILE(owner, member.placement_token_file, "placement-token-file", "", \
			"file with the bearer token for the placement service; of several, the first is sent; empty: none"), \
		CAD_OPTION_STRING(owner, member.id, "id", "", \
			"name in the cluster, stable over restarts; empty: host name and process id"), \
		CAD_SERVICE_SECRET_OPTION(owner, member), \
		CAD_OPTION_STRING(owner, member.exchange, "exchange", "", \
			"address of this machine for the token exchange, [HOST]:PORT; it takes the first free one of 16 ports from PORT on, or any if that is 0; empty: 7420 with --cluster-network, else --ucx-devices, any port"), \
		CAD_OPTION_STRING(owner, member.ucx_devices, "ucx-devices", "", \
			"network devices of the exchange, as in UCX_NET_DEVICES; empty: that variable, else the one of --exchange, else loopback"), \
		CAD_OPTION_STRING(owner, member.ucx_transports, "ucx-transports", "", \
			"transports of the exchange, as in UCX_TLS; empty: that variable, else tcp"), \
		CAD_OPTION_DURATION(owner, member.drain_ns, "drain", "10s", 0, 3600 * CAD_NS_PER_S, \
			"how long to keep serving after SIGTERM or Ctrl-C")

/* Who is somebody else towards the placement service than towards clients. */
#define CAD_SERVICE_PLACEMENT_TLS_OPTIONS(owner, member) \
	CAD_OPTION_FILE(owner, member.placement_tls_certificate, "placement-tls-certificate", "", \
		"PEM file with the certificate to show to the placement service; empty: that of --tls-certificate"), \
		CAD_OPTION_FILE( \
			owner, member.placement_tls_key, "placement-tls-key", "", "PEM file with its private key"), \
		CAD_OPTION_FILE(owner, member.placement_tls_authority, "placement-tls-authority", "", \
			"PEM file of the certificate authorities to trust for the placement service, which is then reached over TLS; empty: those of --tls-authority")

/* Where --grpc, --http and --exchange say that it listens, with --cluster-network: each has a
 * host. */
struct cad_service_addresses {
	char grpc[CAD_ADDRESS_BYTES], http[CAD_ADDRESS_BYTES];
	char exchange[CAD_ADDRESS_BYTES]; /* "": on --ucx-devices */
};
CAD_MUST_USE enum cad_status cad_service_addresses(
	const struct cad_service_options *options, struct cad_service_addresses *addresses, struct cad_error *error);

/* For the `check` and the `log` of a struct cad_options_spec. `addresses` as above. */
CAD_MUST_USE enum cad_status cad_service_check(
	const struct cad_service_options *options, struct cad_service_addresses *addresses, struct cad_error *error);
/* Reads the secret, the tokens and the TLS files: for `check_files`. cad_service_init does, too. */
CAD_MUST_USE enum cad_status cad_service_check_files(
	const struct cad_service_options *options, struct cad_error *error);
void cad_service_log(const void *options);

/* ---- running ---- */

/* What is asked of it over HTTP, as in admin.h; zeroed: it is always ready, and healthy
 * while its loop runs. */
struct cad_service_health {
	bool (*ready)(void *context, char *text, size_t bytes);
	bool (*healthy)(void *context, char *text, size_t bytes);
	enum cad_status (*generates)(void *context, char *text, size_t bytes);
	bool ready_generates;
	void *context;
};

/* What gRPC, which is above this, does with TLS files. */
struct cad_service_tls {
	/* For SIGHUP; says in the log what is wrong with them, and returns whether all is well. */
	bool (*reread)(void);
	/* At the start and once a day: says in the log which certificates end soon. */
	void (*warn)(void);
	int64_t (*expires_s)(void); /* when the first of them ends, in Unix seconds; 0: there are none */
};

enum { CAD_SERVICE_STUCK_MS = 10000 };

struct cad_service {
	const struct cad_service_options *options;
	const struct cad_options *parsed;
	const char *name; /* "router": what its log lines are called */
	char id[CAD_PROCESS_NAME_BYTES];
	struct cad_service_addresses at;
	char *secret; /* NULL: none */
	struct cad_bearers bearers;
	struct cad_tls_files server_tls, placement_tls;
	struct cad_access placement;
	struct cad_audit audit;
	struct cad_metrics *metrics;
	struct cad_admin *admin;
	struct cad_signals *signals;
	cad_signal_fn *on_signal;
	void *on_signal_context;
	const struct cad_service_tls *tls; /* the program's to set before cad_service_watch; NULL: there is none */
	uint64_t warned_ns;                /* when the end of certificates was looked at last */
	struct cad_counter *rereads, *rereads_failed;
	struct cad_service_health health;
	/* When the loop last had a turn; 0: it has not begun, or is not watched any more. */
	_Atomic uint64_t beat_ns;
	uint64_t stuck_ms; /* it is unhealthy when that is longer ago: CAD_SERVICE_STUCK_MS, but for tests */
	uv_timer_t beat;
	unsigned beats;
	uint64_t least_bytes; /* cad_memory_trim's */
	uv_loop_t loop;
	bool has_loop;
};

/* First of all, before any thread. `options` is borrowed to the end, as is `parsed`, where they
 * come from; when it is NULL, the log level is not read again. The metrics of process_metrics.h are
 * there from here on. */
CAD_MUST_USE enum cad_status cad_service_init(struct cad_service *service, const char *name,
	const struct cad_service_options *options, const struct cad_options *parsed, struct cad_error *error);
/* For its gRPC server; NULL: plaintext. */
const struct cad_tls_files *cad_service_tls(const struct cad_service *service);
/* The HTTP port, early: a process that reads a large model, or waits for the placement service, is
 * seen to be alive. */
CAD_MUST_USE enum cad_status cad_service_http(
	struct cad_service *service, const struct cad_service_health *health, struct cad_error *error);
/* Last, before the loop runs: signals come from here on, SIGINT and SIGTERM to on_signal, and every
 * metric that is ever registered has been. From its first turn on, /healthz says when the loop
 * hangs. */
CAD_MUST_USE enum cad_status cad_service_watch(
	struct cad_service *service, cad_signal_fn *on_signal, void *context, struct cad_error *error);
/* No signal comes any more, and the loop is not watched: for whoever wants it to end. May be called
 * twice. */
void cad_service_unwatch(struct cad_service *service);
/* Nobody asks over HTTP any more: before what `ready` and `healthy` look at is destroyed. */
void cad_service_unhttp(struct cad_service *service);
/* Everything else, after all that used it. Handles on the loop must be closed, or closing. */
void cad_service_fini(struct cad_service *service);

/* Logs why the start did not succeed; returns the exit code: 0 when a signal cut it short, else
 * 1. */
int cad_service_failed(const struct cad_service *service, const struct cad_error *error);
/* Whether a signal has come: for cad_cluster_ask. */
bool cad_service_interrupted(void *unused);

#endif
