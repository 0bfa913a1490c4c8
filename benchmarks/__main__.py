"""vggft beside what else people use, on the same files, in turn.

    python -m benchmarks [FOLDER] [--questions features,epoch] [--images 400] [--rounds 3] [--minutes 10,30]
        [--sizes 500,1000,2000] [--files 10000,100000]
        [--contenders vggft,keras_npy] [--python NAME=INTERPRETER] [--json FILE] [--quick]

FOLDER has a folder for each class, or `train`, `validation` and `test` with class folders inside; without it, the bundled
drawings are used. Each contender runs in a process of its own, with all cores; rounds alternate. Medians are printed, with
minimum and maximum, and ratios to vggft in the same round. --quick runs everything on a few images to see that it works: its
times mean nothing.

A contender whose libraries are not installed is left out, and the reason is printed. --python NAME=INTERPRETER
runs a contender with another Python, where its libraries do not go together with those of vggft.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.contest import Contest
from benchmarks.machine import machine, versions
from benchmarks.photographs import divide
from benchmarks.questions import changes, classic, epoch, experiment, features, growth, limit, population, race
from featurize.disk import forms
from vggft.steps.demo import PICTURES

QUESTIONS = {
    question.__name__.rpartition(".")[2]: question.ask
    for question in (features, changes, classic, population, epoch, experiment, race, limit, growth)
}
QUICK = {"images": 24, "rounds": 1, "epochs": 1, "minutes": [0.5], "sizes": [32, 64], "files": [128, 256]}


def main() -> None:
    """Parse the command line, ask, print."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", default=PICTURES)
    parser.add_argument("--questions", type=_names, default=list(QUESTIONS), help=f"default: {','.join(QUESTIONS)}")
    parser.add_argument("--contenders", type=_names, default=[], help="only these; default: all")
    parser.add_argument("--images", type=int, help="to train and validate with; default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20, help="of the original experiment (default: 20)")
    parser.add_argument("--minutes", type=_minutes, default=[10], help="of the race: such as 10,30,60 (default: 10)")
    parser.add_argument("--sizes", type=_sizes, default=[500, 1_000, 2_000], help="of growth (default: 500,1000,2000)")
    parser.add_argument(
        "--files", type=_sizes, default=[10_000, 100_000], help="of growth, without the network (default: 10000,100000)"
    )
    parser.add_argument("--python", action="append", default=[], metavar="NAME=INTERPRETER")
    parser.add_argument("--work", type=Path, help="new folder for files and features (default: a temporary one)")
    parser.add_argument("--json", type=Path, help="write everything that was measured to this file")
    parser.add_argument("--quick", action="store_true", help="a few images, one round")
    options = parser.parse_args()
    if options.quick:
        vars(options).update(QUICK)
    if unknown := set(options.questions) - set(QUESTIONS):
        parser.error(f"--questions {','.join(sorted(unknown))}: expected some of {', '.join(QUESTIONS)}")
    with tempfile.TemporaryDirectory(prefix="vggft-benchmarks-") as temporary:
        place = options.work or Path(temporary)
        data, unseen = divide(options.folder, place / "pictures", options.images, 224 if options.quick else None)
        writing = [sys.executable, "-m", "benchmarks.weight_files", place / "weights"]
        subprocess.run(writing, check=True, stderr=subprocess.DEVNULL)
        contest = Contest(
            data,
            unseen,
            place / "weights",
            place / "contenders",
            options.rounds,
            options.quick,
            options.epochs,
            options.minutes,
            dict(pair.split("=", 1) for pair in options.python),
            options.contenders,
            sizes=options.sizes,
            files=options.files,
        )
        found: dict[str, Any] = {"machine": machine(), "versions": versions(), "command": sys.argv[1:], "answers": {}}
        print(f"{found['machine']}\n{', '.join(f'{name} {version}' for name, version in found['versions'].items())}")
        for name in options.questions:
            answer = QUESTIONS[name](contest)
            found["answers"][name] = {"title": answer.title, "text": answer.text, **answer.numbers}
            found["missing"] = contest.missing
            if options.json:
                forms.write_json(options.json, found)
            print(f"\n## {answer.title}\n\n{answer.text}", flush=True)
        for name, reason in contest.missing.items():
            print(f"\nleft out: {name} ({reason})")


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _minutes(text: str) -> list[float]:
    return sorted(float(number) for number in text.split(","))


def _sizes(text: str) -> list[int]:
    return sorted(int(number) for number in text.split(","))


if __name__ == "__main__":
    main()
