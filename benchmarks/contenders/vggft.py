"""vggft, by its commands' Python interface and with their defaults."""

from benchmarks.contenders.entry import Entry, main
from vggft import Experiment


def experiment(entry: Entry) -> Experiment:
    """Return the workspace in the contender's folder."""
    return Experiment(entry.task.work / "vggft-work")


def features(entry: Entry) -> None:
    """Cache the features of all pictures, or of those that are new."""
    result = experiment(entry).featurize(entry.task.data)
    entry.say("features", computed=result["computed"], engine=result["engine"])


if __name__ == "__main__":
    main({"features": features})
