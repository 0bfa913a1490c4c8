"""Ctrl-C, wherever it comes: at once in our own code, and at the next step where a library is at work."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import types

import pytest
from conftest import start

from featurize import interrupts
from vggft.__main__ import main
from vggft.cli import app


@pytest.fixture
def listening():
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupts.listen()
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in kept.items():
        signal.signal(number, handler)
    interrupts._signals.heard = interrupts._signals.waiting = False


def within(package, call):
    """Call something from a module of that name, as a library would call back."""
    module = types.ModuleType(package)
    exec("def callback(call):\n    call()\n    return 'went on'", module.__dict__)
    return module.callback(call)


def interrupt(number=signal.SIGINT):
    os.kill(os.getpid(), number)
    for _ in range(1000):  # Python looks for signals between its own instructions
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_at_once_in_our_own_code(listening, number):
    with pytest.raises(KeyboardInterrupt):
        interrupt(number)
    assert interrupts.heard()
    interrupts.check()  # it was raised: nothing waits


@pytest.mark.parametrize("package", ["tensorflow.python.eager", "keras", "jax._src", "torch", "numba.core"])
def test_it_waits_while_a_library_is_at_work(listening, package):
    assert within(package, interrupt) == "went on"
    assert interrupts.heard()
    with pytest.raises(KeyboardInterrupt):
        interrupts.check()
    interrupts.check()  # once is enough


@pytest.mark.parametrize("terminal", [True, False])
def test_a_person_is_told_that_it_waits(listening, terminal, monkeypatch):
    ours, theirs = os.openpty() if terminal else os.pipe()
    monkeypatch.setattr(interrupts._signals, "terminal", None)
    kept = os.dup(2)
    os.dup2(theirs, 2)
    try:
        interrupts.listen()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    within("tensorflow", interrupt)
    within("tensorflow", interrupt)  # the same one, once more by a wrapper
    interrupts.settled()
    os.write(theirs, b"then\n")
    said = b""
    while b"then" not in said:
        said += os.read(ours, 100)
    assert said.split() == ([b"stopping", b"...", b"then"] if terminal else [b"then"])
    for descriptor in (ours, theirs, *([interrupts._signals.terminal] if terminal else [])):
        os.close(descriptor)


def test_it_comes_by_itself_once_the_library_is_done(listening):
    """Nobody need ask: our own code may be waiting for standard input, or for a lock."""

    def busy():
        interrupt()
        time.sleep(0.3)  # looked at several times meanwhile

    assert within("tensorflow", busy) == "went on"
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        time.sleep(5)
    assert time.monotonic() - began < 1
    time.sleep(0.2)  # and it comes once


def test_a_second_one_does_not_wait(listening, monkeypatch):
    monkeypatch.setattr(interrupts, "_TWICE", 0.1)
    within("tensorflow", interrupt)
    within("tensorflow", interrupt)  # at once: from a terminal and from a wrapper
    with pytest.raises(KeyboardInterrupt):
        within("tensorflow", lambda: (time.sleep(0.15), interrupt()))


def test_a_second_one_that_a_library_swallows_is_not_lost(listening, monkeypatch):
    monkeypatch.setattr(interrupts, "_TWICE", 0.1)

    def swallows():
        time.sleep(0.15)
        with contextlib.suppress(BaseException):
            interrupt()

    within("tensorflow", interrupt)
    assert within("tensorflow", swallows) == "went on"
    with pytest.raises(KeyboardInterrupt):
        time.sleep(5)
    time.sleep(0.2)  # and it comes once


def test_nothing_comes_after_the_end(listening):
    within("tensorflow", interrupt)
    interrupts.settled()
    time.sleep(0.2)
    interrupts.check()


def test_names_that_only_begin_alike_are_not_sheltered(listening):
    with pytest.raises(KeyboardInterrupt):
        within("kerastuner", interrupt)


def test_a_new_command_has_heard_nothing(listening):
    within("tensorflow", interrupt)
    interrupts.listen()
    assert not interrupts.heard()
    interrupts.check()


def test_who_was_told_to_ignore_it_ignores_it():
    """As a shell's `&` or nohup tells it; SIGTERM is heard all the same."""
    program = (
        "import os, signal; from featurize import interrupts; signal.signal(signal.SIGINT, signal.SIG_IGN); "
        "interrupts.listen(); os.kill(os.getpid(), signal.SIGINT); print(interrupts.heard()); "
        "print(signal.getsignal(signal.SIGTERM) == interrupts._signals.handle)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_before_there_is_a_command_to_interrupt(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "main", interrupted)
    with pytest.raises(SystemExit, match="130"):
        main()
    assert capsys.readouterr().err == "error: interrupted.\n"
    program = "import sys, vggft.__main__; print([m for m in ('typer', 'rich', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"  # what takes time comes where it is met


def test_while_a_command_gets_ready(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(interrupts, "listen", interrupted)
    monkeypatch.setattr(sys, "argv", ["vggft", "doctor"])
    with pytest.raises(SystemExit, match="130"):
        main()
    assert capsys.readouterr().err == "error: interrupted.\n"


def test_predict_that_waits_for_a_list_can_be_interrupted(trained):
    """Wherever it comes: also while TensorFlow is imported, after which nothing would ask any more."""
    network = next((trained[0].finetune).iterdir()).name
    for seconds in (1.0, 3.0):
        process = start("predict", "-", "--model", network, "-w", trained[0].root, stdin=subprocess.PIPE)
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        out, err = process.stdout, process.stderr
        assert process.wait(timeout=30) == 130, (out.read(), err.read())
        assert "interrupted" in err.read()
        for stream in (process.stdin, out, err):
            stream.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "stage", [["head", "--epochs", "100000", "--patience", "100000"], ["finetune", "--epochs", "1000"]]
)
def test_interrupted_at_any_moment(trained, tmp_path, stage):
    """While it starts, compiles or trains: it stops within seconds, by its own exit code, and says what is kept."""
    rng = random.Random(3)
    for attempt in range(6):
        work = tmp_path / str(attempt)
        shutil.copytree(trained[0].root, work)
        process = start(*stage, *(["--retrain"] if stage[0] == "head" else ["--name", "again"]), "-w", work)
        time.sleep(2 + 10 * rng.random())
        assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 130, (attempt, out, err)
        assert "interrupted. " in err
        assert "Traceback" not in err
