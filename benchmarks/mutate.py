"""Read 100,000 damaged .goss files: each is refused with an error of ours, or gives exactly the original.

    python benchmarks/mutate.py [--files 100000] [--seed 0] [--write]

Blind damage (flipped bits, cuts, insertions, splices, stamped bytes) must be refused or be the original.
Damage with repaired sizes and checksums, as an enemy would make it, must be refused or decode within the
limit of memory. Any other exception, a file that takes a second, or more memory than the limit, is a failure.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import resource
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gossamer.artifact import Artifact, Reader, Stored, Tensor, head, inspect, rebuild, to_bytes, varint
from gossamer.artifact.head import CHECKSUM_BYTES, MAGIC, checksum
from gossamer.artifact.limits import default_limit
from gossamer.artifact.positions import encode_positions
from gossamer.artifact.stored import Floats, Ints
from gossamer.errors import GossamerError

RESULT = Path(__file__).parent / "results" / "mutated-files.json"
SECONDS = 1.0
INTERESTING = (0, 1, 2, 127, 128, 255, 256, 2**16, 2**20, 2**24, 2**31, 2**32, 2**48, 2**62, 2**63 - 1)


def originals() -> list[bytes]:
    """Files with every layout, coder and float type, of a few hundred to some thousand bytes."""
    rng = np.random.default_rng(0)
    files = []
    for size in (6, 40):
        mask = rng.random((size, 3, 5, 5)) < 0.15
        mask[: size // 3] = False
        fields, options = encode_positions(mask)
        entries = int(mask.sum())
        codes = Ints(rng.geometric(0.2, entries).clip(0, 19).astype(np.uint8), 5)
        shared = Stored("codebook", (entries,), {"codes": codes, "centroids": Floats(rng.normal(size=20))})
        grid = Ints(rng.binomial(255, 0.5, (size, 30)).astype(np.uint8), 8)
        scale = Floats(rng.random(size).astype(np.float32), "bfloat16")
        wide = Ints(rng.integers(0, 900, size * 8).astype(np.uint16), 10)
        stored = [
            Stored("sparse", mask.shape, fields, {"values": shared}, options),
            Stored("uniform", (size, 30), {"codes": grid, "scale": scale}, options={"offset": 127}),
            Stored("dense", (size,), {"values": Floats(rng.normal(size=size), "float16")}),
            Stored("codebook", (size, 8), {"codes": wide, "centroids": Floats(rng.normal(size=900))}),
            Stored(
                "codebook",
                (64, size),
                {"codes": Ints(np.zeros(64 * size, np.uint8), 2), "centroids": Floats(np.ones(4))},
            ),
        ]
        tensors = tuple(Tensor(f"layer{i}.weight", f"w{i}", node) for i, node in enumerate(stored))
        graph = bytes(rng.integers(0, 30, 40 * size, dtype=np.uint8))
        about = {"labels": [str(i) for i in range(10)], "preprocess": {"mean": 0.1307, "std": 0.3081}}
        files.append(to_bytes(Artifact(graph, tensors, about)))
    return files


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 8, 64])):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def remove(data: bytes, rng: random.Random) -> bytes:
    at, size = rng.randrange(len(data)), rng.choice([1, 1, 2, 8, 100])
    return data[:at] + data[at + size :]


def insert(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.choice([1, 1, 2, 8, 100, 5000])) + data[at:]


def splice(data: bytes, rng: random.Random) -> bytes:
    """One part of the file over another."""
    size = rng.randint(1, max(len(data) // 4, 1))
    source, target = (rng.randrange(len(data) - size + 1) for _ in range(2))
    return data[:target] + data[source : source + size] + data[target + size :]


def stamp(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    mark = bytes([rng.choice([0, 255, 127, 128])]) * rng.choice([1, 4, 9, 40])
    return (data[:at] + mark + data[at + len(mark) :])[: len(data)]


def renumber(data: bytes, rng: random.Random) -> bytes:
    """Another number over some byte."""
    at = rng.randrange(len(data))
    value = rng.choice(INTERESTING) if rng.random() < 0.7 else rng.getrandbits(rng.randint(1, 63))
    return data[:at] + varint.number(value) + data[at + 1 :]


BLIND: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip_bits,
    cut,
    remove,
    insert,
    splice,
    stamp,
    renumber,
)


class Sections:
    """Head, raw head and payloads of a file, so that a part can be changed and the rest repaired."""

    def __init__(self, data: bytes) -> None:
        with Reader(data) as reader:
            start, frame = reader.head.size_bytes, reader.head.frame_bytes
        cursor = varint.Cursor(data, "prelude")
        cursor.at = len(MAGIC) + 1
        self.raw_size = cursor.number()
        self.frame = data[start - CHECKSUM_BYTES - frame : start - CHECKSUM_BYTES]
        self.raw = head.expand(self.frame, self.raw_size)
        self.payloads = []
        for row in [row for tensor in inspect(data).tensors for row in tensor.fields]:
            self.payloads.append(data[start : start + row.size_bytes - CHECKSUM_BYTES])
            start += row.size_bytes

    def join(
        self, frame: bytes, raw_size: int, payloads: list[bytes], frame_size: int | None = None
    ) -> bytes:
        start = MAGIC + bytes([head.VERSION]) + varint.number(raw_size)
        start += varint.number(len(frame) if frame_size is None else frame_size) + frame
        return b"".join([start, checksum(start), *(part + checksum(part) for part in payloads)])

    def repaired(self, rng: random.Random) -> bytes:
        """A file with damage in one part and everything else consistent with it."""
        damage, part = rng.choice(BLIND), rng.randrange(8)
        payloads = list(self.payloads)
        if part < 3:
            index = rng.randrange(len(payloads))
            while not payloads[index]:
                index = rng.randrange(len(payloads))
            payloads[index] = damage(payloads[index], rng)
            if rng.random() < 0.7:  # the length that the header tells
                size = len(self.payloads[index])
                payloads[index] = payloads[index][:size].ljust(size, b"\0")
            return self.join(self.frame, self.raw_size, payloads)
        if part == 3:
            return self.join(damage(self.frame, rng), self.raw_size, payloads)
        if part == 4:
            sizes = [self.raw_size, len(self.frame)]
            sizes[rng.randrange(2)] = rng.choice(
                [*INTERESTING, self.raw_size - 1, self.raw_size + 1, len(self.frame) - 1]
            )
            return self.join(self.frame, sizes[0], payloads, sizes[1])
        raw = damage(self.raw, rng) if part < 6 else self._header_damaged(damage, rng)
        return self.join(head.compress(raw), len(raw), payloads)

    def _header_damaged(self, damage: Callable[[bytes, random.Random], bytes], rng: random.Random) -> bytes:
        """The raw head with damage in the header alone, and its size right."""
        cursor = varint.Cursor(self.raw, "head")
        described = damage(cursor.take(cursor.number()), rng)
        return varint.number(len(described)) + described + self.raw[cursor.at :]


def decoded(data: bytes) -> list[bytes]:
    """Everything that a file says: graph, metadata, names and rebuilt arrays."""
    with Reader(data) as reader:
        said = [reader.graph, json.dumps(reader.metadata).encode()]
        for tensor in reader.tensors():
            array = rebuild(tensor)
            said += [
                f"{tensor.name} {tensor.initializer} {array.shape} {array.dtype}".encode(),
                array.tobytes(),
            ]
    return said


def judge(data: bytes, truth: list[bytes], blind: bool) -> tuple[str, float, int]:
    """(verdict, seconds, peak bytes of Python and numpy); a verdict that starts with "bad" is a failure."""
    tracemalloc.reset_peak()
    base = tracemalloc.get_traced_memory()[0]
    began = time.perf_counter()
    try:
        same = decoded(data) == truth
        verdict = "the original" if same else "bad: other values" if blind else "other values, within limits"
    except GossamerError as error:
        verdict = type(error).__name__
    except Exception as error:  # what this script looks for
        verdict = f"bad: {type(error).__name__}: {error}"
    seconds, peak = time.perf_counter() - began, tracemalloc.get_traced_memory()[1] - base
    if seconds > SECONDS:
        verdict = f"bad: {seconds:.1f} seconds ({verdict})"
    if peak > 2 * default_limit(len(data)):
        verdict = f"bad: {peak} bytes of memory ({verdict})"
    return verdict, seconds, peak


def run(count: int, seed: int) -> dict[str, object]:
    """Figures over `count` damaged files, every other one repaired."""
    rng = random.Random(seed)
    files = originals()
    truths, sections = [decoded(data) for data in files], [Sections(data) for data in files]
    verdicts: collections.Counter[str] = collections.Counter()
    slowest, largest, failures = 0.0, 0, []
    began = time.perf_counter()
    tracemalloc.start()
    for index in range(count):
        which = rng.randrange(len(files))
        blind = index % 2 == 0
        data = rng.choice(BLIND)(files[which], rng) if blind else sections[which].repaired(rng)
        verdict, seconds, peak = judge(data, truths[which], blind)
        verdicts[verdict] += 1
        slowest, largest = max(slowest, seconds), max(largest, peak)
        if verdict.startswith("bad"):
            failures.append({"index": index, "verdict": verdict, "file": data.hex()})
    tracemalloc.stop()
    return {
        "files": count,
        "seed": seed,
        "verdicts": dict(verdicts.most_common()),
        "failures": failures[:10],
        "failed": sum(number for verdict, number in verdicts.items() if verdict.startswith("bad")),
        "slowest_ms": round(slowest * 1000, 1),
        "largest_peak_bytes": largest,
        "largest_resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "seconds": round(time.perf_counter() - began, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    figures = run(options.files, options.seed)
    limit = 2 * default_limit(5000)
    claims = [
        {
            "name": "damaged files are refused",
            "claim": "every damaged file is refused with an error of ours, or decodes to the original "
            "(to something within the limits, where sizes and checksums were repaired)",
            "ours": f"{options.files - int(str(figures['failed']))} of {options.files}",
            "holds": figures["failed"] == 0,
        },
        {
            "name": "no damaged file takes long",
            "claim": f"at most {SECONDS:g} s per file",
            "ours": f"{figures['slowest_ms']} ms",
            "holds": float(str(figures["slowest_ms"])) <= 1000 * SECONDS,
        },
        {
            "name": "no damaged file takes much memory",
            "claim": f"at most twice the reader's limit ({limit} bytes)",
            "ours": f"{figures['largest_peak_bytes']} bytes",
            "holds": int(str(figures["largest_peak_bytes"])) <= limit,
        },
    ]
    report = {"schema": 1, "benchmark": "mutated-files", "claims": claims, "figures": figures}
    print(json.dumps(report, indent=2))
    if options.write:
        RESULT.write_text(json.dumps(report, indent=2) + "\n")
    if not all(claim["holds"] for claim in claims):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
