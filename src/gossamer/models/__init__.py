"""The reference networks and `load_model`."""

from gossamer.models.lenet import LeNet5 as LeNet5
from gossamer.models.lenet import LeNet300 as LeNet300
from gossamer.models.load import load_model as load_model
from gossamer.models.load import load_weights_ as load_weights_
from gossamer.models.mnist_mlp import MnistMLP as MnistMLP
from gossamer.models.mobilenet_small import MobileNetSmall as MobileNetSmall
from gossamer.models.onnx import OnnxNetwork as OnnxNetwork
from gossamer.models.onnx import from_onnx as from_onnx
from gossamer.models.resnet_cifar import ResNetCifar as ResNetCifar
from gossamer.models.squeezenet import SqueezeNet as SqueezeNet
from gossamer.models.vgg_small import VGGSmall as VGGSmall

__all__ = [
    "LeNet300",
    "LeNet5",
    "MnistMLP",
    "MobileNetSmall",
    "OnnxNetwork",
    "ResNetCifar",
    "SqueezeNet",
    "VGGSmall",
    "from_onnx",
    "load_model",
    "load_weights_",
]
