/* SPDX-License-Identifier: Apache-2.0 */
#include "common/model/inspect.h"
#include "common/base/plural.h"

#include <jansson.h>
#include <string.h>

const char *cad_model_bytes_text(uint64_t bytes, char text[32])
{
	static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double value = (double)bytes;
	size_t unit = 0;

	while (value >= 1024 && unit + 1 < sizeof units / sizeof *units) {
		value /= 1024;
		unit++;
	}
	snprintf(text, 32, unit ? "%.2f %s" : "%.0f %s", value, units[unit]);
	return text;
}

const char *cad_model_count_text(uint64_t count, char text[32])
{
	static const char *const units[] = { "", " K", " M", " B", " T" };
	double value = (double)count;
	size_t unit = 0;

	while (value >= 1000 && unit + 1 < sizeof units / sizeof *units) {
		value /= 1000;
		unit++;
	}
	snprintf(text, 32, unit ? "%.2f%s" : "%.0f%s", value, units[unit]);
	return text;
}

/* The smallest window of any layer, 0 when all see everything, and how many layers have one. */
static uint32_t smallest_window(const struct cad_model_spec *spec, uint32_t *layers)
{
	uint32_t smallest = 0;
	*layers = 0;
	for (uint32_t i = 0; i < spec->layers_count; i++)
		if (spec->layers[i].window) {
			++*layers;
			if (smallest == 0 || spec->layers[i].window < smallest)
				smallest = spec->layers[i].window;
		}
	return smallest;
}

void cad_model_parameters_print(const struct cad_model_sizes *sizes, FILE *stream)
{
	char one[32], two[32], three[32];
	fprintf(stream, "parameters       %s, %s active per token", cad_model_count_text(sizes->parameters, one),
		cad_model_count_text(sizes->active_parameters, two));
	if (sizes->looked_up)
		fprintf(stream, ", %s without the embedding",
			cad_model_count_text(sizes->active_parameters - sizes->looked_up, three));
	fprintf(stream, "\n");
}

static void print_experts(const struct cad_model *model, FILE *stream)
{
	const struct cad_model_spec *spec = cad_model_spec(model);
	fprintf(stream, "experts          %u per layer in %u %s, %u per token%s%s, size %u\n", spec->gate.experts,
		cad_model_spec_moe_layers(spec), cad_plural(cad_model_spec_moe_layers(spec), "layer", "layers"),
		spec->gate.topk, spec->gate.renormalise ? ", weights renormalised" : "",
		spec->gate.groups > 1 ? ", in groups" : "", spec->expert.size);
	if (spec->shared.size)
		fprintf(stream, "shared expert    size %u%s\n", spec->shared.size,
			spec->shared_gate ? ", weighed by a sigmoid" : "");
}

/* What each process holds: in the files, and packed in memory. */
static void print_needs(const struct cad_model *model, const struct cad_model_packed *packed,
	const struct cad_model_cluster *cluster, const struct cad_model_fit *fit, FILE *stream)
{
	char stored[32], held[32], head[32];
	uint64_t expert = cad_model_sizes(model).expert, experts = cad_model_spec(model)->gate.experts;

	snprintf(head, sizeof head, "weights %s", packed->weights);
	fprintf(stream, "\n%-16s %12s  %12s\n", head, "in the files", "in memory");

	if (fit->experts) {
		fprintf(stream, "one expert       %12s  %12s\n", cad_model_bytes_text(expert, stored),
			cad_model_bytes_text(packed->expert, held));
		fprintf(stream, "one layer        %12s  %12s  %llu experts\n",
			cad_model_bytes_text(experts * expert, stored),
			cad_model_bytes_text(experts * packed->expert, held), (unsigned long long)experts);
		snprintf(head, sizeof head, "each of %u %s", cluster->nodes,
			cad_plural(cluster->nodes, "node", "nodes"));
		fprintf(stream, "%-16s %12s  %12s  %u of %u experts\n", head,
			cad_model_bytes_text(fit->per_node * expert, stored),
			cad_model_bytes_text(fit->per_node_bytes, held), fit->per_node, fit->experts);
	}

	fprintf(stream, "each router      %12s  %12s  ", cad_model_bytes_text(cad_model_sizes(model).router, stored),
		cad_model_bytes_text(packed->router, held));
	fprintf(stream, "and %s of KV cache per token (--kv %s)\n", cad_model_bytes_text(packed->kv_per_token, held),
		packed->kv);
}

/* What a router keeps of a token, and what that would be without latent attention: of a layer, where they are
 * alike. */
