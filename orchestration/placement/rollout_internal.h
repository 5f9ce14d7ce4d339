/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of rollout: rollout.c has the states and what is reported, rollout_turn.c what is done
 * about it, rollout_room.c what is done when room is short. Nothing else includes this. */
#ifndef CADRE_ORCHESTRATION_PLACEMENT_ROLLOUT_INTERNAL_H
#define CADRE_ORCHESTRATION_PLACEMENT_ROLLOUT_INTERNAL_H

#include "orchestration/placement/rollout.h"

#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "copies are looked at eight at a time, on little-endian machines"
#endif

/* A copy's byte: its state, and these. */
enum {
	PL_COPY_MASK = 0x07,
	PL_MARK_LENT = 0x08,   /* wanted, but its room is needed for a while: it goes, and comes back last */
	PL_MARK_TARGET = 0x10, /* wanted here */
	PL_MARK_FAILED = 0x20, /* a load failed here */
	PL_MARK_SAVED = 0x40,  /* as READY, in the state file */
};

#define PL_ROLLOUT_SOON UINT64_MAX

struct pl_rollout_slot {
	uint8_t *copies;                     /* [cells], and zeros that pl_copy_next may read; NULL: no such node */
	uint64_t memory_bytes, expert_bytes; /* expert_bytes 0: as the options say */
	uint32_t used;                       /* copies that take memory: all but NONE */
	uint32_t loading;
	uint64_t retry_ns;  /* when FAILED is forgotten; 0: nothing failed */
	bool reachable;     /* by orders */
	bool whole, usable; /* by routers */
	bool closed;        /* it is not to get anything */
	/* of this turn: copies that it should load; that it claims; that are
	 * READY and not wanted, or leave */
	uint32_t pending, claimed, unwanted;
	bool cramped; /* of this turn: something that it should load has no room */
	/* of a map that does not show what it claims, published after it was gone; SOON: that is
	 * still to come */
	uint64_t claims_epoch;
};

/* A copy that left the map. */
struct pl_rollout_leaving {
	uint32_t slot, cell;
	uint64_t epoch; /* of the first map without it; 0: not published yet */
	uint64_t since_ns;
};

/* A load in flight. */
struct pl_rollout_loading {
	uint32_t slot, cell;
	uint64_t moved_ns; /* when it, or one that was ordered later on this node, came on last */
	uint64_t bytes;    /* that are there */
	uint32_t source;   /* the slot that it was ordered from; CAD_PROCESSES_MAX: from none */
	bool claim;        /* the node said that it has the expert: only its checksum is asked for */
	bool move;         /* another node served the expert when it was ordered */
};

struct pl_rollout {
	struct pl_rollout_options options;
	uint32_t cells, slots_end; /* slots_end: one past the highest slot in use */
	bool lost, changed;        /* since the last map: a READY copy vanished; anything else about READY copies */
	uint64_t published_ns, published_epoch;
	struct pl_rollout_leaving *leaving;
	size_t leaving_count, leaving_capacity;
	struct pl_rollout_loading *loads; /* in the order in which they were ordered */
	size_t loads_count, loads_capacity;
	uint64_t next_move_ns; /* the rate allows none before */
	bool stuck;            /* as of the last turn: moves wait for room that nothing will make */
	/* of a turn: loads in flight of experts that are READY on usable nodes; moves that have not
	 * begun; free places on usable nodes; copies on their way from one state to another; orders
	 * and departures */
	uint32_t moving, moves_pending, acted;
	uint64_t places_free, unsettled;
	bool waiting; /* a load that has room waits for its turn */
	/* [cells] scratch of a turn: copies that are READY on usable nodes; of all READY ones those
	 * that are not wanted; wanted; wanted, READY and on whole nodes; READY on whole nodes */
	uint32_t *ready, *surplus, *wanted, *wanted_ready, *whole_ready;
	uint32_t *list; /* [cells] scratch: the cells of an order */
	/* [cells]: the epoch of the first map with the latest new copy; SOON: it is not published
	 * yet */
	uint64_t *gained;
	struct pl_rollout_slot slots[CAD_PROCESSES_MAX];
};

static inline enum pl_copy pl_copy_state(const struct pl_rollout_slot *slot, uint32_t cell)
{
	return (enum pl_copy)(slot->copies[cell] & PL_COPY_MASK);
}

/* The first copy of a node from `cell` on that is there or wanted; `cells`: none. Most are neither,
 * so whatever looks at all copies of all nodes goes by this. */
static inline uint32_t pl_copy_next(const struct pl_rollout *rollout, const struct pl_rollout_slot *slot, uint32_t cell)
{
	for (uint64_t eight; cell < rollout->cells; cell += sizeof eight) {
		memcpy(&eight, slot->copies + cell, sizeof eight);
		eight &= (PL_COPY_MASK | PL_MARK_TARGET) * 0x0101010101010101u;
		if (eight) /* the first byte is the lowest */
			return cell + (uint32_t)__builtin_ctzll(eight) / 8;
	}
	return rollout->cells;
}

/* ---- changes of a copy (rollout.c) ---- */

/* Every change of a state goes through here, so that the counts, the lists and the flags for the
 * next map stay true. */
void pl_copy_become(struct pl_rollout *rollout, uint32_t at, uint32_t cell, enum pl_copy state);
/* A failed load: not wanted here for a while. */
void pl_copy_fail(struct pl_rollout *rollout, uint32_t slot, uint32_t cell, uint64_t now_ns);
/* Out of the map, as of the next one. Without memory to remember it the copy stays where it is:
 * harmless, and tried again. */
void pl_copy_leave(struct pl_rollout *rollout, uint32_t slot, uint32_t cell);
/* Ordered to be loaded. False: no memory to remember it, try again. */
CAD_MUST_USE bool pl_copy_load(struct pl_rollout *rollout, uint32_t slot, uint32_t cell, uint64_t now_ns);

static inline uint64_t pl_slot_places_free(const struct pl_rollout *rollout, const struct pl_rollout_slot *slot)
{
	uint64_t bytes = pl_rollout_bytes(rollout, (uint32_t)(slot - rollout->slots)),
		 fit = slot->memory_bytes / (bytes ? bytes : 1);
	return fit > slot->used ? fit - slot->used : 0;
}

/* ---- moves (rollout_turn.c) ---- */

/* A move begins now, as far as the rate is concerned. */
static inline bool pl_move_may_begin(const struct pl_rollout *rollout, uint64_t now_ns)
{
	return rollout->moving < rollout->options.moves_max && now_ns >= rollout->next_move_ns;
}
void pl_move_begins(struct pl_rollout *rollout, uint64_t now_ns);

/* ---- room (rollout_room.c) ---- */

/* When nothing goes on and something waits for room: a step that makes some; false: there is
 * none. */
bool pl_rollout_make_room(struct pl_rollout *rollout, uint64_t now_ns, const struct pl_rollout_orders *orders);

#endif
