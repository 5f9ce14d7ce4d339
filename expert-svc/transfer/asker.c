/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything is under one lock, which is held for moments: by loader threads that say what they
 * want next and wait, and by the exchange thread that starts it and reports back.
 *
 *   a part    EMPTY -> WANTED (loader) -> SENT -> COME or FAILED (exchange) -> EMPTY (loader)
 *   a source  connecting -> ready -> gone; it is there while somebody asks it, and a little longer
 */
#include "expert-svc/transfer/asker.h"

#include "common/base/condition.h"
#include "common/base/container.h"
#include "common/base/limits.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	PARTS = 2,  /* of one image that are on their way */
	TRIES = 5,  /* to connect: this node's UCX may be starting again */
	PART_S = 5, /* for one part */
	IDLE_S = 5,
	SOURCES_MAX = 2 * EX_ASKERS_MAX,
};
static const uint64_t RETRY_NS_MAX = 100 * CAD_NS_PER_MS, BUSY_NS = 10 * CAD_NS_PER_MS, QUICK_NS = CAD_NS_PER_S;

enum part_state { PART_EMPTY, PART_WANTED, PART_SENT, PART_COME, PART_FAILED };

struct job;
struct part {
	struct job *job;
	enum part_state state;
	uint64_t offset, not_before_ns;
	uint32_t bytes;
	struct cad_buffer buffer;
};

struct source {
	struct ex_asker *asker;
	char address[CAD_EXCHANGE_ADDRESS_BYTES]; /* "": this place is free */
	struct cad_connection *connection;        /* NULL: there is none now */
	bool ready;
	unsigned tries;
	uint64_t began_ns, retry_ns, used_ns;
};

/* What one loader thread asks for. */
struct job {
	struct ex_asker *asker;
	bool used;
	const struct ex_ask *ask;
	struct part parts[PARTS];
	enum ex_source_failure failure; /* of the source; FINE: none so far */
	char text[256];
};

struct ex_asker {
	struct cad_transport *transport;
	pthread_mutex_t lock;
	pthread_cond_t changed; /* a part has come, or a job has failed */
	_Atomic bool news;      /* the exchange thread has something to start */
	_Atomic bool stopping;
	unsigned jobs_count;
	struct job jobs[EX_ASKERS_MAX];
	struct source sources[SOURCES_MAX]; /* the exchange thread's, as what follows */
	struct cad_random random;
	uint64_t turn_ns;
};

/* ---- loader threads ---- */

static void job_fail(struct job *job, enum ex_source_failure failure, const char *text)
{
	if (job->failure != EX_SOURCE_FINE)
		return;
	job->failure = failure;
	snprintf(job->text, sizeof job->text, "%s", text);
}

static struct job *job_get(struct ex_asker *asker, const struct ex_ask *ask)
{
	struct job *job = asker->jobs, *end = asker->jobs + asker->jobs_count;
	while (job < end && job->used)
		job++;
	CAD_ASSERT(job < end);
	job->used = true;
	job->ask = ask;
	job->failure = EX_SOURCE_FINE;
	return job;
}

/* The next parts, as far as places are free; false: none. */
static bool want(struct ex_asker *asker, struct job *job, uint64_t *wanted)
{
	const struct ex_ask *ask = job->ask;
	uint64_t before = *wanted;
	uint32_t most = ask->part_bytes ? ask->part_bytes : EX_PART_BYTES;

	for (struct part *part = job->parts; part < job->parts + PARTS && *wanted < ask->image_bytes; part++) {
		if (part->state != PART_EMPTY)
			continue;
		uint64_t left = ask->image_bytes - *wanted;
		part->offset = *wanted;
		part->bytes = left < most ? (uint32_t)left : most;
		part->not_before_ns = 0;
		part->state = PART_WANTED;
		*wanted += part->bytes;
		atomic_store(&asker->news, true);
	}
	return *wanted > before;
}

/* Without the lock: the exchange thread wants it at once, and may have this thread's core. */
static void tell_exchange(struct ex_asker *asker)
{
	pthread_mutex_unlock(&asker->lock);
	cad_transport_wake(asker->transport);
	pthread_mutex_lock(&asker->lock);
}

