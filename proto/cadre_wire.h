/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The token exchange between routers and expert nodes, and among expert nodes: byte layout of every
 * active message, version 3. proto/WIRE.md draws it.
 *
 * Fixed-width, little-endian, naturally aligned; every struct is asserted. A message is a header
 * (an active message's user header) and, for CALL, ANSWER and PART, a payload. Nothing here is
 * trusted: common/transport/wire.c checks every length against the received size before use.
 */
#ifndef CADRE_PROTO_CADRE_WIRE_H
#define CADRE_PROTO_CADRE_WIRE_H

#include <stddef.h>
#include <stdint.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the wire format is little-endian and so must this machine be"
#endif

enum {
	CADRE_WIRE_MAGIC = 0x31444143, /* "CAD1" */
	CADRE_WIRE_VERSION = 3,
	CADRE_NAME_BYTES = 64, /* node id, cluster id; zero padded */
	CADRE_HEX_BYTES = 40,  /* a 128-bit hash in hex, zero padded */
	CADRE_NONCE_BYTES = 32,
	CADRE_MAC_BYTES = 32,
	CADRE_TEXT_BYTES = 256, /* a refusal's sentence */
	CADRE_ROWS_MAX = 65536,
	CADRE_PAIRS_MAX = 65536 * 32,
	CADRE_GROUPS_MAX = 1024,
	CADRE_PART_BYTES_MAX = 1 << 20,
	CADRE_FETCHES_MAX = 4, /* of one connection that are not answered */
};

/* An expert's image (kernels/image.h): the version of its form, and what its bytes are. */
enum { CADRE_IMAGE_VERSION = 1 };
enum cadre_image_kind { CADRE_IMAGE_FLOAT = 1, CADRE_IMAGE_QUANTISED = 2 };

/* A row whose largest element is more than this many times its rms goes as f32: 16-bit fixed point
 * would leave the rest too few bits. At 32 a typical element still has 10 bits and is rounded four
 * times finer than bf16 would; the ratio cannot exceed sqrt(H). */
#define CADRE_ROW_RATIO_MAX 32.0f

/* Active-message ids. Dense and below 32. */
enum cadre_wire_kind {
	CADRE_WIRE_HELLO = 1,     /* client -> server: who I am, nonce */
	CADRE_WIRE_CHALLENGE = 2, /* server -> client: who I am, nonce, mac */
	CADRE_WIRE_PROOF = 3,     /* client -> server: mac */
	CADRE_WIRE_WELCOME = 4,   /* server -> client: session, credits, limits, mac */
	CADRE_WIRE_REFUSE = 5,    /* either way: why not, in a sentence; then the connection closes */
	CADRE_WIRE_CALL = 6,      /* router -> expert node: rows */
	CADRE_WIRE_ANSWER = 7,    /* expert node -> router: sums, or a status */
	CADRE_WIRE_PING = 8,
	CADRE_WIRE_PONG = 9,
	CADRE_WIRE_GOODBYE = 10, /* either way: this side closes the connection now */
	/* client -> server, before HELLO, where a link has no accept step of its own (UCX): which
	 * worker this is, and which one it means */
	CADRE_WIRE_KNOCK = 11,
	CADRE_WIRE_FETCH = 12, /* expert node -> expert node: asks for a part of an expert's image */
	CADRE_WIRE_PART = 13,  /* back: that part, or a status */
	CADRE_WIRE_KIND_COUNT = 14,
};

enum cadre_row_type { CADRE_ROW_FIX16 = 1, CADRE_ROW_BF16 = 2, CADRE_ROW_F32 = 3, CADRE_ROW_Q8 = 4 };
/* So many elements of a Q8 row share a scale. */
enum { CADRE_ROW_GROUP = 256 };

/* Why an ANSWER has no sums, and a PART no bytes. */
enum cadre_wire_status {
	CADRE_WIRE_OK = 0,
	/* an expert of the call is not, or no longer, on this node: look at the map again. `detail`
	 * is the expert */
	CADRE_WIRE_NOT_HELD = 1,
	CADRE_WIRE_BUSY = 2,    /* shed: credits or memory; try again later or elsewhere */
	CADRE_WIRE_EXPIRED = 3, /* the call's deadline passed before it was computed */
	/* well-formed, but not for this model: layer or hidden size; or of a FETCH: form or
	 * place */
	CADRE_WIRE_BAD_CALL = 4,
	CADRE_WIRE_INTERNAL = 5,
};

/* First in every message. */
struct cadre_wire_header {
	uint32_t magic;
	uint8_t version;
	uint8_t kind;           /* == active-message id */
	uint8_t status;         /* cadre_wire_status; 0 except in ANSWER and PART */
	uint8_t reserved;       /* 0 */
	uint64_t session;       /* from WELCOME; 0 before */
	uint64_t payload_bytes; /* == what the transport reports */
};
_Static_assert(sizeof(struct cadre_wire_header) == 24, "wire layout");

/* Settings and model, compared in the hello; a difference is refused with both values named. */
struct cadre_wire_identity {
	char cluster[CADRE_NAME_BYTES];
	char node[CADRE_NAME_BYTES];
	char model[CADRE_HEX_BYTES];          /* cad_model_fingerprint */
	char settings[CADRE_HEX_BYTES];       /* cad_settings_fingerprint */
	char settings_text[CADRE_TEXT_BYTES]; /* the same, readable: for the refusal */
};
struct cadre_wire_hello {
	struct cadre_wire_header header;
	struct cadre_wire_identity identity;
	uint8_t nonce[CADRE_NONCE_BYTES];
};
struct cadre_wire_challenge {
	struct cadre_wire_header header;
	struct cadre_wire_identity identity;
	uint8_t nonce[CADRE_NONCE_BYTES];
	uint8_t mac[CADRE_MAC_BYTES];
};
struct cadre_wire_proof {
	struct cadre_wire_header header;
	uint8_t mac[CADRE_MAC_BYTES];
};
struct cadre_wire_welcome {
	struct cadre_wire_header header;
	uint64_t session;
	uint64_t credit_bytes; /* payload bytes of calls that may be unanswered */
	uint32_t credit_calls; /* calls that may be unanswered */
	uint32_t rows_max;     /* of one call */
	uint8_t mac[CADRE_MAC_BYTES];
};
struct cadre_wire_refuse {
	struct cadre_wire_header header;
	char text[CADRE_TEXT_BYTES];
};
struct cadre_wire_ping {
	struct cadre_wire_header header;
	uint64_t stamp;
}; /* PONG echoes stamp */

struct cadre_wire_goodbye {
	struct cadre_wire_header header;
};
struct cadre_wire_knock {
	struct cadre_wire_header header;
	uint64_t from, to; /* sessions of the two exchange addresses */
	/* how many endpoints the client made to that address before this one: the server must make
	 * as many, because the library pairs them by number */
	uint32_t attempt;
	uint32_t zero;
};

/*
 * CALL: one per (router, node, layer, micro-batch).
 * payload:  cadre_wire_row[rows] | row data (each row_bytes of its type, in order) | pad to 8 |
 * cadre_wire_group[groups] | cadre_wire_pair[pairs] Groups are ascending by expert; the pairs of
 * group 0 come first, then those of group 1, ...; inside a group rows ascend.
 */
struct cadre_wire_call {
	struct cadre_wire_header header;
	uint64_t request_id; /* generation << 32 | slot; echoed */
	uint64_t epoch;      /* of the map that the router used: for the record, never a reason to refuse */
	uint64_t data_bytes; /* of the row data, before the pad */
	uint32_t layer;
	uint32_t rows;
	uint32_t row_elements; /* H */
	uint32_t pairs;
	uint32_t groups;
	uint32_t timeout_us; /* how long the router will wait, counted from receipt; 0: without limit */
};
/* FIX16: x = q * 2^exponent; others: exponent 0. Q8: x = q * the scale of its group */
struct cadre_wire_row {
	int16_t exponent;
	uint8_t type;
	uint8_t zero;
};
struct cadre_wire_group {
	uint32_t expert;
	uint32_t pairs;
};
struct cadre_wire_pair {
	uint32_t row;
	float weight;
};

/*
 * ANSWER: one partial sum per row of the call, in the call's order.
 * payload:  cadre_wire_sum[rows] | data, each row width * row_elements bytes, little-endian two's
 * complement, in order
 */
struct cadre_wire_answer {
	struct cadre_wire_header header;
	uint64_t request_id;
	uint64_t data_bytes;
	uint32_t layer;
	uint32_t rows;
	uint32_t row_elements;
	uint32_t detail;               /* of a status */
	uint32_t queue_us, compute_us; /* on the node's own clock: waiting, and computing */
};
/* width 2, 3, 4, 8; poisoned: width 0 and the expert that gave NaN or infinity */
struct cadre_wire_sum {
	uint32_t expert;
	uint8_t width;
	uint8_t poisoned;
	uint16_t zero;
};

/* FETCH: bytes offset .. offset + bytes - 1 of the image of an expert that the other node holds, in
 * this form. */
struct cadre_wire_fetch {
	struct cadre_wire_header header;
	uint64_t request_id; /* echoed */
	uint64_t offset;
	uint32_t bytes; /* 1 .. CADRE_PART_BYTES_MAX */
	uint32_t layer;
	uint32_t expert;
	uint8_t version; /* CADRE_IMAGE_VERSION */
	uint8_t kind;    /* cadre_image_kind */
	uint16_t zero;
};
/* PART: payload: the bytes, as many as were asked for; none with a status. */
struct cadre_wire_part {
	struct cadre_wire_header header;
	uint64_t request_id;
	uint64_t image_bytes; /* of the whole image; 0 with a status */
};

_Static_assert(sizeof(struct cadre_wire_identity) == 464, "wire layout");
_Static_assert(sizeof(struct cadre_wire_hello) == 520, "wire layout");
_Static_assert(sizeof(struct cadre_wire_challenge) == 552, "wire layout");
_Static_assert(sizeof(struct cadre_wire_proof) == 56, "wire layout");
_Static_assert(sizeof(struct cadre_wire_welcome) == 80, "wire layout");
_Static_assert(sizeof(struct cadre_wire_refuse) == 280, "wire layout");
_Static_assert(sizeof(struct cadre_wire_ping) == 32, "wire layout");
_Static_assert(sizeof(struct cadre_wire_goodbye) == 24, "wire layout");
_Static_assert(sizeof(struct cadre_wire_knock) == 48, "wire layout");
_Static_assert(sizeof(struct cadre_wire_call) == 72, "wire layout");
_Static_assert(sizeof(struct cadre_wire_row) == 4, "wire layout");
_Static_assert(sizeof(struct cadre_wire_group) == 8, "wire layout");
_Static_assert(sizeof(struct cadre_wire_pair) == 8, "wire layout");
_Static_assert(sizeof(struct cadre_wire_answer) == 64, "wire layout");
_Static_assert(sizeof(struct cadre_wire_sum) == 8, "wire layout");
_Static_assert(sizeof(struct cadre_wire_fetch) == 56, "wire layout");
_Static_assert(sizeof(struct cadre_wire_part) == 40, "wire layout");

/* Q8: the scales (f32) of its groups, then its q (s8). */
static inline size_t cadre_row_groups(size_t elements) { return (elements + CADRE_ROW_GROUP - 1) / CADRE_ROW_GROUP; }

static inline size_t cadre_row_bytes(uint8_t type, size_t elements)
{
	switch (type) {
	case CADRE_ROW_FIX16:
	case CADRE_ROW_BF16: return 2 * elements;
	case CADRE_ROW_F32: return 4 * elements;
	case CADRE_ROW_Q8: return 4 * cadre_row_groups(elements) + elements;
	}
	return 0;
}
static inline size_t cadre_row_bytes_max(size_t elements)
{
	size_t f32 = cadre_row_bytes(CADRE_ROW_F32, elements), q8 = cadre_row_bytes(CADRE_ROW_Q8, elements);
	return f32 > q8 ? f32 : q8;
}

#endif
