"""Commands and Python that README and docs show run as they stand, page by page, with a small network on a few drawings.

Blocks after a line `<!-- test: run -->` run, in order; the block after `<!-- test: file NAME -->` is written to that file first.
"""

import ast
import contextlib
import io
import json
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from conftest import blank_figures, drawings, once, vggft
from PIL import Image
from tiny import TINY

from vggft.api import Experiment
from vggft.comparison import costs

ROOT = Path(__file__).parent.parent.parent
TOP_LAYER = {"block5_pool": TINY.cached[-1]}
_BLOCK = re.compile(r"^<!-- test: (run|file (\S+)) -->\n```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = [path for path in sorted((ROOT / "docs").glob("*.md")) if _BLOCK.search(path.read_text(encoding="utf-8"))]


@pytest.fixture(scope="session")
def readme(tmp_path_factory):
    """The folder in which README's blocks were run, and what was run there."""

    def build(base):
        drawings(base / "data", 12, "bugs", "flowers")
        for name, folder in (("ants", "bugs"), ("bees", "flowers")):
            (base / "data" / folder).rename(base / "data" / name)
            (base / "labelled" / name).mkdir(parents=True)
            for path in sorted((base / "data" / name).iterdir())[:2]:
                path.rename(base / "labelled" / name / path.name)
        (base / "photos").mkdir()
        for name, path in zip(("a", "b"), sorted(base.glob("labelled/*/*.png")), strict=False):
            shutil.copy(path, base / "photos" / f"{name}.png")
            Image.open(path).convert("RGB").save(base / "photos" / f"{name}.jpg")
        shutil.copy(base / "photos" / "a.jpg", base / "holiday.jpg")
        with blank_figures():
            return run_page(ROOT / "README.md", base)

    return once(tmp_path_factory, "readme", build)


def run_page(path, folder, before=()):
    """Run the marked blocks of a page in a folder; return its commands and calls.

    Args:
        before: commands and calls that ran there; they are not repeated until the page runs another one.
    """
    text = path.read_text(encoding="utf-8")
    for shown, small in TOP_LAYER.items():
        text = text.replace(shown, small)
    page = _BLOCK.findall(text)
    for _, name, _, body in page:
        if name:
            (folder / name).write_text(body, encoding="utf-8")
    names, done = {}, []
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr("vggft.Experiment", partial(Experiment, architecture=TINY), raising=False)
        patch.setattr(costs, "BATCHES", (1, 2))
        for _, name, language, body in page:
            if language == "python":
                block = ast.parse(body, str(path))
                calls = [ast.unparse(node) for node in block.body if isinstance(node, ast.Expr)]
                if set(calls) <= set(before):
                    block.body = [node for node in block.body if not isinstance(node, ast.Expr)]
                else:
                    before = ()
                done += calls
                with contextlib.redirect_stdout(io.StringIO()):
                    exec(compile(block, str(path), "exec"), names)
            elif not name:
                for line in (shown.removeprefix("$ ") for shown in body.splitlines()):
                    done.append(line)
                    if line not in before:
                        before = ()
                        run_line(line, folder)
    return done


def run_line(line, folder):
    """Run a line of shell: the command line in this process, what comes before a pipe in a shell."""
    line, _, out = line.partition(" > ")
    *before, command = line.split(" | ")
    with pytest.MonkeyPatch.context() as patch:
        if before:
            paths = subprocess.run(before[0], shell=True, check=True, capture_output=True, cwd=folder).stdout
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(paths)))
        done = vggft(*command.split()[1:], cwd=folder, network=TINY)
    assert done.returncode == 0, (line, done.stderr)
    if out:
        assert done.stdout
        (folder / out).write_text(done.stdout, encoding="utf-8")


@pytest.mark.slow
def test_readme_runs(readme):
    readme, _ = readme
    compared = json.loads((readme / "vggft-work" / "report" / "compare.json").read_text())
    assert {"dense", "logistic", "tuned"} <= {row["kind"] for row in compared["methods"]}
    assert len((readme / "predictions.csv").read_text().splitlines()) == 3
    assert json.loads((readme / "vggft-work" / "report" / "evaluate.json").read_text())["metrics"]["n"] == 4


@pytest.mark.slow
@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_page_runs(page, readme, tmp_path):
    folder, before = readme
    shutil.copytree(folder, tmp_path / "here")
    run_page(page, tmp_path / "here", before)
