"""torchvision's VGG16 as a fixed feature extractor, the second part of PyTorch's tutorial on transfer learning.

After https://docs.pytorch.org/tutorials/beginner/transfer_learning_tutorial.html, "ConvNet as fixed feature extractor": all layers
but the new last one are frozen; augmentation and training are those of `torchvision_vgg16`, where the changes are listed. As in
the tutorial, nothing is cached: every epoch runs the frozen network over newly augmented pictures.
"""

from benchmarks.contenders.entry import Entry, main
from benchmarks.contenders.torchvision_vgg16 import BATCH, EPOCHS, freeze, network, train


def race(entry: Entry) -> None:
    """Train the last layer."""
    model = network(entry)
    freeze(model.features)
    train(entry, model, BATCH, EPOCHS)


if __name__ == "__main__":
    main({"race": race})
