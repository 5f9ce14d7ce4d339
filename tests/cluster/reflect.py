# SPDX-License-Identifier: Apache-2.0
"""A gRPC client that knows a server through reflection alone: no .proto file, no generated code.

The reflection service itself is the only thing spelled out here, since something has to ask the first question.
"""
import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

import certificates

FIELD = descriptor_pb2.FieldDescriptorProto


def _reflection_pool(package):
    """The few messages of grpc.reflection that a client needs."""
    file = descriptor_pb2.FileDescriptorProto(name=f'{package}.proto', package=package, syntax='proto3')

    def message(name, fields, oneof=None):
        m = file.message_type.add(name=name)
        if oneof:
            m.oneof_decl.add(name=oneof)
        for number, field, kind, type_name, repeated, in_oneof in fields:
            f = m.field.add(name=field, number=number, type=kind, label=FIELD.LABEL_REPEATED if repeated else FIELD.LABEL_OPTIONAL)
            if type_name:
                f.type_name = f'.{package}.{type_name}'
            if in_oneof:
                f.oneof_index = 0

    message('ServerReflectionRequest', [(3, 'file_by_filename', FIELD.TYPE_STRING, None, False, True), (4, 'file_containing_symbol', FIELD.TYPE_STRING, None, False, True),
                                        (7, 'list_services', FIELD.TYPE_STRING, None, False, True)], 'message_request')
    message('FileDescriptorResponse', [(1, 'file_descriptor_proto', FIELD.TYPE_BYTES, None, True, False)])
    message('ServiceResponse', [(1, 'name', FIELD.TYPE_STRING, None, False, False)])
    message('ListServiceResponse', [(1, 'service', FIELD.TYPE_MESSAGE, 'ServiceResponse', True, False)])
    message('ErrorResponse', [(1, 'error_code', FIELD.TYPE_INT32, None, False, False), (2, 'error_message', FIELD.TYPE_STRING, None, False, False)])
    message('ServerReflectionResponse', [(4, 'file_descriptor_response', FIELD.TYPE_MESSAGE, 'FileDescriptorResponse', False, True),
                                         (6, 'list_services_response', FIELD.TYPE_MESSAGE, 'ListServiceResponse', False, True),
                                         (7, 'error_response', FIELD.TYPE_MESSAGE, 'ErrorResponse', False, True)], 'message_response')
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool


def _class(pool, name):
    descriptor = pool.FindMessageTypeByName(name)
    if hasattr(message_factory, 'GetMessageClass'):
        return message_factory.GetMessageClass(descriptor)
    return message_factory.MessageFactory(pool).GetPrototype(descriptor)   # before protobuf 4.22


class Server:
    """One server; its services and messages by name."""

    def __init__(self, target, tls=None, version='v1'):
        """tls: a folder of certificates.cluster; the client's is shown."""
        options = [('grpc.use_local_subchannel_pool', 1)]
        if tls:
            self.channel = grpc.secure_channel(target, certificates.credentials(tls, 'client'), options=options)
        else:
            self.channel = grpc.insecure_channel(target, options=options)
        package = f'grpc.reflection.{version}'
        pool = _reflection_pool(package)
        self._request, self._response = _class(pool, f'{package}.ServerReflectionRequest'), _class(pool, f'{package}.ServerReflectionResponse')
        self._info = self.channel.stream_stream(f'/{package}.ServerReflection/ServerReflectionInfo', self._request.SerializeToString, self._response.FromString)
        self.services = [s.name for s in self._ask(list_services='').list_services_response.service]
        self.pool = descriptor_pool.DescriptorPool()
        added = set()
        for service in self.services:
            for blob in self._ask(file_containing_symbol=service).file_descriptor_response.file_descriptor_proto:
                self._add(descriptor_pb2.FileDescriptorProto.FromString(blob), added)

    def _ask(self, **question):
        answer = next(iter(self._info(iter([self._request(**question)]), timeout=10)))
        assert answer.WhichOneof('message_response') != 'error_response', answer
        return answer

    def _add(self, file, added):
        if file.name in added:
            return
        added.add(file.name)
        for dependency in file.dependency:
            if dependency not in added:
                for blob in self._ask(file_by_filename=dependency).file_descriptor_response.file_descriptor_proto:
                    self._add(descriptor_pb2.FileDescriptorProto.FromString(blob), added)
        self.pool.AddSerializedFile(file.SerializeToString())

    def message(self, name, **fields):
        return _class(self.pool, name)(**fields)

    def method(self, service, name):
        """A callable: unary or server-streaming, as the descriptor says."""
        m = self.pool.FindServiceByName(service).methods_by_name[name]
        request, response = _class(self.pool, m.input_type.full_name), _class(self.pool, m.output_type.full_name)
        proto = descriptor_pb2.MethodDescriptorProto()
        m.CopyToProto(proto)
        make = self.channel.unary_stream if proto.server_streaming else self.channel.unary_unary
        return make(f'/{service}/{name}', request.SerializeToString, response.FromString)

    def close(self):
        self.channel.close()