static struct part *part_at(struct job *job, uint64_t offset)
{
	for (struct part *part = job->parts; part < job->parts + PARTS; part++)
		if (part->state != PART_EMPTY && part->offset == offset)
			return part;
	return NULL;
}

/* With the lock: until the part has come, or the job has failed. */
static void wait_for(struct ex_asker *asker, struct job *job, const struct part *part)
{
	const struct timespec until = cad_condition_deadline(EX_SOURCE_PATIENCE_S * CAD_NS_PER_S);
	while (part->state != PART_COME && job->failure == EX_SOURCE_FINE)
		if (pthread_cond_timedwait(&asker->changed, &asker->lock, &until) != 0)
			job_fail(job, EX_SOURCE_SLOW, "nothing came for 10 s");
}

/* With the lock: what is still with the transport comes back, at the latest at its deadline. */
static void job_put(struct ex_asker *asker, struct job *job)
{
	for (struct part *part = job->parts; part < job->parts + PARTS; part++) {
		while (part->state == PART_SENT)
			pthread_cond_wait(&asker->changed, &asker->lock);
		part->state = PART_EMPTY;
	}
	job->used = false;
}

/* The text of a connection may begin with the node's name already. */
static enum cad_status say_failure(const struct job *job, struct cad_error *error)
{
	const char *node = job->ask->node;
	size_t length = strlen(node);
	if (strncmp(job->text, node, length) == 0 && job->text[length] == ':')
		return cad_error_set(error, CAD_ERR_PEER_LOST, "%s", job->text);
	return cad_error_set(error, CAD_ERR_PEER_LOST, "%s: %s", node, job->text);
}

enum cad_status ex_asker_get(void *context, const struct ex_ask *ask, uint8_t *image, enum ex_source_failure *failure,
	struct cad_error *error)
{
	struct ex_asker *asker = context;
	uint64_t wanted = 0, come = 0;
	bool goes_on = true;

	pthread_mutex_lock(&asker->lock);
	struct job *job = job_get(asker, ask);
	while (come < ask->image_bytes && goes_on) {
		if (want(asker, job, &wanted))
			tell_exchange(asker);
		struct part *part = part_at(job, come);
		wait_for(asker, job, part);
		if (job->failure != EX_SOURCE_FINE)
			break;
		pthread_mutex_unlock(&asker->lock);
		memcpy(image + come, part->buffer.bytes, part->bytes);
		come += part->bytes;
		goes_on = ask->come(ask->context, come);
		pthread_mutex_lock(&asker->lock);
		part->state = PART_EMPTY;
	}

	job_put(asker, job);
	*failure = job->failure;
	enum cad_status status = CAD_OK;
	if (job->failure != EX_SOURCE_FINE)
		status = say_failure(job, error);
	else if (!goes_on)
		status = CAD_ERR_CANCELLED;
	pthread_mutex_unlock(&asker->lock);
	return status;
}

/* ---- the exchange thread: sources ---- */

static struct source *source_of(struct ex_asker *asker, const char *address)
{
	struct source *free_one = NULL;

	for (struct source *source = asker->sources; source < asker->sources + SOURCES_MAX; source++) {
		if (strcmp(source->address, address) == 0)
			return source;
		if (!source->address[0] && !source->connection)
			free_one = source;
	}
	if (free_one) {
		*free_one = (struct source){ .asker = asker };
		snprintf(free_one->address, sizeof free_one->address, "%s", address);
	}
	return free_one;
}

static bool asks(const struct job *job, const struct source *source)
{
	return job->used && strcmp(job->ask->address, source->address) == 0;
}

/* All who ask it hear of it. */
static void source_failed(struct source *source, enum ex_source_failure failure, const char *text)
{
	struct ex_asker *asker = source->asker;
	for (unsigned i = 0; i < asker->jobs_count; i++)
		if (asks(&asker->jobs[i], source))
			job_fail(&asker->jobs[i], failure, text);
	pthread_cond_broadcast(&asker->changed);
	source->address[0] = 0;
}

static void source_connect(struct source *source, uint64_t now_ns)
{
	struct cad_error error;
	source->tries++;
	source->began_ns = now_ns;
	if (cad_transport_connect(source->asker->transport, source->address, source, &source->connection, &error) !=
		CAD_OK) {
		source->connection = NULL;
		source_failed(source, EX_SOURCE_UNREACHABLE, error.text);
	}
}

