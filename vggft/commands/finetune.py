"""The best head → a tuned network, trained from the cached outputs of the split point."""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize import layers, runner
from featurize.cache import FeatureCache
from featurize.dataset import Dataset, Sample
from featurize.errors import VggftError
from featurize.weights import Weights
from finetune import network as networks
from finetune import store
from finetune.network import PARITY_IMAGES
from finetune.store import Run
from finetune.train import Examples, Plan, Sgd, train
from heads.head import Head
from heads.history import Epoch
from heads.search import Result
from vggft import methods
from vggft.console import Ui
from vggft.features import Filling, decoder, fill, load_weights
from vggft.methods import Method
from vggft.workspace import Workspace


@dataclass(frozen=True)
class Options:
    """What to tune and how."""

    unfreeze: str = "block5"
    epochs: int = 10
    batch_size: int = 16
    sgd: Sgd = field(default_factory=Sgd)
    seed: int = 0


def run(workspace: Workspace, options: Options, ui: Ui) -> dict[str, Any]:
    """Tune the layers from `options.unfreeze` up, together with the best head, and keep the network of the best epoch.

    Raises:
        VggftError: no fresh head, unknown layer, options out of range, images that are gone, the parity gate, or a loss
            that is no number.
    """
    split_point = layers.split_point(options.unfreeze)
    _check(options)
    _ = workspace.settings  # before the lock makes a folder: is there anything here?
    with workspace.writing():
        start = methods.fresh_heads(workspace)[0]
        assert isinstance(start.made, Result)
        head, dataset = start.made.head, workspace.dataset
        weights = load_weights(workspace.settings)
        cache = workspace.cache()
        _ensure_features(workspace, cache, split_point, ui)
        ui.say(f"start: {start.name}; tuning {', '.join(networks.tuned_layers(split_point))} from cached {split_point}")
        fingerprint = workspace.settings.fingerprint
        network = networks.assemble(weights, fingerprint.preprocess, fingerprint.size, head, options.seed)
        parity = _parity_gate(network, head, dataset, cache)
        ui.say(
            f"parity gate passed: largest difference of a probability {parity:.1e} (limit {networks.PARITY_BOUND:g})"
        )

        data = tuple(_examples(cache, split_point, dataset, split) for split in ("train", "validate"))
        plan = Plan(options.epochs, options.batch_size, options.seed, from_epoch_zero=True)
        began = time.perf_counter()
        with ui.progress(f"tuning {options.unfreeze}", options.epochs, "epochs") as advance:

            def on_epoch(epoch: Epoch) -> None:
                ui.say(_line(epoch, options.epochs))
                advance(epoch.epoch)

            trained = train(network, split_point, (data[0], data[1]), plan, options.sgd, on_epoch)
        seconds = time.perf_counter() - began
        assert trained.start is not None  # the plan asked for epoch 0
        kept = Run(
            name=store.free_name(workspace.finetune, f"{options.unfreeze}-{start.name}"),
            start=start.name,
            start_digest=head.digest,
            unfreeze=options.unfreeze,
            split_point=split_point,
            classes=dataset.classes,
            parameters=_parameters(network, split_point),
            epochs=options.epochs,
            best_epoch=trained.best.epoch,
            parity=parity,
            seconds=seconds,
            validation=trained.validation,
            start_validation=trained.start,
            moved=tuple(networks.moved_layers(network, weights, split_point)),
            provenance={
                **methods.provenance(workspace),
                **asdict(options),
                **methods.versions(),
                **_origin(workspace, weights),
            },
            history=tuple(trained.history),
        )
        path = store.save(workspace.finetune, kept, network)
    _tell(kept, start, str(path), ui)
    return {
        "name": kept.name,
        "start": kept.start,
        "unfreeze": kept.unfreeze,
        "split_point": kept.split_point,
        "epochs": kept.epochs,
        "best_epoch": kept.best_epoch,
        "parity": kept.parity,
        "seconds": kept.seconds,
        "network": str(path),
        "validation": kept.validation.as_json(),
        "start_validation": kept.start_validation.as_json(),
        "moved": list(kept.moved),
    }


