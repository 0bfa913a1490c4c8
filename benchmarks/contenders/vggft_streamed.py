"""vggft with memory for two batches: with more images than these, fine-tuning reads its inputs from the cache in every epoch."""

from benchmarks.contenders import vggft
from benchmarks.contenders.entry import Entry, main

MEMORY = 2 * vggft.BATCH * 14 * 14 * 512 * 2  # bytes of block4_pool, float16


def epoch(entry: Entry) -> None:
    """Tune block5 and a head from the cache."""
    vggft.epoch(entry, MEMORY)


if __name__ == "__main__":
    main({"features": vggft.features, "epoch": epoch})