void cad_model_kv_print(const struct cad_model_packed *packed, const struct cad_model_spec *spec, FILE *stream)
{
	bool alike = spec->attentions_count == 1;
	uint32_t of = alike ? spec->layers_count : 1;
	fprintf(stream, "KV cache         %llu values per token in ", (unsigned long long)(packed->kv_values / of));
	fprintf(stream, alike ? "each of %u layers" : "%u layers, which differ", spec->layers_count);
	if (packed->kv_values_expanded > packed->kv_values)
		fprintf(stream, "; keys and values of all heads would be %llu, %.1f times as many",
			(unsigned long long)(packed->kv_values_expanded / of),
			(double)packed->kv_values_expanded / (double)packed->kv_values);
	fprintf(stream, "\n");
}

/* Whether, and how much more. */
void cad_model_fit_print(const struct cad_model_fit *fit, const struct cad_model_cluster *cluster, FILE *stream)
{
	char one[32];

	if (cluster->node_bytes && fit->experts) {
		fprintf(stream, "experts          ");
		if (fit->room == 0)
			fprintf(stream, "do not fit: one takes more than the %s of a node",
				cad_model_bytes_text(cluster->node_bytes, one));
		else if (!fit->experts_fit)
			fprintf(stream,
				"do not fit on %u %s of %s, which have room for %llu each: %u such nodes hold them",
				cluster->nodes, cad_plural(cluster->nodes, "node", "nodes"),
				cad_model_bytes_text(cluster->node_bytes, one), (unsigned long long)fit->room,
				fit->nodes_least);
		else
			fprintf(stream,
				"fit on %u %s of %s, which have room for %llu each: %.2f copies of every expert; %u such nodes would do, %u to lose one",
				cluster->nodes, cad_plural(cluster->nodes, "node", "nodes"),
				cad_model_bytes_text(cluster->node_bytes, one), (unsigned long long)fit->room,
				(double)fit->room * cluster->nodes / fit->experts, fit->nodes_least,
				fit->nodes_least + 1);
		fprintf(stream, "\n");
	}
	if (cluster->router_bytes) {
		fprintf(stream, "router           ");
		if (!fit->router_fits)
			fprintf(stream, "does not fit in %s\n", cad_model_bytes_text(cluster->router_bytes, one));
		else
			fprintf(stream, "fits in %s; the rest holds keys and values of %llu tokens\n",
				cad_model_bytes_text(cluster->router_bytes, one), (unsigned long long)fit->kv_tokens);
	}
}

static const struct {
	const char *name, *text; /* in JSON; for people */
} unread_words[CAD_UNREAD_COUNT] = {
	[CAD_UNREAD_FURTHER] = { "further", "of layers that predict further tokens" },
	[CAD_UNREAD_OUTSIDE] = { "outside", "beside the language model" },
	[CAD_UNREAD_COMPUTED] = { "computed", "of what is computed" },
	[CAD_UNREAD_OTHER] = { "other", "of something else" },
};

/* Tensors of the files that no part of the model reads: a line for each kind. */
static void print_unread(const struct cad_model *model, FILE *stream)
{
	char bytes[32];
	for (enum cad_unread kind = 0; kind < CAD_UNREAD_COUNT; kind++) {
		struct cad_unread_tensors unread = cad_model_unread_tensors(model, kind);
		if (unread.count > 0)
			fprintf(stream, "not read         %zu %s %s, %s: %s%s\n", unread.count,
				cad_plural(unread.count, "tensor", "tensors"), unread_words[kind].text,
				cad_model_bytes_text(unread.bytes, bytes), unread.first,
				unread.count > 1 ? ", ..." : "");
	}
}

static void print_attention(const struct cad_model_spec *spec, FILE *stream)
{
	for (uint32_t i = 0; i < spec->attentions_count; i++) {
		const struct cad_attention_spec *a = &spec->attentions[i];
		uint32_t layers = cad_model_spec_layers_of(spec, i);
		fprintf(stream, "%-16s %u heads of %u, %u key/value heads", i == 0 ? "attention" : "", a->heads,
			a->head_size, a->kv_heads);
		if (a->value_size != a->head_size)
			fprintf(stream, ", values of %u", a->value_size);
		if (spec->attentions_count > 1)
			fprintf(stream, ", in %u %s", layers, cad_plural(layers, "layer", "layers"));
		fputc('\n', stream);
	}
}

