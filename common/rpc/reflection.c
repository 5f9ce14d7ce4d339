/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grpc.reflection.v1 and v1alpha from the embedded FileDescriptorSet (proto/descriptors.S). The two
 * versions differ in the name of their package only, so one set of message structs serves both.
 */
#include "common/rpc/reflection.h"

#include "common/rpc/internal.h"
#include "google/protobuf/descriptor.pb-c.h"
#include "grpc/reflection/v1/reflection.pb-c.h"
#include "grpc/reflection/v1alpha/reflection.pb-c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const uint8_t cadre_descriptors[], cadre_descriptors_end[];

/* A client that does not read its answers gets no more of them above this. */
enum { UNREAD_BYTES_MAX = 64 * 1024 };

typedef Grpc__Reflection__V1__ServerReflectionRequest Request;
typedef Grpc__Reflection__V1__ServerReflectionResponse Response;
typedef Google__Protobuf__FileDescriptorProto File;
typedef Google__Protobuf__DescriptorProto Message;
typedef Google__Protobuf__EnumDescriptorProto Enum;
typedef Google__Protobuf__ServiceDescriptorProto Service;
#define REQUEST_IS(name) GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_##name
#define RESPONSE_IS(name) GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_##name

struct symbol {
	char *name;
	size_t file;
};

struct cad_rpc_reflection {
	Google__Protobuf__FileDescriptorSet *set;
	ProtobufCBinaryData *files; /* each as protoc wrote it, beside set->file */
	struct symbol *symbols;     /* sorted by name */
	size_t symbol_count, symbol_capacity;
	const struct cad_rpc_service *const *services;
	size_t service_count;
	struct cad_rpc_service v1, v1alpha;
};

/* ---- index ---- */

/* Returns the full name. */
static const char *symbol_add(struct cad_rpc_reflection *reflection, size_t file, const char *scope, const char *name)
{
	if (reflection->symbol_count == reflection->symbol_capacity) {
		reflection->symbol_capacity = reflection->symbol_capacity ? reflection->symbol_capacity * 2 : 256;
		reflection->symbols = cad_rpc_must(
			realloc(reflection->symbols, reflection->symbol_capacity * sizeof *reflection->symbols));
	}
	struct symbol symbol = { .file = file };
	CAD_ASSERT(asprintf(&symbol.name, "%s%s%s", scope, *scope ? "." : "", name) >= 0);
	reflection->symbols[reflection->symbol_count++] = symbol;
	return symbol.name;
}

static void enum_add(struct cad_rpc_reflection *reflection, size_t file, const char *scope, const Enum *type)
{
	symbol_add(reflection, file, scope, type->name);
	/* as in C, values stand beside their enum */
	for (size_t i = 0; i < type->n_value; i++)
		symbol_add(reflection, file, scope, type->value[i]->name);
}

static void message_add(struct cad_rpc_reflection *reflection, size_t file, const char *scope, const Message *type)
{
	const char *self = symbol_add(reflection, file, scope, type->name);
	for (size_t i = 0; i < type->n_field; i++)
		symbol_add(reflection, file, self, type->field[i]->name);
	for (size_t i = 0; i < type->n_oneof_decl; i++)
		symbol_add(reflection, file, self, type->oneof_decl[i]->name);
	for (size_t i = 0; i < type->n_nested_type; i++)
		message_add(reflection, file, self, type->nested_type[i]);
	for (size_t i = 0; i < type->n_enum_type; i++)
		enum_add(reflection, file, self, type->enum_type[i]);
}

static void file_add(struct cad_rpc_reflection *reflection, size_t index)
{
	const File *file = reflection->set->file[index];
	const char *package = file->package ? file->package : "";

	for (size_t i = 0; i < file->n_message_type; i++)
		message_add(reflection, index, package, file->message_type[i]);
	for (size_t i = 0; i < file->n_enum_type; i++)
		enum_add(reflection, index, package, file->enum_type[i]);
	for (size_t i = 0; i < file->n_service; i++) {
		const char *self = symbol_add(reflection, index, package, file->service[i]->name);
		for (size_t j = 0; j < file->service[i]->n_method; j++)
			symbol_add(reflection, index, self, file->service[i]->method[j]->name);
	}
}

