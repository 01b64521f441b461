"""The sentence encoder of the tests gives the published similarities."""

from __future__ import annotations

import pytest
import torch

import minilm


@pytest.fixture(scope="module")
def encoder():
    return minilm.encoder()


def test_it_gives_the_published_similarities(encoder):
    texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]

    embedded = minilm.embed(encoder, texts)

    published = [[1, 0.6660, 0.1046], [0.6660, 1, 0.1411], [0.1046, 0.1411, 1]]  # documentation of sbert.net
    torch.testing.assert_close(embedded @ embedded.T, torch.tensor(published), atol=1e-4, rtol=0)


def test_padding_changes_nothing(encoder):
    text = "No more talking on't; let it be done: away, away!"

    with torch.no_grad():
        alone, padded = encoder(*minilm.tokenize([text])), encoder(*minilm.tokenize([text], length=64))

    torch.testing.assert_close(alone, padded, atol=1e-5, rtol=0)


def test_there_are_hundreds_of_real_sentences_and_neighbours_are_alike(encoder):
    texts = minilm.sentences(2000)
    embedded = minilm.embed(encoder, texts[:40])

    similarity = embedded @ embedded.T
    neighbours = similarity.diagonal(1).mean()
    apart = similarity.triu(10).sum() / (similarity.triu(10) != 0).sum()

    assert len(set(texts)) == 2000
    assert all(6 <= len(text.split()) <= 40 for text in texts)
    assert neighbours > apart + 0.02  # one scene speaks of one thing
