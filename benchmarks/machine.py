"""What a figure was measured on."""

import importlib.metadata
import os
import platform
import re
import resource
from pathlib import Path

from featurize.process import cores

CORETYPE = "OPENBLAS_CORETYPE"  # makes OpenBLAS use the kernels of another processor


def machine() -> str:
    """Return processor, number of cores that may be used, Python version, and the kernels that OpenBLAS is told to use."""
    cpuinfo = Path("/proc/cpuinfo")
    kernels = f", {CORETYPE}={os.environ[CORETYPE]}" if CORETYPE in os.environ else ""
    models = re.findall("model name\t: (.*)", cpuinfo.read_text(encoding="utf-8")) if cpuinfo.is_file() else []
    return f"{[*models, platform.machine()][0]}, {cores.usable()} cores, Python {platform.python_version()}{kernels}"


PACKAGES = "vggft tensorflow keras numpy scipy scikit-learn h5py pillow numba MNN torch torchvision timm fastai".split()


def versions() -> dict[str, str]:
    """Return the versions of the packages that take part, as far as they are installed here."""
    return {d.name: d.version for name in PACKAGES for d in importlib.metadata.distributions(name=name)}


def children_processor_seconds() -> float:
    """Return the processor time of all processes that have ended and were started from this one, directly or not."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
