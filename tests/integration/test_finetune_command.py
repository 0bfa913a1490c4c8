"""`vggft finetune`: split points, starting heads, run names and error messages."""

import io
import json
import shutil
import sys
import zipfile

import pytest
from conftest import drawings, once, refused, rewrite, snapshot, strict_json, vggft
from processes import start
from small_disk import leave
from tiny import TINY

from featurize import backend
from featurize.errors import VggftError
from finetune import checkpoint, store
from finetune.examples import Rows
from finetune.plan import BEST, LOGISTIC, SCRATCH, Plan
from vggft.steps import compare, featurize, finetune, head, new_run, starts
from vggft.steps.options import CompareOptions, FeaturizeOptions, FinetuneOptions, HeadOptions
from vggft.workspace.workspace import Workspace

pytestmark = pytest.mark.usefixtures("unrendered", "untraced")

FAST = Plan(epochs=1, batch_size=5)  # of 10 images: one shape is compiled


@pytest.fixture(scope="module")
def headed(tmp_path_factory):
    """A workspace of 14 drawings with a few heads; tests that change it copy it first."""
    from vggft.ui.console import Ui

    def build(base):
        work, ui = Workspace(base / "work", TINY), Ui(quiet=True)
        featurize.run(work, FeaturizeOptions(drawings(base / "data", 7, "bugs", "flowers")), ui)
        names = ("logistic-max", "max-64-l2-dropout", "avg-256")
        head.run(work, HeadOptions.of(epochs=5, head=names, cv=0), ui)

    return once(tmp_path_factory, "finetune-headed", build)[0]


