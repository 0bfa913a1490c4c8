"""Videos become frames: reading them, choosing frames, and the lists of what was written."""
