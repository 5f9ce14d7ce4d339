/* SPDX-License-Identifier: Apache-2.0 */
/* The transport over UCX: TCP, shared memory, RDMA. */
#ifndef CADRE_COMMON_TRANSPORT_UCX_H
#define CADRE_COMMON_TRANSPORT_UCX_H

#include "common/transport/transport.h"

/*
 * Settings of UCX, for operators; NULL and "" are the default:
 *   devices     the network interfaces (or RDMA ports) that UCX may use, as in UCX_NET_DEVICES:
 *               "eth1", "mlx5_0:1". UCX listens for data on a port of its own on every
 *               one of them, so
 *               name the cluster's interface and no other. Default: UCX_NET_DEVICES, else the
 *               interface of the address that cad_transport_listen gets, else the
 *               loopback interface.
 *   transports  as in UCX_TLS. "tcp" is safe everywhere; "posix,cma,tcp" adds shared memory
 *               between processes of one host; "rc,ud,tcp" is RDMA. Default: UCX_TLS, else tcp.
 *   spin_us     how long a wait polls before it sleeps: saves the 25 to 45 us of a wake-up, and is
 *               harmful unless every busy thread has a core for itself.
 * There is no listener. A worker has an address from its first moment (exchange_address.h), which
 * its peers get from the placement service; a server must have been told the addresses of its
 * clients. `listen`, or cad_transport_listen, says at which interface and port that is:
 * "192.0.2.7:7400", "[fd00::7]:7400"; 0.0.0.0 and [::]: on all of `devices`. UCX does not bind a
 * port that the system still holds for the connections of a process before, so a port is the first
 * of CAD_UCX_PORTS, of which UCX takes one by chance. Port 0: any, or one of
 * UCX_TCP_PORT_RANGE=7400-7499 in the environment. The range must be open both ways, at routers
 * too. It does not work through address translation. UCX has no authentication and no encryption,
 * and its own framing trusts what it reads: the exchange belongs on a private network, or on
 * WireGuard.
 */
enum { CAD_UCX_PORTS = 16 };

struct cad_ucx_options {
	const char *devices, *transports;
	const char *listen; /* "" and NULL: on the devices, any port */
	uint32_t spin_us;
};
/* First thing in main(): sets what UCX needs in the environment (and leaves alone what is already
 * set). UCX reads part of it before main, so this may restart the program, once. NULL: never
 * restarts it. */
void cad_transport_ucx_environment(char **argv);
CAD_MUST_USE enum cad_status cad_transport_ucx_create(const struct cad_transport_options *options,
	const struct cad_ucx_options *ucx, struct cad_transport **transport, struct cad_error *error);
/* Whether a transport could listen there; nothing is opened. For --check-config. */
CAD_MUST_USE enum cad_status cad_transport_ucx_check(const char *listen, const char *devices, struct cad_error *error);
/* The same, and whether UCX has those devices and transports: it is started, and stopped again. */
CAD_MUST_USE enum cad_status cad_transport_ucx_try(const struct cad_ucx_options *ucx, struct cad_error *error);
cad_link_create_fn cad_link_ucx_create; /* context: const struct cad_ucx_options * */

/* For tests: as if a peer had died while it wrote to this process's shared memory. */
void cad_link_ucx_wedge(struct cad_link *base);
/* For tests: as if so many attempts to connect to that address had never arrived. */
void cad_link_ucx_lose(struct cad_link *base, const char *text, uint32_t attempts);

#endif
