"""Stage 2 of vggft: cached features → dense heads and a logistic-regression baseline, in seconds."""
