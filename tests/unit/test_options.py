"""Options: declared once; the same on the command line, in Python and in the reference; always checked."""

import inspect
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest
import typer
from conftest import refused
from processes import vggft_apart

from featurize.errors import VggftError
from featurize.options import Option, Options, number_of_bytes, offered
from finetune.plan import Plan as TuningPlan
from heads.plan import Plan as HeadPlan
from vggft import Experiment
from vggft.cli import reference
from vggft.cli.app import app
from vggft.cli.commands import COMMANDS
from vggft.steps.options import (
    CompareOptions,
    FeaturizeOptions,
    FinetuneOptions,
    HeadOptions,
    PredictOptions,
)

LISTED = [(command, field) for command in COMMANDS for field in command.fields]
IN_PYTHON = [command for command in COMMANDS if command.method]


def parameters(name):
    """Return the parameters of a command as typer knows them, by name."""
    command = typer.main.get_command(app)
    for part in name.split():
        command = command.commands[part]
    return {parameter.name: parameter for parameter in command.params}


@pytest.mark.parametrize(("command", "field"), LISTED, ids=lambda value: getattr(value, "name", None))
def test_every_option_is_on_the_command_line_and_in_the_reference(command, field):
    shown = parameters(command.name)[field.name]
    assert shown.required is field.required
    sections = re.split(r"^## ", reference.markdown(), flags=re.MULTILINE)
    own = next(text for text in sections if text.startswith(f"vggft {command.name}\n"))
    common = next(text for text in sections if text.startswith("Options of every command\n"))
    start = rf"(\| )?`(-\w, )?{re.escape(field.flag)}( .*)?`[ :]"
    row = next(line for line in (own + common).splitlines() if re.match(start, line) and field.option.help in line)
    if not field.argument:
        assert field.flag in shown.opts
        assert field.description in shown.help
        assert field.usual in row
        assert not field.usual or f"[default: {field.usual}" in shown.help


@pytest.mark.parametrize("command", IN_PYTHON, ids=lambda command: command.name)
def test_python_has_the_same_options_with_the_same_defaults(command):
    method = getattr(Experiment, command.method)
    taken = {
        name: parameter.default for name, parameter in inspect.signature(method).parameters.items() if name != "self"
    }
    assert taken == {
        field.name: inspect.Parameter.empty if field.required else field.default for field in offered(command.options)
    }
    assert set(parameters(command.name)) == {*taken, *(field.name for field in offered(command.shared))}
    assert all(f"{field.name}: {field.option.help}" in method.__doc__ for field in offered(command.options))
    for name, parameter in parameters(command.name).items():
        if name in taken and taken[name] is not inspect.Parameter.empty and name not in ("start", "classes"):
            assert f"--{name.replace('_', '-')}" in parameter.opts


def test_an_option_that_nobody_knows():
    with pytest.raises(TypeError, match="'epoch'; expected one of head, grid, lr, epochs,"):
        HeadOptions.of(epoch=3)
    assert "No such option: --epoch" in (said := refused("head", "--epoch", "3"))
    assert "See vggft head --help." in said
    assert "See vggft cache prune --help." in refused("cache", "prune", "--no")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["head", "--foo"], "No such option: --foo. See vggft head --help."),
        (["finetune", "--augment"], "No such option: --augment. See vggft finetune --help."),  # not --momentum
        (
            ["featurize", "d", "--chache", "x"],
            "No such option: --chache. Did you mean --cache? See vggft featurize --help.",
        ),
        (["cache", "prune", "--yse"], "No such option: --yse. Did you mean --yes? See vggft cache prune --help."),
        (["head", "--cv", "2", "more"], "Got unexpected extra argument(s) (more). See vggft head --help."),
        (["head", "--CV", "3"], "No such option: --CV. Did you mean --cv? See vggft head --help."),
        (
            ["head", "--learning-rate", "1"],
            "No such option: --learning-rate. Did you mean --lr? See vggft head --help.",
        ),
        (["predict", "--learning-rate", "1"], "No such option: --learning-rate. See vggft predict --help."),
        (
            ["finetune", "--Batch_Size", "1"],
            "No such option: --Batch_Size. Did you mean --batch-size? See vggft finetune --help.",
        ),
        (["head", "--quiet=yes"], "Option '--quiet' does not take a value. See vggft head --help."),
        (["head", "--epochs"], "Option '--epochs' requires an argument. See vggft head --help."),
        (["cache", "export"], "Missing argument 'FILE.h5'. See vggft cache export --help."),
        (["cache", "foo"], "No such command 'foo'. See vggft cache --help."),
        (["hed"], "No such command 'hed'. Did you mean 'head'? See vggft --help."),
        (["--foo"], "No such option: --foo. See vggft --help."),
    ],
)
def test_what_is_wrong_with_a_command_line(words, message):
    assert refused(*words) == f"error: {message}"


