"""A user's own `finetune.py`, `featurize.py` and `heads/` are never imported in place of vggft's packages."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from vggft.siblings import STAGES

ROOT = Path(__file__).parents[2]
FOREIGN = "raise RuntimeError('theirs')\n"
CONSOLE_SCRIPT = "import sys; sys.path.remove(''); from vggft.__main__ import main; sys.argv[0] = 'vggft'; main()"
# These import all three stages and no TensorFlow, and end at once, as there is no workspace.
COMMANDS = (["finetune"], ["predict", "-"])


def run(*words, cwd, path=ROOT):
    environment = {**os.environ, "PYTHONPATH": str(path)}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def folder(tmp_path):
    """A place to work that holds files and folders of all three names."""
    place = tmp_path / "place"
    (place / "heads").mkdir(parents=True)
    for file in ("finetune.py", "featurize.py", "heads/__init__.py"):
        (place / file).write_text(FOREIGN)
    return place


@pytest.mark.slow
@pytest.mark.parametrize("words", COMMANDS)
def test_module(folder, words):
    done = run("-m", "vggft", *words, cwd=folder)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "no features here yet" in done.stderr


@pytest.mark.slow
def test_console_script(folder):
    script = Path(sysconfig.get_path("scripts")) / "vggft"
    for start in [[script], ["-c", CONSOLE_SCRIPT]] if script.exists() else [["-c", CONSOLE_SCRIPT]]:
        done = run(
            *start, "finetune", cwd=folder, path=os.pathsep.join(["", str(ROOT)])
        )  # "": the folder itself, first
        assert done.returncode == 1
        assert "no features here yet" in done.stderr


@pytest.mark.slow
def test_python_in_a_script_beside_them(folder):
    (folder / "work.py").write_text("from vggft import Experiment\nprint(Experiment('nowhere').workspace.exists)\n")
    done = run("place/work.py", cwd=folder.parent)  # the folder of the script comes first on the path
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


@pytest.mark.slow
def test_a_folder_without_init(tmp_path):
    """Such a folder is a package, too, if nothing else has its name."""
    for name in STAGES:
        (tmp_path / name).mkdir()
    done = run("-m", "vggft", "head", cwd=tmp_path)
    assert "no features here yet" in done.stderr


@pytest.mark.slow
def test_another_package_that_is_found_first(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "heads").mkdir(parents=True)
    (elsewhere / "heads" / "__init__.py").write_text(FOREIGN)
    path = os.pathsep.join([str(elsewhere), str(ROOT)])
    done = run("-c", "import vggft.api, heads; print(heads.__file__)", cwd=tmp_path, path=path)
    assert done.stdout == f"{ROOT / 'heads' / '__init__.py'}\n", done.stderr


@pytest.mark.parametrize("init", [True, False])
def test_another_package_that_was_imported_before(tmp_path, init):
    theirs = tmp_path / "heads"
    theirs.mkdir()
    if init:
        theirs /= "__init__.py"
        theirs.touch()
    program = f"import sys; kept = [*sys.path]; sys.path[:] = [{str(tmp_path)!r}]; import heads; sys.path += kept; import vggft"
    done = run("-c", program, cwd=ROOT.parent)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"ImportError: {theirs} has been imported as 'heads'")


@pytest.mark.parametrize("missing", [True, False])
def test_another_distribution_that_has_overwritten_ours(tmp_path, missing):
    """Two wheels with a package of one name share its folder, and the last one installed leaves its __init__.py there."""
    for name in ("vggft", *STAGES):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("pictures", "__pycache__"))
    file = tmp_path / "heads" / "__init__.py"
    file.unlink() if missing else file.write_text(FOREIGN)
    done = run("-c", "from vggft import Experiment", cwd=ROOT.parent, path=tmp_path)
    assert done.returncode == 1
    message = done.stderr.splitlines()[-1]
    assert message.startswith(f"ImportError: {file} is {'missing' if missing else 'not part of vggft'}")
    assert "--force-reinstall" in message


def test_all_installed_stages_are_found_in_their_place():
    program = "import vggft, featurize, heads, finetune; print(featurize.__file__, heads.__file__, finetune.__file__)"
    done = run("-c", program, cwd=ROOT.parent)
    assert done.stdout.split() == [str(ROOT / name / "__init__.py") for name in STAGES]
