/* SPDX-License-Identifier: Apache-2.0 */
#include "common/transport/exchange_address.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

enum { SESSION_DIGITS = 16, BASE64 = sodium_base64_VARIANT_URLSAFE_NO_PADDING };
#define DIGITS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

_Static_assert(CAD_ADDRESS_BYTES + CAD_EXCHANGE_LIBRARY_BYTES + SESSION_DIGITS + 3 +
			sodium_base64_ENCODED_LEN(CAD_EXCHANGE_WORKER_BYTES_MAX, BASE64) <=
		CAD_EXCHANGE_ADDRESS_BYTES,
	"the longest text fits");

static const char *part_end(const char *text)
{
	const char *end = strchr(text, '/');
	return end ? end : text + strlen(text);
}

/* Copies what stands before the next '/', and goes behind it. False: nothing, or too much. */
static bool part_take(const char **text, char *out, size_t bytes)
{
	const char *end = part_end(*text);
	size_t size = (size_t)(end - *text);
	if (size == 0 || size >= bytes || *end != '/')
		return false;
	memcpy(out, *text, size);
	out[size] = 0;
	*text = end + 1;
	return true;
}

enum cad_status cad_exchange_address_parse(
	const char *text, struct cad_exchange_address *address, struct cad_error *error)
{
	char session[SESSION_DIGITS + 1];
	const char *at = text;
	*address = (struct cad_exchange_address){ .session = 0 };

	bool parts = part_take(&at, address->host, sizeof address->host) &&
		part_take(&at, address->library, sizeof address->library) && part_take(&at, session, sizeof session);
	if (parts && strspn(session, "0123456789abcdef") == SESSION_DIGITS)
		address->session = strtoull(session, NULL, 16);

	const char *end = NULL;
	if (address->session == 0 || strspn(at, DIGITS) != strlen(at) || /* libsodium takes more than these */
		sodium_base642bin(address->worker, sizeof address->worker, at, strlen(at), NULL, &address->worker_bytes,
			&end, BASE64) != 0 ||
		*end || address->worker_bytes == 0)
		return cad_error_set(error, CAD_ERR_INVALID,
			"'%.80s' is not an exchange address: HOST:PORT/LIBRARY/SESSION/WORKER, as its process announces it, is",
			text);
	return CAD_OK;
}

void cad_exchange_address_text(const struct cad_exchange_address *address, char text[CAD_EXCHANGE_ADDRESS_BYTES])
{
	int size = snprintf(text, CAD_EXCHANGE_ADDRESS_BYTES, "%s/%s/%016" PRIx64 "/", address->host, address->library,
		address->session);
	sodium_bin2base64(text + size, (size_t)(CAD_EXCHANGE_ADDRESS_BYTES - size), address->worker,
		address->worker_bytes, BASE64);
}

void cad_exchange_address_host(const char *text, char host[CAD_ADDRESS_BYTES])
{
	size_t size = (size_t)(part_end(text) - text);
	if (size >= CAD_ADDRESS_BYTES)
		size = CAD_ADDRESS_BYTES - 1;
	memcpy(host, text, size);
	host[size] = 0;
}

/* ---- which libraries work together ---- */

/*
 * UCX over TCP, data checked both ways, endpoints made from worker addresses. Not here because they
 * were seen to fail: 1.13 with 1.22 ("unreachable" on one side, an abort on the other), 1.19 with
 * 1.22, and 1.13 with 1.20 on a loopback interface.
 */
static const unsigned minors_that_work[][2] = { { 13, 15 }, { 13, 18 }, { 13, 19 }, { 13, 21 } };

bool cad_exchange_libraries_work(const char *a, const char *b)
{
	unsigned major[2], minor[2];
	if (strcmp(a, b) == 0)
		return true;
	if (sscanf(a, "ucx-%u.%u.", &major[0], &minor[0]) != 2 || sscanf(b, "ucx-%u.%u.", &major[1], &minor[1]) != 2 ||
		major[0] != major[1])
		return false;
	if (minor[0] == minor[1])
		return true;

	unsigned low = minor[0] < minor[1] ? minor[0] : minor[1], high = minor[0] + minor[1] - low;
	for (size_t i = 0; i < sizeof minors_that_work / sizeof minors_that_work[0]; i++)
		if (major[0] == 1 && low == minors_that_work[i][0] && high == minors_that_work[i][1])
			return true;
	return false;
}
