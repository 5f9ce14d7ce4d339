/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log lines on stderr, as logfmt or as JSON: one event per line, one write(2) per line, so that
 * lines of several threads never mix.
 *
 *     cad_log_info("control", "joined", CAD_S("placement", address), CAD_U("lease_ms", lease_ms));
 *
 *     time=2025-03-01T12:00:00.123456Z level=info component=control msg=joined
 *         placement=127.0.0.1:7300 lease_ms=3000       (one line)
 *
 * Any thread may log at any time. Nothing is allocated; a line is cut at CAD_LOG_LINE_BYTES, on a
 * character's border, and stays valid in its format. write(2) may block when the reader of stderr
 * is slow: the step path logs only failures. Strings are borrowed for the call.
 */
#ifndef CADRE_COMMON_BASE_LOG_H
#define CADRE_COMMON_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CAD_LOG_LINE_BYTES = 4096 };

/* CAD_LOG_AUDIT is written whatever the level (common/process/audit.h). */
enum cad_log_level { CAD_LOG_DEBUG, CAD_LOG_INFO, CAD_LOG_WARN, CAD_LOG_ERROR, CAD_LOG_AUDIT };
enum cad_log_format { CAD_LOG_LOGFMT, CAD_LOG_JSON };

/* May be called at any time; before the first call: info, logfmt, stderr. */
void cad_log_setup(enum cad_log_level level, enum cad_log_format format);
/* Where lines go; tests read them back through a pipe. */
void cad_log_set_fd(int fd);
/* Whether a line of this level would be written: for fields that are costly to make. */
bool cad_log_enabled(enum cad_log_level level);

enum cad_log_kind { CAD_LOG_STRING, CAD_LOG_I64, CAD_LOG_U64, CAD_LOG_F64, CAD_LOG_BOOL };
struct cad_log_field {
	const char *key; /* letters, digits and underscores */
	enum cad_log_kind kind;
	union {
		/* UTF-8; NULL is written as an empty string; a byte that is not UTF-8 is
		 * replaced */
		const char *string;
		int64_t i64;
		uint64_t u64;
		double f64;
		bool boolean;
	} value;
};

/* Fields: a string, a signed and an unsigned number, a real number, yes or no; and the id of the
 * request that a line is about. */
#define CAD_S(name, text) \
	{ \
		.key = (name), .kind = CAD_LOG_STRING, .value.string = (text) \
	}
#define CAD_I(name, number) \
	{ \
		.key = (name), .kind = CAD_LOG_I64, .value.i64 = (number) \
	}
#define CAD_U(name, number) \
	{ \
		.key = (name), .kind = CAD_LOG_U64, .value.u64 = (number) \
	}
#define CAD_F(name, number) \
	{ \
		.key = (name), .kind = CAD_LOG_F64, .value.f64 = (number) \
	}
#define CAD_B(name, truth) \
	{ \
		.key = (name), .kind = CAD_LOG_BOOL, .value.boolean = (truth) \
	}
#define CAD_REQUEST(id) CAD_S("request", id)

/* fields[0] is the message; the macros below put it there. */
void cad_log_write(
	enum cad_log_level level, const char *component, const struct cad_log_field *fields, size_t fields_count);

#define CAD_LOG(level, component, message, ...) \
	cad_log_write((level), (component), (const struct cad_log_field[]){ CAD_S("msg", message), __VA_ARGS__ }, \
		sizeof((const struct cad_log_field[]){ CAD_S("msg", message), __VA_ARGS__ }) / \
			sizeof(struct cad_log_field))
#define cad_log_debug(component, ...) CAD_LOG_PICK(CAD_LOG_DEBUG, component, __VA_ARGS__, )
#define cad_log_info(component, ...) CAD_LOG_PICK(CAD_LOG_INFO, component, __VA_ARGS__, )
#define cad_log_warn(component, ...) CAD_LOG_PICK(CAD_LOG_WARN, component, __VA_ARGS__, )
#define cad_log_error(component, ...) CAD_LOG_PICK(CAD_LOG_ERROR, component, __VA_ARGS__, )
#define cad_log_audit(...) CAD_LOG_PICK(CAD_LOG_AUDIT, "audit", __VA_ARGS__, )
/* The empty last argument makes "no fields" a call that ISO C allows. */
#define CAD_LOG_PICK(level, component, message, ...) CAD_LOG(level, component, message, __VA_ARGS__)

#endif