static void source_closed(struct source *source, enum cad_status status, const char *text, uint64_t now_ns)
{
	bool was_ready = source->ready, quick = now_ns - source->began_ns < QUICK_NS;
	enum ex_source_failure failure = EX_SOURCE_UNREACHABLE;

	source->ready = false;
	source->connection = NULL;
	if (!was_ready && status == CAD_ERR_UNREACHABLE && quick && source->tries < TRIES && source->address[0]) {
		source->retry_ns = now_ns + 1 + cad_random_below(&source->asker->random, RETRY_NS_MAX);
		return;
	}
	if (status == CAD_ERR_REFUSED)
		failure = EX_SOURCE_REFUSED;
	else if (status == CAD_ERR_DEADLINE)
		failure = EX_SOURCE_SLOW;
	else if (was_ready)
		failure = EX_SOURCE_LOST;
	source_failed(source, failure, text);
}

void ex_asker_connection(
	struct cad_connection *connection, enum cad_connection_state state, enum cad_status status, const char *text)
{
	struct source *source = cad_connection_user(connection);
	struct ex_asker *asker = source->asker;

	pthread_mutex_lock(&asker->lock);
	uint64_t now_ns = cad_transport_now_ns(asker->transport);
	if (state == CAD_CONNECTION_READY) {
		source->ready = true;
		source->used_ns = now_ns;
	} else {
		source_closed(source, status, text, now_ns);
	}
	atomic_store(&asker->news, true);
	pthread_mutex_unlock(&asker->lock);
}

/* ---- the exchange thread: parts ---- */

static void part_done(void *context, enum cad_status status, enum cadre_wire_status wire, uint64_t image_bytes)
{
	struct part *part = context;
	struct job *job = part->job;
	struct ex_asker *asker = job->asker;

	pthread_mutex_lock(&asker->lock);
	part->state = PART_FAILED;
	if (status != CAD_OK) {
		/* the connection is gone, whose end says why */
	} else if (wire == CADRE_WIRE_BUSY) {
		part->state = PART_WANTED;
		part->not_before_ns = cad_transport_now_ns(asker->transport) + BUSY_NS;
		atomic_store(&asker->news, true);
	} else if (wire == CADRE_WIRE_NOT_HELD) {
		job_fail(job, EX_SOURCE_NOT_HELD, "it does not hold the expert");
	} else if (wire != CADRE_WIRE_OK) {
		job_fail(job, EX_SOURCE_REFUSED, cad_wire_status_text((uint8_t)wire));
	} else if (image_bytes != job->ask->image_bytes) {
		job_fail(job, EX_SOURCE_REFUSED, "its expert has another size");
	} else {
		part->state = PART_COME;
	}
	pthread_cond_broadcast(&asker->changed);
	pthread_mutex_unlock(&asker->lock);
}

static void part_start(struct source *source, struct part *part, uint64_t now_ns)
{
	const struct ex_ask *ask = part->job->ask;
	const struct cad_fetch_start start = {
		.fetch = {
			.offset = part->offset,
			.bytes = part->bytes,
			.layer = ask->layer,
			.expert = ask->expert,
			.version = CADRE_IMAGE_VERSION,
			.kind = (uint8_t)ask->kind,
		},
		.buffer = &part->buffer,
		.deadline_ns = now_ns + PART_S * CAD_NS_PER_S,
		.done = part_done,
		.context = part,
	};
	enum cad_status status = cad_fetch_start(source->connection, &start);
	if (status == CAD_OK)
		part->state = PART_SENT;
	else if (status == CAD_AGAIN)
		part->not_before_ns = now_ns + BUSY_NS;
}

/* Starts what can be; returns when there is more to do. */
static uint64_t part_attend(struct ex_asker *asker, struct part *part, uint64_t now_ns)
{
	struct source *source = source_of(asker, part->job->ask->address);
	if (!source) {
		job_fail(part->job, EX_SOURCE_UNREACHABLE, "this node is connected to too many sources");
		pthread_cond_broadcast(&asker->changed);
		return UINT64_MAX;
	}

	source->used_ns = now_ns;
	if (!source->connection && now_ns >= source->retry_ns)
		source_connect(source, now_ns);
	else if (source->ready && now_ns >= part->not_before_ns)
		part_start(source, part, now_ns);
	if (part->state != PART_WANTED)
		return UINT64_MAX;
	return source->connection ? part->not_before_ns : source->retry_ns;
}

