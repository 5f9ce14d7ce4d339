/* SPDX-License-Identifier: Apache-2.0 */
#include "common/rpc/authorize.h"

#include "common/rpc/internal.h"
#include "common/rpc/server.h"

#include <stdio.h>

enum refusal { NO_IDENTITY, WRONG_TOKEN, WRONG_CERTIFICATE, WIDER_TOKEN, WRONG_ROLE, ADMITTED };

static const char *const reasons[CAD_RPC_REFUSALS] = {
	[NO_IDENTITY] = "no_identity",
	[WRONG_TOKEN] = "wrong_token",
	[WRONG_CERTIFICATE] = "wrong_certificate",
	[WIDER_TOKEN] = "wider_token",
	[WRONG_ROLE] = "wrong_role",
};

/* What a caller shows: of each its status, CAD_ERR_NOT_FOUND: nothing. */
struct shown {
	enum cad_status token_status;
	const struct cad_bearer *bearer; /* NULL: none, or one that is unknown */
	enum cad_status certificate_status;
	struct cad_certificate certificate;
};

/* ---- what is shown ---- */

static bool has_tokens(const struct cad_rpc_authorizer *authorizer)
{
	return authorizer->options.callers.bearers && authorizer->options.callers.bearers->count > 0;
}

static void token_look(
	const struct cad_rpc_authorizer *authorizer, const struct cad_rpc_call *call, struct shown *shown)
{
	const void *token;
	size_t size;

	shown->token_status = cad_rpc_call_bearer(call, &token, &size);
	if (shown->token_status == CAD_OK)
		shown->bearer = cad_bearers_find(authorizer->options.callers.bearers, token, size);
}

/* gRPC has it only if the handshake has verified it. */
static void certificate_look(struct cad_rpc_authorizer *authorizer, const struct cad_rpc_call *call,
	struct shown *shown, struct cad_error *why)
{
	grpc_auth_context *context = grpc_call_auth_context(call->core);
	grpc_auth_property_iterator found =
		grpc_auth_context_find_properties_by_name(context, GRPC_X509_PEM_CERT_PROPERTY_NAME);
	const grpc_auth_property *pem = grpc_auth_property_iterator_next(&found);

	if (pem)
		shown->certificate_status = cad_certificates_read(
			&authorizer->certificates, pem->value, pem->value_length, &shown->certificate, why);
	grpc_auth_context_release(context);
}

/* ---- who it is ---- */

static void caller_is(struct cad_caller *caller, enum cad_caller_by by, enum cad_caller_role role, const char *name)
{
	caller->by = by;
	caller->role = role;
	if (name[0])
		snprintf(caller->name, sizeof caller->name, "%s", name);
}

/* What one who is refused has shown, and what is known of it, is in *caller, too, for the audit
 * log. */
static enum refusal identify(
	const struct cad_rpc_authorizer *authorizer, const struct shown *shown, struct cad_caller *caller)
{
	const struct cad_certificate *certificate = &shown->certificate;
	const struct cad_bearer *bearer = shown->bearer;
	bool certified = shown->certificate_status == CAD_OK,
	     has_role = certified && certificate->role != CAD_CALLER_NOBODY;

	if (certified) {
		caller_is(caller, CAD_BY_CERTIFICATE, certificate->role, certificate->name);
	} else if (shown->certificate_status != CAD_ERR_NOT_FOUND) {
		caller->by = CAD_BY_CERTIFICATE;
		return WRONG_CERTIFICATE;
	}

	if (bearer) {
		caller_is(caller, certified ? CAD_BY_BOTH : CAD_BY_TOKEN, bearer->role, bearer->name);
		return has_role && !cad_caller_role_covers(certificate->role, bearer->role) ? WIDER_TOKEN : ADMITTED;
	}
	if (shown->token_status != CAD_ERR_NOT_FOUND) {
		caller->by = certified ? CAD_BY_CERTIFICATE : CAD_BY_TOKEN;
		return WRONG_TOKEN;
	}
	if (has_role)
		return ADMITTED;
	if (!certified || has_tokens(authorizer))
		return NO_IDENTITY;
	caller->role = CAD_CALLER_CLIENT;
	return ADMITTED;
}

static enum refusal check(
	struct cad_rpc_authorizer *authorizer, struct cad_rpc_call *call, struct shown *shown, struct cad_error *why)
{
	struct cad_caller *caller = &call->caller;
	bool tokens = has_tokens(authorizer), certificates = authorizer->options.callers.certificates;
	char peer[CAD_ADDRESS_BYTES];

	cad_rpc_call_peer(call, peer, sizeof peer);
	cad_address_of_peer(peer, caller->peer, sizeof caller->peer);
	if (tokens)
		token_look(authorizer, call, shown);
	if (certificates)
		certificate_look(authorizer, call, shown, why);

	enum refusal refusal = ADMITTED;
	if (tokens || certificates)
		refusal = identify(authorizer, shown, caller);
	else
		cad_caller_place(caller);
	if (refusal == ADMITTED && !cad_caller_may(caller, cad_rpc_call_method(call)->right))
		refusal = WRONG_ROLE;
	return refusal;
}

/* ---- why not ---- */

