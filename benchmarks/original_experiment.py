"""The original experiment beside vggft's defaults on the same images, and what each slip of the script costs.

    python -m benchmarks.original_experiment WORK [FOLDER] [--trainings original,vggft] [--seeds 1] [--rounds 3]
        [--image-folder docs/images]

FOLDER holds class folders; without it, the bundled drawings are used. 30% of the images are kept out of everything (the test
split) and measure every training after each epoch:

- original: `vggft finetune --recipe original`;
- preprocessed: the same on pixels preprocessed as the weights expect;
- trained head: the same, starting from the best logistic regression instead of a random head;
- vggft: the defaults of `vggft finetune`.

Half of the training images in each of 20 epochs are as many steps as 10 epochs of all: epoch 10 of "original" shows what that
costs. With --rounds, plain Keras's `fit` trains an epoch of the script's network from pixels and from the outputs of its frozen
layers in turn. WORK keeps features, heads and what was measured: a second call only adds what is missing.
"""

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import finetune.network
import finetune.train
from benchmarks.machine import machine
from featurize import runner
from featurize.backbone.vgg16 import VGG16
from featurize.disk import forms
from finetune import examples, removal, store
from finetune.examples import Examples, Rows
from finetune.plan import LOGISTIC, Plan
from finetune.recipes import RECIPES
from finetune.train import Callbacks, State
from heads.head import Head
from heads.metrics import measure, wilson_interval
from heads.specs import BASELINES
from vggft import Experiment
from vggft.prediction import inference, models
from vggft.steps import new_run, starts
from vggft.steps.demo import PICTURES
from vggft.steps.job import Job
from vggft.steps.options import MEMORY, FinetuneOptions
from vggft.steps.training_inputs import Inputs, files_of
from vggft.steps.tuning import prepare
from vggft.ui.console import Ui
from vggft.workspace.backbone import decoder
from vggft.workspace.workspace import Workspace

RECIPE = RECIPES["original"]
TRAININGS = ("original", "vggft", "preprocessed", "trained head")
BATCH, SAID = 64, 0.95  # images that the script's accuracy was measured on, and that accuracy
WHOLE = 440  # a fifth of the script's images
UI = Ui(quiet=True)


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("folder", type=Path, nargs="?", default=PICTURES)
    parser.add_argument("--trainings", default=",".join(TRAININGS), help="comma-separated; default: all")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=0, help="of plain Keras from pixels and from cached outputs")
    parser.add_argument("--image-folder", type=Path, help="where original-experiment-<name of WORK>.png is written")
    options = parser.parse_args()
    names, path = options.trainings.split(","), options.work / "measured.json"
    measured: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    workspaces = {preprocess: featurized(options.work, options.folder, preprocess) for preprocess in ("raw", "caffe")}

    def keep(name: str, value: Any) -> None:
        measured[name] = value
        forms.write_json(path, measured)

    if "baseline" not in measured:
        keep("baseline", baseline(workspaces["caffe"]))
    for seed in range(options.seeds):
        for name in names:
            if f"{name} {seed}" not in measured:
                keep(f"{name} {seed}", curve(workspaces["raw" if name == "original" else "caffe"], name, seed))
    if options.rounds and "rounds" not in measured:
        keep("rounds", rounds(workspaces["raw"], options.rounds))
    print(machine())
    print(summary(measured, names, options.seeds))
    if options.image_folder:
        target = options.image_folder / f"original-experiment-{options.work.name}.png"
        target.write_bytes(picture(measured, names, options.seeds))


def featurized(work: Path, folder: Path, preprocess: str) -> Workspace:
    """Return the workspace with features of these pixels; the split is the same in both."""
    root = work / preprocess
    if not (root / "workspace.json").exists():
        Experiment(root).featurize(folder, test=0.3, preprocess=preprocess)
    return Workspace(root, VGG16)


def baseline(workspace: Workspace) -> dict[str, float]:
    """Train logistic regression; return log-loss and accuracy of the best on the test split, and the seconds of all three."""
    began = time.perf_counter()
    Experiment(workspace.root).fit_heads(head=[spec.name for spec in BASELINES], retrain=True)
    seconds = time.perf_counter() - began
    best = models.fresh_heads(workspace)[0]
    samples = workspace.dataset.accepted("test")
    p = inference.from_cache([best], workspace, workspace.cache(), samples)[best.name]
    return {**scores(p, np.asarray(workspace.dataset.targets(samples))), "seconds": seconds}


