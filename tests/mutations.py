"""Deliberate breakages, each of which a test must catch: `python tests/mutations.py [WORD ...]`.

Each one is applied to a copy of the repository, where the named test file runs: first without the slow tests, then the slow
ones alone. The table that is printed says which suite caught it. With words, only breakages of files whose path has one.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SUITES = {"fast": "not slow", "slow": "slow"}
NOTHING_RAN = 5  # pytest's exit code


class Mutation(NamedTuple):
    """In `file`, `old` (which occurs once) becomes `new`; tests of the file `test` fail."""

    file: str
    old: str
    new: str
    test: str


MUTATIONS = [
    Mutation(
        "vggft/prediction/selection.py", "network.equals(best[0].model.name)", "False", "integration/test_explain.py"
    ),
    Mutation(
        "vggft/comparison/comparison.py",
        "return None if same else self.first",
        "return self.first",
        "unit/test_sentences.py",
    ),
    Mutation(
        "featurize/cluster/cluster.py",
        "        for item in suspected:\n            yield self.run_alone(function, item)",
        "        for item in suspected:\n            yield Done(item, None, died=True)",
        "unit/test_cluster.py",
    ),
    Mutation(
        "featurize/cluster/cluster.py",
        "with interrupts.asking(require_wanted):",
        "with contextlib.nullcontext():",
        "unit/test_cluster.py",
    ),
    Mutation("featurize/cluster/processes.py", "self._all[i] = self._start()", "pass", "unit/test_cluster.py"),
    Mutation(
        "vggft/workspace/on_workers.py",
        "        _require_sound(cluster, job)\n        ((digest",
        "        ((digest",
        "integration/test_on_cluster.py",
    ),
    Mutation(
        "vggft/workspace/on_workers.py",
        "if not isinstance(picture, str):",
        "if False:",
        "integration/test_on_cluster.py",
    ),
    Mutation("vggft/workspace/filling.py", "reason.startswith(FATAL)", "False", "integration/test_on_cluster.py"),
    Mutation(
        "featurize/video/lists.py",
        "(record.identity, record.modified) == (source.identity, source.modified)",
        "record.identity == source.identity",
        "integration/test_frames_again.py",
    ),
    Mutation(
        "featurize/video/video.py",
        "self._target = -1  # it may",
        "pass  # it may",
        "unit/test_frames_damage.py",
    ),
    Mutation(
        "featurize/disk/durable.py",
        "and ours(match[1]) and",
        "and",
        "integration/test_frames_again.py",
    ),
    Mutation(
        "featurize/cache/pooled.py",
        "stored = maps.astype(np.float16, copy=False)",
        "stored = maps",
        "unit/test_pooled.py",
    ),
    Mutation("featurize/cache/shards.py", "_ROWS_PER_CHUNK.get(layer, 1)", "1", "unit/test_pooled.py"),
    Mutation(
        "heads/features.py", 'rows[:, 0], "max": rows[:, 1]', 'rows[:, 1], "max": rows[:, 0]', "unit/test_pooled.py"
    ),
    Mutation("heads/features.py", "[POOLED, architecture.top]", "[architecture.top, POOLED]", "unit/test_pooled.py"),
    Mutation(
        "vggft/workspace/filling.py",
        "any(step.below != cache.architecture.top for step in steps)",
        "any(True for step in steps)",
        "integration/test_pooled_workspace.py",
    ),
    Mutation("vggft/labelling/decisions.py", "file.truncate(end)", "pass", "unit/test_labelling.py"),
    Mutation(
        "vggft/labelling/decisions.py",
        "if _state(self.path) != self._state:",
        "if False:",
        "unit/test_labelling.py",
    ),
    Mutation(
        "vggft/labelling/session.py",
        "if before and press.number <= max(before):",
        "if False:",
        "unit/test_labelling.py",
    ),
    Mutation(
        "vggft/labelling/queue.py",
        "(taken if picture.id in others else free)",
        "free",
        "unit/test_labelling.py",
    ),
    Mutation(
        "vggft/labelling/app.py",
        "if host not in self._hosts:",
        "if False:",
        "integration/test_sort_server.py",
    ),
    Mutation(
        "vggft/labelling/app.py",
        'if headers.get(b"origin") != b"http://" + host:',
        "if False:",
        "integration/test_sort_server.py",
    ),
    Mutation(
        "vggft/labelling/page/page.js",
        "if (held.length || !picture || shown !== picture.id) return hold(act);",
        "",
        "integration/test_sort_held.py",
    ),
    Mutation(
        "vggft/labelling/page/page.js",
        'if (sent.kind === "undo") back',
        'if (sent.kind === "redo") back',
        "integration/test_sort_page.py",
    ),
    Mutation(
        "vggft/comparison/comparison.py",
        "if kind != kinds[predictions.head]",
        "if kind == kinds[predictions.head]",
        "unit/test_compare.py",
    ),
    Mutation(
        "vggft/comparison/page/gallery.py", "network & ~head", "network & head", "integration/test_report_page.py"
    ),
    Mutation(
        "vggft/comparison/page/templates/page.js",
        "used.label_scores[a] - used.label_scores[b]",
        "used.label_scores[b] - used.label_scores[a]",
        "integration/test_report_page.py",
    ),
    Mutation(
        "vggft/comparison/page/templates/page.html",
        "{{ class | visible }}</option>",
        "{{ class | safe }}</option>",
        "integration/test_report_page.py",
    ),
    Mutation(
        "featurize/data/splits.py",
        "return {group: min(splits, key=SPLITS.index) for group, splits in known.items() if splits}",
        "return {}",
        "unit/test_splits.py",
    ),
    Mutation(
        "featurize/data/dataset.py",
        'kinds = [f"{split} {label}" for',
        'kinds = [f"{label}" for',
        "unit/test_splits.py",
    ),
    Mutation("featurize/pixels/images.py", "(255, 255, 255, 255)", "(0, 0, 0, 255)", "unit/test_images.py"),
    Mutation("featurize/pixels/images.py", "values // 256", "values // 257", "unit/test_images.py"),
    Mutation(
        "featurize/backbone/network.py",
        "return x[..., ::-1] - np.asarray",
        "return x - np.asarray",
        "network/test_winograd.py",
    ),
    Mutation(
        "finetune/train.py", "best=program.with_temperature(weights, found)", "best=weights", "unit/test_temperature.py"
    ),
    Mutation("heads/search.py", "train.take(learnt), results", "train, results", "unit/test_search.py"),
    Mutation("heads/logistic.py", "np.full(len(x), 1 / copies)", "np.full(len(x), 1.0)", "unit/test_views.py"),
    Mutation(
        "vggft/workspace/views.py",
        "if not rows:\n        return of_views",
        "if rows:\n        return of_views",
        "integration/test_views_command.py",
    ),
    Mutation(
        "vggft/steps/sweep.py",
        "return (settings.unfreeze, settings.plan, head_digest) == training.key",
        "return (settings.unfreeze, settings.plan) == training.key[:2]",
        "integration/test_sweep.py",
    ),
    Mutation("heads/metrics.py", "return min(1.0, float(value))", "return float(value)", "unit/test_metrics.py"),
    Mutation("heads/head.py", "LEAST_SCALE * np.median(half)", "0 * np.median(half)", "unit/test_heads.py"),
    Mutation(
        "featurize/pixels/images.py",
        "image._size = (columns * power, rows * power)",
        "pass",
        "unit/test_large_pictures.py",
    ),
    Mutation(
        "featurize/engines/keras_engine.py",
        "if not _out_of_memory(error) or size == 1:",
        "if size == 1:",
        "network/test_backbone.py",
    ),
    Mutation(
        "featurize/runner.py",
        "finite = np.isfinite(rows).all(axis=1)",
        "finite = np.ones(len(rows), bool)",
        "unit/test_runner.py",
    ),
    Mutation(
        "featurize/pixels/decoding.py",
        "if hashlib.sha256(data).hexdigest() == digest:",
        "if data:",
        "unit/test_runner.py",
    ),
    Mutation(
        "featurize/cache/shards.py",
        "if durable.sha256(path(folder, name)) != name:",
        "if not durable.sha256(path(folder, name)):",
        "unit/test_cache.py",
    ),
    Mutation(
        "featurize/cache/shards.py",
        "creation.set_obj_track_times(False)",
        "creation.set_obj_track_times(True)",
        "resilience/test_deletion.py",
    ),
    Mutation(
        "featurize/disk/arrays.py",
        "_last(file, size) != _end(file, size)",
        "False",
        "unit/test_manifest.py",
    ),
    Mutation(
        "featurize/disk/durable.py",
        "if path.is_symlink():\n            remaining.append(path)\n        elif path.is_dir():",
        "if path.is_dir():",
        "resilience/test_deletion.py",
    ),
    Mutation(
        "featurize/disk/durable.py",
        "            temporary.replace(path)\n        finally:",
        "        finally:\n            temporary.replace(path)",
        "unit/test_durable.py",
    ),
    Mutation(
        "featurize/process/interrupts.py",
        "        raise KeyboardInterrupt\n",
        "        pass\n",
        "resilience/test_kills.py",
    ),
    Mutation(
        "heads/head.py",
        "layer.bias.astype(np.float64) - scaler.mean @ kernel",
        "layer.bias.astype(np.float64)",
        "unit/test_logistic.py",
    ),
    Mutation("heads/population.py", "real[: len(rows)] = 1", "real[:] = 1", "unit/test_population.py"),
    Mutation(
        "heads/folds.py",
        "np.zeros(len(targets)), targets, np.asarray(groups)",
        "np.zeros(len(targets)), targets, np.arange(len(targets))",
        "unit/test_search.py",
    ),
    Mutation("heads/leaks.py", "samples[first].split != samples[second].split", "True", "unit/test_leaks.py"),
    Mutation(
        "finetune/train.py",
        "        program.set_optimizer(state.optimizer)\n",
        "",
        "resilience/test_resume.py",
    ),
    Mutation(
        "finetune/train.py",
        "return min(history, key=lambda epoch: epoch.val_log_loss)",
        "return history[-1]",
        "unit/test_finetune.py",
    ),
    Mutation("finetune/recipes.py", "tuned=2,", "tuned=3,", "integration/test_recipe.py"),
    Mutation("finetune/train.py", 'self.epoch if plan.keep == "last" else ', "", "integration/test_recipe.py"),
    Mutation("vggft/prediction/grey.py", "replace(fingerprint, probe=GREY)", "fingerprint", "integration/test_grey.py"),
    Mutation(
        "finetune/network.py",
        "if not (errors <= bound * np.linalg.norm(stored, axis=1)).all():",
        "if (errors > bound * np.linalg.norm(stored, axis=1)).any():",
        "unit/test_finetune.py",
    ),
    Mutation(
        "finetune/removal.py",
        "return checked.is_as_written(path) or not checked.lists(folder, name)",
        "return True",
        "integration/test_runs.py",
    ),
    Mutation(
        "featurize/disk/checked.py",
        "if checksums is None or sha256 in checksums:",
        "if True:",
        "unit/test_checksums.py",
    ),
    Mutation(
        "heads/near_duplicates.py",
        "if a != b and similarities.within(files[a], files[b], _DIAMETER):",
        "if a != b:",
        "unit/test_leaks.py",
    ),
    Mutation(
        "finetune/checkpoint.py",
        "if hashlib.sha256(data[_DIGEST:]).digest() != data[:_DIGEST]:",
        "if not data:",
        "resilience/test_resume.py",
    ),
    Mutation(
        "featurize/pixels/images.py",
        "margins = (box[0], box[1], width - box[2], height - box[3])",
        "margins = (box[0], box[1], 0, 0)",
        "unit/test_large_pictures.py",
    ),
    Mutation(
        "featurize/engines/selection.py",
        "rates = measured.known(architecture, names)",
        "rates = None",
        "network/test_backbone.py",
    ),
    Mutation(
        "vggft/workspace/filling.py",
        "images=sum(len(wanted) for step, wanted in work.items() if step.below is None)",
        "images=0",
        "integration/test_featurize.py",
    ),
    Mutation(
        "featurize/engines/selection.py",
        "max(rates, key=rates.__getitem__)",
        "min(rates, key=rates.__getitem__)",
        "unit/test_measured.py",
    ),
    Mutation(
        "vggft/prediction/band.py",
        "return score < self.threshold",
        "return score <= self.threshold",
        "unit/test_band.py",
    ),
    Mutation(
        "vggft/export/network.py",
        "np.hstack([-kernel, kernel])",
        "np.hstack([kernel, -kernel])",
        "integration/test_export.py",
    ),
    Mutation(
        "vggft/export/reference.py",
        "if differences[worst] > bound:",
        "if differences[worst] > 1:",
        "integration/test_export.py",
    ),
    Mutation(
        "vggft/export/staging.py",
        "if os.path.lexists(target):",
        "if target == out and os.path.lexists(target):",
        "integration/test_export.py",
    ),
    Mutation(
        "vggft/prediction/scoring.py",
        "if np.isfinite(p).all():",
        "if p is not None:",
        "unit/test_scoring.py",
    ),
    Mutation(
        "vggft/explanation/grad_cam.py",
        "gradient = (gradient * units) @ layer.kernel.T",
        "gradient = gradient @ layer.kernel.T",
        "unit/test_grad_cam.py",
    ),
    Mutation(
        "vggft/explanation/grad_cam.py",
        "np.concatenate([-last, last], axis=1)",
        "np.concatenate([last, last], axis=1)",
        "unit/test_grad_cam.py",
    ),
    Mutation(
        "vggft/explanation/frozen.py",
        "for below in (name for name in reversed(names) if name in self._cache.layers):",
        "for below in ():",
        "integration/test_explain.py",
    ),
    Mutation(
        "vggft/explanation/drawing.py",
        "while os.path.lexists(path) and not is_drawing(path):",
        "while False:",
        "integration/test_explain.py",
    ),
    Mutation(
        "vggft/comparison/statistics.py",
        "return float(binomtest(only_a, only_a + only_b).pvalue) if",
        "return float(binomtest(only_a, only_a + only_b).pvalue) / 2 if",
        "unit/test_statistics.py",
    ),
    Mutation(
        "vggft/comparison/statistics.py",
        "largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))",
        "largest = min(1.0, (len(p_values) - rank) * p_values[i])",
        "unit/test_statistics.py",
    ),
]


def copy_of_the_repository(folder: Path) -> Path:
    """Copy all tracked files and all untracked ones that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split(b"\0")):
        place = folder / os.fsdecode(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / os.fsdecode(name), place)
    return folder


