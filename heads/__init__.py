"""Stage 2 of vggft: cached features → dense heads and a logistic-regression baseline, in seconds.

What to train: `specs` (the default heads), `grid` (heads from a TOML file), `plan` (settings of a training).
Training: `features` (input), `population` and `batched` (dense heads), `logistic`, `folds`, `search` (all of it, and ranking).
Results: `head` (a trained head), `metrics`, `history`, `predictions`, `store` (on disk), `arrays` (reading .npz).
Data problems: `near_duplicates`, `leaks` (images in two splits or under two labels), `suspects` (doubtful labels).
"""
