"""vggft with memory for two batches: with more images than these, fine-tuning reads its inputs from the cache in every epoch."""

from benchmarks.contenders import vggft
from benchmarks.contenders.entry import Entry, main
from featurize.backbone.vgg16 import VGG16
from finetune.examples import cached_bytes

MEMORY = 2 * vggft.BATCH * cached_bytes(VGG16, "block4_pool", VGG16.size)


def epoch(entry: Entry) -> None:
    """Tune block5 and a head from the cache."""
    vggft.epoch(entry, MEMORY)


if __name__ == "__main__":
    main({"features": vggft.features, "epoch": epoch})
