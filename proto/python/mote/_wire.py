"""Frames over a Unix socket: varint length, message, descriptors with the first byte."""

from __future__ import annotations

import array
import os
import socket

from ._errors import ProtocolError
from ._schema import ServerFrame

FRAME_BYTES_MAX = 4 << 20
FDS_PER_FRAME_MAX = 8
_VARINT_BYTES_MAX = 5
_READ_BYTES = 64 << 10


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class Frames:
    """Sends frames and receives them, with their descriptors: those of a client, or of a daemon's script."""

    def __init__(self, sock: socket.socket, received=ServerFrame):
        self._socket = sock
        self._received_type = received
        self._pending = bytearray()
        # Descriptors that arrived, each batch with the position of the last byte it came with. The
        # kernel ends a read with the packet that carries descriptors, so that byte is in the frame
        # they belong to, whatever came before it in the same read.
        self._batches: list[tuple[int, list[int]]] = []
        self._consumed = 0
        self._received = 0

    def close(self) -> None:
        for _, fds in self._batches:
            for fd in fds:
                os.close(fd)
        self._batches.clear()
        try:
            # Wakes a thread that waits for an answer; closing alone would not.
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._socket.close()

    def send(self, frame, fds: list[int] = ()) -> None:
        """Sends one frame; the descriptors stay the caller's."""
        frame.fd_count = len(fds)
        body = frame.SerializeToString()
        if len(body) > FRAME_BYTES_MAX:
            raise ValueError(f"a message of {len(body)} bytes is over {FRAME_BYTES_MAX}")
        data = memoryview(_varint(len(body)) + body)
        try:
            if fds:
                rights = array.array("i", fds)
                control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
                sent = self._socket.sendmsg([data], control)
                data = data[sent:]
            if data:
                self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ProtocolError("the daemon closed the connection") from error

    def receive(self):
        """The next frame and its descriptors, which are the caller's from here on."""
        # Nothing is taken before all of it is there, so that an interrupted call can be repeated.
        while (place := self._place()) is None or len(self._pending) < place[1]:
            self._read()
        start, end = place
        frame = self._received_type.FromString(bytes(self._pending[start:end]))
        del self._pending[:end]
        self._consumed += end
        fds: list[int] = []
        while self._batches and self._batches[0][0] < self._consumed:
            fds += self._batches.pop(0)[1]
        if frame.fd_count != len(fds):
            for fd in fds:
                os.close(fd)
            raise ProtocolError(f"{len(fds)} descriptors came with a frame that names {frame.fd_count}")
        return frame, fds

    def _place(self) -> tuple[int, int] | None:
        """Where the next message begins and ends; None while its length is incomplete."""
        value = 0
        for index, byte in enumerate(self._pending[:_VARINT_BYTES_MAX]):
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                if value > FRAME_BYTES_MAX:
                    raise ProtocolError(f"a frame of {value} bytes is over {FRAME_BYTES_MAX}")
                return index + 1, index + 1 + value
        if len(self._pending) >= _VARINT_BYTES_MAX:
            raise ProtocolError("a frame's length does not end")
        return None

    def _read(self) -> None:
        # Python makes received descriptors close-on-exec.
        data, fds, flags, _ = socket.recv_fds(self._socket, _READ_BYTES, FDS_PER_FRAME_MAX)
        if fds:
            self._batches.append((self._received + max(len(data), 1) - 1, list(fds)))
        if flags & socket.MSG_CTRUNC:
            raise ProtocolError("descriptors were lost on their way")
        if not data:
            raise ProtocolError("the daemon closed the connection")
        self._pending += data
        self._received += len(data)