static void say_no_identity(
	const struct cad_rpc_authorizer *authorizer, const struct shown *shown, struct cad_error *why)
{
	const struct cad_rpc_authorizer_options *options = &authorizer->options;

	if (shown->certificate_status == CAD_OK)
		cad_error_set(why, CAD_ERR_REFUSED,
			"the certificate names no role, and this %s, which has a token file, then requires a token: %s",
			options->server, options->token_advice);
	else if (!has_tokens(authorizer))
		cad_error_set(why, CAD_ERR_REFUSED,
			"this %s requires a certificate: connect with one that is signed by its --tls-authority",
			options->server);
	else
		cad_error_set(why, CAD_ERR_REFUSED, "this %s requires a %s: %s", options->server,
			options->callers.certificates ? "certificate or a token" : "token", options->token_advice);
}

static void say_wrong_token(
	const struct cad_rpc_authorizer *authorizer, const struct shown *shown, struct cad_error *why)
{
	cad_error_set(why, CAD_ERR_REFUSED,
		shown->token_status == CAD_OK
			? "this %s does not know the token that was sent: it is wrong, or no longer in its token file"
			: "this %s requires a token, and the header 'authorization' is not 'Bearer TOKEN', or there are several",
		authorizer->options.server);
}

static void say_wrong_role(
	const struct cad_rpc_authorizer *authorizer, const struct cad_rpc_call *call, struct cad_error *why)
{
	const struct cad_caller *caller = &call->caller;
	const struct cad_rpc_method *method = cad_rpc_call_method(call);
	bool named = caller->name[0];

	if (caller->by == CAD_BY_NOTHING)
		cad_error_set(why, CAD_ERR_REFUSED,
			"only callers on its own machine may call %s of this %s, because it has neither --token-file nor --tls-authority",
			method->name, authorizer->options.server);
	else
		cad_error_set(why, CAD_ERR_REFUSED,
			"the %s%s%s%s has the role '%s', which may not call %s: that takes the role %s",
			caller->by == CAD_BY_CERTIFICATE ? "certificate" : "token", named ? " of '" : "", caller->name,
			named ? "'" : "", cad_caller_role_name(caller->role), method->name,
			cad_right_holders(method->right));
}

static void say_wider_token(
	const struct cad_rpc_call *call, const struct cad_certificate *certificate, struct cad_error *why)
{
	bool named = certificate->name[0];

	cad_error_set(why, CAD_ERR_REFUSED,
		"the token has the role '%s', which the role '%s' of the certificate%s%s%s does not cover: a token may only narrow it",
		cad_caller_role_name(call->caller.role), cad_caller_role_name(certificate->role), named ? " of '" : "",
		certificate->name, named ? "'" : "");
}

static void say(const struct cad_rpc_authorizer *authorizer, const struct cad_rpc_call *call, const struct shown *shown,
	enum refusal refusal, struct cad_error *why)
{
	switch (refusal) {
	case NO_IDENTITY: say_no_identity(authorizer, shown, why); break;
	case WRONG_TOKEN: say_wrong_token(authorizer, shown, why); break;
	case WRONG_CERTIFICATE:
		cad_error_prefix(why, "this %s cannot use the certificate that was shown", authorizer->options.server);
		break;
	case WIDER_TOKEN: say_wider_token(call, &shown->certificate, why); break;
	default: say_wrong_role(authorizer, call, why);
	}
}

/* ---- calls ---- */

enum cad_rpc_code cad_rpc_authorize(void *context, struct cad_rpc_call *call, struct cad_error *why)
{
	struct cad_rpc_authorizer *authorizer = context;
	const struct cad_rpc_authorizer_options *options = &authorizer->options;
	struct cad_audit *audit = options->callers.audit;
	const struct cad_rpc_method *method = cad_rpc_call_method(call);
	struct shown shown = { .token_status = CAD_ERR_NOT_FOUND, .certificate_status = CAD_ERR_NOT_FOUND };
	enum refusal refusal = check(authorizer, call, &shown, why);

	if (refusal == ADMITTED) {
		if (method->right == CAD_RIGHT_OPERATE)
			cad_audit_write(audit, CAD_AUDIT_CALLED, &call->caller, method->name, "", "");
		return CAD_RPC_OK;
	}

	say(authorizer, call, &shown, refusal, why);
	if (authorizer->refused[refusal])
		cad_counter_add(authorizer->refused[refusal], 1);
	cad_audit_write(audit, CAD_AUDIT_REFUSED, &call->caller, method->name, "", why->text);
	if (options->refused)
		options->refused(options->context, call, why->text);
	return refusal == WRONG_ROLE || refusal == WIDER_TOKEN ? CAD_RPC_PERMISSION_DENIED : CAD_RPC_UNAUTHENTICATED;
}

void cad_rpc_authorizer_init(struct cad_rpc_authorizer *authorizer, const struct cad_rpc_authorizer_options *options,
	struct cad_metrics *metrics)
{
	*authorizer = (struct cad_rpc_authorizer){ .options = *options };
	for (int i = 0; metrics && i < CAD_RPC_REFUSALS; i++)
		authorizer->refused[i] = cad_metrics_counter(metrics, CAD_CALLS_REFUSED, CAD_CALLS_REFUSED_HELP,
			&(struct cad_label){ "reason", reasons[i] }, 1);
}

void cad_rpc_authorizer_fini(struct cad_rpc_authorizer *authorizer)
{
	cad_certificates_fini(&authorizer->certificates);
}