CHOICES = [
    ("featurize", FeaturizeOptions, "engine", "auto, keras, winograd or mnn"),
    ("featurize", FeaturizeOptions, "preprocess", "caffe or raw"),
    ("head", HeadOptions, "class_weight", "balanced"),
    ("finetune", FinetuneOptions, "optimizer", "sgd or adam"),
    ("finetune", FinetuneOptions, "schedule", "constant or cosine"),
    ("finetune", FinetuneOptions, "precision", "auto, float32 or mixed_float16"),
]


@pytest.mark.parametrize(("command", "options", "name", "right"), CHOICES)
def test_a_wrong_choice_lists_the_right_ones_in_the_same_words_everywhere(command, options, name, right):
    arguments = {"data": "d"} if command == "featurize" else {}
    sentence = f"--{name.replace('_', '-')} 'tpu': expected {right}."
    with pytest.raises(VggftError, match=f"^{re.escape(sentence)}$"):
        options.of(**arguments, **{name: "tpu"})
    assert sentence in refused(command, *arguments.values(), f"--{name.replace('_', '-')}", "tpu")


WRONG = [
    (HeadOptions, "epochs", 0, "a whole number, 1 or more"),
    (HeadOptions, "epochs", 2.5, "a whole number, 1 or more"),
    (HeadOptions, "epochs", "3", "a whole number, 1 or more"),
    (HeadOptions, "seed", -1, "a whole number, 0 to 4294967295"),
    (HeadOptions, "seed", 2**32, "a whole number, 0 to 4294967295"),
    (HeadOptions, "seed", True, "a whole number, 0 to 4294967295"),
    (HeadOptions, "batch_size", -3, "a whole number, 1 or more"),
    (HeadOptions, "cv", 1, "a whole number, 2 or more, or 0 (off)"),
    (FeaturizeOptions, "views", 33, "a whole number, 1 to 32, or 0 (off)"),
    (HeadOptions, "suspects", 1, "True or False"),
    (HeadOptions, "head", 3, "text"),
    (HeadOptions, "grid", 3, "a path"),
    (CompareOptions, "cv", -1, "a whole number, 2 or more, or 0 (off)"),
    (FinetuneOptions, "lr", 0, "a number, above 0"),
    (FinetuneOptions, "lr", float("nan"), "a number, above 0"),
    (FinetuneOptions, "lr", 10**400, "a number, above 0"),
    (HeadOptions, "epochs", 10**400, "a whole number, 1 or more"),
    (FinetuneOptions, "lr", float("inf"), "a number, above 0"),
    (FinetuneOptions, "layer_decay", 1.5, "a number, above 0 and at most 1"),
    (FinetuneOptions, "momentum", 1, "a number, 0 or more and below 1"),
    (FinetuneOptions, "name", 3, "text"),
    (FinetuneOptions, "memory", "lots", "an amount of memory, such as 2GB or 500MB"),
    (FinetuneOptions, "memory", "9" * 400 + "GB", "an amount of memory, such as 2GB or 500MB"),
    (FinetuneOptions, "memory", 0, "an amount of memory, such as 2GB or 500MB"),
    (FinetuneOptions, "memory", 2e9, "an amount of memory, such as 2GB or 500MB"),
]


