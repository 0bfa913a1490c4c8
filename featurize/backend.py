"""Importing Keras and TensorFlow: only where they are needed, because it takes seconds, and without their start-up messages."""

import functools
import importlib
import json
import logging
import os
import sys
from pathlib import Path
from types import ModuleType

from featurize.disk import durable
from featurize.errors import VggftError
from featurize.process import descriptors, interrupts, places

_SETTINGS = {  # in keras.json, and their values
    "floatx": ("float16", "float32", "float64"),
    "image_data_format": ("channels_first", "channels_last"),
}


def load_keras() -> ModuleType:
    """Import Keras on the backend that KERAS_BACKEND names, with the settings that features and models rely on.

    The user's ~/.keras/keras.json selects only the backend: images are channels-last and numbers float32, for the whole process.

    Raises:
        VggftError: the backend is not installed, keras.json cannot be used, MPLBACKEND is not a backend of matplotlib, or as
            `require_no_fork`.
    """
    _load_matplotlib()
    if "keras" not in sys.modules:
        _require_settings(_settings())
    try:
        keras = load_quietly("keras")
    except (ImportError, ValueError) as error:
        name = os.environ.get("KERAS_BACKEND", "as configured")
        raise VggftError(
            f"Keras does not start with backend {name}: {error}. Install that backend, or set KERAS_BACKEND to an installed one: "
            "tensorflow, jax or torch."
        ) from None
    require_no_fork()
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    _use_full_float32(keras.backend.backend())
    return keras


def _settings() -> Path:
    """Return the path of keras.json, which Keras reads as it is imported: as in keras/src/backend/config.py of Keras 3."""
    home = places.home()
    if home is None or "KERAS_HOME" in os.environ:
        folder = places.expanded(Path(os.environ.get("KERAS_HOME", places.keras())))
    else:
        folder = (home if os.access(home, os.W_OK) else Path("/tmp")) / ".keras"
    return folder / "keras.json"


def _require_settings(path: Path) -> None:
    """Check keras.json, on which Keras may fail with an error that does not name the file, or wait for ever.

    Raises:
        VggftError: it is not a file, or Keras does not accept its values. What is not JSON, Keras ignores.
    """
    problem = ""
    try:
        settings = json.loads(durable.read_bytes(path)) if os.access(path, os.F_OK) else {}
    except ValueError:
        return
    except OSError as error:
        settings, problem = {}, str(error.strerror)
    if not isinstance(settings, dict):
        settings, problem = {}, "it is not a JSON object"
    for name, values in _SETTINGS.items():
        if name in settings and settings[name] not in values:
            problem = f"{name} is {settings[name]!r}, expected {' or '.join(values)}"
    if not isinstance(settings.get("epsilon", 1e-7), float):
        problem = f"epsilon is {settings['epsilon']!r}, expected a number such as 1e-7"
    if not isinstance(settings.get("backend", ""), str):
        problem = f"backend is {settings['backend']!r}, expected a name"
    if problem:
        raise VggftError(f"{path}: Keras cannot use its settings ({problem}). Correct the file, or delete it.")


def _load_matplotlib() -> None:
    """Import matplotlib, as Keras does, so that an error in its settings is not taken for one in Keras's."""
    try:
        load_quietly("matplotlib")
    except (ImportError, ValueError) as error:
        setting = f" (MPLBACKEND is {os.environ['MPLBACKEND']!r})" if "MPLBACKEND" in os.environ else ""
        raise VggftError(
            f"matplotlib does not start{setting}: {error}. Unset MPLBACKEND, or reinstall matplotlib."
        ) from None


def require_no_fork() -> None:
    """Check that this process may compute with Keras's backend.

    Raises:
        VggftError: it was forked from a process that used TensorFlow or JAX. A fork does not copy their threads, for which it
            would wait forever.
    """
    if _user() != os.getpid() and sys.modules["keras"].backend.backend() != "torch":
        raise VggftError(
            "TensorFlow and JAX do not run in a process that was forked from one that used them. Start processes with "
            'multiprocessing.get_context("spawn"), or predict with a head, which needs neither.'
        )


@functools.cache
def _user() -> int:
    """Return the process that first used Keras's backend: this one, or the one it was forked from."""
    return os.getpid()


@functools.cache
def _use_full_float32(backend: str) -> None:
    """Turn off TensorFloat-32, which GPUs use for float32 convolutions by default.

    With its mantissa of 10 bits, features would differ from float32 as much as in float16, but have the CPU's fingerprint.
    """
    if backend == "jax":
        import jax

        jax.config.update("jax_default_matmul_precision", "highest")  # type: ignore[no-untyped-call]
    elif backend == "torch":
        import torch

        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
    elif backend == "tensorflow":
        load_quietly("tensorflow").config.experimental.enable_tensor_float_32_execution(False)


def load_quietly(name: str) -> ModuleType:
    """Import Keras, TensorFlow or matplotlib; in the command line, their start-up messages are hidden."""
    if name not in sys.modules:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        if places.home() is None:  # Keras would create a folder called ~
            os.environ["KERAS_HOME"] = str(places.keras())
        with descriptors.hidden():
            importlib.import_module(name)
        interrupts.check()
        # TensorFlow warns about retracing for another batch size, which is expected: the last batch of an epoch is smaller.
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
    return sys.modules[name]


def gpus() -> list[str]:
    """Return the GPUs that Keras's backend can use. Imports Keras."""
    keras = load_keras()
    if keras.backend.backend() == "torch":  # Keras lists no devices for it
        import torch

        return [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    try:
        return list(keras.distribution.list_devices("gpu"))
    except RuntimeError:  # JAX raises it if there is none
        return []


def gpu_memory() -> int:
    """Return the bytes of the first GPU's memory that this process may use; 0 without one, or if TensorFlow does not say."""
    name = load_keras().backend.backend() if gpus() else ""
    if name == "jax":
        import jax

        return int((jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 0))
    if name == "torch":
        import torch

        return int(torch.cuda.mem_get_info()[0])
    return 0
