"""Architecture: its layers, which modules may import VGG16, and the stand-in engine."""

import ast
from pathlib import Path

import numpy as np
import pytest
from tiny import TINY, StandIn, tiny_weights

from featurize.backbone.vgg16 import VGG16
from featurize.engines import selection, winograd_engine
from featurize.errors import VggftError

ROOT = Path(__file__).parents[2]
# The front doors, whose default it is, and their options, whose help shows its defaults.
MAY_NAME_VGG16 = {"vggft/api.py", "vggft/cli/app.py", "vggft/steps/options.py"}


def test_parts():
    assert TINY.blocks == ("block1", "block2", "block3")
    assert [layer.name for layer in TINY.convolutions] == [
        "block1_conv1",
        "block2_conv1",
        "block3_conv1",
        "block3_conv2",
    ]
    assert TINY.top == "block3_pool"
    assert [TINY.layer(name).shape(32) for name in TINY.cached] == [(8, 8, 8), (4, 4, 16)]
    assert TINY.parameters == sum(kernel.size + bias.size for kernel, bias in tiny_weights().arrays.values())
    assert VGG16.parameters == 14_714_688


def test_above_and_up_to_a_layer_are_all_layers():
    for name in (None, *TINY.names):
        below, above = TINY.up_to(name), TINY.above(name)
        assert (*below, *above) == TINY.layers
        assert (below[-1].name if below else None) == name
    with pytest.raises(VggftError, match="unknown layer 'block4_pool'"):
        TINY.up_to("block4_pool")


@pytest.mark.parametrize("package", ["featurize", "heads", "finetune", "vggft"])
def test_only_the_front_doors_name_vgg16(package):
    """Everywhere else the network is handed in, and no string holds a layer's name."""
    for path in sorted((ROOT / package).rglob("*.py")):
        where = path.relative_to(ROOT).as_posix()
        if where in MAY_NAME_VGG16 or where.startswith("featurize/backbone/"):
            continue
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        assert "featurize.backbone.vgg16" not in {node.module for node in nodes if isinstance(node, ast.ImportFrom)}, (
            where
        )
        for text in (node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)):
            assert not any(word in text for word in ("VGG16", *VGG16.blocks)), (where, text)


def test_engines_for_few_filters(monkeypatch):
    monkeypatch.setattr(selection.importlib.util, "find_spec", lambda name: object())
    assert not winograd_engine.computes(TINY)
    assert winograd_engine.computes(VGG16)
    assert selection.choose(TINY).name == "mnn"
    with pytest.raises(VggftError, match=r"--engine winograd: TINY has .* no multiple of 64"):
        selection.choose(TINY, "winograd")
    winograd = pytest.importorskip("featurize.engines.winograd", reason="the extra 'cpu' is not installed")
    assert winograd.PART == winograd_engine.PART


def test_the_stand_in_engine_gives_the_same_from_a_cached_layer():
    pictures = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    engine = StandIn(TINY)
    top, cached = engine(pictures, ["block3_pool", "block2_pool"])
    assert [top.shape, cached.shape] == [(3, 4, 4, 16), (3, 8, 8, 8)]
    assert top.std() > 0.01
    assert np.array_equal(engine(pictures[1:2], ["block3_pool"])[0][0], top[1])
    from_cache = engine(cached.astype(np.float16), ["block3_pool"], "block2_pool")[0]
    assert np.allclose(from_cache, top, rtol=2e-3, atol=2e-3)


# Whom a room may import: those before it. Rooms are the folders of `featurize` and `vggft` and the modules beside them.
ORDER = """
    featurize.errors featurize.wording featurize.process featurize.options featurize.disk featurize.pixels featurize.data
    featurize.video featurize.backend featurize.backbone featurize.cache featurize.engines featurize.runner featurize.cluster
    featurize heads finetune
    vggft.ui vggft.workspace vggft.prediction vggft.explanation vggft.sorting vggft.labelling vggft.comparison vggft.export
    vggft.steps vggft.cli vggft.api vggft.siblings vggft vggft.__main__
""".split()


def room(module):
    package, *rest = module.split(".")
    return ".".join([package, *rest[:1]]) if package in ("featurize", "vggft") else package


@pytest.mark.parametrize("package", ["featurize", "heads", "finetune", "vggft"])
def test_no_room_imports_a_later_one(package):
    """Imports inside functions count, too."""
    for path in sorted((ROOT / package).rglob("*.py")):
        own = room(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                imported = [f"{node.module}.{alias.name}" for alias in node.names]
            rooms = {
                room(name) for name in imported if name.split(".")[0] in ("featurize", "heads", "finetune", "vggft")
            }
            later = [name for name in rooms if name not in ORDER[: ORDER.index(own) + 1]]
            assert not later, f"{path.relative_to(ROOT)}, line {node.lineno}: {own} imports {later[0]}"