def scores(p: Any, targets: Any) -> dict[str, Any]:
    """Return log-loss, and accuracy with its interval."""
    metrics = measure(p, targets)
    interval = metrics.accuracy_interval
    return {"n": metrics.n, "log_loss": metrics.log_loss, "accuracy": metrics.accuracy, "interval": interval}


def curve(workspace: Workspace, name: str, seed: int) -> dict[str, Any]:
    """Train as `vggft finetune` does, and predict the test split after each epoch."""
    from finetune.program import Program

    plan = Plan(seed=seed) if name == "vggft" else replace(RECIPE.plan, seed=seed)
    unfreeze = VGG16.unfreeze if name == "vggft" else RECIPE.unfreeze(VGG16)
    options = FinetuneOptions(unfreeze=unfreeze, start=LOGISTIC, plan=plan)
    recipe = "original" if name in ("original", "preprocessed") else None
    head: Head | None = None
    with workspace.writing():
        if recipe:
            head = starts.scratch(workspace, workspace.cache(), seed, RECIPE.head)
        training = new_run.numbered(workspace, new_run.decide(workspace, options, UI, head))
        t = training
        settings = store.Settings(t.name, t.unfreeze, t.split_point, t.plan, MEMORY, t.start, {}, None)
        begun = store.begin(workspace.finetune, settings, t.head)
        try:
            job = Job.of(workspace, workspace.cache(), begun)
            prepared = prepare(job, UI, Inputs())
            part = finetune.network.above(prepared.network, VGG16, t.split_point)
            program = Program(part, t.plan, prepared.training.targets, job.weights)
            test = split(job, "test")
            epochs: list[dict[str, Any]] = []

            def on_epoch(state: State) -> None:
                row, found = state.history[-1], scores(predicted(program, test), test.targets)
                temperature = row.temperature or 1
                training_loss, seconds = row.loss, row.seconds
                epochs.append(
                    {**found, "training": training_loss, "accuracy_in_training": row.accuracy}
                    | {"validation": row.val_log_loss, "seconds": seconds, "temperature": temperature}
                )
                print(f"{name} {seed}: epoch {row.epoch}, log-loss {found['log_loss']:.4f}", flush=True)

            data = (prepared.training, prepared.validation)
            state = finetune.train.train(program, data, t.plan, callbacks=Callbacks(epoch=on_epoch))
            kept = scores(predicted(program, test), test.targets)
            return {"epochs": epochs, "kept": kept, "kept_epoch": state.kept_epoch(t.plan)}
        finally:
            removal.remove(begun.folder)


def split(job: Job, name: str) -> Examples:
    """Return the inputs of a split, in memory."""
    samples = job.dataset.accepted(name)
    assert job.settings.split_point is not None
    source = examples.from_cache(job.cache, job.settings.split_point, [sample.digest for sample in samples])
    return Examples(Rows(source), np.asarray(job.dataset.targets(samples)))


def predicted(program: Any, images: Examples) -> Any:
    """Return class probabilities."""
    batches = images.rows.batches(np.arange(len(images.targets)), BATCH)
    return np.concatenate([program.predict(inputs) for inputs in batches])


def rounds(workspace: Workspace, number: int) -> dict[str, list[float]]:
    """Let plain Keras train and validate one epoch in turn: from pixels, all layers computed, and from the frozen outputs."""
    import keras

    dataset, fingerprint = workspace.dataset, workspace.settings.fingerprint
    outputs = 1 if len(dataset.classes) == 2 else len(dataset.classes)
    base = keras.applications.VGG16(
        include_top=False, weights=None, input_shape=(fingerprint.size, fingerprint.size, 3)
    )
    for layer in base.layers[:16]:
        layer.trainable = False
    dense = (
        keras.layers.Flatten(),
        keras.layers.Dense(256, activation="relu"),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(outputs, activation="sigmoid" if outputs == 1 else "softmax"),
    )
    x = base.output
    for layer in dense:
        x = layer(x)
    whole = keras.Model(base.input, x)
    between = base.get_layer("block5_conv1").output
    frozen = keras.Model(base.input, between)
    entry = x = keras.Input(between.shape[1:])
    for layer in (*base.layers[16:], *dense):
        x = layer(x)
    upper = keras.Model(entry, x)
    loss = "binary_crossentropy" if outputs == 1 else "sparse_categorical_crossentropy"
    pixels, targets, features = {}, {}, {}
    files = files_of(dataset)
    for part in ("train", "validate"):
        samples = dataset.accepted(part)
        decoded = dict(runner.decoded({s.digest: files[s.digest] for s in samples}, decoder(fingerprint), 16))
        pixels[part] = np.stack([decoded[s.digest] for s in samples]).astype(np.float32)
        targets[part] = np.asarray(dataset.targets(samples))
        features[part] = frozen.predict(pixels[part], batch_size=BATCH, verbose=0)
    seconds: dict[str, list[float]] = {"from pixels": [], "from frozen outputs": []}
    ways = dict(zip(seconds, ((whole, pixels), (upper, features)), strict=True))
    for round_number in range(number + 1):
        for way, (model, inputs) in ways.items():
            if not round_number:  # compiles; not timed
                model.compile(keras.optimizers.SGD(1e-4, momentum=0.9), loss, jit_compile=False)
            began = time.perf_counter()
            validation = (inputs["validate"], targets["validate"])
            model.fit(
                inputs["train"], targets["train"], batch_size=BATCH, validation_data=validation, verbose=0, epochs=1
            )
            if round_number:
                seconds[way].append(time.perf_counter() - began)
    return seconds