static int symbol_compare(const void *a, const void *b)
{
	return strcmp(((const struct symbol *)a)->name, ((const struct symbol *)b)->name);
}

static bool symbol_find(const struct cad_rpc_reflection *reflection, const char *name, size_t *file)
{
	struct symbol key = { .name = (char *)(uintptr_t)name };
	const struct symbol *found =
		bsearch(&key, reflection->symbols, reflection->symbol_count, sizeof key, symbol_compare);
	if (found)
		*file = found->file;
	return found;
}

static bool file_find(const struct cad_rpc_reflection *reflection, const char *name, size_t *file)
{
	for (size_t i = 0; i < reflection->set->n_file; i++)
		if (strcmp(reflection->set->file[i]->name, name) == 0) {
			*file = i;
			return true;
		}
	return false;
}

/* ---- answers ---- */

static void send_error(struct cad_rpc_call *call, Response *response, enum cad_rpc_code code, const char *text)
{
	Grpc__Reflection__V1__ErrorResponse error = GRPC__REFLECTION__V1__ERROR_RESPONSE__INIT;
	error.error_code = (int32_t)code;
	error.error_message = (char *)(uintptr_t)text;
	response->message_response_case = RESPONSE_IS(ERROR_RESPONSE);
	response->error_response = &error;
	(void)cad_rpc_call_send(call, &response->base);
}

/* The file and what it imports, each once. */
static void file_collect(const struct cad_rpc_reflection *reflection, size_t index, bool *seen,
	ProtobufCBinaryData *files, size_t *count)
{
	if (seen[index])
		return;
	seen[index] = true;
	files[(*count)++] = reflection->files[index];
	const File *file = reflection->set->file[index];
	for (size_t i = 0, imported; i < file->n_dependency; i++)
		if (file_find(reflection, file->dependency[i], &imported))
			file_collect(reflection, imported, seen, files, count);
}

static void send_file(
	struct cad_rpc_call *call, const struct cad_rpc_reflection *reflection, Response *response, size_t index)
{
	Grpc__Reflection__V1__FileDescriptorResponse answer = GRPC__REFLECTION__V1__FILE_DESCRIPTOR_RESPONSE__INIT;
	bool *seen = cad_rpc_must(calloc(reflection->set->n_file, sizeof *seen));

	answer.file_descriptor_proto =
		cad_rpc_must(calloc(reflection->set->n_file, sizeof *answer.file_descriptor_proto));
	file_collect(reflection, index, seen, answer.file_descriptor_proto, &answer.n_file_descriptor_proto);
	response->message_response_case = RESPONSE_IS(FILE_DESCRIPTOR_RESPONSE);
	response->file_descriptor_response = &answer;
	(void)cad_rpc_call_send(call, &response->base);
	free(answer.file_descriptor_proto);
	free(seen);
}

static void send_services(struct cad_rpc_call *call, const struct cad_rpc_reflection *reflection, Response *response)
{
	size_t count = reflection->service_count;
	Grpc__Reflection__V1__ServiceResponse *services = cad_rpc_must(calloc(count, sizeof *services)),
					      **pointers = cad_rpc_must(calloc(count, sizeof *pointers));

	for (size_t i = 0; i < count; i++) {
		grpc__reflection__v1__service_response__init(&services[i]);
		services[i].name = (char *)(uintptr_t)reflection->services[i]->descriptor->name;
		pointers[i] = &services[i];
	}

	Grpc__Reflection__V1__ListServiceResponse answer = GRPC__REFLECTION__V1__LIST_SERVICE_RESPONSE__INIT;
	answer.n_service = count;
	answer.service = pointers;
	response->message_response_case = RESPONSE_IS(LIST_SERVICES_RESPONSE);
	response->list_services_response = &answer;
	(void)cad_rpc_call_send(call, &response->base);
	free(pointers);
	free(services);
}

