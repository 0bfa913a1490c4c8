"""Stage 2: cached features → dense heads and a logistic-regression baseline, in seconds."""
