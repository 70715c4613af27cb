"""The messages of the wire, built from the schema's compiled description.

No generated code: whatever version of the protobuf package is installed makes the classes.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


def _load():
    description = resources.files(__package__).joinpath("schema_v1.binpb").read_bytes()
    files = descriptor_pb2.FileDescriptorSet.FromString(description)
    # A pool of our own: another package may carry another version of the same schema.
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return pool


_POOL = _load()


# Releases before 4.22, as distributions ship them, make classes by a factory that has to be kept.
_make_class = getattr(message_factory, "GetMessageClass", None) or (
    message_factory.MessageFactory(_POOL).GetPrototype
)


@lru_cache(maxsize=None)
def message(name: str):
    """The class of the message ``mote.v1.<name>``."""
    return _make_class(_POOL.FindMessageTypeByName(f"mote.v1.{name}"))


def enum_word(name: str, number: int) -> str:
    """A value of the enum ``mote.v1.<name>`` as a word: ``TOKENS_MAX`` as ``tokens_max``."""
    enum = _POOL.FindEnumTypeByName(f"mote.v1.{name}")
    value = enum.values_by_number.get(number)
    if value is None:
        return str(number)
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return value.name.removeprefix(prefix).lower()


def enum_number(name: str, word: str) -> int:
    """The other way round: ``nv12`` of ``FrameFormat``."""
    enum = _POOL.FindEnumTypeByName(f"mote.v1.{name}")
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    value = enum.values_by_name.get(prefix + word.upper())
    if value is None:
        words = [enum_word(name, number) for number in enum.values_by_number if number]
        raise ValueError(f"{word!r} is none of {', '.join(words)}")
    return value.number


ClientFrame = message("ClientFrame")
ServerFrame = message("ServerFrame")

# Answers that cost credit.
CONTENT = frozenset({"token", "preview", "frame", "audio", "tensor", "embeddings", "labels", "event"})
# Names of the server's last answer to a request; StreamResult closes one push.
CLOSING = frozenset(
    field.name
    for field in ServerFrame.DESCRIPTOR.oneofs_by_name["body"].fields
    if field.name not in CONTENT | {"accepted", "progress", "steered"}
)
