"""Stage 1 of vggft: images → outputs of the frozen network, computed once and kept in HDF5."""

import os

# HDF5's own locks are refused by some network file systems, and this setting outranks what a program asks for. Nothing here
# needs them: shards never change, and there is one writer.
os.environ["HDF5_USE_FILE_LOCKING"] = "FALSE"
