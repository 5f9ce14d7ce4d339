/* SPDX-License-Identifier: Apache-2.0 */
/* Ends: endpoints in error handling mode PEER. Nothing is closed inside a UCX callback: the upper
 * hears `lost`, closes later, and the end is gone when every operation of it has come back. */
#include "common/transport/ucx/internal.h"

enum { RENDEZVOUS_BYTES = 256 << 10 }; /* over a network: eager below */

struct cad_link_end *cad_ucx_end_get(struct cad_ucx_link *link, void *owner)
{
	for (uint32_t i = 0; i < link->options.connections_max; i++) {
		struct cad_link_end *end = &link->ends[i];
		if (end->state != CAD_UCX_END_FREE)
			continue;
		*end = (struct cad_link_end){ .link = link, .owner = owner, .state = CAD_UCX_END_OPEN };
		link->open++;
		return end;
	}
	return NULL;
}

void cad_ucx_end_put(struct cad_link_end *end)
{
	end->state = CAD_UCX_END_FREE;
	end->link->open--;
}

struct cad_link_end *cad_ucx_end_of(struct cad_ucx_link *link, ucp_ep_h endpoint)
{
	for (uint32_t i = 0; i < link->options.connections_max; i++)
		if (link->ends[i].state == CAD_UCX_END_OPEN && link->ends[i].endpoint == endpoint)
			return &link->ends[i];
	return NULL;
}

void cad_ucx_end_lost(struct cad_link_end *end, enum cad_status status, const char *text)
{
	if (end->state != CAD_UCX_END_OPEN || end->lost_said || !end->owner)
		return;
	end->lost_said = true;
	end->link->options.events->lost(end->owner, status, text);
}

/* By the endpoint, which may have gone from one end to another. */
static void on_error(void *context, ucp_ep_h endpoint, ucs_status_t status)
{
	struct cad_link_end *end = cad_ucx_end_of(context, endpoint);
	bool unreachable =
		status == UCS_ERR_NOT_CONNECTED || status == UCS_ERR_UNREACHABLE || status == UCS_ERR_REJECTED;
	if (end)
		cad_ucx_end_lost(end, unreachable ? CAD_ERR_UNREACHABLE : CAD_ERR_PEER_LOST, ucs_status_string(status));
}

ucs_status_t cad_ucx_endpoint_create(struct cad_ucx_link *link, struct cad_ucx_peer *peer, const void *worker_address,
	ucp_err_handler_cb_t handler, void *owner, ucp_ep_h *endpoint)
{
	ucp_ep_params_t parameters = {
		.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
			UCP_EP_PARAM_FIELD_ERR_HANDLER,
		.address = worker_address,
		.err_mode = UCP_ERR_HANDLING_MODE_PEER, /* both ends must say the same */
		.err_handler = { .cb = handler, .arg = owner },
	};
	ucs_status_t status = ucp_ep_create(link->worker, &parameters, endpoint);

	if (status == UCS_OK)
		peer->made++;
	else
		peer->unusable = true; /* whether UCX has counted it is not known */
	return status;
}

ucs_status_t cad_ucx_end_connect(struct cad_link_end *end, struct cad_ucx_peer *peer, const void *worker_address)
{
	end->session = peer->session;
	return cad_ucx_endpoint_create(end->link, peer, worker_address, on_error, end->link, &end->endpoint);
}

void cad_ucx_operation_done(void *request, struct cad_link_op *op, ucs_status_t status)
{
	struct cad_link_end *end = op->link_private[0];
	if (request)
		ucp_request_free(request);
	end->operations--;
	op->done(op, status == UCS_OK ? CAD_OK : CAD_ERR_PEER_LOST);
}

static void on_sent(void *request, ucs_status_t status, void *op) { cad_ucx_operation_done(request, op, status); }

/* UCX decides by guesses of link speed, and differently in every version. Shared memory is left to
 * it: rendezvous above the segment size must stay. */
static uint32_t send_flags(const struct cad_link_end *end, size_t bytes)
{
	uint32_t flags = UCP_AM_SEND_FLAG_REPLY;
	if (end->same_host && end->link->shared_memory)
		return flags;
	return flags | (bytes >= RENDEZVOUS_BYTES ? UCP_AM_SEND_FLAG_RNDV : UCP_AM_SEND_FLAG_EAGER);
}

enum cad_status cad_ucx_send(struct cad_link_end *end, const struct cad_link_message *message, struct cad_link_op *op)
{
	ucp_request_param_t parameters = {
		.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS |
			UCP_OP_ATTR_FIELD_MEMORY_TYPE,
		.cb.send = on_sent,
		.user_data = op,
		.flags = send_flags(end, message->payload_bytes),
		.memory_type = UCS_MEMORY_TYPE_HOST,
	};

	CAD_ASSERT(end->state == CAD_UCX_END_OPEN);
	if (message->buffer) {
		parameters.op_attr_mask |= UCP_OP_ATTR_FIELD_MEMH;
		parameters.memh = ((struct cad_ucx_registration *)message->buffer->registration)->memory;
	}

	op->link_private[0] = end;
	end->operations++;
	ucs_status_ptr_t request = ucp_am_send_nbx(end->endpoint, message->kind, message->header, message->header_bytes,
		message->payload, message->payload_bytes, &parameters);
	if (request && !UCS_PTR_IS_ERR(request))
		return CAD_AGAIN;
	end->operations--;

	return request ? CAD_ERR_PEER_LOST : CAD_OK;
}

static void on_endpoint_closed(void *request, ucs_status_t status, void *context)
{
	(void)status;
	((struct cad_link_end *)context)->close_pending = false;
	ucp_request_free(request);
}

void cad_ucx_end_close(struct cad_link_end *end)
{
	CAD_ASSERT(end->state == CAD_UCX_END_OPEN);
	end->state = CAD_UCX_END_CLOSING;
	if (!end->endpoint)
		return;
	ucp_request_param_t parameters = {
		.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA,
		/* no farewell to a peer that may be gone; all operations
		                            * come back with an error */
		.flags = UCP_EP_CLOSE_FLAG_FORCE,
		.cb.send = on_endpoint_closed,
		.user_data = end,
	};
	end->close_pending = true;
	ucs_status_ptr_t request = ucp_ep_close_nbx(end->endpoint, &parameters);
	if (!request || UCS_PTR_IS_ERR(request))
		end->close_pending = false;
}

size_t cad_ucx_ends_closed(struct cad_ucx_link *link)
{
	size_t closed = 0;
	uint32_t left = link->open; /* to see: this runs in every turn, and most ends are free */
	for (uint32_t i = 0; i < link->options.connections_max && left > 0; i++) {
		struct cad_link_end *end = &link->ends[i];
		if (end->state == CAD_UCX_END_FREE)
			continue;
		left--;
		if (end->state != CAD_UCX_END_CLOSING || end->close_pending || end->operations > 0)
			continue;
		cad_ucx_end_put(end);
		if (end->owner)
			link->options.events->closed(end->owner);
		closed++;
	}
	return closed;
}