def caught_by(copy: Path, mutation: Mutation) -> str | None:
    """Apply a breakage, run its tests, and revert it; return the suite that failed."""
    path = copy / mutation.file
    sound = path.read_text(encoding="utf-8")
    if sound.count(mutation.old) != 1:
        raise SystemExit(f"{mutation.file}: occurs {sound.count(mutation.old)} times, expected once: {mutation.old!r}")
    path.write_text(sound.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        for suite, marked in SUITES.items():
            words = ["-q", "-x", "-n", "0", "-p", "no:cacheprovider", "-m", marked, str(copy / "tests" / mutation.test)]
            environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
            done = subprocess.run(
                [sys.executable, "-m", "pytest", *words], cwd=copy, env=environment, capture_output=True, check=False
            )
            if done.returncode not in (0, NOTHING_RAN):
                return suite
    finally:
        path.write_text(sound, encoding="utf-8")
    return None


def main(words: list[str]) -> None:
    """Print a line for each breakage; exit with code 1 if one was missed."""
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = copy_of_the_repository(Path(folder))
        for mutation in MUTATIONS:
            if words and not any(word in mutation.file for word in words):
                continue
            suite = caught_by(copy, mutation)
            missed += suite is None
            first = mutation.new.strip().splitlines()[0] if mutation.new.strip() else "(removed)"
            print(f"{suite or 'MISSED':7} {mutation.file:36} {mutation.test:28} {first}", flush=True)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
