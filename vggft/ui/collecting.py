"""The output of a part of a command that runs in another process: warnings are kept, for the process that shows them."""

from vggft.ui.console import Ui


class Collecting(Ui):
    """Shows nothing."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.warnings: list[str] = []

    def within(self, part: str) -> "Collecting":
        """Return itself: there is no progress to name."""
        return self

    def keep(self, kept: str) -> None:
        """Change nothing: an interruption is of the command."""

    def warn(self, message: str) -> None:
        """Keep a warning."""
        self.warnings.append(message)