static bool is_needed(const struct source *source, uint64_t now_ns)
{
	const struct ex_asker *asker = source->asker;
	bool needed = !source->ready || now_ns < source->used_ns + IDLE_S * CAD_NS_PER_S;
	for (unsigned i = 0; i < asker->jobs_count; i++)
		needed = needed || asks(&asker->jobs[i], source);
	return needed && !atomic_load(&asker->stopping);
}

/* Closes one that nobody has asked for a while. */
static void source_attend(struct source *source, uint64_t now_ns)
{
	if (!source->connection || !source->address[0] || is_needed(source, now_ns))
		return;
	source->ready = false;
	source->address[0] = 0; /* who asks for it now connects again */
	cad_connection_close(source->connection, CAD_OK, NULL);
}

uint64_t ex_asker_turn(struct ex_asker *asker)
{
	uint64_t now_ns = cad_transport_now_ns(asker->transport), next_ns = now_ns + CAD_NS_PER_S;
	if (!atomic_load(&asker->news) && now_ns < asker->turn_ns)
		return asker->turn_ns;

	pthread_mutex_lock(&asker->lock);
	atomic_store(&asker->news, false);
	for (struct job *job = asker->jobs; job < asker->jobs + asker->jobs_count; job++)
		for (struct part *part = job->parts; part < job->parts + PARTS; part++) {
			if (!job->used || job->failure != EX_SOURCE_FINE || part->state != PART_WANTED)
				continue;
			uint64_t due_ns = part_attend(asker, part, now_ns);
			if (due_ns > now_ns && due_ns < next_ns)
				next_ns = due_ns;
		}
	for (size_t i = 0; i < SOURCES_MAX; i++)
		source_attend(&asker->sources[i], now_ns);
	asker->turn_ns = next_ns;
	pthread_mutex_unlock(&asker->lock);
	return next_ns;
}

void ex_asker_stop(struct ex_asker *asker)
{
	atomic_store(&asker->stopping, true);
	atomic_store(&asker->news, true);
}

bool ex_asker_idle(const struct ex_asker *asker)
{
	for (size_t i = 0; i < SOURCES_MAX; i++)
		if (asker->sources[i].connection)
			return false;
	return true;
}

/* ---- life ---- */

void ex_asker_destroy(struct ex_asker *asker)
{
	if (!asker)
		return;

	for (unsigned i = 0; i < asker->jobs_count; i++) {
		CAD_ASSERT(!asker->jobs[i].used);
		for (unsigned p = 0; p < PARTS; p++)
			cad_buffer_destroy(asker->transport, &asker->jobs[i].parts[p].buffer);
	}
	pthread_cond_destroy(&asker->changed);
	pthread_mutex_destroy(&asker->lock);
	free(asker);
}

enum cad_status ex_asker_create(
	struct cad_transport *transport, unsigned askers, struct ex_asker **asker, struct cad_error *error)
{
	struct ex_asker *made = calloc(1, sizeof *made);
	CAD_ASSERT(askers >= 1 && askers <= EX_ASKERS_MAX);
	if (!made)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for getting experts from other nodes");

	made->transport = transport;
	made->random.state = cad_transport_now_ns(transport);
	pthread_mutex_init(&made->lock, NULL);
	cad_condition_init(&made->changed);
	for (size_t i = 0; i < SOURCES_MAX; i++)
		made->sources[i].asker = made;
	for (unsigned i = 0; i < askers; i++) {
		struct job *job = &made->jobs[made->jobs_count++];
		job->asker = made;
		for (unsigned p = 0; p < PARTS; p++) {
			job->parts[p].job = job;
			if (cad_buffer_create(transport, EX_PART_BYTES, &job->parts[p].buffer) == CAD_OK)
				continue;
			ex_asker_destroy(made);
			return cad_error_set(error, CAD_ERR_MEMORY, "no memory for getting experts from other nodes");
		}
	}

	*asker = made;
	return CAD_OK;
}
