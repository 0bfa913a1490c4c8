"""The heads of a workspace while some are trained: each is on disk, and in the leaderboard, as soon as it is finished."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from time import perf_counter

from heads import search, store
from heads.plan import Plan
from heads.search import Failed, Result
from heads.specs import Spec
from vggft.prediction import models
from vggft.ui.console import Ui
from vggft.workspace.workspace import Workspace


class Board:
    """The fresh heads of a workspace, by name. The workspace's lock must be held.

    Attributes:
        results: name → the head and its metrics.
        stale: heads made from another state of the data, or with other features.
        trained: names of the heads trained by this command.
        failed: heads that could not be trained.
        seconds: what was trained ("logistic", "pooled", "flatten") → how long it took.
    """

    def __init__(self, workspace: Workspace, plan: Plan, ui: Ui) -> None:
        """Read the heads on disk. A damaged one may be about to be replaced: it is reported after training."""
        self._workspace, self._plan, self._ui = workspace, plan, ui
        fresh, self.stale = models.load_heads(workspace, on_damage=lambda error: None)
        self.results = {result.head.name: result for result in fresh}
        self.trained: list[str] = []
        self.failed: list[Failed] = []
        self.seconds: dict[str, float] = defaultdict(float)

    def has(self, spec: Spec) -> bool:
        """Return whether the head of this specification, trained by this plan, is here."""
        result = self.results.get(spec.name)
        return result is not None and result.head.provenance.get("recipe") == search.recipe(spec, self._plan)

    def present(self, specs: Sequence[Spec]) -> list[Spec]:
        """Return the specifications whose head is here."""
        return [spec for spec in specs if self.has(spec)]

    def add(self, result: Result) -> None:
        """Write a head that was just trained, and the leaderboard with it."""
        self.trained.append(result.head.name)
        self.update(result)

    def update(self, result: Result) -> None:
        """Write a head, or what was added to it, and the leaderboard."""
        name = result.head.name
        store.save(self._workspace.heads, result)
        self.results[name] = replace(result, predictions=None, out_of_fold=None, pipeline=None)
        self.stale = [other for other in self.stale if other.head.name != name]
        self.write_leaderboard()

    def write_leaderboard(self) -> None:
        """Write `leaderboard.csv`."""
        store.write_leaderboard(self._workspace.leaderboard, list(self.results.values()), self.stale)

    def succeeded(self, results: Iterable[Result | Failed]) -> Iterator[Result]:
        """Yield the heads that could be trained; note and report the others, and the time that each took."""
        began = perf_counter()
        for result in results:
            if isinstance(result, Failed):
                older = " (the head of that name that is here is an earlier one)" if result.name in self.results else ""
                self.failed.append(result)
                self._ui.warn(f"{result.name}: {result.reason}{older}")
            else:
                self.seconds[_kind(result)] += perf_counter() - began
                yield result
            began = perf_counter()


def _kind(result: Result) -> str:
    if result.head.kind == "logistic":
        return "logistic"
    return "flatten" if result.head.pooling == "flatten" else "pooled"