@pytest.fixture
def here(headed, tmp_path):
    shutil.copytree(headed, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def work(here):
    return Workspace(here / "work", TINY)


@pytest.mark.slow
def test_any_split_and_the_comparison_of_all(work, ui):
    layers = {
        "block2": ("block1_pool", ["block2_conv1", "block3_conv1", "block3_conv2"]),
        "all": (None, None),
    }
    for unfreeze, (split_point, moved) in layers.items():
        found = finetune.run(
            work, FinetuneOptions(unfreeze, start="logistic-max", plan=Plan(1, 5, learning_rate=2e-3)), ui
        )
        assert found["name"] == f"{unfreeze}-logistic-max-lr0.002-batch5-epochs1"
        assert found["split_point"] == split_point
        assert found["parity"] <= 2e-3
        if found["best_epoch"]:
            assert len(found["moved"]) == 4 if moved is None else found["moved"] == moved
    assert {"block1_pool"} <= set(work.cache().layers)
    compared = {m["name"]: m for m in compare.run(work, CompareOptions(quick=True), ui)["methods"]}
    for run in store.load_all(work.finetune):  # what was reported from the cache is what the saved network says
        assert compared[run.name]["log_loss"] == pytest.approx(run.validation.log_loss, abs=1e-4)
        assert run.classes == ("bugs", "flowers")


@pytest.mark.slow
def test_starts(work, ui):
    found = finetune.run(work, FinetuneOptions(start=SCRATCH, plan=FAST), ui)
    assert found["name"] == "block3-scratch-batch5-epochs1"
    assert found["start_validation"]["log_loss"] > 0.5  # it knew nothing
    again = finetune.run(work, FinetuneOptions(start=SCRATCH, plan=FAST), ui)
    assert again["name"] == "block3-scratch-batch5-epochs1-2"  # nothing is overwritten
    assert again["validation"] == found["validation"]
    kept = json.loads((work.finetune / found["name"] / "run.json").read_text())
    assert kept["start"] == SCRATCH
    default = finetune.run(work, FinetuneOptions(plan=FAST, name="mine"), ui)
    assert default["name"] == "mine"
    assert default["start"] == "logistic-max"
    names = head_names(work)
    assert names[0] != "logistic-max"
    assert starts.choose(work, BEST, pytest.fail).name == names[0]
    shutil.rmtree(work.heads / "logistic-max")
    assert starts.choose(work, LOGISTIC, pytest.fail).name == names[0]  # where there is none
    with pytest.raises(VggftError, match="--name mine: a run of that name exists"):
        finetune.run(work, FinetuneOptions(name="mine"), ui)
    with pytest.raises(VggftError, match="--name avg-256: a head has that name"):
        finetune.run(work, FinetuneOptions(name="avg-256"), ui)
    with pytest.raises(VggftError, match="--from mine: a tuned network"):
        finetune.run(work, FinetuneOptions(start="mine"), ui)


@pytest.mark.parametrize(("room", "moved"), [(0, 0), (4 * 14 * 8 * 8 * 8 * 2 - 1, 0), (10**12, 2)])
def test_inputs_lie_on_a_gpu_if_a_quarter_of_its_memory_holds_them(work, ui, monkeypatch, room, moved):
    calls = []
    monkeypatch.setattr(backend, "gpu_memory", lambda: room)
    to_device = Rows.to_device
    monkeypatch.setattr(Rows, "to_device", lambda rows: (calls.append(rows.bytes), to_device(rows)))
    finetune.run(work, FinetuneOptions(plan=FAST), ui)
    assert len(calls) == moved
    assert sum(calls) <= room / 4


def head_names(work):
    from vggft.prediction import models

    return [method.name for method in models.load(work).heads]


def test_bad_input_changes_nothing(here):
    work = ("-w", here / "work")
    before = snapshot(here)
    cases = {
        ("--unfreeze", "block6"): "--unfreeze 'block6': unknown layer. Expected all, a block (block1",
        ("--unfreeze", "block3_pool"): "a pooling layer has no weights to tune",
        ("--from", "nobody"): "no such head. Expected best, logistic, scratch, or one of the heads here: ",
        ("--optimizer", "lion"): "--optimizer 'lion': expected sgd or adam",
        ("--lr", "-1"): "--lr -1: expected a number, above 0",
        ("--memory", "lots"): "--memory 'lots': expected an amount of memory, such as 2GB",
        ("--memory", "10kB"): "MB is too little for two batches of 12 images",
        ("--name", "a/b"): "--name 'a/b': expected letters",
        ("--name", ".."): "--name '..': expected letters",
        ("--precision", "int8"): "--precision 'int8': expected auto, float32 or mixed_float16",
        ("--resume", "--lr", "1"): "--resume with --lr: a resumed run keeps its settings",
        ("--resume", "--name", "nobody"): "--resume --name nobody: no such run",
    }
    for arguments, said in cases.items():
        assert said in refused("finetune", *arguments, *work), arguments
        after = snapshot(here)
        after.pop("work/lock", None)
        before.pop("work/lock", None)
        assert after == before, arguments


def test_a_head_of_other_classes_or_features(here, work):
    data = drawings(here / "others", 4, "birds", "fruit", "bugs")
    other = Workspace(here / "other", TINY)
    assert vggft("featurize", data, "-w", other.root).returncode == 0
    shutil.copytree(work.heads, other.heads)
    message = refused("finetune", "--from", "avg-256", "-w", other.root)
    assert "--from avg-256: stale: its classes are bugs, flowers; those of the data are birds, bugs, fruit" in message
    raw = here / "raw"
    assert vggft("featurize", work.dataset.root, "--preprocess", "raw", "-w", raw).returncode == 0
    shutil.copytree(work.heads, raw / "heads")
    assert "it was trained on features of fingerprint " in refused("finetune", "--from", "avg-256", "-w", raw)
    assert "stale" in refused("finetune", "-w", raw)


def test_images_that_are_gone_are_named(here, work, ui):
    moved = here / "moved"
    shutil.copytree(work.dataset.root, moved)
    assert vggft("featurize", moved, "-w", work.root).returncode == 0
    work = Workspace(work.root, TINY)
    gone = moved / work.dataset.accepted("train")[0].path
    gone.rename(here / "kept.png")
    before = set(work.cache().layers)
    for unfreeze, said in (
        ("block2", "block1_pool is not cached for all images, and 1 image missing"),
        ("all", "all layers"),
    ):
        message = refused("finetune", "--unfreeze", unfreeze, "-w", work.root)
        assert said in message
        assert str(gone) in message
    assert not list(work.finetune.glob("*"))
    assert set(work.cache().layers) == before
    finetune.run(work, FinetuneOptions(plan=FAST, start="avg-256"), ui)  # block2_pool is cached: nothing is missed
    gone.write_bytes(b"changed")
    with pytest.raises(VggftError, match="changed while vggft was running"):
        finetune.run(work, FinetuneOptions("all", plan=FAST, start="avg-256"), ui)
    assert [path.name for path in work.finetune.iterdir()] == ["block3-avg-256-batch5-epochs1"]


def test_a_loss_that_is_no_number(here):
    done = vggft("finetune", "--lr", "1e38", "--epochs", "2", "-w", here / "work", "--json")
    assert done.returncode == 3, done.stderr
    found = strict_json(done.stdout)
    assert found["ended"] == "diverged"
    assert "the loss or a weight became NaN or infinite at epoch 1, step" in found["failed"][0]
    assert "Try a tenth of the learning rate: --lr 1e+37" in done.stderr
    assert (found["best_epoch"], found["moved"]) == (0, [])
    assert found["validation"] == found["start_validation"]
    done = vggft("finetune", "--resume", "-w", here / "work", "--json")
    assert done.returncode == 0  # nothing to go on with: the last run is reported
    assert strict_json(done.stdout) == {**found, "resumed": False, "failed": []}


@pytest.mark.slow
def test_another_backend_or_state_is_not_gone_on_with(here, work, ui, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(new_run, "train", stop)
    with pytest.raises(KeyboardInterrupt):
        finetune.run(work, FinetuneOptions(plan=FAST, name="one"), ui)
    process = start(
        "finetune", "--epochs", "1", "--name", "two", "-w", work.root, light=True
    )  # in which nothing is patched
    assert "run one is unfinished" in process.communicate()[1]
    settings = work.finetune / "one" / "unfinished" / "settings.json"
    kept = settings.read_text()
    rewrite(settings, kept.replace('"backend": "', '"backend": "no'))
    with pytest.raises(VggftError, match="Set KERAS_BACKEND=no"):
        finetune.run(work, FinetuneOptions(resume=True), ui)
    rewrite(settings, kept.replace('"manifest": "', '"manifest": "no'))
    with pytest.raises(VggftError, match="--resume: the run one is stale: images, labels or splits have"):
        finetune.run(work, FinetuneOptions(name="one", resume=True), ui)
    settings.write_text("{}")
    with pytest.raises(VggftError, match="damaged"):
        finetune.run(work, FinetuneOptions(name="one", resume=True), ui)
    rewrite(settings, kept)
    assert finetune.run(work, FinetuneOptions(name="two", resume=True), ui)["resumed"] is False


@pytest.mark.slow
def test_names_of_files_change_nothing(here, work, ui):
    """Also while a run is interrupted: training orders images by content."""
    one = finetune.run(work, FinetuneOptions(plan=FAST, start="avg-256"), ui)
    data = here / "renamed"
    for i, path in enumerate(sorted(work.dataset.root.rglob("*.png"), reverse=True)):
        (data / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, data / path.parent.name / f"{i:03}.png")
    identity = work.dataset.identity
    featurize.run(work, FeaturizeOptions(data), ui)
    work = Workspace(work.root, TINY)
    assert work.dataset.identity == identity
    other = finetune.run(work, FinetuneOptions(plan=FAST, start="avg-256"), ui)
    assert other["validation"] == one["validation"]
    weights = [(work.finetune / run["name"] / "network.keras").read_bytes() for run in (one, other)]
    contents = [zipfile.ZipFile(io.BytesIO(data)).read("model.weights.h5") for data in weights]
    assert contents[0] == contents[1]


@pytest.mark.slow
def test_a_damaged_run_is_in_nobodys_way(work, ui, capsys):
    one = finetune.run(work, FinetuneOptions(plan=FAST, name="one"), ui)
    path = work.finetune / "one" / "run.json"
    path.write_text(path.read_text().replace('"plan"', '"plot"'))
    assert finetune.run(work, FinetuneOptions(plan=FAST, name="two"), ui)["validation"] == one["validation"]
    assert finetune.run(work, FinetuneOptions(resume=True), ui)["name"] == "two"
    assert "one/run.json: damaged" in capsys.readouterr().err
    compared = compare.run(work, CompareOptions(quick=True), ui)
    assert compared["contrast"]["tuned"] == "two"
    assert "vggft runs --remove one deletes this run" in capsys.readouterr().err


@pytest.mark.slow
def test_what_tensorboard_shows(work, ui):
    import tensorflow as tf

    found = finetune.run(work, FinetuneOptions(plan=Plan(2, 5), start="avg-256"), ui)
    folder = work.finetune / found["name"]
    history = store.load_all(work.finetune)[0].history
    for split, names in (
        ("train", ("loss", "log_loss", "accuracy")),
        ("validation", ("val_loss", "val_log_loss", "val_accuracy")),
    ):
        (file,) = (folder / "tensorboard" / split).iterdir()
        events = [tf.compat.v1.Event.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(file))]
        assert events[0].file_version == "brain.Event:2"
        values = [(event.step, value) for event in events[1:] for value in event.summary.value]
        assert {value.metadata.plugin_data.plugin_name for _, value in values} == {"scalars"}
        shown = {(step, value.tag): float(tf.make_ndarray(value.tensor)) for step, value in values}
        tags = ("loss", "log_loss", "accuracy")
        expected = {
            (row.epoch, tag): getattr(row, name) for row in history for tag, name in zip(tags, names, strict=True)
        }
        assert shown == pytest.approx({key: value for key, value in expected.items() if value is not None})


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="tmpfs is Linux's")
def test_a_full_disk_at_checkpoint_time(headed, disk, ui, monkeypatch):
    """There is room for the first checkpoint, and none for a second one beside it."""
    shutil.copytree(headed / "work", disk / "work")
    work, write = Workspace(disk / "work", TINY), checkpoint.write
    written = []

    def write_on_a_full_disk(path, state):
        if written:
            written.append(leave(disk, 1))
        write(path, state)
        written.append(path)

    monkeypatch.setattr(checkpoint, "write", write_on_a_full_disk)
    message = refused("finetune", "--epochs", "2", "--name", "full", "--lr", "1e-3", "-w", work.root)
    assert "checkpoint.bin: cannot be written (No space left on device)" in message
    assert "free some space or fix the permissions, and continue with: vggft finetune --resume" in message
    assert sorted(path.name for path in (work.finetune / "full" / "unfinished").iterdir()) == [
        "checkpoint.bin",
        "checksums.json",
        "head.json",
        "settings.json",
        "weights.npz",
    ]
    monkeypatch.undo()
    written[1].unlink()
    found = finetune.run(work, FinetuneOptions(resume=True), ui)
    assert (found["name"], found["epochs"], found["resumed"]) == ("full", 2, True)
