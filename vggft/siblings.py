"""Imports `featurize`, `heads` and `finetune` from beside `vggft`, even if other modules have these names.

The user's folder may contain a `finetune.py` or a folder `heads/`, and `python -m vggft` and every script in that folder search
it first.
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

STAGES = ("featurize", "heads", "finetune")
_PLACE = Path(__file__).absolute().parent.parent
_MARK = " of vggft: "  # in the first line of each stage's __init__.py


class _Siblings:
    """Import finder for the stages only."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the location of a stage. Raises ImportError if the package is missing or not vggft's."""
        if name not in STAGES:
            return None
        file = _PLACE / name / "__init__.py"
        if not file.is_file() or _MARK not in file.read_text(encoding="utf-8", errors="replace").partition("\n")[0]:
            raise ImportError(
                f"{file} is {'not part of vggft: another package has overwritten it' if file.is_file() else 'missing'}. "
                f"vggft needs its own package {name!r} there. Reinstall vggft from its folder (pip install --force-reinstall .), "
                f"in an environment without other packages named {name!r}."
            )
        return PathFinder.find_spec(name, [str(_PLACE)])


def use_siblings() -> None:
    """Import the stages from beside `vggft` from now on.

    Raises:
        ImportError: another module with one of these names was imported before.
    """
    for name in STAGES:
        module = sys.modules.get(name)
        if module is not None:
            file = getattr(module, "__file__", None)
            folder = (
                Path(file).parent if file else Path(next(iter(module.__path__)))
            )  # without __init__.py there is no file
            if folder.resolve() != (_PLACE / name).resolve():
                raise ImportError(
                    f"{file or folder} has been imported as {name!r}, and vggft has a package of that name. Rename it: one "
                    "program cannot use both."
                )
    sys.meta_path.insert(0, _Siblings)
