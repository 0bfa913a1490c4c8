"""What sorting expects of a learner: suggestions for the pictures that are not sorted yet, from those that are."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

CANNOT_TELL = ""  # the label of a picture that a person looked at and could not sort


@dataclass(frozen=True)
class Suggestion:
    """The most probable class of a picture."""

    label: str
    probability: float


@dataclass(frozen=True)
class Snapshot:
    """What a learner knows at one moment. Files are relative to the folder, with forward slashes.

    Attributes:
        suggestions: for files that are not decided, as far as their features are computed; empty before the first training.
        learned_from: number of decisions that the suggestions come from.
        computed: number of files whose features are there.
        total: number of files.
        unreadable: file → reason.
        stopped: why no features are computed any more, as a sentence for the page; empty while all is well.
    """

    suggestions: Mapping[str, Suggestion] = field(default_factory=dict)
    learned_from: int = 0
    computed: int = 0
    total: int = 0
    unreadable: Mapping[str, str] = field(default_factory=dict)
    stopped: str = ""


class Learner(Protocol):
    """Learns in the background. No method waits for features or training."""

    def learn(self, decisions: Mapping[str, str]) -> None:
        """Take all decisions so far: file → class, or `CANNOT_TELL`."""

    def snapshot(self) -> Snapshot:
        """Return the latest state."""

    def close(self) -> None:
        """Stop computing; features computed so far are kept."""
