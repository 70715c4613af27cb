"""One exception per status of the wire, with the status's fields as attributes."""

from __future__ import annotations


class MoteError(Exception):
    """The daemon refused a request, or ended it early."""


class ProtocolError(MoteError):
    """The other end does not speak the wire, or the connection broke."""


class ModelNotFound(MoteError):
    """`model`, `similar`"""


class NoBackend(MoteError):
    """`rejected`: each with `flavour`, `provider`, `variant` and `reason`"""


class Busy(MoteError):
    """`retry_after_ms`"""


class OverBudget(MoteError):
    """`what`, `need_bytes`, `have_bytes`"""


class DeadlineExceeded(MoteError):
    """`deadline_ms`"""


class WorkerDied(MoteError):
    """`signal`, `exit_code`"""


class Invalid(MoteError):
    """`field`, `why`"""


class Cancelled(MoteError):
    """The request was cancelled."""


class LimitExceeded(MoteError):
    """`what`, `have`, `limit`"""


class Unsupported(MoteError):
    """`what`"""


class ModelCorrupt(MoteError):
    """`file`, `why`"""


class ContextOverflow(MoteError):
    """`prompt_tokens`, `context_tokens`"""


class Revoked(MoteError):
    """`why`"""


class ComputeFailed(MoteError):
    """`operation`, `cause`"""


class Internal(MoteError):
    """`operation`, `cause`"""


class ShuttingDown(MoteError):
    """The daemon is going away."""


class VersionUnsupported(MoteError):
    """`version_min`, `version_max`"""


class StreamLost(MoteError):
    """`provider`, `code`, `cause`, `next`: opened anew, the stream runs on `next`, if there is any"""


_BY_KIND = {
    "model_not_found": ModelNotFound,
    "no_backend": NoBackend,
    "busy": Busy,
    "over_budget": OverBudget,
    "deadline_exceeded": DeadlineExceeded,
    "worker_died": WorkerDied,
    "invalid": Invalid,
    "cancelled": Cancelled,
    "limit_exceeded": LimitExceeded,
    "unsupported": Unsupported,
    "model_corrupt": ModelCorrupt,
    "context_overflow": ContextOverflow,
    "revoked": Revoked,
    "compute_failed": ComputeFailed,
    "internal": Internal,
    "shutting_down": ShuttingDown,
    "version_unsupported": VersionUnsupported,
    "stream_lost": StreamLost,
}


def refusal(kind: type[MoteError], message: str, **fields) -> MoteError:
    """What the daemon would answer with, for what is refused before it is asked."""
    error = kind(message)
    for name, value in fields.items():
        setattr(error, name, value)
    return error


def invalid(field: str, why: str) -> MoteError:
    """``Invalid`` for a field."""
    return refusal(Invalid, f"invalid {field}: {why}", field=field, why=why)


def limited(what: str, have: int, limit: int) -> None:
    """Raises ``LimitExceeded`` when there is more than there may be."""
    if have > limit:
        raise refusal(LimitExceeded, f"{what}: {have} is more than {limit}", what=what, have=have, limit=limit)


def from_status(status) -> MoteError:
    """The exception of a ``Status`` message; one of a later version becomes a plain MoteError."""
    kind = status.WhichOneof("kind")
    error = _BY_KIND.get(kind, MoteError)(status.message)
    if kind is not None:
        detail = getattr(status, kind)
        for field in detail.DESCRIPTOR.fields:
            setattr(error, field.name, getattr(detail, field.name))
    return error
