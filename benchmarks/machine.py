"""What a figure was measured on."""

import os
import platform
import re
from pathlib import Path


def machine() -> str:
    """Return processor, number of cores and Python version."""
    cpuinfo = Path("/proc/cpuinfo")
    models = re.findall("model name\t: (.*)", cpuinfo.read_text(encoding="utf-8")) if cpuinfo.is_file() else []
    return f"{[*models, platform.machine()][0]}, {os.cpu_count()} cores, Python {platform.python_version()}"
