"""Client of Mote, the inference daemon for accelerator boards.

>>> import mote
>>> with mote.connect() as daemon:                                # doctest: +SKIP
...     for text in daemon.generate("smollm2-135m-moe", "Hello"):
...         print(text, end="")
"""

from ._clips import Clip, ClipAudio, ClipJob, FrameLabels, Label, LabelBox, Labelling, Steered
from ._client import Client, Embeddings, Event, Generation, Outputs, Stream, Watch, connect
from ._errors import (
    Busy,
    Cancelled,
    ComputeFailed,
    ContextOverflow,
    DeadlineExceeded,
    Internal,
    Invalid,
    LimitExceeded,
    ModelCorrupt,
    ModelNotFound,
    MoteError,
    NoBackend,
    OverBudget,
    ProtocolError,
    Revoked,
    ShuttingDown,
    StreamLost,
    Unsupported,
    VersionUnsupported,
    WorkerDied,
)
from ._frame import Frame
from ._memory import numpy_dtype

__all__ = [
    "Busy",
    "Cancelled",
    "Client",
    "Clip",
    "ClipAudio",
    "ClipJob",
    "ComputeFailed",
    "ContextOverflow",
    "DeadlineExceeded",
    "Embeddings",
    "Event",
    "Frame",
    "FrameLabels",
    "Generation",
    "Internal",
    "Invalid",
    "Label",
    "LabelBox",
    "Labelling",
    "LimitExceeded",
    "ModelCorrupt",
    "ModelNotFound",
    "MoteError",
    "NoBackend",
    "Outputs",
    "OverBudget",
    "ProtocolError",
    "Revoked",
    "ShuttingDown",
    "Steered",
    "Stream",
    "StreamLost",
    "Unsupported",
    "VersionUnsupported",
    "Watch",
    "WorkerDied",
    "connect",
    "numpy_dtype",
]
