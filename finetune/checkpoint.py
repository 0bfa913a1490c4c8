"""Checkpoints: the state of a training in one file, atomically replaced after every epoch, so that it can be resumed."""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from featurize.disk import durable, forms
from featurize.errors import damaged
from featurize.options import records
from finetune.train import State
from heads import arrays
from heads.history import Epoch
from heads.metrics import Metrics

CHECKPOINT_VERSION = 1
_GROUPS = ("weights", "optimizer", "best")
_DIGEST = 32  # bytes of a sha256


def write(path: Path, state: State) -> None:
    """Write a state: 32 bytes of sha256, then a NumPy archive of the arrays and a JSON document with everything else.

    Raises:
        VggftError: the disk is full or not writable; the previous checkpoint is left unchanged.
    """
    about = {
        "version": CHECKPOINT_VERSION,
        "history": [asdict(epoch) for epoch in state.history],
        "start": state.start.as_json(),
        "validation": state.validation.as_json(),
        "diverged": state.diverged,
        "arrays": {group: len(getattr(state, group)) for group in _GROUPS},
    }
    stored: dict[str, Any] = {"about": np.frombuffer(json.dumps(about, allow_nan=False).encode(), np.uint8)}
    for group in _GROUPS:
        stored |= {f"{group}/{i}": array for i, array in enumerate(getattr(state, group))}
    buffer = io.BytesIO()
    np.savez(buffer, **stored)
    data = buffer.getvalue()
    durable.write_bytes(path, hashlib.sha256(data).digest() + data, then="continue with: vggft finetune --resume")


def read(path: Path) -> State:
    """Read a checkpoint. Nothing is unpickled.

    Raises:
        VggftError: the file is damaged or has another version.
    """
    try:
        data = durable.read_bytes(path)
        if hashlib.sha256(data[_DIGEST:]).digest() != data[:_DIGEST]:
            raise ValueError("sha256 differs")
        stored: Mapping[str, Any] = arrays.read(data[_DIGEST:])
        about = forms.parse_json(stored["about"].tobytes())
        if about["version"] != CHECKPOINT_VERSION:
            raise ValueError(f"version {about['version']}, expected {CHECKPOINT_VERSION}")
        groups = {group: [stored[f"{group}/{i}"] for i in range(n)] for group, n in about["arrays"].items()}
        return State(
            history=tuple(records.build(Epoch, epoch) for epoch in about["history"]),
            start=Metrics.of_json(about["start"]),
            validation=Metrics.of_json(about["validation"]),
            diverged=tuple(about["diverged"]) if about["diverged"] else None,
            **groups,
        )
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, error, f"Delete {path.parent.parent} and run again: vggft finetune") from None
