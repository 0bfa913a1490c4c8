"""A data folder → samples, splits and groups."""
