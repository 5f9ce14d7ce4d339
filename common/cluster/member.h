/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Being a member of a cluster: the Join stream of the placement service, for routers and expert
 * nodes alike.
 *
 * The stream carries the lease (a load report every third of it), maps and orders one way, reports
 * the other. When it breaks, it is opened again, without end, after growing, jittered delays; until
 * then the process continues with the last map. Everything runs on the owner thread of the reactor,
 * callbacks included; they must not block. The Hello is made again each time, and the caller adds
 * to it, so that it reports the current state.
 */
#ifndef CADRE_COMMON_CLUSTER_MEMBER_H
#define CADRE_COMMON_CLUSTER_MEMBER_H

#include "common/cluster/map.h"
#include "common/cluster/settings.h"

struct cad_access;
struct cad_note;
struct cad_own_address;
struct cad_rpc_reactor;
struct Cadre__V1__NodeHello;
struct Cadre__V1__NodeLoad;
struct Cadre__V1__NodeWelcome;
struct Cadre__V1__LoadOrder;
struct Cadre__V1__FreeOrder;
struct Cadre__V1__Peers;
struct Cadre__V1__NodeReport;

/* What a process asks first: the settings that all share, and the cluster's name. */
struct cad_cluster_facts {
	char cluster[CADRE_NAME_BYTES];
	char model_fingerprint[CADRE_HEX_BYTES];
	bool routing_aggregate;       /* nothing may be known of single tokens and experts */
	struct cad_settings settings; /* cad_settings_fini is the caller's */
};
/* Blocks until the placement service has answered, saying every few seconds on the log, and
 * always in `waits_for`, what it waits for; `interrupted` (NULL: never) ends it with
 * CAD_ERR_CANCELLED. */
CAD_MUST_USE enum cad_status cad_cluster_ask(const char *placement, const struct cad_access *access,
	struct cad_note *waits_for, bool (*interrupted)(void *context), void *context, struct cad_cluster_facts *facts,
	struct cad_error *error);

struct cad_member;

enum cad_membership {
	CAD_JOINED,
	CAD_APART,          /* the service is away, or has not decided yet */
	CAD_MEMBER_REFUSED, /* it asks again, but somebody has to change something first */
};

/* What every member says of itself in its hello, and whom it says it to. Strings are borrowed to
 * the end. */
struct cad_member_self {
	struct cad_rpc_reactor *reactor;
	const char *placement; /* host:port */
	/* How it is reached. Read again with each attempt to join: its token may change, on the
	 * reactor's thread, and its files do. */
	const struct cad_access *access;
	const char *id, *http_address, *isa;
	unsigned threads;
	const char *cluster; /* its name; NULL: any */
	const char *secret;  /* of the cluster, or NULL: none */
	/* that this process runs with: sent in every hello; borrowed until cad_member_create
	 * returns */
	const struct cad_settings *settings;
	/* of this process; goes into every hello, and is reported when it changes; NULL: it has
	 * none */
	struct cad_own_address *own_address;
};

struct cad_member_options {
	struct cad_member_self self;
	void *context;
	/* Adds to a hello what only its kind of process has; what it points to stays valid until
	 * the callback is called again. */
	void (*hello)(void *context, struct Cadre__V1__NodeHello *hello);
	void (*load)(void *context, struct Cadre__V1__NodeLoad *load);
	/* A checked map, which the callee releases. May be NULL. */
	void (*map)(void *context, struct cad_map *map);
	void (*order_load)(void *context, const struct Cadre__V1__LoadOrder *order);
	void (*order_free)(void *context, const struct Cadre__V1__FreeOrder *order);
	/* All who may connect, whole each time; expert nodes hear of them. May be NULL. */
	void (*order_peers)(void *context, const struct Cadre__V1__Peers *peers);
	/* Whether what this router says of nodes counts; it does until told otherwise. May be
	 * NULL. */
	void (*standing)(void *context, bool counts, const char *why);
	/* It is joined now; before `joined`. May be NULL. */
	void (*welcome)(void *context, const struct Cadre__V1__NodeWelcome *welcome);
	/* Once a second while it is joined: to report what was counted. May be NULL. */
	void (*second)(void *context);
	/* Why not, unless it is joined. */
	void (*joined)(void *context, enum cad_membership membership, const char *why);
};
CAD_MUST_USE enum cad_status cad_member_create(
	const struct cad_member_options *options, struct cad_member **member, struct cad_error *error);
/* Says goodbye and leaves, at the latest after a second; `closed` is called when nothing of it is
 * left on the reactor and its memory is gone. */
void cad_member_leave(struct cad_member *member, void (*closed)(void *context), void *context);
/* Sends a load report now, beside those three per lease; if not joined, the next one is soon
 * enough. */
void cad_member_load(struct cad_member *member);
/* Sends a report on the stream. CAD_AGAIN: not joined now; the next hello reports the state
 * anyway. */
CAD_MUST_USE enum cad_status cad_member_report(struct cad_member *member, const struct Cadre__V1__NodeReport *report);
/* Whether a report that can wait, or be left out, should be sent: it is joined, and what was
 * sent before has gone out. */
bool cad_member_has_room(const struct cad_member *member);

#endif
