/* SPDX-License-Identifier: Apache-2.0 */
#include "router-svc/telemetry.h"

#include "common/base/clock.h"

#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

enum cad_status rt_telemetry_init(struct rt_telemetry *telemetry, uint32_t layers, uint32_t topk)
{
	size_t align = alignof(struct rt_telemetry_record),
	       bytes = sizeof(struct rt_telemetry_record) + (size_t)layers * topk * sizeof(uint16_t);
	*telemetry = (struct rt_telemetry){
		.layers = layers,
		.topk = topk,
		.capacity = RT_TELEMETRY_RECORDS_MAX,
		.record_bytes = (bytes + align - 1) / align * align,
		.bound = UINT64_MAX,
		.share = 1,
	};
	while (telemetry->capacity > 1 && telemetry->capacity * telemetry->record_bytes > RT_TELEMETRY_BYTES_MAX)
		telemetry->capacity /= 2;
	telemetry->records = malloc(telemetry->capacity * telemetry->record_bytes);
	return telemetry->records ? CAD_OK : CAD_ERR_MEMORY;
}

void rt_telemetry_fini(struct rt_telemetry *telemetry)
{
	free(telemetry->records);
	*telemetry = (struct rt_telemetry){ 0 };
}

bool rt_telemetry_turn(struct rt_telemetry *telemetry, uint64_t now_ns)
{
	uint64_t tokens = atomic_load_explicit(&telemetry->tokens, memory_order_relaxed);

	if (now_ns < telemetry->begun_ns + CAD_NS_PER_S)
		return false;

	double seconds = (double)(now_ns - telemetry->begun_ns) / (double)CAD_NS_PER_S,
	       rate = (double)(tokens - telemetry->tokens_before) / seconds;
	telemetry->share = rate > RT_TELEMETRY_TOKENS_PER_S ? (float)(RT_TELEMETRY_TOKENS_PER_S / rate) : 1;
	telemetry->bound = telemetry->share < 1 ? (uint64_t)((double)telemetry->share * 0x1p64) : UINT64_MAX;
	telemetry->begun_ns = now_ns;
	telemetry->tokens_before = tokens;
	return true;
}

/* The next record to fill, or NULL; publish makes it visible. */
static struct rt_telemetry_record *begin(struct rt_telemetry *telemetry)
{
	uint64_t written = atomic_load_explicit(&telemetry->written, memory_order_relaxed),
		 taken = atomic_load_explicit(&telemetry->taken, memory_order_acquire);
	size_t at = (written & (telemetry->capacity - 1)) * telemetry->record_bytes;

	return written - taken < telemetry->capacity ? (struct rt_telemetry_record *)(void *)(telemetry->records + at)
						     : NULL;
}

static void publish(struct rt_telemetry *telemetry)
{
	uint64_t written = atomic_load_explicit(&telemetry->written, memory_order_relaxed);
	atomic_store_explicit(&telemetry->written, written + 1, memory_order_release);
}

/* One thread writes it. */
static void count(_Atomic uint64_t *counter)
{
	uint64_t before = atomic_load_explicit(counter, memory_order_relaxed);
	atomic_store_explicit(counter, before + 1, memory_order_relaxed);
}

static bool chosen(const struct rt_telemetry *telemetry, uint64_t request, uint32_t position)
{
	if (telemetry->bound == UINT64_MAX)
		return true;
	struct cad_random hash = { request * 0x9e3779b97f4a7c15u ^ position };
	return cad_random_next(&hash) < telemetry->bound;
}

void rt_telemetry_token(
	struct rt_telemetry *telemetry, uint64_t request, uint32_t position, const int32_t *ids, uint32_t stride)
{
	uint32_t topk = telemetry->topk;

	count(&telemetry->tokens);
	if (atomic_load_explicit(&telemetry->aggregate, memory_order_relaxed) ||
		!chosen(telemetry, request, position)) {
		count(&telemetry->passed);
		return;
	}
	struct rt_telemetry_record *record = begin(telemetry);
	if (!record) {
		count(&telemetry->lost);
		return;
	}

	record->kind = RT_TELEMETRY_TOKEN;
	record->share = telemetry->share;
	record->request = request;
	uint16_t *to = (uint16_t *)(record + 1);
	for (uint32_t layer = 0; layer < telemetry->layers; layer++, ids += (size_t)stride * topk)
		for (uint32_t k = 0; k < topk; k++)
			*to++ = (uint16_t)ids[k]; /* -1 is 0xffff */
	publish(telemetry);
}

bool rt_telemetry_traffic(struct rt_telemetry *telemetry, const char *node, uint64_t sent, uint64_t received)
{
	struct rt_telemetry_record *record = begin(telemetry);

	if (!record)
		return false;
	record->kind = RT_TELEMETRY_TRAFFIC;
	record->traffic.sent = sent;
	record->traffic.received = received;
	memcpy(record->traffic.node, node, CAD_MAP_ID_BYTES);
	publish(telemetry);
	return true;
}
