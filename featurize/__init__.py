"""Stage 1: images → outputs of the frozen VGG16, computed once and kept in HDF5."""
