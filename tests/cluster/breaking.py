# SPDX-License-Identifier: Apache-2.0
"""A router whose streams break off: hands Generate calls on to a real one, and ends each after so many messages."""
import concurrent.futures

import grpc

GENERATE = '/cadre.v1.Inference/Generate'


class Breaking:
    """Use as a context manager. `messages`: of each stream, which ends with `code` then; None: all. `change` alters the messages that are handed on, requests and responses alike."""

    def __init__(self, router, messages, change=lambda message: None, code=grpc.StatusCode.UNAVAILABLE):
        self.router, self.messages, self.change, self.code = router, messages, change, code
        self.asked = []   # the requests, as they came
        self.broke = 0
        request = type(router.request(tokens=[1]))
        handler = grpc.unary_stream_rpc_method_handler(self._generate, request.FromString, lambda message: message.SerializeToString())
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
        self.server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler('cadre.v1.Inference', {'Generate': handler})])
        self.grpc = f'127.0.0.1:{self.server.add_insecure_port("127.0.0.1:0")}'

    def _generate(self, request, context):
        self.asked.append(type(request).FromString(request.SerializeToString()))
        self.change(request)
        call = self.router.server.method('cadre.v1.Inference', 'Generate')(request, timeout=60)
        try:
            for count, message in enumerate(call, 1):
                self.change(message)
                yield message
                if count == self.messages:
                    self.broke += 1
                    call.cancel()
                    context.abort(self.code, 'this router has gone')
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())

    def __enter__(self):
        self.server.start()
        return self

    def __exit__(self, *_):
        self.server.stop(None)
