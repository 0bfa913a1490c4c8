"""The names of formats and precisions, cheap to import."""

from typing import Literal

FormatName = Literal["keras", "onnx", "openvino", "litert", "saved_model", "skops"]

# Of the weights in the file.
StoredPrecision = Literal["float32", "float16", "int8"]
