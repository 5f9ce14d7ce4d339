/* SPDX-License-Identifier: Apache-2.0 */
#include "common/cluster/cover.h"

/*
 * Sets of nodes are bits, so that one adder counts for 64 nodes at once how many of the open slots
 * each holds. Among nodes that hold equally many, the lightest is taken, with the guard as without:
 * it takes no less from a busier one. So once no node holds two open slots, their order makes no
 * difference.
 */
enum { WORDS_MAX = CAD_NODES_MAX / 64, PLANES_MAX = 6, SLOTS_USUAL = 8 };
_Static_assert(CAD_TOPK_MAX < 1 << PLANES_MAX, "a count of slots has PLANES_MAX bits");

/* So that the usual k, and up to 64 nodes, become code without loops. */
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

static const uint64_t everybody[WORDS_MAX] = { [0 ... WORDS_MAX - 1] = ~0ull };

struct token {
	uint32_t slots, words;
	uint32_t served, choice;                /* slots that a usable node holds; that more than one node holds */
	uint64_t shared;                        /* words with nodes that hold two slots */
	uint64_t held[WORDS_MAX][CAD_TOPK_MAX]; /* the usable nodes that hold the slot's expert */
	uint64_t chosen[WORDS_MAX];
};

/* Slots from k on have no expert. What only one node holds is chosen at once. */
INLINE void read_sets(struct token *token, const struct cad_map_replicas *replicas, uint32_t k, const uint64_t *usable)
{
	uint64_t any[CAD_TOPK_MAX] = { 0 };
	token->served = token->choice = 0;
	token->shared = 0;

	for (uint32_t word = 0; word < token->words; word++) {
		uint64_t once = 0, twice = 0, alone = 0;
		UNROLL for (uint32_t slot = 0; slot < token->slots; slot++)
		{
			const struct cad_map_replicas *at = slot < k ? &replicas[slot] : &cad_map_nobody;
			uint64_t set = at->set[word] & usable[word];
			token->held[word][slot] = set;
			any[slot] |= set;
			alone |= set & ((uint64_t)(at->count > 1) - 1);
			twice |= once & set;
			once |= set;
		}
		token->chosen[word] = alone;
		token->shared |= (uint64_t)(twice != 0) << word;
	}

	UNROLL for (uint32_t slot = 0; slot < token->slots; slot++)
	{
		token->served |= (uint32_t)(any[slot] != 0) << slot;
		token->choice |= (uint32_t)(slot < k && replicas[slot].count > 1) << slot;
	}
}

/* Of a set that is not empty: the smallest load, then the lowest index. */
INLINE uint32_t lightest(uint64_t set, uint32_t from, const uint32_t *load)
{
	uint32_t best = from + (uint32_t)__builtin_ctzll(set);
	for (set &= set - 1; set && load; set &= set - 1) {
		uint32_t node = from + (uint32_t)__builtin_ctzll(set);
		best = load[node] < load[best] ? node : best;
	}
	return best;
}

/* The same over the chosen nodes of a slot. */
INLINE uint32_t lightest_chosen(const struct token *token, uint32_t slot, const uint32_t *load)
{
	uint32_t best = CAD_COVER_NONE;
	for (uint32_t word = 0; word < token->words; word++) {
		uint64_t set = token->held[word][slot] & token->chosen[word];
		if (token->words > 1 && !set)
			continue;
		uint32_t node = lightest(set, word * 64, load);
		best = best == CAD_COVER_NONE || (load && load[node] < load[best]) ? node : best;
	}
	return best;
}

/* The same over all usable nodes of an expert. */
INLINE uint32_t lightest_replica(const struct cad_map_replicas *replicas, const uint64_t *usable, const uint32_t *load)
{
	uint32_t best = CAD_COVER_NONE;
	for (uint32_t r = 0; r < replicas->count; r++) {
		uint32_t node = replicas->nodes[r];
		if (cad_map_set_has(usable, node))
			best = best == CAD_COVER_NONE || (load && load[node] < load[best]) ? node : best;
	}
	return best;
}

INLINE uint32_t planes_of(uint32_t slots) { return 32 - (uint32_t)__builtin_clz(slots); }

/* plane[p]: bit p of how many of the open slots each node of a word holds. */
INLINE void count(const struct token *token, uint32_t word, uint32_t open, uint64_t plane[PLANES_MAX])
{
	UNROLL for (uint32_t p = 0; p < planes_of(token->slots); p++) plane[p] = 0;
	UNROLL for (uint32_t slot = 0; slot < token->slots; slot++)
	{
		uint64_t carry = token->held[word][slot] & -(uint64_t)(open >> slot & 1);
		UNROLL for (uint32_t p = 0; p < planes_of(token->slots); p++) if ((slot + 1) >> p)
		{ /* no count is longer so far */
			uint64_t both = plane[p] & carry;
			plane[p] ^= carry;
			carry = both;
		}
	}
}

