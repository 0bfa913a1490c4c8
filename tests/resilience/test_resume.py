"""A resumed training gives the same bits as an uninterrupted one, after any epoch and after real kills."""

import json
import random
import shutil
import signal
import subprocess
import time
import zipfile

import numpy as np
import pytest
from conftest import drawings, strict_json, vggft
from processes import start
from small_tuning import examples, head, program
from tiny import TINY

from featurize.errors import VggftError
from finetune import checkpoint, store
from finetune import network as networks
from finetune.plan import Plan
from finetune.train import Callbacks, train

TARGETS = np.arange(12) % 3


class Killed(Exception):
    pass


def tuned(network):
    return [w.copy() for w in network.get_weights()]


def same(a, b):
    return len(a) == len(b) and all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plan", "stops"),
    [
        pytest.param(
            Plan(
                2, 5, optimizer="adam", learning_rate=1e-5, layer_decay=0.8, l2_sp=0.01, label_smoothing=0.1, clip=1.0
            ),
            (0, 1),
            id="adam",
        ),
        pytest.param(Plan(2, 6, seed=3, learning_rate=3e-5, precision="mixed_float16"), (1,), id="mixed"),
    ],
)
def test_stopped_after_any_epoch(weights, small_features, tmp_path, plan, stops):
    data = examples(small_features["block2_pool"], TARGETS)

    def session(stop_after=None):
        """Train from the checkpoint, if there is one, as a new process would."""
        network = networks.assemble(weights, "caffe", TINY.size, head("max", 3, dropout=0.5, scaler=True))
        one = program(network, "block2_pool", plan, TARGETS, weights)
        path = tmp_path / "checkpoint.bin"

        def keep(state):
            checkpoint.write(path, state)
            if state.epoch == stop_after:
                raise Killed

        state = checkpoint.read(path) if path.exists() else None
        try:
            return train(one, (data, data), plan, state, Callbacks(epoch=keep)), tuned(network)
        except Killed:
            return None

    undisturbed, network = session()
    assert [row.epoch for row in undisturbed.history] == list(range(plan.epochs + 1))
    (tmp_path / "checkpoint.bin").unlink()
    for epoch in stops:
        assert session(epoch) is None
    stopped, resumed = session()
    assert same(resumed, network)
    assert same(stopped.weights, undisturbed.weights)
    assert same(stopped.optimizer, undisturbed.optimizer)
    for a, b in zip(stopped.history, undisturbed.history, strict=True):
        assert (a.loss, a.accuracy, a.log_loss, a.val_loss, a.val_log_loss) == (
            b.loss,
            b.accuracy,
            b.log_loss,
            b.val_loss,
            b.val_log_loss,
        )
    assert (stopped.start, stopped.validation) == (undisturbed.start, undisturbed.validation)


