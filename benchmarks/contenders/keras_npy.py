"""Features from Keras's `predict` in a .npy file, and scikit-learn's logistic regression on them: a home-made cache.

After https://keras.io/api/applications/ (features with VGG16) and scikit-learn's guide, with a list of the files beside the
features, so that pictures or labels that changed are noticed: everything is then computed again.
"""

from pathlib import Path

import numpy as np

from benchmarks.contenders.entry import KERAS_WEIGHTS, TRAIN, VALIDATE, Entry, listed, main

FEATURES, FILES = "features-{}.npy", "files-{}.txt"


def features(entry: Entry) -> None:
    """Compute block5_pool of all pictures, unless the stored features are those of these files."""
    for split in (TRAIN, VALIDATE):
        stored(entry, split)


def stored(entry: Entry, split: str):  # type: ignore[no-untyped-def]
    """Return the features of a split, float32 (images, 7, 7, 512), and the numbers of the classes."""
    files, targets = listed(entry.task.data / split)
    path, names = (entry.task.work / name.format(split) for name in (FEATURES, FILES))
    text = "\n".join(map(str, files))
    if not (names.exists() and names.read_text() == text):
        np.save(path, computed(entry, entry.task.data / split))
        names.write_text(text)
    return np.load(path), targets


def computed(entry: Entry, folder: Path):  # type: ignore[no-untyped-def]
    """Run the frozen network over the pictures of a folder with class folders."""
    import keras

    base = keras.applications.VGG16(
        include_top=False, weights=str(entry.task.weights / KERAS_WEIGHTS), input_shape=(224, 224, 3)
    )
    pictures = keras.utils.image_dataset_from_directory(
        folder, label_mode=None, image_size=(224, 224), batch_size=32, shuffle=False, verbose=False
    )
    return base.predict(pictures.map(keras.applications.vgg16.preprocess_input), verbose=0)


if __name__ == "__main__":
    main({"features": features})