/* The node with most of the open slots, or CAD_COVER_NONE when none has two. */
INLINE uint32_t next_plain(const struct token *token, uint32_t open, const uint32_t *load)
{
	uint32_t best = CAD_COVER_NONE, most = 2;
	for (uint32_t word = 0; word < token->words; word++) {
		uint64_t plane[PLANES_MAX], top = ~0ull;
		uint32_t experts = 0;
		if (!(token->shared >> word & 1))
			continue;
		count(token, word, open, plane);
		UNROLL for (uint32_t p = planes_of(token->slots); p-- > 0;)
		{
			uint64_t with = top & plane[p];
			experts |= (uint32_t)(with != 0) << p;
			top = with ? with : top;
		}
		if (experts < most)
			continue;
		uint32_t node = lightest(top, word * 64, load);
		best = best == CAD_COVER_NONE || experts > most || (load && load[node] < load[best]) ? node : best;
		most = experts;
	}
	return best;
}

/* The same with the guard: of every number of slots the lightest node, and of these the one with
 * the highest score. */
static uint32_t next_guarded(const struct token *token, uint32_t open, const struct cad_cover_load *load)
{
	const uint32_t *rows = load->node, planes = planes_of(token->slots);
	uint32_t best = CAD_COVER_NONE;
	float best_score = 0;

	for (uint32_t word = 0; word < token->words; word++) {
		uint64_t plane[PLANES_MAX];
		count(token, word, open, plane);
		for (uint32_t experts = token->slots; experts > 0; experts--) {
			uint64_t set = ~0ull;
			for (uint32_t p = 0; p < planes; p++)
				set &= experts >> p & 1 ? plane[p] : ~plane[p];
			if (!set)
				continue;
			uint32_t node = lightest(set, word * 64, rows);
			float over = (float)rows[node] - load->calm,
			      score = (float)experts - (over > 0 ? over / load->point : 0);
			bool better = best == CAD_COVER_NONE || score > best_score ||
				(score == best_score &&
					(rows[node] < rows[best] || (rows[node] == rows[best] && node < best)));
			if (better) {
				best = node;
				best_score = score;
			}
		}
	}

	return best;
}

INLINE void give(uint32_t node, const struct cad_cover_load *load, uint16_t *home)
{
	*home = (uint16_t)node;
	if (load)
		load->node[node] += load->unit ? load->unit[node] : 1;
}

INLINE void cover(const struct cad_map_replicas *replicas, uint32_t k, uint32_t slots, uint32_t words,
	const uint64_t *usable, const struct cad_cover_load *load, uint16_t *nodes)
{
	struct token token;
	const uint32_t *rows = load ? load->node : NULL;

	token.slots = slots;
	token.words = words;
	read_sets(&token, replicas, k, usable);
	uint32_t open = token.served;
	while (open & token.choice) {
		uint32_t node = next_plain(&token, open, rows);
		if (node == CAD_COVER_NONE)
			break;
		if (load && load->point > 0 && (float)rows[node] - load->calm > 0)
			node = next_guarded(&token, open, load);
		cad_map_set_add(token.chosen, node);
		UNROLL for (uint32_t slot = 0; slot < slots; slot++) open &=
			~((uint32_t)(token.held[node / 64][slot] >> node % 64 & 1) << slot);
	}

	for (open &= token.choice; open; open &= open - 1) { /* no node holds two of these: each has its lightest */
		uint32_t node = lightest_replica(&replicas[__builtin_ctz(open)], usable, rows);
		cad_map_set_add(token.chosen, node);
	}

	for (uint32_t slot = 0; slot < k; slot++) {
		nodes[slot] = CAD_COVER_NONE;
		if (token.served >> slot & 1)
			give(words > 1 && replicas[slot].count == 1 ? replicas[slot].nodes[0]
								    : lightest_chosen(&token, slot, rows),
				load, &nodes[slot]);
	}
}

void cad_cover_replicas(const struct cad_map_replicas *replicas, uint32_t k, uint32_t nodes_count,
	const uint64_t *usable, const struct cad_cover_load *load, uint16_t *nodes)
{
	uint32_t most = 0, words = cad_map_words(nodes_count);
	CAD_ASSERT(k <= CAD_TOPK_MAX && nodes_count <= CAD_NODES_MAX);
	usable = usable ? usable : everybody;
	for (uint32_t slot = 0; slot < k; slot++)
		most |= replicas[slot].count;
	if (most <= 1) { /* nothing to choose */
		for (uint32_t slot = 0; slot < k; slot++) {
			nodes[slot] = CAD_COVER_NONE;
			if (replicas[slot].count && cad_map_set_has(usable, replicas[slot].nodes[0]))
				give(replicas[slot].nodes[0], load, &nodes[slot]);
		}
	} else if (k <= SLOTS_USUAL && words == 1) {
		cover(replicas, k, SLOTS_USUAL, 1, usable, load, nodes);
	} else if (k <= SLOTS_USUAL) {
		cover(replicas, k, SLOTS_USUAL, words, usable, load, nodes);
	} else {
		cover(replicas, k, k, words, usable, load, nodes);
	}
}

void cad_cover(const struct cad_map *map, uint32_t layer, const int32_t *experts, uint32_t k, const uint64_t *usable,
	const struct cad_cover_load *load, uint16_t *nodes)
{
	struct cad_map_replicas replicas[CAD_TOPK_MAX];
	CAD_ASSERT(k <= CAD_TOPK_MAX);
	for (uint32_t slot = 0; slot < k; slot++)
		replicas[slot] = cad_map_replicas(map, layer, (uint32_t)experts[slot]); /* nobody holds expert -1 */
	cad_cover_replicas(replicas, k, map->nodes_count, usable, load, nodes);
}
