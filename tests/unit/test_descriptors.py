"""Redirection of file descriptors 1 and 2: only in the command line, and always undone."""

import ctypes
import os
import subprocess
import sys
import threading

import pytest

from featurize.process import descriptors


@pytest.mark.skipif(os.name != "posix", reason="the C library is not to be found by that name")
def test_what_c_prints_is_hidden_unless_it_fails(capfd, monkeypatch):
    monkeypatch.setattr(descriptors, "_hiding", True)
    puts = ctypes.CDLL(None).puts  # into a buffer here, because descriptor 1 is no terminal
    with descriptors.hidden():
        puts(b"chatter")
    with pytest.raises(RuntimeError, match="broken"), descriptors.hidden():
        puts(b"why it broke")
        raise RuntimeError("broken")
    with pytest.raises(ImportError), descriptors.hidden():
        puts(b"not installed")
        raise ImportError
    with descriptors.redirected(2, 1):
        puts(b"elsewhere")
    puts(b"afterwards")
    ctypes.CDLL(None).fflush(None)
    assert capfd.readouterr() == ("afterwards\n", "why it broke\nelsewhere\n")


def test_a_python_program_keeps_its_descriptors(monkeypatch):
    """Also while several threads load something at once."""
    monkeypatch.setattr(descriptors, "_hiding", False)
    before = [(os.fstat(number).st_dev, os.fstat(number).st_ino) for number in (1, 2)]
    together, seen = threading.Barrier(4, timeout=10), []

    def load():
        with descriptors.hidden():
            together.wait()
            seen.append([(os.fstat(number).st_dev, os.fstat(number).st_ino) for number in (1, 2)])

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [before] * 4


@pytest.mark.parametrize("missing", ["stdout", "stderr"])
def test_streams_that_a_program_took_away(missing):
    """As under pythonw and in some notebooks."""
    program = (
        f"import sys; from featurize.process import descriptors; sys.{missing} = None; descriptors.hide_libraries()\n"
        "with descriptors.hidden(): pass"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