def summary(measured: dict[str, Any], names: list[str], seeds: int) -> str:
    """Format what was measured."""
    base = measured["baseline"]
    n = base["n"]
    lines = [f"{n} test images; means over seeds, and 95% intervals of accuracy of seed 0"]
    lines.append(_line("logistic regression", [base], f"{base['seconds']:.1f} s for all three"))
    for name in names:
        runs = [measured[f"{name} {seed}"] for seed in range(seeds)]
        seconds = statistics.mean(sum(epoch["seconds"] for epoch in run["epochs"]) for run in runs)
        kept = ", ".join(str(run["kept_epoch"]) for run in runs)
        lines.append(_line(name, [run["kept"] for run in runs], f"epoch {kept}; {seconds:.0f} s"))
        if name == "original":
            lines.append(
                _line("original, epoch 10", [run["epochs"][10] for run in runs], "half of the images in 20 epochs")
            )
            lowest = [min(run["epochs"], key=lambda epoch: epoch["validation"]) for run in runs]
            lines.append(_line("original, best epoch", lowest, "lowest validation log-loss"))
    for images in (BATCH, WHOLE):
        low, high = wilson_interval(round(SAID * images), images)
        lines.append(f"an accuracy of {SAID:.0%} on {images} images: 95% interval {low:.3f} to {high:.3f}")
    if "rounds" in measured:
        pairs = list(zip(*measured["rounds"].values(), strict=True))
        ratios = [a / b for a, b in pairs]
        medians = {name: statistics.median(values) for name, values in measured["rounds"].items()}
        lines.append(", ".join(f"Keras's fit {name}: {value:.1f} s an epoch" for name, value in medians.items()))
        lines.append(
            f"ratio {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}), {len(pairs)} rounds in turn"
        )
    return "\n".join(lines)


def _line(name: str, runs: list[dict[str, Any]], remark: str) -> str:
    log_loss, accuracy = (statistics.mean(run[key] for run in runs) for key in ("log_loss", "accuracy"))
    spread = f" ± {statistics.stdev(run['log_loss'] for run in runs):.3f}" if len(runs) > 1 else ""
    low, high = runs[0]["interval"]
    return f"{name:<22} log-loss {log_loss:.3f}{spread}, accuracy {accuracy:.3f} ({low:.3f} to {high:.3f})  {remark}"


def picture(measured: dict[str, Any], names: list[str], seeds: int) -> bytes:
    """Draw log-loss and accuracy on the test split against epochs, seed by seed."""
    from matplotlib.ticker import LogLocator, NullFormatter

    from vggft.comparison.plots.plot import BASELINE, HEAD, NETWORK, OTHER, render

    colours = dict(zip(TRAININGS, (NETWORK, "#1b1b1b", OTHER, HEAD), strict=True))

    def paint(figure: Any) -> None:
        for axes, quantity in zip(figure.subplots(1, 2), ("log_loss", "accuracy"), strict=True):
            for name in names:
                for seed in range(seeds):
                    values = [epoch[quantity] for epoch in measured[f"{name} {seed}"]["epochs"]]
                    axes.plot(values, color=colours[name], lw=1.5, label=None if seed else name)
            axes.axhline(measured["baseline"][quantity], ls=":", color=BASELINE, label="logistic regression")
            axes.set(xlabel="epoch", ylabel=f"{quantity.replace('_', '-')} on images that chose nothing")
            axes.xaxis.get_major_locator().set_params(integer=True)
        scale = figure.axes[0]
        scale.set_yscale("log")
        scale.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        scale.yaxis.set_major_formatter("{x:g}")
        scale.yaxis.set_minor_formatter(NullFormatter())
        figure.axes[1].legend(fontsize="small")

    return render("original-experiment", "", "", (10, 3.8), paint).png


if __name__ == "__main__":
    main()
