"""Importing Keras: seconds long, so inside what needs it, and without TensorFlow's opening page about CUDA."""

import os
import sys
import tempfile
from types import ModuleType


def load_keras() -> ModuleType:
    """Import Keras on the backend that KERAS_BACKEND names.

    What the backend's C++ libraries write on standard error while they load (no setting silences all of it) is shown
    only if the import fails.
    """
    if "keras" not in sys.modules:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        sys.stderr.flush()
        terminal = os.dup(2)
        with tempfile.TemporaryFile() as unseen:
            os.dup2(unseen.fileno(), 2)
            try:
                import keras  # noqa: F401
            except BaseException:
                unseen.seek(0)
                os.write(terminal, unseen.read())
                raise
            finally:
                os.dup2(terminal, 2)
                os.close(terminal)
    return sys.modules["keras"]
