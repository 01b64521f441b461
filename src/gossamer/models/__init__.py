"""The reference networks and `load_model`."""

from gossamer.models.lenet import LeNet5 as LeNet5
from gossamer.models.lenet import LeNet300 as LeNet300
from gossamer.models.load import load_model as load_model
from gossamer.models.load import load_weights_ as load_weights_
from gossamer.models.resnet_cifar import ResNetCifar as ResNetCifar

__all__ = ["LeNet300", "LeNet5", "ResNetCifar", "load_model", "load_weights_"]
