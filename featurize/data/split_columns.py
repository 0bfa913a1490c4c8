"""The columns of a table of labels that tell splits: by name (split: train, val), or by yes and no (is_val, is_test)."""

import re
from collections.abc import Mapping, Sequence

from featurize.data import split_names
from featurize.data.dataset import Split
from featurize.errors import VggftError

# Names of columns in lower case, without spaces and punctuation, as `plain` gives them.
NAMED = "split datasplit splitname subset partition set dataset datasettype phase usage traintest trainvaltest type mode".split()
YES_NO: Mapping[str, Split] = {
    **dict.fromkeys(("istrain", "istraining", "istrainingimage"), "train"),
    **dict.fromkeys(("isvalid", "isvalidation", "isval"), "validate"),
    "istest": "test",
}
_WITHOUT_YES: Sequence[Split] = (
    "train",
    "test",
    "validate",
)  # the split of a row without a yes: the first without a column
_YES = frozenset("true t 1 1.0 yes y".split())
_NO = frozenset({"", *"false f 0 0.0 no n".split()})


def plain(column: str) -> str:
    """Return the name of a column in the form in which names are compared."""
    return re.sub(r"[\W_]+", "", column.lower())


def splits(cells: Mapping[str, Sequence[str]], places: Sequence[str]) -> tuple[str, Sequence[Split]] | None:
    """Return which columns tell splits, and the split of each row; None if no column does.

    Args:
        cells: column → its cells, of the columns that may tell splits, in the order of the table.
        places: where each row is, for messages.

    Raises:
        VggftError: some cells of a column are splits and others not; or two columns tell different splits.
    """
    readings: dict[str, Sequence[Split]] = {}
    doubtful: dict[str, int] = {}  # column → a row that is no split
    answers: dict[str, Sequence[bool | None]] = {}
    for column, values in cells.items():
        if plain(column) in YES_NO:
            answers[column] = [_answer(value) for value in values]
            if None in answers[column]:
                doubtful[column] = answers.pop(column).index(None)
            continue
        named = [split_names.split_of(value) for value in values]
        if None not in named:
            readings[column] = [split for split in named if split]
        elif any(named) or plain(column) == "split":
            doubtful[column] = named.index(None)
    if answers:
        readings[", ".join(answers)] = _combined(answers, places)
    if not readings:
        for column, strange in doubtful.items():
            raise VggftError(
                f"{places[strange]}: {cells[column][strange]!r} in column {column!r}. Expected {_expected(column)} in every row. "
                "Without this column, vggft draws the split."
            )
        return None
    (first, chosen), *others = readings.items()
    for column, other in others:
        for place, one, another in zip(places, chosen, other, strict=True):
            if one != another:
                raise VggftError(
                    f"{place}: {one} in column {first!r}, but {another} in column {column!r}. Delete one of the columns."
                )
    return first, chosen


def _expected(column: str) -> str:
    return "yes or no (1 or 0)" if plain(column) in YES_NO else "train, validate or test"


def _answer(cell: str) -> bool | None:
    """Return what a cell answers; None if neither yes nor no."""
    return True if cell.lower() in _YES else False if cell.lower() in _NO else None


def _combined(answers: Mapping[str, Sequence[bool | None]], places: Sequence[str]) -> Sequence[Split]:
    """Return the split to which each row answers yes; without a yes, the split that no column is about."""
    asked = {column: YES_NO[plain(column)] for column in answers}
    unasked = [split for split in _WITHOUT_YES if split not in asked.values()]
    result: list[Split] = []
    for row, place in enumerate(places):
        yes = list(dict.fromkeys(split for column, split in asked.items() if answers[column][row]))
        if len(yes) > 1 or not (yes or unasked):
            raise VggftError(
                f"{place}: {' and '.join(yes) or 'no split'} in columns {', '.join(asked)}. Expected one split for each row."
            )
        result.append((yes or unasked)[0])
    return result
