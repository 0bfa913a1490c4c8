"""What of a video could not be decoded, in words."""

from dataclasses import dataclass

from featurize.wording import counted

# A video that ends earlier than its header says is truncated. Headers round, and some count the last frame of the sound.
_MISSING, _SHARE = 1_000, 50  # milliseconds, and a fiftieth of the duration


@dataclass
class Damage:
    """What could not be decoded."""

    packets: int = 0
    first: int = 0
    end_reason: str = ""

    def add(self, last: int) -> None:
        """Count a packet or frame after the frame of a time."""
        self.first = self.first if self.packets else max(0, last)
        self.packets += 1

    def end(self, why: str) -> None:
        """Note why the rest of the file cannot be read."""
        self.end_reason = why

    def text(self, end: int, duration: int | None) -> str:
        """Return it in words; empty if there was none."""
        parts = []
        if duration is not None and end + max(_MISSING, duration // _SHARE) < duration:
            parts.append(f"truncated: it ends after {end / 1000:.3f} of {duration / 1000:.3f} seconds")
        if self.end_reason:
            parts.append(f"reading stopped after {end / 1000:.3f} seconds ({self.end_reason})")
        if self.packets:
            parts.append(
                f"damaged: {counted(self.packets, 'frame')} left out, the first after {self.first / 1000:.3f} seconds"
            )
        return "; ".join(parts)