static void print_table(const struct cad_model *model, const struct cad_model_packed *packed,
	const struct cad_model_cluster *cluster, const struct cad_model_fit *fit, FILE *stream)
{
	const struct cad_model_spec *spec = cad_model_spec(model);
	struct cad_model_sizes sizes = cad_model_sizes(model);
	char one[32], two[32], fingerprint[33];
	uint32_t sliding, window = smallest_window(spec, &sliding);

	cad_model_fingerprint(model, fingerprint);
	fprintf(stream, "model            %s\n", cad_model_directory(model));
	fprintf(stream, "architecture     %s, %s\n", spec->architecture, cad_dtype_name(spec->dtype));
	fprintf(stream, "fingerprint      %s\n", fingerprint);
	fprintf(stream, "layers           %u (%u with experts)\n", spec->layers_count, cad_model_spec_moe_layers(spec));
	fprintf(stream, "hidden size      %u\n", spec->hidden);
	fprintf(stream, "vocabulary       %u%s\n", spec->vocab, spec->tied_embeddings ? ", embeddings tied" : "");
	print_attention(spec, stream);
	if (window)
		fprintf(stream, "sliding window   %u keys in %u layers\n", window, sliding);
	fprintf(stream, "positions        %u, rope %s, theta %g", spec->positions_max,
		cad_rope_kind_name(spec->rope.kind), spec->rope.theta);
	for (uint32_t i = 1; i < spec->ropes_count; i++)
		fprintf(stream, "; other layers %s, theta %g", cad_rope_kind_name(spec->ropes[i].kind),
			spec->ropes[i].theta);
	fputc('\n', stream);
	if (spec->context_max > spec->positions_max)
		fprintf(stream, "context          %u tokens, which the rope scaling is meant for\n", spec->context_max);
	if (spec->dense.size)
		fprintf(stream, "dense layers     %u, size %u\n", spec->layers_count - cad_model_spec_moe_layers(spec),
			spec->dense.size);
	cad_model_parameters_print(&sizes, stream);
	cad_model_kv_print(packed, spec, stream);
	if (cad_model_packed(model))
		fprintf(stream, "packed           experts in %s, the rest in %s\n",
			cad_weights_name(cad_model_packed(model)->experts),
			cad_weights_name(cad_model_packed(model)->router));
	fprintf(stream, "weights          %s in files of %s\n", cad_model_bytes_text(sizes.total, one),
		cad_model_bytes_text(sizes.files, two));
	if (fit->experts)
		print_experts(model, stream);
	print_unread(model, stream);
	print_needs(model, packed, cluster, fit, stream);
	if (cluster->node_bytes || cluster->router_bytes) {
		fprintf(stream, "\n");
		cad_model_fit_print(fit, cluster, stream);
	}
}

static json_t *json_bytes(uint64_t value) { return json_integer((json_int_t)value); }

static json_t *make_ids(const int32_t *ids, uint32_t count)
{
	json_t *list = json_array();
	for (uint32_t i = 0; i < count; i++)
		if (json_array_append_new(list, json_integer(ids[i])) != 0) {
			json_decref(list);
			return NULL;
		}
	return list;
}

/* null: it is a checkpoint as published. */
static json_t *make_packed(const struct cad_packed *packed)
{
	if (!packed)
		return json_null();
	return json_pack(
		"{s:s, s:s}", "experts", cad_weights_name(packed->experts), "router", cad_weights_name(packed->router));
}

json_t *cad_model_fit_json(const struct cad_model_fit *fit, const struct cad_model_cluster *cluster)
{
	json_t *nodes = json_null(), *router = json_null();
	if (cluster->node_bytes)
		nodes = json_pack("{s:o, s:o, s:i, s:b}", "memory", json_bytes(cluster->node_bytes), "experts_room",
			json_bytes(fit->room), "nodes_least", (int)fit->nodes_least, "fits", fit->experts_fit);
	if (cluster->router_bytes)
		router = json_pack("{s:o, s:b, s:o}", "memory", json_bytes(cluster->router_bytes), "fits",
			fit->router_fits, "kv_tokens", json_bytes(fit->kv_tokens));
	return json_pack("{s:o, s:o}", "nodes", nodes, "router", router);
}

