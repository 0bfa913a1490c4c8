"""The names of the formats, cheap to import."""

from typing import Literal

FormatName = Literal["keras", "onnx", "openvino", "litert", "saved_model", "skops"]
