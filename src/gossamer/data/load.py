"""`load_data`: from a short text to a data set.

    mnist  fashion-mnist  cifar10  fsdd  imagenet-sample
                                             real sets under $GOSSAMER_DATA (see `root`)
    digits                                   10,000 MNIST digits that come with the package
    folder:DIR  folder:DIR@HxW               pictures, one folder for each class (see `folder`)
    module:function  file.py:function        your own: a Data, (train, test), or a dict (see `custom`)

Raises: DataError for anything that cannot be found or used; an unknown name suggests the nearest known one.
"""

from __future__ import annotations

from collections.abc import Callable

from gossamer.data.cifar import cifar10
from gossamer.data.custom import custom
from gossamer.data.folder import folder
from gossamer.data.fsdd import fsdd
from gossamer.data.imagenet import imagenet_sample
from gossamer.data.mnist import digits, fashion_mnist, mnist
from gossamer.data.split import Data
from gossamer.errors import DataError, nearest

NAMES: dict[str, Callable[[], Data]] = {
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "cifar10": cifar10,
    "fsdd": fsdd,
    "imagenet-sample": imagenet_sample,
    "digits": digits,
}


def load_data(spec: str | Data) -> Data:
    """The data set that `spec` names; a Data is returned as it is."""
    if isinstance(spec, Data):
        return spec
    if not isinstance(spec, str):
        raise DataError(f"data: {type(spec).__name__} given, expected a name such as 'mnist' or a Data.")
    if spec in NAMES:
        return NAMES[spec]()
    if spec.startswith("folder:"):
        return folder(spec.removeprefix("folder:"))
    if ":" in spec:
        return custom(spec)
    raise DataError(f"data: unknown set {spec!r}. {nearest(spec, [*NAMES, 'folder:DIR', 'module:function'])}")