@pytest.mark.parametrize(("options", "name", "value", "right"), WRONG)
def test_types_and_bounds_are_checked_in_python_too(options, name, value, right):
    sentence = f"--{name.replace('_', '-')} {value!r}: expected {right}."
    data = {"data": "d"} if options is FeaturizeOptions else {}
    with pytest.raises(VggftError, match=f"^{re.escape(sentence)}$"):
        options.of(**data, **{name: value})


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"batch_size": 0}, {"epochs": 2.5}, {"seed": True}])
@pytest.mark.parametrize("plan", [TuningPlan, HeadPlan])
def test_a_plan_is_checked_whoever_makes_it(plan, wrong):
    with pytest.raises(VggftError, match=f"^--{next(iter(wrong)).replace('_', '-')} "):
        plan(**wrong)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["head", "--epochs", "x"], "--epochs 'x': expected a whole number, 1 or more."),
        (["head", "--epochs", "0"], "--epochs 0: expected a whole number, 1 or more."),
        (["finetune", "--lr", "nan"], "--lr nan: expected a number, above 0."),
        (["finetune", "--resume", "--epochs", "10"], "--resume with --epochs: a resumed run keeps its settings;"),
        (["head", "--seed", "4294967295", "--seeds", "2"], "the last seed would be above 4294967295."),
        (["featurize", "d", "--validation", "0.5", "--test", "0.5"], "no training images left"),
        (["head", "-w", ""], "--workspace: an empty path"),
        (["featurize", ""], "DATA: an empty path"),
    ],
)
def test_a_value_that_is_not_allowed_on_the_command_line(tmp_path, arguments, sentence):
    (tmp_path / "d").mkdir()
    assert sentence in refused(*arguments, cwd=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_a_resumed_run_keeps_its_settings():
    with pytest.raises(
        VggftError, match="--resume with --lr: a resumed run keeps its settings; only --name and --memory"
    ):
        FinetuneOptions.of(resume=True, lr=1e-4)
    assert FinetuneOptions.of(resume=True, name="mine", memory="1GB").memory == 10**9


def test_values_are_kept_as_the_field_says():
    options = FeaturizeOptions.of(data="pictures", layers="block5_pool", shard=np.int64(8), test=np.float32(0.25))
    assert (options.data, options.layers) == (Path("pictures"), ("block5_pool",))
    assert type(options.shard) is int
    assert (type(options.test), options.test) == (float, 0.25)
    assert HeadOptions.of(head=["a", "b"]).head == ("a", "b")
    assert PredictOptions(["a.png"]).paths == (Path("a.png"),)


def test_a_home_folder_that_no_shell_has_replaced(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    options = FeaturizeOptions.of(data="~/pictures", weights=Path("~/w.h5"))
    assert (options.data, options.weights) == (Path("/home/me/pictures"), Path("/home/me/w.h5"))
    assert HeadOptions.parse({"grid": "~/grid.toml"}).grid == Path("/home/me/grid.toml")
    assert PredictOptions(["~cat.png", "~", "-"]).paths == (Path("~cat.png"), Path("/home/me"), Path("-"))


@pytest.mark.parametrize(
    ("text", "number"), [("2GB", 2 * 10**9), ("500 mb", 5 * 10**8), ("1.5GiB", 1610612736), ("7", 7)]
)
def test_amounts_of_memory(text, number):
    assert number_of_bytes(text) == number


@pytest.mark.parametrize("text", ["3k", "GB", "-1GB", "1e9"])
def test_what_is_no_amount_of_memory(text):
    with pytest.raises(ValueError, match=text):
        number_of_bytes(text)


def test_the_learning_rate_follows_the_optimizer():
    assert TuningPlan().learning_rate == 1e-3
    assert FinetuneOptions.of(optimizer="adam").plan.learning_rate == 1e-4
    assert FinetuneOptions.of(optimizer="adam", lr=1e-5).plan.learning_rate == 1e-5


def test_nested_options_and_fields_that_no_command_offers():
    @dataclass(frozen=True)
    class Inner(Options):
        hidden: Literal["a", "b"] = "a"
        rate: Annotated[float, Option("Rate.", name="speed", least=1)] = 1.0

    @dataclass(frozen=True)
    class Outer(Options):
        inner: Inner = Inner()

    assert [field.flag for field in offered(Outer)] == ["--speed"]
    assert Outer.of(speed=2).inner == Inner(rate=2.0)
    with pytest.raises(VggftError, match=r"^hidden 'c': expected a or b"):
        Inner(hidden="c")


def test_settings_that_are_recorded_have_the_names_they_always_had():
    """run.json and the recipes of heads hold the fields of these plans."""
    names = ["epochs", "patience", "batch_size", "seed", "class_weight", "views"]
    assert [field.name for field in fields(HeadPlan)] == names
    assert {"learning_rate", "layer_decay", "precision"} < {field.name for field in fields(TuningPlan)}


def test_choices_are_completed():
    done = vggft_apart(
        env={"_VGGFT_COMPLETE": "complete_bash", "COMP_WORDS": "vggft finetune --optimizer ", "COMP_CWORD": "3"}
    )
    assert done.stdout.split() == ["sgd", "adam"]
