"""One experiment on disk, and filling its feature cache."""
