"""A fine-tuning run that is to be trained."""

from dataclasses import dataclass, replace

from featurize.backbone.weights import Weights
from featurize.cache.feature_cache import FeatureCache
from featurize.data.dataset import Dataset
from finetune.store import Settings, Unfinished
from heads.head import Head
from vggft.workspace.backbone import load_weights
from vggft.workspace.workspace import Workspace


@dataclass(frozen=True)
class Job:
    """An unfinished run and its training data. The workspace's lock must be held.

    Attributes:
        begun: the run on disk.
        settings: its settings, with the memory for inputs of this command.
        head: the initial head.
    """

    workspace: Workspace
    cache: FeatureCache
    begun: Unfinished
    settings: Settings
    head: Head
    weights: Weights

    @classmethod
    def of(cls, workspace: Workspace, cache: FeatureCache, begun: Unfinished, memory: int | None = None) -> "Job":
        """Read the settings, head and weights of a run; `memory`: bytes for inputs, None for what its settings say."""
        settings = begun.settings if memory is None else replace(begun.settings, memory=memory)
        weights = load_weights(cache.architecture, cache.fingerprint, workspace.settings.weights_file_path)
        return cls(workspace, cache, begun, settings, begun.head, weights)

    @property
    def dataset(self) -> Dataset:
        """The images."""
        return self.workspace.dataset
