"""The feature cache: shards, their index, verification and pruning."""
