"""Messages of Envoy's that its Python package does not have yet, from Envoy's own definitions.

Importing this module makes them known; without it a document that holds one cannot be packed.
"""

from __future__ import annotations

from envoy.config.core.v3 import extension_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "envoy.extensions.filters.http.filter_chain.v3"
_FIELD = descriptor_pb2.FieldDescriptorProto


def _message(name: str, field: str, of: str, *, many: bool) -> descriptor_pb2.DescriptorProto:
    label = _FIELD.LABEL_REPEATED if many else _FIELD.LABEL_OPTIONAL
    only = _FIELD(name=field, number=1, label=label, type=_FIELD.TYPE_MESSAGE, type_name=of)
    return descriptor_pb2.DescriptorProto(name=name, field=[only])


_FILE = descriptor_pb2.FileDescriptorProto(
    name="envoy/extensions/filters/http/filter_chain/v3/filter_chain.proto",
    package=_PACKAGE,
    syntax="proto3",
    dependency=[extension_pb2.DESCRIPTOR.name],
    message_type=[
        _message("FilterChain", "filters", ".envoy.config.core.v3.TypedExtensionConfig", many=True),
        _message("FilterChainConfig", "default_filter_chain", f".{_PACKAGE}.FilterChain", many=False),
    ],
)
_POOL = descriptor_pool.Default()
_POOL.AddSerializedFile(_FILE.SerializeToString())

FilterChainConfig = message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.FilterChainConfig"))
"""The filter that puts a chain of others in its place."""
