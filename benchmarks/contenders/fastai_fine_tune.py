"""fastai's `vision_learner`, fine-tuned as in its tutorial.

After https://docs.fast.ai/tutorial.vision.html: `ImageDataLoaders` with `item_tfms=Resize(460)` and
`batch_tfms=aug_transforms(size=224)`, `vision_learner` with its own head, and `fine_tune` with its default learning rate: one
epoch of the head on the frozen body, then epochs of all layers. Changed for this comparison:

- The body is VGG16 with the given weights. fastai knows VGG16 with batch normalisation only: the normalisation of pixels and
  the groups of layers, with their learning rates, are those that it has for that.
- `race` makes the two calls that `fine_tune` consists of, with its numbers. fastai's book (chapter 5) says to "pick a number of
  epochs that will train in the amount of time that you are happy to wait for": as many as fit, by the seconds of the first epoch.
- Batches are not larger than there are training pictures: fastai leaves out the last, incomplete one.

`epoch` has a group of layers that begins with block5, and `freeze_to` it.
"""

import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.contenders.entry import TRAIN, VALIDATE, Entry, listed, main
from benchmarks.contenders.torch_weights import BLOCK5, vgg16

BATCH = 64  # fastai's default
SMALL_BATCH = 32
BLOCK4 = 17  # the first module of block4 in `features`: where fastai divides VGG16
RATE, SLOWER = 2e-3, 100  # `fine_tune`'s base_lr and lr_mult
UNFROZEN = 3  # times the seconds of an epoch of the head: gradients cost twice what outputs do
USED = 0.9  # of the time that is left, by plan: the seconds of an epoch are estimated


def race(entry: Entry) -> None:
    """Fine-tune: the head, then all layers for as many epochs as fit."""
    learn = learner(entry, BATCH, BLOCK4)
    clock = watched(entry)
    learn.freeze()
    learn.fit_one_cycle(1, slice(RATE), pct_start=0.99, cbs=clock)
    learn.unfreeze()
    if entry.seconds_left > 0:
        epochs = max(1, int(USED * entry.seconds_left / (UNFROZEN * clock.seconds)))
        learn.fit_one_cycle(epochs, slice(RATE / 2 / SLOWER, RATE / 2), pct_start=0.3, div=5.0, cbs=clock)


def epoch(entry: Entry) -> None:
    """Fine-tune block5 and the head."""
    learn = learner(entry, SMALL_BATCH, BLOCK5)
    learn.freeze_to(-2)
    learn.fit_one_cycle(entry.task.epochs, RATE, cbs=watched(entry))


def learner(entry: Entry, batch: int, second: int) -> Any:
    """Return a learner with VGG16 in two groups of layers, the second from a module of `features` on, and a head."""
    from fastai.vision.all import (
        ImageDataLoaders,
        L,
        Normalize,
        Resize,
        accuracy,
        aug_transforms,
        imagenet_stats,
        params,
        set_seed,
        vision_learner,
    )

    set_seed(entry.task.seed)
    pictures = ImageDataLoaders.from_folder(
        entry.task.data,
        train=TRAIN,
        valid=VALIDATE,
        item_tfms=Resize(460),
        batch_tfms=[*aug_transforms(size=224), Normalize.from_stats(*imagenet_stats)],
        bs=min(batch, len(listed(entry.task.data / TRAIN)[0])),
    )

    def body(pretrained: bool = True) -> Any:
        return vgg16(entry.task.weights)

    def groups(model: Any) -> Any:
        features = model[0][0]
        return L(features[:second], features[second:], model[1:]).map(params)

    return vision_learner(pictures, body, splitter=groups, metrics=accuracy, path=entry.task.work)


def watched(entry: Entry) -> Any:
    """Return a callback that reports and judges epochs, and stops training when the time is up."""
    from fastai.vision.all import Callback, CancelFitException

    class Clock(Callback):  # type: ignore[misc]
        epochs, seconds = 0, 0.0

        def before_epoch(self) -> None:
            self.began = time.perf_counter()

        def before_batch(self) -> None:
            if entry.seconds_left <= 0:
                raise CancelFitException

        def after_epoch(self) -> None:
            self.epochs += 1
            self.seconds = time.perf_counter() - self.began
            entry.epoch(self.seconds)
            if entry.task.do == "race":
                entry.judge(f"epoch {self.epochs}", partial(predict, self.learn))

    return Clock()


def predict(learn: Any, folder: Path) -> Any:
    """Return the probabilities of the pictures of a folder with class folders; training goes on afterwards."""
    import torch

    learn.model.eval()
    with torch.inference_mode():
        batches = learn.dls.test_dl(listed(folder)[0])
        return torch.cat([learn.model(images).double().softmax(1) for (images,) in batches]).numpy()


if __name__ == "__main__":
    main({"race": race, "epoch": epoch})
