"""Write the golden files that are missing: once per version and layout of the format, never to please a test.

python tests/golden/write.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))

from artifact_samples import binary_sample, integer_sample, sample  # noqa: E402  # lies beside the tests
from gossamer.artifact import Artifact, write  # noqa: E402


def main() -> None:
    samples = {
        "every-layout": sample(),
        "binary": binary_sample(),
        "integers": integer_sample(),
        "nothing": (Artifact(b""), {}),
    }
    for name, (artifact, arrays) in samples.items():
        if (FOLDER / f"{name}.goss").exists():
            continue
        write(FOLDER / f"{name}.goss", artifact)
        expected = {f"t:{key}": array for key, array in arrays.items()}
        expected["graph"] = np.frombuffer(artifact.graph, np.uint8)
        expected["metadata"] = np.frombuffer(json.dumps(dict(artifact.metadata)).encode(), np.uint8)
        np.savez_compressed(FOLDER / f"{name}.npz", **expected)


if __name__ == "__main__":
    main()