def _check(options: Options) -> None:
    for name, value in (("--epochs", options.epochs), ("--batch-size", options.batch_size)):
        if value < 1:
            raise VggftError(f"{name} {value}: expected 1 or more.")
    if not 0 < options.sgd.learning_rate < math.inf:
        raise VggftError(f"--lr {options.sgd.learning_rate}: expected a rate above 0, such as 1e-4.")
    if not 0 <= options.sgd.momentum < 1:
        raise VggftError(f"--momentum {options.sgd.momentum}: expected a number from 0 up to, but not including, 1.")


def _ensure_features(workspace: Workspace, cache: FeatureCache, split_point: str, ui: Ui) -> None:
    samples = workspace.dataset.accepted()
    files = {s.digest: [workspace.dataset.root / s.path] for s in samples}
    settings = workspace.settings
    done = fill(cache, Filling(files, [split_point], settings.weights_file_path), ui)
    if done.rejected:
        digest, reason = next(iter(done.rejected.items()))
        raise VggftError(
            f"{split_point} is not cached for all images, and {len(done.rejected)} of them cannot be computed (the first: "
            f"{files[digest][0]}: {reason}). Put the images back, or run vggft featurize to go on without them."
        )


def _parity_gate(network: Any, head: Head, dataset: Dataset, cache: FeatureCache) -> float:
    """Check the network on images spread evenly over the training and validation splits, from their pixels."""
    samples = [s for s in dataset.accepted() if s.split in ("train", "validate")]
    spread = samples[:: max(1, len(samples) // PARITY_IMAGES)]
    first_choice = {s.digest: [dataset.root / s.path] for s in [*spread, *samples]}
    pictures: list[NDArray[np.uint8]] = []
    digests: list[str] = []
    for digest, picture in runner.decoded(first_choice, decoder(cache.fingerprint), PARITY_IMAGES):
        if not isinstance(picture, str):
            pictures.append(picture)
            digests.append(digest)
        if len(digests) == PARITY_IMAGES:
            break
    if not digests:
        raise VggftError(
            f"parity gate: none of the {len(samples)} images below {dataset.root} can be read as they were. It needs a few, to "
            "check the network from pixels. Put them back, or run vggft featurize with the folder where they are now."
        )
    return networks.check_parity(network, np.stack(pictures), head.predict(cache.read(layers.TOP, digests)))


def _examples(cache: FeatureCache, split_point: str, dataset: Dataset, split: str) -> Examples:
    samples: Sequence[Sample] = dataset.accepted(split)
    targets = np.asarray(dataset.targets(samples), np.int64)
    return Examples(cache.read(split_point, [s.digest for s in samples]), targets)


def _parameters(network: Any, split_point: str) -> int:
    names = [
        *networks.tuned_layers(split_point),
        *(layer.name for layer in network.layers if layer.name not in layers.NAMES),
    ]
    return sum(int(np.prod(w.shape)) for n in names for w in network.get_layer(n).trainable_weights)


def _origin(workspace: Workspace, weights: Weights) -> dict[str, Any]:
    return {"recipe": asdict(workspace.settings.fingerprint), "weights_source": str(weights.source)}


def _line(epoch: Epoch, epochs: int) -> str:
    judged = f"validation log-loss {epoch.val_log_loss:.4f}, accuracy {epoch.val_accuracy:.3f}"
    if epoch.loss is None:
        return f"epoch 0 (the head as it is): {judged}"
    return f"epoch {epoch.epoch}/{epochs}: training loss {epoch.loss:.4f}, {judged}, {epoch.seconds:.1f} s"


def _tell(run: Run, start: Method, path: str, ui: Ui) -> None:
    v, s = run.validation, run.start_validation
    ui.print(
        f"{run.name}: best epoch {run.best_epoch} of {run.epochs}; on {v.n} validation images accuracy {v.accuracy:.3f} (head "
        f"{s.accuracy:.3f}), log-loss {v.log_loss:.4f} (head {s.log_loss:.4f})"
    )
    if run.best_epoch == 0:
        ui.print(f"no epoch beat {start.name}: the network is the head on the published weights")
    ui.print(f"network: {path}")