/* Cadre's files are proto3 and extend nothing: every known type has no extensions. */
static void send_extensions(
	struct cad_rpc_call *call, const struct cad_rpc_reflection *reflection, Response *response, const char *type)
{
	size_t file;
	if (!symbol_find(reflection, type, &file)) {
		send_error(call, response, CAD_RPC_NOT_FOUND, "no type has this name");
		return;
	}
	Grpc__Reflection__V1__ExtensionNumberResponse answer = GRPC__REFLECTION__V1__EXTENSION_NUMBER_RESPONSE__INIT;
	answer.base_type_name = (char *)(uintptr_t)type;
	response->message_response_case = RESPONSE_IS(ALL_EXTENSION_NUMBERS_RESPONSE);
	response->all_extension_numbers_response = &answer;
	(void)cad_rpc_call_send(call, &response->base);
}

static void message(struct cad_rpc_call *call, const ProtobufCMessage *received)
{
	const struct cad_rpc_reflection *reflection = cad_rpc_call_context(call);

	/* v1alpha has the same layout, and packing goes by the descriptor inside */
	Request *request = (Request *)(uintptr_t)received;
	Response response = GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__INIT;

	response.valid_host = request->host;
	response.original_request = request;
	size_t file;
	switch (request->message_request_case) {
	case REQUEST_IS(FILE_BY_FILENAME):
		if (file_find(reflection, request->file_by_filename, &file))
			send_file(call, reflection, &response, file);
		else
			send_error(call, &response, CAD_RPC_NOT_FOUND, "no file has this name");
		break;
	case REQUEST_IS(FILE_CONTAINING_SYMBOL):
		if (symbol_find(reflection, request->file_containing_symbol, &file))
			send_file(call, reflection, &response, file);
		else
			send_error(call, &response, CAD_RPC_NOT_FOUND, "no symbol has this name");
		break;
	case REQUEST_IS(FILE_CONTAINING_EXTENSION):
		send_error(call, &response, CAD_RPC_NOT_FOUND, "there are no extensions");
		break;
	case REQUEST_IS(ALL_EXTENSION_NUMBERS_OF_TYPE):
		send_extensions(call, reflection, &response, request->all_extension_numbers_of_type);
		break;
	case REQUEST_IS(LIST_SERVICES): send_services(call, reflection, &response); break;
	default:
		send_error(
			call, &response, CAD_RPC_INVALID_ARGUMENT, "the request asks for nothing that is known here");
		break;
	}
	if (cad_rpc_call_queued_bytes(call) < UNREAD_BYTES_MAX)
		cad_rpc_call_read(call);
}

static void writable(struct cad_rpc_call *call) { cad_rpc_call_read(call); }
static void half_close(struct cad_rpc_call *call) { cad_rpc_call_finish(call, CAD_RPC_OK, NULL); }

static const struct cad_rpc_method methods[] = {
	{
		.name = "ServerReflectionInfo",
		.kind = CAD_RPC_BIDI,
		.on = { .message = message, .half_close = half_close, .writable = writable },
		.right = CAD_RIGHT_READ,
	},
};

/* ---- creating ---- */

/* Cuts the set into its files: field 1 of the set, again and again. protoc wrote it, so anything
 * else is a broken build. */
static bool set_split(struct cad_rpc_reflection *reflection, const uint8_t *at, const uint8_t *end)
{
	for (size_t i = 0; i < reflection->set->n_file; i++) {
		if (at == end || *at++ != 0x0a)
			return false;
		uint64_t size = 0;
		for (unsigned shift = 0, more = 1; more; shift += 7) {
			if (at == end || shift > 28)
				return false;
			more = *at & 0x80;
			size |= (uint64_t)(*at++ & 0x7f) << shift;
		}
		if (size > (uint64_t)(end - at))
			return false;
		reflection->files[i] = (ProtobufCBinaryData){ size, (uint8_t *)(uintptr_t)at };
		at += size;
	}
	return at == end;
}

