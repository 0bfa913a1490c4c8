"""Shares of each class that are held back from training."""

from dataclasses import dataclass
from typing import Annotated

from featurize.errors import VggftError
from featurize.options import Checked, Option

VALIDATION = Option(
    "Share of each class held back for validation.", name="validation", metavar="SHARE", above=0, below=1
)
TEST = Option("Share of each class held back for the final test.", metavar="SHARE", least=0, below=1)
SEED = Option("Seed of the split.", least=0)


@dataclass(frozen=True)
class Shares(Checked):
    """Shares of each class, and the seed of the hash that determines the order of groups."""

    validate: Annotated[float, VALIDATION] = 0.2
    test: Annotated[float, TEST] = 0.0
    seed: Annotated[int, SEED] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.validate + self.test >= 1:
            raise VggftError(
                f"--validation {self.validate} and --test {self.test}: no training images left. Expected a sum below 1."
            )