def test_a_damaged_checkpoint_is_noticed(weights, small_features, tmp_path):
    network = networks.assemble(weights, "caffe", TINY.size, head("max", 3))
    data = examples(small_features["block2_pool"], TARGETS)
    plan = Plan(1, 12)
    path = tmp_path / "run" / "unfinished" / "checkpoint.bin"
    path.parent.mkdir(parents=True)
    one = program(network, "block2_pool", plan, TARGETS, weights)
    train(one, (data, data), plan, callbacks=Callbacks(epoch=lambda state: checkpoint.write(path, state)))
    assert checkpoint.read(path).epoch == 1
    sound = path.read_bytes()
    time_in_zip = 32 + 10  # behind the sha256; the archive's own checksums do not cover it
    for place in (len(sound) // 5, len(sound) // 2, len(sound) * 9 // 10, time_in_zip):
        damaged = bytearray(sound)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(VggftError, match=r"checkpoint\.bin: damaged"):
            checkpoint.read(path)
    for data in (sound[:-100], b"", sound.replace(b'{"version": 1', b'{"version": 7')):
        path.write_bytes(data)
        with pytest.raises(VggftError, match="damaged"):
            checkpoint.read(path)


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """24 drawings with features and heads; what an undisturbed run of 4 epochs says, and how many seconds it takes."""
    base = tmp_path_factory.mktemp("resume")
    drawings(base / "data", 12, "bugs", "flowers")
    assert vggft("featurize", base / "data", "-w", base / "work").returncode == 0
    done = vggft("head", "--head", "max-64-l2-dropout", "--epochs", "5", "-w", base / "work")
    assert done.returncode == 0, done.stderr
    process = start("finetune", *SETTINGS, "--name", "whole", "-w", base / "work", "--json")
    began = time.monotonic()
    out, err = process.communicate()
    assert process.returncode == 0, err
    return base / "work", strict_json(out), time.monotonic() - began


SETTINGS = (
    "--unfreeze",
    "block3_conv2",
    "--epochs",
    "4",
    "--batch-size",
    "4",
    "--patience",
    "9",
    "--schedule",
    "cosine",
    "--lr",
    "1e-3",
)


def arrays(work, name):
    """Return all numbers of a run's network: the bytes of the HDF5 file in it hold no times."""
    with zipfile.ZipFile(work / "finetune" / name / "network.keras") as file:
        return file.read("model.weights.h5")


def curve(work, name):
    lines = (work / "finetune" / name / "history.csv").read_text().splitlines()
    return [line.rsplit(",", 1)[0] for line in lines]  # all but the seconds


def last_epoch(path):
    with path.open("rb") as file:
        file.seek(32)  # behind the digest
        arrays = np.load(file)
        return json.loads(arrays["about"].tobytes())["history"][-1]["epoch"]


def begun(work, name, epochs, process):
    """Wait until so many epochs of a run are kept."""
    path = work / "finetune" / name / "unfinished" / "checkpoint.bin"
    deadline = time.monotonic() + 120
    while not (path.exists() and last_epoch(path) >= epochs):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_and_interrupted_by_a_person(ready, tmp_path):
    work = tmp_path / "work"
    shutil.copytree(ready[0], work)
    process = start("finetune", *SETTINGS, "--name", "broken", "-w", work)
    settings = work / "finetune" / "broken" / "unfinished" / "settings.json"
    while not settings.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.kill()  # before anything is trained
    process.communicate()
    process = start("finetune", "--resume", "-w", work, "--json")
    begun(work, "broken", 1, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "vggft finetune --resume" in strict_json(out)["error"]
    assert "Traceback" not in err
    assert not (work / "finetune" / "broken" / "run.json").exists()
    process = start("finetune", "--resume", "-w", work)
    begun(work, "broken", 2, process)
    process.kill()
    process.communicate()
    done = vggft("finetune", "--resume", "--name", "broken", "--memory", "20kB", "-w", work, "--json")
    assert done.returncode == 0, done.stderr
    found = strict_json(done.stdout)
    assert found["resumed"] is True
    assert ": 4 images at a time are read ahead" in done.stderr  # and it makes no difference
    assert "resuming after epoch" in done.stderr
    assert arrays(work, "broken") == arrays(work, "whole")
    assert curve(work, "broken") == curve(work, "whole")
    keys = ("best_epoch", "epochs", "ended", "validation", "start_validation", "moved", "parity")
    assert {key: found[key] for key in keys} == {key: ready[1][key] for key in keys}
    left = {path.name for path in (work / "finetune" / "broken").iterdir()} - {"tensorboard"}
    records = {"checksums.json", "history.csv", "network.keras", "predictions.csv", "run.json"}
    assert left == {*records, *store.PICTURES}
    svg = [(work / "finetune" / name / "network.svg").read_text() for name in ("broken", "whole")]
    assert svg[0].replace("broken", "whole") == svg[1]
    kept = [(work / "finetune" / name / "predictions.csv").read_bytes() for name in ("broken", "whole")]
    assert kept[0] == kept[1]


@pytest.mark.slow
def test_nothing_to_resume(ready):
    work, whole, _ = ready
    done = vggft("finetune", "--resume", "-w", work, "--json")
    assert done.returncode == 0
    assert strict_json(done.stdout) == {**whole, "resumed": False}
    assert "no unfinished run" in vggft("finetune", "--resume", "-w", work).stdout


@pytest.mark.slow
def test_killed_at_random(ready, tmp_path):
    """Kills at any moment, also while it starts, writes or saves; the end is that of the undisturbed run."""
    rng = random.Random(5)
    work = tmp_path / "work"
    shutil.copytree(ready[0], work)
    command = ["finetune", *SETTINGS, "--name", "broken", "-w", work]
    kills = 0
    while True:
        process = start(*command)
        try:
            # Longer and longer, so that it ends where the machine has become slower, too.
            out, err = process.communicate(timeout=ready[2] * (0.6 * rng.random() + 0.2 * kills))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
            if (work / "finetune" / "broken").exists():
                command = ["finetune", "--resume", "--name", "broken", "-w", work]
            continue
        assert process.returncode == 0, (out, err)
        break
    assert kills
    assert json.loads((work / "finetune" / "broken" / "run.json").read_text())["best_epoch"] == ready[1]["best_epoch"]
    assert arrays(work, "broken") == arrays(work, "whole")
    assert curve(work, "broken") == curve(work, "whole")
