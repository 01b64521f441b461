"""The .goss file: what is written is read again, exactly, and every byte of it is accounted for."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifact_samples import codebook, dense, integer_sample, sample, sparse, uniform
from gossamer.artifact import (
    Artifact,
    Floats,
    Ints,
    Reader,
    Stored,
    Tensor,
    inspect,
    read,
    rebuild,
    to_bytes,
    write,
)
from gossamer.errors import ArtifactError, HeaderError

GOLDEN = Path(__file__).parent / "golden"


def assert_equal(array, expected):
    assert array.shape == expected.shape
    assert array.dtype == expected.dtype
    assert array.tobytes() == expected.tobytes()


@pytest.mark.parametrize("through_a_file", [False, True])
@pytest.mark.parametrize("sample", [sample, integer_sample])
def test_a_file_gives_everything_back(tmp_path, sample, through_a_file):
    artifact, arrays = sample()
    path = tmp_path / "model.goss"

    size = write(path, artifact)
    again = read(path if through_a_file else path.read_bytes())

    assert size == path.stat().st_size
    assert (again.graph, again.metadata) == (artifact.graph, artifact.metadata)
    for tensor, old in zip(again.tensors, artifact.tensors, strict=True):
        assert (tensor.name, tensor.initializer, tensor.perm) == (old.name, old.initializer, old.perm)
        assert_equal(rebuild(tensor), arrays[tensor.name])


def test_fields_are_read_as_small_integers_and_float32():
    for tensor in read(to_bytes(sample()[0])).tensors:
        for _, node in tensor.stored.walk():
            for field in node.fields.values():
                if isinstance(field, Ints):
                    assert field.values.dtype == (np.uint8 if field.width <= 8 else np.uint16)
                else:
                    assert field.values.dtype == np.float32


def test_the_same_artifact_gives_the_same_bytes():
    assert to_bytes(sample()[0]) == to_bytes(sample()[0])


@pytest.mark.parametrize("name", ["binary", "every-layout", "integers", "nothing"])
def test_a_golden_file_is_read_as_the_day_it_was_written(name):
    expected = np.load(GOLDEN / f"{name}.npz")

    artifact = read(GOLDEN / f"{name}.goss")

    assert artifact.graph == expected["graph"].tobytes()
    assert artifact.metadata == json.loads(expected["metadata"].tobytes())
    assert [tensor.name for tensor in artifact.tensors] == [
        key[2:] for key in expected if key.startswith("t:")
    ]
    for tensor in artifact.tensors:
        assert_equal(rebuild(tensor), expected[f"t:{tensor.name}"])


def leaves(draw, shape):
    numel = int(np.prod(shape))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["dense", "uniform", "codebook"]))
    if kind == "dense":
        values = rng.normal(size=shape).astype(np.float32)
        return dense(values, draw(st.sampled_from(["float32", "float16", "bfloat16"])))
    width = draw(st.integers(1, 16))
    codes = rng.integers(0, draw(st.integers(1, 2**width)), shape)
    if kind == "codebook":
        size = min(int(codes.max(initial=0)) + 1, 2**width)
        fields = {"codes": Ints(codes, width), "centroids": Floats(rng.normal(size=size).astype(np.float32))}
        return Stored("codebook", shape, fields)
    rows, columns = (shape[0], int(np.prod(shape[1:]))) if shape else (1, 1)
    group = draw(st.sampled_from([None, 1, 3]))
    count = rows * -(-columns // group) if group else draw(st.sampled_from([1, rows]))
    options = {"offset": draw(st.integers(0, 2**width))} | ({"group": group} if group else {})
    scale = rng.random(count).astype(np.float32)
    assert numel == codes.size
    return uniform(codes, scale, width, **options)


@st.composite
def trees(draw, depth=0, shape=None):
    if shape is None:
        shape = tuple(draw(st.lists(st.integers(0, 7), max_size=4)))
    if depth < 3 and draw(st.integers(0, 2)) == 0:
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        mask = np.asarray(rng.random(shape) < draw(st.floats(0, 1)))
        return sparse(mask, draw(trees(depth + 1, (int(mask.sum()),))))
    return leaves(draw, shape)


FINITE = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | FINITE | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    st.lists(trees(), max_size=4),
    st.binary(max_size=200),
    st.dictionaries(st.text(max_size=8), JSON, max_size=3),
)
def test_any_tree_survives_the_file(stored, graph, metadata):
    tensors = tuple(
        Tensor(f"layer{index}.weight", f"w{index}", tree, tuple(reversed(range(len(tree.shape)))))
        for index, tree in enumerate(stored)
    )
    artifact = Artifact(graph, tensors, metadata)

    data = to_bytes(artifact)
    again = read(data, max_bytes=2**30)

    assert (again.graph, again.metadata) == (graph, metadata)
    for ours, theirs in zip(again.tensors, tensors, strict=True):
        rounded = replace(theirs, stored=_rounded(theirs.stored))
        assert_equal(rebuild(ours), rebuild(rounded))
    rows = inspect(data, max_bytes=2**30)
    assert sum(row.size_bytes for row in (*rows.head, *rows.tensors)) == len(data)


def _rounded(stored):
    from gossamer.artifact.floats import round_to

    fields = {
        name: Floats(round_to(field.values, field.dtype)) if isinstance(field, Floats) else _small(field)
        for name, field in stored.fields.items()
    }
    return replace(stored, fields=fields, inner={name: _rounded(node) for name, node in stored.inner.items()})


def _small(field):
    return Ints(field.values.astype(np.uint8 if field.width <= 8 else np.uint16), field.width)


def test_the_rows_of_an_inspection_add_up_to_the_file():
    data = to_bytes(sample()[0])

    rows = inspect(data)

    fields = [row for tensor in rows.tensors for row in tensor.fields]
    assert rows.size_bytes == len(data)
    assert sum(row.size_bytes for row in rows.head) + sum(row.size_bytes for row in fields) == len(data)
    assert all(row.size_bytes >= 0 for row in rows.head)
    assert rows.overhead_bytes == len(data) - sum(row.size_bytes - 4 for row in fields)
    conv = rows.tensors[0]
    assert (conv.name, conv.layout, conv.shape) == ("conv.weight", "sparse(values=codebook)", (40, 3, 5, 5))
    assert conv.bits_per_weight == 8 * conv.size_bytes / 3000
    assert [row.path for row in conv.fields][-2:] == ["values", "values"]


def test_a_reader_decodes_only_the_tensor_that_is_asked_for(tmp_path):
    artifact, arrays = sample()
    data = bytearray(to_bytes(artifact))
    data[-5] ^= 1  # in the last tensor
    (tmp_path / "model.goss").write_bytes(data)

    with Reader(tmp_path / "model.goss") as reader:
        assert reader.names == tuple(arrays)
        assert_equal(rebuild(reader.tensor("fc.weight")), arrays["fc.weight"])
        with pytest.raises(ArtifactError, match=r"Did you mean 'fc\.weight'"):
            reader.tensor("fc.weihgt")


def test_a_full_disk_is_an_error_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.goss"
    path.write_bytes(b"old")
    old_limit, old_handler = (
        resource.getrlimit(resource.RLIMIT_FSIZE),
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
    )
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, old_limit[1]))
    try:
        with pytest.raises(ArtifactError, match=r"model\.goss.*Nothing was changed"):
            write(path, sample()[0])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
        signal.signal(signal.SIGXFSZ, old_handler)

    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model.goss"]


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(ArtifactError, match="could not be written"):
        write(tmp_path / "none" / "model.goss", sample()[0])


def test_a_written_file_has_the_permissions_of_any_other_file(tmp_path):
    (tmp_path / "other").touch()

    write(tmp_path / "model.goss", sample()[0])

    assert (tmp_path / "model.goss").stat().st_mode == (tmp_path / "other").stat().st_mode


ONE = np.ones(2, np.float32)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (Tensor("t", "t", dense(ONE), dtype="int64"), "tensor 't': unknown dtype 'int64'"),
        (Tensor("t", "t", dense(ONE), perm=(0, 1)), "permutation"),
        (Tensor("a\nb", "t", dense(ONE)), "one line"),
        (Tensor("", "t", dense(ONE)), "one line"),
        (Tensor("t", "t", Stored("dense", (3,), {"values": Floats(ONE)})), "holds 2 values"),
        (Tensor("t", "t", Stored("dense", (2,), {"values": Floats(ONE, "float8")})), "unknown float type"),
        (Tensor("t", "t", uniform(np.array([1, 4]), ONE[:1], 2)), "t', codes: values 1..4 do not fit 2 bits"),
        (Tensor("t", "t", uniform(np.array([-1, 0]), ONE[:1], 2)), "do not fit"),
        (Tensor("t", "t", uniform(np.array([0.5, 0]), ONE[:1], 2)), "must hold integers"),
        (Tensor("t", "t", uniform(np.array([0, 1]), ONE[:1], 17)), "17 bits"),
        (Tensor("t", "t", Stored("Dense", (2,), {"values": Floats(ONE)})), "Did you mean 'dense'"),
        (Tensor("t", "t", codebook(np.array([0, 3]), ONE, 2)), "code 3"),
        (Tensor("t", "t", dense(ONE / 2), dtype="int8"), "'t': a value is not whole"),
        (Tensor("t", "t", dense(ONE * 128), dtype="int8"), "values 128..128 for an initialiser of int8"),
    ],
)  # fmt: skip
def test_what_could_not_be_read_again_is_not_written(tensor, message):
    with pytest.raises(ArtifactError, match=message):
        to_bytes(Artifact(b"", (tensor,)))


def test_two_tensors_of_one_name_are_not_written():
    with pytest.raises(HeaderError, match="listed twice"):
        to_bytes(Artifact(b"", (Tensor("t", "a", dense(ONE)), Tensor("t", "b", dense(ONE)))))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"bytes", "\ud800"])
def test_metadata_that_is_no_json_is_not_written(value):
    with pytest.raises(ArtifactError, match="metadata"):
        to_bytes(Artifact(b"", (), {"value": value}))


def test_metadata_nested_too_deeply_is_not_written():
    value = []
    for _ in range(40):
        value = [value]

    with pytest.raises(ArtifactError, match="nested"):
        to_bytes(Artifact(b"", (), {"value": value}))


def test_files_are_read_without_torch_and_onnx(tmp_path):
    write(tmp_path / "model.goss", sample()[0])
    script = (
        "import sys; from gossamer.artifact import read, rebuild\n"
        "print(sum(rebuild(t).size for t in read(sys.argv[1]).tensors))\n"
        "print([name for name in ('torch', 'onnx', 'onnxruntime', 'scipy') if name in sys.modules])"
    )

    run = [sys.executable, "-c", script, str(tmp_path / "model.goss")]
    out = subprocess.run(run, capture_output=True, text=True, check=True).stdout

    assert out.split("\n")[1] == "[]"
