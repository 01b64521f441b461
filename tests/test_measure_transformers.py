"""Multiply-accumulates of transformers, attention included, against formulas written out here.

Per layer and token: projections, scores and weighted sum over all tokens (a causal mask saves nothing), the MLP.
"""

from __future__ import annotations

import pytest
import torch

from gossamer.measure.profile import profile

transformers = pytest.importorskip("transformers")

TOKENS = {"input_ids": torch.zeros(2, 11, dtype=torch.int64)}


def bert(config, *, tokens, batch):
    d = config.hidden_size
    layer = 4 * d * d + 2 * tokens * d + 2 * d * config.intermediate_size
    pooler = d * d  # of the first token
    return batch * (tokens * config.num_hidden_layers * layer + pooler)


def small_bert(**options):
    return transformers.BertConfig(
        vocab_size=100,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        **options,
    )


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_bert_is_projections_scores_sums_and_mlp(attention):
    config = small_bert(attn_implementation=attention)

    found = profile(transformers.BertModel(config), TOKENS)

    assert found.macs == bert(config, tokens=11, batch=2)
    assert found.uncounted == ()
    assert found.notes == ()


def test_a_padding_mask_changes_no_count():
    masked = {**TOKENS, "attention_mask": torch.ones(2, 11, dtype=torch.int64)}

    found = profile(transformers.BertModel(small_bert()), masked)

    assert found.macs == bert(small_bert(), tokens=11, batch=2)


def llama(config, *, tokens, batch):
    d, heads, groups = config.hidden_size, config.num_attention_heads, config.num_key_value_heads
    head = d // heads
    projections = 2 * d * d + 2 * d * groups * head  # query and output; key and value are narrower
    attention = 2 * tokens * heads * head  # every query head, however few keys there are
    mlp = 3 * d * config.intermediate_size
    rows = batch * tokens
    return rows * (config.num_hidden_layers * (projections + attention + mlp) + d * config.vocab_size)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_llama_with_grouped_queries_is_its_closed_formula(groups, attention):
    config = transformers.LlamaConfig(
        vocab_size=60,
        hidden_size=32,
        intermediate_size=72,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=groups,
        attn_implementation=attention,
    )

    found = profile(transformers.LlamaForCausalLM(config), TOKENS)

    assert found.macs == llama(config, tokens=11, batch=2)
    assert found.uncounted == ()
    assert found.notes == ()


def test_gpt2_ties_its_head_to_its_embedding():
    config = transformers.GPT2Config(vocab_size=60, n_positions=20, n_embd=24, n_layer=2, n_head=4)
    d, rows, tokens = 24, 22, 11

    found = profile(transformers.GPT2LMHeadModel(config), TOKENS)

    layer = 4 * d * d + 2 * tokens * d + 2 * d * 4 * d
    assert found.macs == rows * (2 * layer + d * 60)
    embeddings, norms = 60 * d + 20 * d, 5 * 2 * d
    assert found.params == embeddings + norms + 2 * (4 * d * d + 4 * d + 8 * d * d + 5 * d)


def test_vit_is_patches_layers_and_head():
    config = transformers.ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        image_size=32,
        patch_size=8,
        num_labels=7,
    )

    found = profile(transformers.ViTForImageClassification(config), torch.zeros(1, 3, 32, 32))

    d, patches = 24, 16
    tokens = patches + 1  # the class token
    layer = 4 * d * d + 2 * tokens * d + 2 * d * 48
    assert found.macs == patches * d * 3 * 8 * 8 + 2 * tokens * layer + d * 7
    assert found.uncounted == ()


def test_t5_is_an_encoder_and_a_decoder_that_looks_at_it():
    config = transformers.T5Config(vocab_size=60, d_model=24, d_kv=5, d_ff=48, num_layers=2, num_heads=4)
    example = {
        "input_ids": torch.zeros(1, 9, dtype=torch.int64),
        "decoder_input_ids": torch.zeros(1, 4).long(),
    }

    found = profile(transformers.T5ForConditionalGeneration(config), example)

    d, inner, ff = 24, 20, 2 * 24 * 48

    def attention(queries, keys):
        return 2 * queries * d * inner + 2 * keys * d * inner + 2 * queries * keys * inner

    encoder = attention(9, 9) + 9 * ff
    decoder = attention(4, 4) + attention(4, 9) + 4 * ff
    assert found.macs == 2 * (encoder + decoder) + 4 * d * 60


def test_only_the_experts_that_are_chosen_are_counted():
    config = transformers.MixtralConfig(
        vocab_size=60,
        hidden_size=32,
        intermediate_size=72,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        num_experts_per_tok=2,
    )

    found = profile(transformers.MixtralForCausalLM(config), TOKENS)

    d, tokens, rows = 32, 11, 22
    attention = 2 * d * d + 2 * d * 16 + 2 * tokens * d
    experts = 2 * 3 * d * 72
    assert found.macs == rows * (attention + d * 4 + experts + d * 60)
    assert found.notes  # routing depends on values
    assert {item.op for item in found.uncounted} <= {"aten.topk", "aten.sort", "aten.histc", "aten.bincount"}
