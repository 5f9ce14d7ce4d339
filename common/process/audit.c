/* SPDX-License-Identifier: Apache-2.0 */
#include "common/process/audit.h"

#include "common/base/limits.h"
#include "common/base/log.h"

/* All of a cluster may join at once. Two refusals a second are some 40 MiB a day. */
static const struct {
	const char *name;
	uint32_t burst, per_s;
} limits[CAD_AUDIT_KINDS] = {
	[CAD_AUDIT_REFUSED] = { "refused", 20, 2 },
	[CAD_AUDIT_JOINED] = { "joined", CAD_PROCESSES_MAX, 20 },
	[CAD_AUDIT_CALLED] = { "called", 100, 20 },
};

void cad_audit_init(struct cad_audit *audit)
{
	*audit = (struct cad_audit){ .ticks = 0 };
	for (int kind = 0; kind < CAD_AUDIT_KINDS; kind++)
		audit->kinds[kind].room = limits[kind].burst;
}

void cad_audit_write(struct cad_audit *audit, enum cad_audit_kind kind, const struct cad_caller *caller,
	const char *method, const char *node, const char *why)
{
	if (!audit)
		return;
	if (audit->kinds[kind].room == 0) {
		audit->kinds[kind].left_out++;
		return;
	}
	audit->kinds[kind].room--;
	cad_log_audit(limits[kind].name, CAD_S("method", method), CAD_S("role", cad_caller_role_name(caller->role)),
		CAD_S("name", caller->name), CAD_S("by", cad_caller_by_name(caller->by)), CAD_S("peer", caller->peer),
		CAD_S("node", node), CAD_S("why", why));
}

static void say_left_out(struct cad_audit *audit)
{
	for (int kind = 0; kind < CAD_AUDIT_KINDS; kind++) {
		if (audit->kinds[kind].left_out > 0)
			cad_log_audit("lines were left out", CAD_S("of", limits[kind].name),
				CAD_U("lines", audit->kinds[kind].left_out));
		audit->kinds[kind].left_out = 0;
	}
}

void cad_audit_tick(struct cad_audit *audit)
{
	for (int kind = 0; kind < CAD_AUDIT_KINDS; kind++) {
		uint32_t room = audit->kinds[kind].room + limits[kind].per_s;
		audit->kinds[kind].room = room < limits[kind].burst ? room : limits[kind].burst;
	}
	if (++audit->ticks % CAD_AUDIT_SAY_S == 0)
		say_left_out(audit);
}

void cad_audit_fini(struct cad_audit *audit) { say_left_out(audit); }
