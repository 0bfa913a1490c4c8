"""The benchmarks' PyTorch contenders start from the same network as all others."""

import numpy as np
import pytest

from benchmarks.contenders.entry import ARRAYS

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")

from benchmarks.contenders import torch_weights  # noqa: E402

BLOCKS = ((3, 64, 2), (64, 128, 2), (128, 256, 3), (256, 512, 3), (512, 512, 3))  # channels in and out, convolutions
MEANS = np.array([103.939, 116.779, 123.68])  # BGR


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights with the spread that keeps activations as large as pixels, and biases of that size."""
    random = np.random.default_rng(0)
    arrays = {}
    for block, (channels, width, convolutions) in enumerate(BLOCKS, 1):
        for number in range(1, convolutions + 1):
            spread = np.sqrt(2 / (9 * channels))
            arrays[f"block{block}_conv{number}/kernel"] = random.normal(0, spread, (3, 3, channels, width)).astype("f4")
            arrays[f"block{block}_conv{number}/bias"] = random.normal(0, 10, width).astype("f4")
            channels = width
    folder = tmp_path_factory.mktemp("weights")
    np.savez(folder / ARRAYS, **arrays)
    return folder


def published(weights, pixels):
    """Run the network as published: BGR from 0 to 255 less the means."""
    images = torch.from_numpy((pixels[..., ::-1] - MEANS).transpose(0, 3, 1, 2).astype("f4"))
    with np.load(weights / ARRAYS) as arrays:
        for block, (_, _, convolutions) in enumerate(BLOCKS, 1):
            for number in range(1, convolutions + 1):
                kernel, bias = (
                    torch.from_numpy(arrays[f"block{block}_conv{number}/{name}"]) for name in ("kernel", "bias")
                )
                images = torch.relu(torch.conv2d(images, kernel.permute(3, 2, 0, 1), bias, padding=1))
            images = torch.max_pool2d(images, 2)
    return images.numpy()


def test_torchvision_computes_the_features_of_the_published_network(weights):
    pixels = np.random.default_rng(1).integers(0, 256, (2, 96, 96, 3)).astype("f4")
    prepared = (pixels / 255 - torch_weights.MEAN) / torch_weights.STD
    with torch.inference_mode():
        model = torch_weights.vgg16(weights)
        found = model.features(torch.from_numpy(prepared.transpose(0, 3, 1, 2).astype("f4"))).numpy()
    wanted = published(weights, pixels)
    print(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
    assert np.linalg.norm(found - wanted) < 1e-3 * np.linalg.norm(wanted)
