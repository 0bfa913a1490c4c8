"""Closed and full standard streams, and paths that resemble streams."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from conftest import paint, refused
from processes import command

from vggft.prediction.inputs import STDIN
from vggft.steps.options import PredictOptions
from vggft.ui.console import Ui


def shell(line, cwd):
    """Run a line of bash in which `vggft` is the command line."""
    program = f'vggft() {{ {shlex.join(command())} "$@"; }}; {line}'
    return subprocess.run(["bash", "-c", program], cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", "<&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(tmp_path, closed):
    done = shell(f"vggft predict nothing.png {closed}", tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "unexpected" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_list_from_a_closed_stream_is_an_empty_one(trained, tmp_path):
    done = shell(f"vggft predict - --model max-linear -w '{trained[0].root}' <&-", tmp_path)
    assert done.returncode == 1
    assert "standard input: no files there" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("words", ["runs", "predict nothing.png"])
def test_json_onto_a_full_disk(featurized, words):
    """A result, and an error."""
    done = shell(f"vggft {words} -w work --json > /dev/full", featurized[0])
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr


def test_no_second_object_after_half_of_one(capfd):
    """If writing fails or is interrupted, a program gets unparsable JSON, not an object that looks complete."""
    kept = os.dup(1)
    try:
        ui = Ui(json=True)
        stream = ui._stdout

        class Half:
            def write(self, text):
                stream.write(text[:8])
                stream.flush()
                raise KeyboardInterrupt

        ui._stdout = Half()
        with pytest.raises(KeyboardInterrupt):
            ui.result({"rows": [1, 2, 3]})
        ui.error("interrupted")
    finally:
        os.dup2(kept, 1)
        os.close(kept)
    assert capfd.readouterr().out == '{"rows":'


def test_an_empty_workspace_is_not_the_current_folder(tmp_path):
    paint(tmp_path / "data" / "a" / "0.png", (1, 2, 3))
    before = sorted(tmp_path.rglob("*"))
    assert "an empty path" in refused("featurize", "data", "-w", "", cwd=tmp_path)
    assert "an empty path" in refused("demo", "-w", "", cwd=tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_called_like_standard_input():
    standard_input, file = PredictOptions(["-", "./-"]).paths
    assert standard_input == STDIN
    assert file != STDIN
    assert file.name == "-"
