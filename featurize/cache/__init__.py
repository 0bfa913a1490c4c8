"""Features on disk: shards, the index over them, and what keeps both in order."""
