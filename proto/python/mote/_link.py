"""Requests and answers over one socket."""

from __future__ import annotations

import itertools
import os
import threading
from collections import deque
from typing import Iterable

from . import _schema
from ._errors import MoteError, ProtocolError, from_status
from ._wire import Frames

# Content that may be under way when the request does not say.
CREDIT = 64
# What the daemon gives a request that cannot say.
CREDIT_MAX = 256


class Link:
    """A socket that several threads may use at once: whoever waits reads for all."""

    def __init__(self, sock):
        self._frames = Frames(sock)
        self._sending = threading.Lock()
        # Guards what follows, up to `_posted`. Re-entrant, because a finaliser may forget a request
        # while its thread holds it.
        self._arrived = threading.Condition(threading.RLock())
        self._reading = False
        self._failure: Exception | None = None
        self._inbox: dict[int, deque] = {}
        self._ids = itertools.count(1)
        # Requests whose answers nobody waits for.
        self._posted: deque = deque()

    def close(self) -> None:
        """Closes the socket; whoever still waits on it is told."""
        self._fail(ProtocolError("the connection is closed"))
        self._frames.close()
        for request_id in list(self._inbox):
            self.forget(request_id)

    def __del__(self):
        self.close()

    # ---- Sending ----

    def open(self, verb: str, body, fds: Iterable[int] = ()) -> int:
        """Sends a request that will be answered, and says its id."""
        with self._arrived:
            self._check()
            request_id = next(self._ids)
            self._inbox[request_id] = deque()
        try:
            with self._sending:
                self._send(request_id, verb, body, list(fds))
        except ValueError:
            # It does not fit a frame; nothing of it was sent.
            self.forget(request_id)
            raise
        except BaseException:
            # Part of it may be on its way, and nothing can follow that.
            self._fail(ProtocolError("a request could not be sent whole"))
            raise
        finally:
            self._flush()
        return request_id

    def post(self, verb: str, body) -> None:
        """Sends a request without waiting for its answer. Finalisers may call it at any moment."""
        self._posted.append((verb, body))
        self._flush()

    def _flush(self) -> None:
        # A finaliser may run while this very thread is sending: then the sender comes by here.
        while self._posted and self._sending.acquire(blocking=False):
            try:
                while self._posted:
                    verb, body = self._posted.popleft()
                    self._send(next(self._ids), verb, body, [])
            except (MoteError, OSError):
                # The connection is over, and what was asked for with it.
                self._posted.clear()
            finally:
                self._sending.release()

    def _send(self, request_id: int, verb: str, body, fds: list[int]) -> None:
        frame = _schema.ClientFrame(request_id=request_id)
        getattr(frame, verb).CopyFrom(body)
        getattr(frame, verb).SetInParent()
        self._frames.send(frame, fds)

    # ---- Receiving ----

    def answer(self, request_id: int):
        """The next answer to a request: kind, message, descriptors. A refusal is raised."""
        frame, fds = self._wait(request_id)
        kind = frame.WhichOneof("body")
        if kind is None:
            # Of a later version; it closes nothing.
            _close_all(fds)
            return "unknown", None, []
        if kind in _schema.CLOSING:
            self.forget(request_id)
        if kind == "failed":
            raise from_status(frame.failed.status)
        return kind, getattr(frame, kind), fds

    def call(self, verb: str, body, fds: Iterable[int] = ()):
        """A request with one answer that counts: its message and descriptors."""
        request_id = self.open(verb, body, fds)
        try:
            while True:
                kind, message, received = self.answer(request_id)
                if kind in _schema.CLOSING:
                    return message, received
                _close_all(received)
        finally:
            self.forget(request_id)

    def forget(self, request_id: int) -> None:
        """What still comes for a request is thrown away."""
        with self._arrived:
            for _, fds in self._inbox.pop(request_id, ()):
                _close_all(fds)

    def _wait(self, request_id: int):
        while True:
            with self._arrived:
                while True:
                    frames = self._inbox.get(request_id)
                    if frames:
                        return frames.popleft()
                    self._check()
                    if frames is None:
                        raise ProtocolError("the request is over")
                    if not self._reading:
                        self._reading = True
                        break
                    self._arrived.wait()
            self._read_one()

    def _read_one(self) -> None:
        failure = received = None
        try:
            received = self._frames.receive()
        except (MoteError, OSError, ValueError) as error:
            failure = error
        finally:
            # An interrupt passes through here too: the next who waits reads on. Not before this frame
            # is delivered: the next one may be another answer to the same request.
            with self._arrived:
                if received is not None:
                    self._deliver(*received)
                self._reading = False
                self._arrived.notify_all()
        if failure is not None:
            self._fail(failure)

    def _deliver(self, frame, fds) -> None:
        with self._arrived:
            frames = self._inbox.get(frame.request_id)
            if frames is not None:
                frames.append((frame, fds))
                self._arrived.notify_all()
                return
        _close_all(fds)
        # A failure without a request is the connection's own.
        if frame.request_id == 0 and frame.WhichOneof("body") == "failed":
            self._fail(from_status(frame.failed.status))

    def _fail(self, error: Exception) -> None:
        with self._arrived:
            self._failure = self._failure or error
            self._arrived.notify_all()

    def _check(self) -> None:
        if self._failure is None:
            return
        if isinstance(self._failure, MoteError):
            raise self._failure
        raise ProtocolError("the connection to the daemon failed") from self._failure


class Call:
    """An open request with more than one answer; closed before its last one, it is cancelled."""

    def __init__(self, link: Link, verb: str, body, fds: Iterable[int] = ()):
        self._link = link
        self._request_id: int | None = None
        credit = CREDIT_MAX
        if "options" in body.DESCRIPTOR.fields_by_name:
            credit = body.options.credit = body.options.credit or CREDIT
        # Each grant is a message of its own, so half the credit is granted at a time.
        self._grant_at = max(1, credit // 2)
        self._read = 0
        self._request_id = link.open(verb, body, fds)

    def next(self):
        """The next answer; None after the last one."""
        if self._request_id is None:
            return None
        try:
            kind, message, fds = self._link.answer(self._request_id)
        except MoteError:
            self._request_id = None
            raise
        if kind in _schema.CLOSING:
            self._request_id = None
        elif kind in _schema.CONTENT:
            self._grant()
        return kind, message, fds

    def _grant(self) -> None:
        self._read += 1
        if self._read < self._grant_at:
            return
        credit = _schema.message("Credit")(target_request_id=self._request_id, frames=self._read)
        self._read = 0
        self._link.post("credit", credit)

    @property
    def is_open(self) -> bool:
        """Whether its last answer has not been read yet."""
        return self._request_id is not None

    def tell(self, verb: str, name: str, **fields) -> None:
        """Says something to the request, from any thread and without waiting; one that is over hears nothing."""
        request_id = self._request_id
        if request_id is not None:
            self._link.post(verb, _schema.message(name)(target_request_id=request_id, **fields))

    def close(self) -> None:
        """Cancels what is left. Finalisers may call it."""
        request_id, self._request_id = self._request_id, None
        if request_id is not None:
            self._link.forget(request_id)
            self._link.post("cancel", _schema.message("Cancel")(target_request_id=request_id))

    def __del__(self):
        self.close()


def _close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)
