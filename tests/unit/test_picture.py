"""The picture of a network says what the Keras model is: names, shapes, parameters, and which layers are trained."""

import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from small_tuning import head
from tiny import TINY, random_weights, tiny_weights

from featurize.backbone.vgg16 import VGG16
from featurize.backbone.weights import Weights
from finetune import network as networks
from finetune import picture, stages

SVG = "{http://www.w3.org/2000/svg}"
BLUE, ORANGE = (picture._COLOURS[state][0] for state in ("frozen", "trained"))


def boxes(svg):
    """Return (outline, texts) of each box of the picture, from top to bottom, and the legend's."""
    root = ElementTree.fromstring(svg)
    texts = [(float(text.get("y")), text.text) for text in root.iter(f"{SVG}text")]
    found = []
    for box in root.iter(f"{SVG}rect"):
        if box.get("stroke"):
            top, height = float(box.get("y")), float(box.get("height"))
            found.append((box.get("stroke"), [text for y, text in texts if top < y < top + height]))
    return found[:-3], found[-3:]


def check(architecture, weights, preprocess, size, own, split_point):
    """Compare the picture with the Keras model that is trained, and return the picture."""
    model = networks.assemble(weights, preprocess, size, own)
    networks.freeze(model, architecture, split_point)
    listed = stages.of(architecture, preprocess, size, own, split_point)
    drawn = picture.draw("block3-h", listed, split_point)
    layers = [layer for layer in model.layers if own.pooling != "avgmax" or layer.name not in ("pool_avg", "pool_max")]
    rows, _ = boxes(drawn.svg)
    assert len(rows) == len(layers)
    for layer, (outline, (name, _, shape, parameters)) in zip(layers, rows, strict=True):
        outputs = layer.output.shape[1:]
        assert (name, shape) == (layer.name, " × ".join(f"{side:,}" for side in outputs))
        assert parameters == (f"{layer.count_params():,}" if layer.count_params() else "–")
        learned = layer.count_params() and layer.name != "preprocess"
        assert outline == ((ORANGE if layer.trainable else BLUE) if learned else picture._COLOURS["neither"][0])
    total, trained = model.count_params(), networks.parameters(model)
    assert f"{trained:,} of {total:,} parameters are trained" in drawn.svg
    return drawn


@pytest.mark.parametrize("split_point", ["block2_pool", "block3_conv1", "block3_pool", None])
def test_the_picture_is_that_of_the_keras_model(split_point):
    """At every kind of split point; `block3_pool` is the head alone."""
    own = head("avgmax", classes=3, dropout=0.5, scaler=True)
    drawn = check(TINY, tiny_weights(), "caffe", 32, own, split_point)
    cached = re.findall("outputs of (.*) are cached", drawn.svg)
    assert cached == ([] if split_point is None else [split_point])
    outlines = [outline for outline, _ in boxes(drawn.svg)[0]]
    assert outlines.count(BLUE) == {"block2_pool": 2, "block3_conv1": 3, "block3_pool": 4, None: 0}[split_point]


@pytest.mark.parametrize("pooling", ["flatten", "avg", "max"])
def test_the_picture_of_each_pooling_without_preprocessing(pooling):
    check(TINY, tiny_weights(), "raw", 32, head(pooling), "block2_pool")


def test_the_picture_of_vgg16():
    arrays = {
        layer.name: (np.zeros((3, 3, layer.channels, layer.filters), "f4"), np.zeros(layer.filters, "f4"))
        for layer in VGG16.convolutions
    }
    weights = Weights(VGG16, arrays, "", random_weights(TINY).source)
    drawn = check(VGG16, weights, "caffe", 224, head("flatten", shape=(7, 7, 512)), "block4_pool")
    assert "block5_conv3" in drawn.svg
    assert "25,088" in drawn.svg


def test_the_svg_stands_alone_and_is_announced():
    own = head("max")
    drawn = picture.draw("a&b", stages.of(TINY, "caffe", 32, own, "block2_pool"), "block2_pool")
    root = ElementTree.fromstring(drawn.svg)
    assert root.get("role") == "img"
    assert root[0].tag == f"{SVG}title"
    assert root[0].text.startswith("The layers of a&b: ")
    assert "<style" not in drawn.svg  # it would apply to the whole page
    assert " id=" not in drawn.svg
    _, legend = boxes(drawn.svg)
    assert [outline for outline, _ in legend] == [outline for outline, _ in picture._COLOURS.values()]
    assert legend[0][1] == ["frozen", "trained", "neither: preprocessing, and layers without weights"]


def test_the_png_is_the_same_picture():
    drawn = picture.draw("h", stages.of(TINY, "caffe", 32, head("max"), "block2_pool"), "block2_pool")
    pixels = np.asarray(Image.open(io.BytesIO(drawn.png)).convert("RGB"))
    scale = pixels.shape[1] / picture._WIDTH
    assert pixels.shape[0] == pytest.approx(drawn.height * scale, abs=1)
    for box in ElementTree.fromstring(drawn.svg).iter(f"{SVG}rect"):
        if box.get("stroke"):
            x, y = float(box.get("x")) + 5, float(box.get("y")) + float(box.get("height")) / 2
            filling = "#{:02x}{:02x}{:02x}".format(*pixels[round(y * scale), round(x * scale)])
            assert (box.get("stroke"), filling) in picture._COLOURS.values()
            assert filling == box.get("fill")
