"""A program that uses the service through the Python client's package."""

import json

import mote
import numpy as np

with mote.connect() as daemon:
    tokens = daemon.empty((1, 2048), np.int32)
    tokens[...] = 256
    scores = daemon.run("magika", bytes=tokens)
    label = int(scores["target_label"].argmax())
    print(json.dumps({"label": label, "backend": scores.receipt.backend}))
