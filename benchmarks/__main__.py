"""vggft and what people use instead of it, on the same files, in turn.

    python -m benchmarks [FOLDER] [--questions features,epoch] [--images 400] [--rounds 3] [--minutes 10,30]
        [--sizes 500,1000,2000] [--files 10000,100000]
        [--contenders vggft,keras_npy] [--python NAME=INTERPRETER] [--json FILE] [--quick]

FOLDER has a folder for each class, or `train`, `validation` and `test` with class folders inside; without it, the bundled
drawings are used. Each contender runs in a process of its own, with all cores; rounds alternate. Medians are printed, with
minimum and maximum, and ratios to vggft in the same round. --quick is a test on a few images, in one round; its times are
meaningless.

A contender whose libraries are not installed is left out, and the reason is printed. --python NAME=INTERPRETER
runs a contender with another Python, where its libraries do not go together with those of vggft.
"""

import argparse
import shlex
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.contenders.entry import classes, listed
from benchmarks.contest import ROOT, VGGFT, Contest
from benchmarks.machine import machine, versions
from benchmarks.photographs import divide
from benchmarks.questions import changes, classic, epoch, experiment, features, growth, limit, population, race
from featurize.disk import forms
from vggft.steps.demo import PICTURES

QUESTIONS = {
    question.__name__.rpartition(".")[2]: question.ask
    for question in (features, changes, classic, population, epoch, experiment, race, limit, growth)
}
QUICK = {"images": 12, "rounds": 1, "epochs": 1, "minutes": [0.5], "sizes": [32, 64], "files": [128, 256]}


def main() -> None:
    """Ask the questions and print the answers."""
    options, interpreters = parsed()
    journal: Path = options.json.with_suffix(".runs.jsonl")
    journal.write_text("")
    with tempfile.TemporaryDirectory(prefix="vggft-benchmarks-") as temporary:
        place = (options.work or Path(temporary)).resolve()
        data, unseen = divide(options.folder, place / "pictures", options.images, 224 if options.quick else None)
        command = [sys.executable, "-m", "benchmarks.weight_files", place / "weights"]
        written = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
        if written.returncode:
            sys.exit(f"the weights cannot be written:\n{written.stderr}")
        contest = Contest(
            data,
            unseen,
            place / "weights",
            place / "contenders",
            options.rounds,
            options.quick,
            options.epochs,
            options.minutes,
            interpreters,
            options.contenders,
            sizes=options.sizes,
            files=options.files,
            journal=journal,
        )
        if "growth" in options.questions:
            growth.check(contest)
        report: dict[str, Any] = {"machine": machine(), "versions": versions(), "command": sys.argv[1:], "answers": {}}
        report["images"] = {path.name: len(listed(path)[0]) for path in (*sorted(data.iterdir()), unseen)}
        print(shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]), report["machine"], sep="\n")
        print(", ".join(f"{name} {version}" for name, version in report["versions"].items()))
        counts = ", ".join(f"{number} {name}" for name, number in report["images"].items())
        print(f"{counts} images of {len(classes(unseen))} classes; rounds: {options.rounds}", flush=True)
        if VGGFT in (options.contenders or [VGGFT]) and (first := contest.run(VGGFT, contest.task("ready"))):
            report["ready"] = asdict(first)
            print(f"vggft compiles and measures its engines, once on a machine: {first.seconds:.1f} s", flush=True)
        for name in options.questions:
            answer = QUESTIONS[name](contest)
            report["answers"][name] = {"title": answer.title, "text": answer.text, **answer.numbers}
            report["missing"], report["contenders"] = contest.missing, contest.versions
            forms.write_json(options.json, report)
            print(f"\n## {answer.title}\n\n{answer.text}", flush=True)
        journal.unlink()  # all of it is in the answers
        for name, others in contest.versions.items():
            print(f"\n{name} ran with {', '.join(f'{package} {version}' for package, version in others.items())}")
        for name, reason in contest.missing.items():
            print(f"\nleft out: {name} ({reason})")
        if VGGFT in contest.missing or any(reason.startswith("failed") for reason in contest.missing.values()):
            sys.exit(1)


def parsed() -> tuple[argparse.Namespace, dict[str, str]]:
    """Return the options, and contender → interpreter, or end the program where they make no sense."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", default=PICTURES)
    parser.add_argument("--questions", type=_names, default=list(QUESTIONS), help=f"default: {','.join(QUESTIONS)}")
    parser.add_argument("--contenders", type=_names, default=[], help="only these; default: all")
    parser.add_argument("--images", type=int, help="to train and validate with; default: all")
    parser.add_argument("--rounds", type=int, default=Contest.rounds)
    parser.add_argument("--epochs", type=int, default=Contest.epochs, help="of the original experiment (default: 20)")
    parser.add_argument(
        "--minutes", type=_minutes, default=Contest.minutes, help="of the race: such as 10,30,60 (default: 10)"
    )
    parser.add_argument("--sizes", type=_sizes, default=Contest.sizes, help="of growth (default: 500,1000,2000)")
    parser.add_argument(
        "--files", type=_sizes, default=Contest.files, help="of growth, without the network (default: 10000,100000)"
    )
    parser.add_argument("--python", action="append", default=[], metavar="NAME=INTERPRETER")
    parser.add_argument("--work", type=Path, help="new folder for files and features (default: a temporary one)")
    parser.add_argument(
        "--json",
        type=Path,
        default=Path("benchmarks.json"),
        help="file for everything that was measured (default: benchmarks.json); an interrupted benchmark leaves what it has "
        "measured in a file beside it, .runs.jsonl",
    )
    parser.add_argument("--quick", action="store_true", help="a few images, one round")
    options = parser.parse_args()
    if options.quick:
        vars(options).update(QUICK)
    interpreters = dict(pair.partition("=")[::2] for pair in options.python)
    known = {*race.CONTENDERS, *epoch.TRAINS, *growth.WITHOUT_NETWORK}
    for flag, names, allowed in (
        ("--questions", options.questions, QUESTIONS),
        ("--contenders", options.contenders, known),
        ("--python", interpreters, known),
    ):
        if unknown := set(names) - set(allowed):
            parser.error(f"{flag} {','.join(sorted(unknown))}: expected some of {', '.join(sorted(allowed))}")
    if options.work and options.work.exists():
        parser.error(f"--work {options.work}: expected a folder that does not exist yet")
    return options, interpreters


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _minutes(text: str) -> list[float]:
    return sorted(float(number) for number in text.split(","))


def _sizes(text: str) -> list[int]:
    return sorted(int(number) for number in text.split(","))


if __name__ == "__main__":
    main()
