"""Which pictures are shown next: the surest of one class in a grid, or the most doubtful one by one.

The constants are measured with `benchmarks/sorting_keys.py`; the table is in docs/sorting.md.
"""

from collections import Counter
from collections.abc import Mapping

from vggft.labelling.suggestions import Suggestion

SURE = 0.9  # least probability of a picture in a grid
GRID = 24  # pictures in a grid, at most
FEWEST = 4  # pictures of a class that are worth a grid: it costs a key to open and one to confirm


def classes(suggestions: Mapping[str, Suggestion]) -> list[str]:
    """Return the classes that have a grid: those with `FEWEST` sure suggestions, the one with most of them first."""
    sure = Counter(suggestion.label for suggestion in suggestions.values() if suggestion.probability >= SURE)
    return [label for label, count in sure.most_common() if count >= FEWEST]


def surest(suggestions: Mapping[str, Suggestion], label: str) -> list[str]:
    """Return the files of the next grid of a class, the surest first; `GRID` at most, and none below `SURE`."""
    sure = [
        file for file, suggestion in suggestions.items() if suggestion.label == label and suggestion.probability >= SURE
    ]
    return sorted(sure, key=lambda file: -suggestions[file].probability)[:GRID]


def doubtful(suggestions: Mapping[str, Suggestion]) -> list[str]:
    """Return all files with a suggestion, the most doubtful first."""
    return sorted(suggestions, key=lambda file: suggestions[file].probability)
