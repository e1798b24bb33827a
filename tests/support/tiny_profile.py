"""A profile of its own in seconds: the miniature's language in a handful of rows, two Llamas of two blocks."""

from __future__ import annotations

from pathlib import Path

PROFILE = """
name = "tiny"
summary = "seconds"
comparable = false
why_not_comparable = "a test"
baselines = ["length", "bag-of-words"]

[backbones.{slot}]
stands_for = "Llama-3.1-8B-Instruct"
source = {{ kind = "miniature", context = 64, steps = 2, batch_tokens = 128 }}
layers = {{ 16 = 1, 32 = 2 }}
ks = {{ 192 = 3 }}
[backbones.{slot}.shape]
num_hidden_layers = 2
hidden_size = 16
intermediate_size = 32
num_attention_heads = 2
num_key_value_heads = 1
vocab_size = 300

[text]
source = {{ kind = "miniature" }}
token_vectors = 400

[preferences]
source = {{ kind = "miniature" }}
pairs = 100
tokens_per_pair = 80

[benchmarks]
rewardbench2 = {{ source = {{ kind = "miniature" }}, completions = 100 }}
rmbench = {{ source = {{ kind = "miniature" }}, completions = 50 }}
evaluation = {{ source = {{ kind = "miniature" }}, completions = 40 }}

[miniature]
corpus_documents = 80
training_pairs = 100
evaluation_pairs = 20
benchmark_rows = 4
ties_prompts = 2
rmbench_items = 2

[sae]
vectors = 128
batch_vectors = 64
buffer_vectors = 64
held_out_vectors = 32

[reward]
batch_pairs = 16
epochs = 1
max_pairs = 64
dtype = "float32"
max_length = 256

[scoring]
dtype = "float32"
bos = "single"
max_length = 256

[sparse]
per_side = 4
width = 8
epochs = 2

[safer]
selected = 8
"""


def write_profile(folder: Path, *, slot: str = "large") -> Path:
    """The profile's file."""
    path = folder / "tiny.toml"
    path.write_text(PROFILE.format(slot=slot), encoding="utf-8")
    return path