static enum cad_status method_check(const struct cad_rpc_service *service,
	const Google__Protobuf__MethodDescriptorProto *declared, struct cad_error *error)
{
	enum cad_rpc_kind kind = declared->client_streaming
		? (declared->server_streaming ? CAD_RPC_BIDI : CAD_RPC_CLIENT_STREAM)
		: (declared->server_streaming ? CAD_RPC_SERVER_STREAM : CAD_RPC_UNARY);
	for (size_t i = 0; i < service->method_count; i++)
		if (strcmp(service->methods[i].name, declared->name) == 0) {
			if (service->methods[i].kind == kind)
				return CAD_OK;
			return cad_error_set(error, CAD_ERR_INTERNAL,
				"the table of %s has another kind for %s than the .proto file",
				service->descriptor->name, declared->name);
		}
	return cad_error_set(
		error, CAD_ERR_INTERNAL, "the table of %s lacks %s", service->descriptor->name, declared->name);
}

/* protoc-c drops the word "stream", so the tables are compared with the truth. */
static enum cad_status tables_check(const struct cad_rpc_reflection *reflection, struct cad_error *error)
{
	for (size_t i = 0; i < reflection->service_count; i++) {
		const struct cad_rpc_service *service = reflection->services[i];
		size_t index, found = 0;
		if (!symbol_find(reflection, service->descriptor->name, &index))
			return cad_error_set(error, CAD_ERR_INTERNAL, "%s is not among the embedded descriptors",
				service->descriptor->name);
		const File *file = reflection->set->file[index];
		while (found + 1 < file->n_service &&
			strcmp(file->service[found]->name, service->descriptor->short_name) != 0)
			found++;
		const Service *declared = file->service[found];
		for (size_t j = 0; j < declared->n_method; j++) {
			enum cad_status status = method_check(service, declared->method[j], error);
			if (status != CAD_OK)
				return status;
		}
	}
	return CAD_OK;
}

enum cad_status cad_rpc_reflection_create(
	struct cad_rpc_server *server, struct cad_rpc_reflection **created, struct cad_error *error)
{
	struct cad_rpc_reflection *reflection = cad_rpc_must(calloc(1, sizeof *reflection));
	reflection->set = google__protobuf__file_descriptor_set__unpack(
		NULL, (size_t)(cadre_descriptors_end - cadre_descriptors), cadre_descriptors);
	size_t file_count = reflection->set ? reflection->set->n_file : 0;
	reflection->files = cad_rpc_must(calloc(file_count + 1, sizeof *reflection->files));

	if (!reflection->set || !set_split(reflection, cadre_descriptors, cadre_descriptors_end)) {
		cad_rpc_reflection_destroy(reflection);
		return cad_error_set(error, CAD_ERR_INTERNAL,
			"the embedded descriptors are broken: build again from a clean folder");
	}

	for (size_t i = 0; i < file_count; i++)
		file_add(reflection, i);
	qsort(reflection->symbols, reflection->symbol_count, sizeof *reflection->symbols, symbol_compare);
	size_t method_count = sizeof methods / sizeof methods[0];
	reflection->v1 = (struct cad_rpc_service){ &grpc__reflection__v1__server_reflection__descriptor, methods,
		method_count, reflection };
	reflection->v1alpha = (struct cad_rpc_service){ &grpc__reflection__v1alpha__server_reflection__descriptor,
		methods, method_count, reflection };
	reflection->service_count = cad_rpc_server_services(server, &reflection->services);
	enum cad_status status = tables_check(reflection, error);
	if (status != CAD_OK) {
		cad_rpc_reflection_destroy(reflection);
		return status;
	}

	cad_rpc_server_add(server, &reflection->v1);
	cad_rpc_server_add(server, &reflection->v1alpha);
	reflection->service_count = cad_rpc_server_services(server, &reflection->services);
	*created = reflection;

	return CAD_OK;
}

void cad_rpc_reflection_destroy(struct cad_rpc_reflection *reflection)
{
	if (!reflection)
		return;
	for (size_t i = 0; i < reflection->symbol_count; i++)
		free(reflection->symbols[i].name);
	free(reflection->symbols);
	free(reflection->files);
	if (reflection->set)
		google__protobuf__file_descriptor_set__free_unpacked(reflection->set, NULL);
	free(reflection);
}
