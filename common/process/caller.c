/* SPDX-License-Identifier: Apache-2.0 */
#include "common/process/caller.h"

#include <string.h>

static const char *const role_names[] = {
	[CAD_CALLER_NOBODY] = "none",
	[CAD_CALLER_INSPECT] = "inspect",
	[CAD_CALLER_CLIENT] = "client",
	[CAD_CALLER_NODE] = "node",
	[CAD_CALLER_OPERATOR] = "operator",
};
enum { ROLES = sizeof role_names / sizeof role_names[0] };

static const char *const by_names[] = {
	[CAD_BY_NOTHING] = "nothing",
	[CAD_BY_LOOPBACK] = "loopback",
	[CAD_BY_TOKEN] = "token",
	[CAD_BY_CERTIFICATE] = "certificate",
	[CAD_BY_BOTH] = "token and certificate",
};

/* Bit r of a role: it has right r. */
#define BIT(right) (1u << (right))
static const unsigned rights[ROLES] = {
	/* where nobody has a role, the cluster secret guards what joins */
	[CAD_CALLER_NOBODY] = BIT(CAD_RIGHT_READ) | BIT(CAD_RIGHT_GENERATE) | BIT(CAD_RIGHT_JOIN),
	[CAD_CALLER_INSPECT] = BIT(CAD_RIGHT_READ),
	[CAD_CALLER_CLIENT] = BIT(CAD_RIGHT_READ) | BIT(CAD_RIGHT_GENERATE),
	[CAD_CALLER_NODE] = BIT(CAD_RIGHT_READ) | BIT(CAD_RIGHT_JOIN),
	[CAD_CALLER_OPERATOR] = BIT(CAD_RIGHT_READ) | BIT(CAD_RIGHT_GENERATE) | BIT(CAD_RIGHT_OPERATE),
};

const char *cad_caller_role_name(enum cad_caller_role role) { return role_names[role]; }
const char *cad_caller_by_name(enum cad_caller_by by) { return by_names[by]; }

bool cad_caller_role_parse(const char *text, size_t size, enum cad_caller_role *role)
{
	for (int i = CAD_CALLER_NOBODY + 1; i < ROLES; i++)
		if (strlen(role_names[i]) == size && memcmp(role_names[i], text, size) == 0) {
			*role = (enum cad_caller_role)i;
			return true;
		}
	return false;
}

void cad_caller_place(struct cad_caller *caller)
{
	bool here = cad_address_is_loopback(caller->peer);
	caller->by = here ? CAD_BY_LOOPBACK : CAD_BY_NOTHING;
	caller->role = here ? CAD_CALLER_OPERATOR : CAD_CALLER_NOBODY;
}

bool cad_caller_may(const struct cad_caller *caller, enum cad_right right)
{
	return right == CAD_RIGHT_PROBE || caller->by == CAD_BY_LOOPBACK || (rights[caller->role] & BIT(right)) != 0;
}

bool cad_caller_role_covers(enum cad_caller_role wide, enum cad_caller_role narrow)
{
	return (rights[narrow] & ~rights[wide]) == 0;
}

const char *cad_right_holders(enum cad_right right)
{
	switch (right) {
	case CAD_RIGHT_GENERATE: return "'client' or 'operator'";
	case CAD_RIGHT_JOIN: return "'node'";
	case CAD_RIGHT_OPERATE: return "'operator'";
	default: return "'inspect', 'client', 'node' or 'operator'";
	}
}