/* By what they are; a kind that there is none of is left out. NULL: no memory. */
static json_t *make_unread(const struct cad_model *model)
{
	json_t *list = json_array();
	for (enum cad_unread kind = 0; kind < CAD_UNREAD_COUNT; kind++) {
		struct cad_unread_tensors unread = cad_model_unread_tensors(model, kind);
		if (unread.count > 0 &&
			json_array_append_new(list,
				json_pack("{s:s, s:o, s:o, s:s}", "kind", unread_words[kind].name, "tensors",
					json_bytes(unread.count), "bytes", json_bytes(unread.bytes), "first",
					unread.first)) != 0) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

static json_t *make_json(const struct cad_model *model, const struct cad_model_packed *packed,
	const struct cad_model_cluster *cluster, const struct cad_model_fit *fit)
{
	const struct cad_model_spec *spec = cad_model_spec(model);
	const struct cad_attention_spec *a = &spec->attention;
	struct cad_model_sizes sizes = cad_model_sizes(model);
	char fingerprint[33];
	const char *unread;
	uint32_t sliding, window = smallest_window(spec, &sliding);

	cad_model_fingerprint(model, fingerprint);
	json_t *eos = make_ids(spec->eos_ids, spec->eos_ids_count), *form = make_packed(cad_model_packed(model)),
	       *not_read = make_unread(model), *fits = cad_model_fit_json(fit, cluster);
	if (!eos || !form || !not_read || !fits) {
		json_decref(eos);
		json_decref(form);
		json_decref(not_read);
		json_decref(fits);
		return NULL;
	}
	return json_pack("{s:s, s:s, s:s, s:s, s:o, s:i, s:i, s:i, s:i, s:i, s:i, s:b, s:o,"
			 " s:{s:i, s:i, s:i, s:i, s:i}, s:{s:s, s:f, s:i}, s:{s:i, s:i, s:i, s:b, s:i}, s:i, s:i,"
			 " s:{s:o, s:o, s:o}, s:{s:o, s:o, s:o, s:o}, s:{s:i, s:i, s:i, s:o, s:o, s:o},"
			 " s:{s:s, s:s, s:o, s:o, s:o, s:o}, s:{s:o, s:o, s:o}, s:I, s:o, s:o}",
		"directory", cad_model_directory(model), "architecture", spec->architecture, "dtype",
		cad_dtype_name(spec->dtype), "fingerprint", fingerprint, "packed", form, "layers",
		(int)spec->layers_count, "moe_layers", (int)cad_model_spec_moe_layers(spec), "hidden",
		(int)spec->hidden, "vocab", (int)spec->vocab, "positions", (int)spec->positions_max, "context",
		(int)spec->context_max, "tied_embeddings", spec->tied_embeddings, "eos", eos, "attention", "heads",
		(int)a->heads, "kv_heads", (int)a->kv_heads, "head_size", (int)a->head_size, "window", (int)window,
		"window_layers", (int)sliding, "rope", "kind", cad_rope_kind_name(spec->rope.kind), "theta",
		spec->rope.theta, "size", (int)spec->rope.size, "experts", "count", (int)spec->gate.experts, "topk",
		(int)spec->gate.topk, "size", (int)spec->expert.size, "renormalise", spec->gate.renormalise, "groups",
		(int)spec->gate.groups, "dense_size", (int)spec->dense.size, "shared_size", (int)spec->shared.size,
		"parameters", "total", json_bytes(sizes.parameters), "active", json_bytes(sizes.active_parameters),
		"active_without_embedding", json_bytes(sizes.active_parameters - sizes.looked_up), "bytes", "expert",
		json_bytes(sizes.expert), "router", json_bytes(sizes.router), "total", json_bytes(sizes.total), "files",
		json_bytes(sizes.files), "needs", "nodes", (int)cluster->nodes, "experts_total", (int)fit->experts,
		"experts_per_node", (int)fit->per_node, "bytes_per_node", json_bytes(fit->per_node * sizes.expert),
		"router_bytes", json_bytes(sizes.router), "kv_bytes_per_token", json_bytes(packed->kv_per_token),
		"memory", "weights", packed->weights, "kv", packed->kv, "expert", json_bytes(packed->expert), "layer",
		json_bytes(packed->expert * spec->gate.experts), "node", json_bytes(fit->per_node_bytes), "router",
		json_bytes(packed->router), "kv", "values_per_token", json_bytes(packed->kv_values),
		"values_per_token_expanded", json_bytes(packed->kv_values_expanded), "bytes_per_token",
		json_bytes(packed->kv_per_token), "tensors_not_read", (json_int_t)cad_model_unread(model, &unread),
		"not_read", not_read, "fit", fits);
}

enum cad_status cad_model_inspect(const struct cad_model *model, const struct cad_model_packed *packed,
	const struct cad_model_cluster *cluster, FILE *stream, bool json, struct cad_error *error)
{
	if (cluster->nodes == 0)
		return cad_error_set(error, CAD_ERR_INVALID, "a cluster has at least one expert node");

	struct cad_model_fit fit = cad_model_fit(cad_model_spec(model), packed, cluster);
	if (json) {
		json_t *object = make_json(model, packed, cluster, &fit);
		if (!object)
			return cad_error_set(error, CAD_ERR_MEMORY,
				"no memory for the description of %s (or its name is not UTF-8)",
				cad_model_directory(model));
		bool dumped = json_dumpf(object, stream, JSON_INDENT(2)) == 0;
		json_decref(object);
		if (!dumped)
			return cad_error_set(error, CAD_ERR_IO, "the description of %s could not be written",
				cad_model_directory(model));
		fputc('\n', stream);
	} else {
		print_table(model, packed, cluster, &fit, stream);
	}

	if (fflush(stream) != 0 || ferror(stream))
		return cad_error_set(
			error, CAD_ERR_IO, "the description of %s could not be written", cad_model_directory(model));
	return CAD_OK;
}
