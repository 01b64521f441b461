"""Preprocessing equals its formula, survives the metadata, and reads files."""

from __future__ import annotations

import json
import wave

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gossamer.data import LogMel, Preprocess, load_data
from gossamer.errors import DataError, OptionError

FLOATS = st.floats(0.001, 1000, allow_nan=False)


def test_colour_pictures_are_normalised_by_channel_and_put_first():
    raw = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), np.uint8)
    preprocess = Preprocess(scale=1 / 255, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), color="RGB")

    result = preprocess(raw)

    expected = (raw.astype(np.float64) / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    np.testing.assert_allclose(result, expected.transpose(0, 3, 1, 2), atol=1e-6)


def test_without_options_samples_stay_as_they_are():
    raw = np.random.default_rng(0).normal(size=(3, 7)).astype(np.float32)

    assert (Preprocess()(raw) == raw).all()


@given(
    scale=st.one_of(st.integers(1, 1024).map(lambda n: 1 / n), FLOATS),
    mean=st.one_of(st.just(()), st.tuples(FLOATS), st.tuples(FLOATS, FLOATS, FLOATS)),
    std=st.one_of(st.just(()), st.tuples(FLOATS)),
    size=st.one_of(st.none(), st.tuples(st.integers(1, 999), st.integers(1, 999))),
    color=st.sampled_from([None, "RGB"]),
    log_mel=st.sampled_from([None, LogMel(), LogMel(mels=40, rate=16000)]),
)
def test_the_description_survives_json_exactly(**options):
    preprocess = Preprocess(**options)

    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess


def test_the_description_of_mnist_is_short():
    described = json.dumps(load_data("mnist").preprocess.to_dict(), separators=(",", ":"))

    assert described == '{"color":"L","size":28,"div":255,"mean":0.1307,"std":0.3081}'


@pytest.mark.parametrize(
    "given",
    [
        {"colour": "L"},
        {"color": "CMYK"},
        {"std": 0},
        {"div": 0},
        {"size": "x"},
        {"mean": [1, 2], "color": "L"},
    ],
)
def test_a_broken_description_is_an_option_error(given):
    with pytest.raises(OptionError, match="preprocess"):
        Preprocess.from_dict(given)


def test_a_picture_file_goes_through_the_same_steps_as_a_batch(tmp_path):
    data = load_data("digits")
    raw = data.test.take(slice(0, 1))[0]
    Image.fromarray(raw[0]).save(tmp_path / "digit.png")

    assert (data.preprocess.image(tmp_path / "digit.png") == data.preprocess(raw)).all()
    assert (data.preprocess.file(tmp_path / "digit.png") == data.preprocess(raw)).all()


def test_a_picture_of_another_size_is_resized(tmp_path):
    Image.new("RGB", (50, 40), (255, 0, 0)).save(tmp_path / "red.png")

    result = Preprocess(scale=1 / 255, size=(8, 6), color="RGB").image(tmp_path / "red.png")

    assert result.shape == (1, 3, 8, 6)
    assert (result[0, 0] == 1).all()
    assert (result[0, 1:] == 0).all()


def test_unreadable_and_missing_pictures_are_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")

    with pytest.raises(DataError, match=r"broken\.png: cannot be read as an image"):
        Preprocess().image(tmp_path / "broken.png")
    with pytest.raises(DataError, match=r"absent\.png: there is no such image"):
        Preprocess().image(tmp_path / "absent.png")


def test_a_batch_of_another_form_is_an_error():
    with pytest.raises(DataError, match=r"grey batch has shape \(2, 3, 4, 4\)"):
        Preprocess(color="L")(np.zeros((2, 3, 4, 4)))
    with pytest.raises(DataError, match=r"colour batch has shape \(2, 4, 4\)"):
        Preprocess(color="RGB")(np.zeros((2, 4, 4)))
    with pytest.raises(DataError, match="3 channels"):
        Preprocess(mean=(1.0, 2.0, 3.0))(np.zeros((2, 4, 4)))


def test_log_mel_equals_the_sum_written_out():
    log_mel = LogMel(rate=800, mels=5, frames=3, window=16, hop=8)
    samples = np.random.default_rng(0).normal(size=log_mel.length)
    top = 2595 * np.log10(1 + 400 / 700)
    edges = [700 * (10 ** (top * n / 6 / 2595) - 1) for n in range(7)]

    expected = np.zeros((5, 3))
    for t in range(3):
        frame = samples[8 * t : 8 * t + 16] * [0.5 - 0.5 * np.cos(2 * np.pi * n / 15) for n in range(16)]
        power = [
            abs(sum(v * np.exp(-2j * np.pi * k * n / 16) for n, v in enumerate(frame))) ** 2 / 16
            for k in range(9)
        ]
        for m in range(5):
            low, mid, high = edges[m : m + 3]
            weights = [
                max(0.0, min((50 * k - low) / (mid - low), (high - 50 * k) / (high - mid))) for k in range(9)
            ]
            expected[m, t] = np.log(np.dot(weights, power) + 1e-6)

    np.testing.assert_allclose(log_mel(samples, 800)[0], expected, rtol=1e-5)


def test_a_tone_lights_up_the_filter_at_its_frequency():
    log_mel = LogMel()
    for hertz in (300, 1000, 3000):
        features = log_mel(np.sin(2 * np.pi * hertz * np.arange(8320) / 8000), 8000)
        centre = 2595 * np.log10(1 + hertz / 700) / (2595 * np.log10(1 + 4000 / 700)) * 33 - 1

        assert abs(features[0].mean(1).argmax() - centre) <= 1


def test_a_recording_at_twice_the_rate_has_nearly_the_same_features():
    seconds = np.arange(16640) / 16000
    tone = np.sin(2 * np.pi * 440 * seconds)

    difference = LogMel()(tone, 16000) - LogMel()(tone[::2], 8000)

    loud = LogMel()(tone[::2], 8000) > -5
    assert abs(difference[loud]).max() < 0.1


@pytest.mark.parametrize("width", [1, 2, 4])
def test_wav_files_of_every_width_read_the_same_samples(width, tmp_path):
    wanted = np.sin(np.arange(4000) / 10) * 0.9
    scaled = (wanted * (2 ** (8 * width - 1) - 1)).round()
    stored = (scaled + 128).astype("u1") if width == 1 else scaled.astype({2: "<i2", 4: "<i4"}[width])
    with wave.open(str(tmp_path / "tone.wav"), "wb") as file:
        file.setparams((2, width, 8000, 0, "NONE", ""))
        file.writeframes(np.repeat(stored, 2).tobytes())

    features = Preprocess(log_mel=LogMel()).file(tmp_path / "tone.wav")

    assert features.shape == (1, 1, 32, 64)
    expected = LogMel()(wanted, 8000)
    loud = expected > -6
    np.testing.assert_allclose(features[0][loud], expected[loud], atol=0.2 if width == 1 else 0.01)


def test_a_file_that_is_no_recording_is_named(tmp_path):
    (tmp_path / "song.wav").write_bytes(b"ID3 not a wave")

    with pytest.raises(DataError, match=r"song\.wav: cannot be read as a recording"):
        Preprocess(log_mel=LogMel()).file(tmp_path / "song.wav")
    with pytest.raises(DataError, match=r"absent\.wav: cannot be read"):
        Preprocess(log_mel=LogMel()).file(tmp_path / "absent.wav")
    with pytest.raises(DataError, match="reads pictures, not recordings"):
        Preprocess(color="L").sound(tmp_path / "song.wav")
