/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses as anybody may send or write them, and what the placement service makes of a peer's: a
 * sentence, or parts that make the same address again. */
#include "common/base/address.h"
#include "common/rpc/rpc.h"
#include "common/transport/exchange_address.h"
#include "orchestration/placement/probe.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void exchange_address(const char *text)
{
	struct cad_exchange_address address;
	struct cad_error error = { 0 };
	char again[CAD_EXCHANGE_ADDRESS_BYTES], host[CAD_ADDRESS_BYTES];

	cad_exchange_address_host(text, host);
	if (cad_exchange_address_parse(text, &address, &error) != CAD_OK) {
		CAD_ASSERT(error.text[0]);
		return;
	}
	cad_exchange_address_text(&address, again);
	CAD_ASSERT(strcmp(text, again) == 0);
	CAD_ASSERT(strcmp(host, address.host) == 0);
	CAD_ASSERT(cad_exchange_libraries_work(address.library, address.library));
}

/* Two texts: up to the first 0, and after it. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	char *text = malloc(size + 2);
	if (!text)
		return 0;

	memcpy(text, bytes, size);
	text[size] = text[size + 1] = 0;
	struct cad_address address, again;
	struct cad_error error = { 0 };
	char out[CAD_ADDRESS_BYTES];
	if (cad_address_parse(text, &address, &error) == CAD_OK) {
		cad_address_taken(text, address.port, out, sizeof out);
		CAD_ASSERT(cad_address_parse(out, &again, &error) == CAD_OK && strcmp(address.host, again.host) == 0 &&
			address.port == again.port && address.v6 == again.v6);
		CAD_ASSERT(cad_address_is_complete(text));
	} else {
		CAD_ASSERT(error.text[0]);
	}

	(void)cad_address_is_loopback(text);
	exchange_address(text);
	char target[CAD_MAP_ADDRESS_BYTES];
	if (pl_probe_target(text, text + strlen(text) + 1, target))
		CAD_ASSERT(cad_address_parse(target, &address, &error) == CAD_OK);
	else
		CAD_ASSERT(!target[0]);
	free(text);

	return 0;
}
