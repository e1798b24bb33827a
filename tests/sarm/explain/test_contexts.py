"""Files of contexts: merging, halves, which are shown."""

from __future__ import annotations

import pytest

from sarm.data.preferences import Message
from sarm.explain.contexts import ContextEntry, ContextFile, merge_contexts, prompt_half, spread_contexts, strongest_contexts


def file_of(*entries: tuple[str, float], max_length: int = 8) -> ContextFile:
    listed = [ContextEntry(context=text, activation=value) for text, value in entries]
    return ContextFile(
        total_latents=1, threshold=0, max_length=max_length, max_per_token=9, lines=0, latent_context_map={7: {".": listed}}
    )


def test_merging_takes_the_largest_activation_of_equal_texts() -> None:
    merged = merge_contexts([file_of(("a", 2.0), ("b", 5.0)), file_of(("a", 7.0), ("b", 4.0))], threshold=1.0, min_entries=2)
    assert [(entry.context, entry.activation) for entry in merged.latent_context_map[7]["."]] == [("a", 7.0), ("b", 5.0)]


def test_merging_drops_short_lists() -> None:
    merged = merge_contexts([file_of(("a", 2.0), ("b", 5.0))], threshold=2.0, min_entries=2)
    assert merged.total_latents == 0 and merged.latent_context_map == {}


@pytest.mark.parametrize("files", [[], [file_of(("a", 1.0)), file_of(("a", 1.0), max_length=9)]])
def test_files_that_do_not_belong_together_are_not_merged(files: list[ContextFile]) -> None:
    with pytest.raises(ValueError, match="max_length"):
        merge_contexts(files, threshold=0, min_entries=1)


def test_halves_are_drawn_by_prompt() -> None:
    prompts = [(Message(role="user", content=f"prompt {number}"),) for number in range(400)]
    halves = [prompt_half(prompt, held_out_fraction=0.25, seed=1) for prompt in prompts]
    assert 60 < halves.count("held-out") < 140
    assert halves == [prompt_half(prompt, held_out_fraction=0.25, seed=1) for prompt in prompts]
    assert halves != [prompt_half(prompt, held_out_fraction=0.25, seed=2) for prompt in prompts]
    assert {prompt_half(prompts[0], held_out_fraction=share, seed=0) for share in (0.0, 1.0)} == {"explain", "held-out"}


def test_strongest_contexts_come_from_all_tokens() -> None:
    tokens = {".": file_of(("a", 2.0), ("b", 1.0)).latent_context_map[7]["."], "?": file_of(("c", 3.0)).latent_context_map[7]["."]}
    assert [entry.context for entry in strongest_contexts(tokens, 2)] == ["c", "a"]


def test_spread_contexts_reach_from_the_strongest_to_the_weakest() -> None:
    entries = [ContextEntry(context=str(number), activation=number) for number in range(9)]
    assert [entry.context for entry in spread_contexts(entries, 3)] == ["8", "4", "0"]
    assert len(spread_contexts(entries, 20)) == 9
