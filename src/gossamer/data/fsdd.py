"""FSDD: spoken digits as log-mel pictures [1, 32, 64] (see `speech`); about 3 s to unpack and transform.

3,000 recordings, 50 of each digit by each of six speakers, named digit_speaker_take. Takes 0-4 are the test
split (300) as the authors say, takes 5-9 validation (300), the rest train (2,400). Mean and std are those of
the training features.
Raises: DataError that names the archive when it is missing or broken.
Source: Jakobovski, free-spoken-digit-dataset, CC BY-SA 4.0.
"""

from __future__ import annotations

import io
import lzma
import tarfile
from pathlib import Path

import numpy as np

from gossamer.data.preprocess import Preprocess
from gossamer.data.root import data_file
from gossamer.data.speech import LogMel, read_wav
from gossamer.data.split import Data, Split
from gossamer.errors import DataError


def fsdd() -> Data:
    """Ten digits, spoken by six people."""
    archive, log_mel = data_file("fsdd", "fsdd.tar.xz"), LogMel()
    clips: list[np.ndarray] = []
    labels, takes = [], []
    try:
        with tarfile.open(archive, "r:xz") as tar:
            streams = {Path(member.name).stem: tar.extractfile(member) for member in tar if member.isfile()}
            for name in sorted(streams):
                stream = streams[name]
                assert stream is not None  # members that are files have a stream
                digit, _, number = name.split("_")
                clips.append(log_mel.fit(*read_wav(io.BytesIO(stream.read()), f"{archive}/{name}.wav")))
                labels.append(int(digit))
                takes.append(int(number))
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError, ValueError) as error:
        raise DataError(f"{archive}: cannot be unpacked ({error}). Copy it again.") from error
    # in parts, to bound the memory of the spectra
    features = [log_mel.features(np.stack(clips[at : at + 200])) for at in range(0, len(clips), 200)]
    whole, take = Split(np.concatenate(features), np.array(labels), "fsdd"), np.array(takes)
    return Data(
        name="fsdd",
        train=whole.subset(np.flatnonzero(take >= 10), name="train"),
        validation=whole.subset(np.flatnonzero((take >= 5) & (take < 10)), name="validation"),
        test=whole.subset(np.flatnonzero(take < 5), name="test"),
        classes=tuple("0123456789"),
        preprocess=Preprocess(mean=(-12.14,), std=(2.85,), log_mel=log_mel),
        files=(archive,),
    )
