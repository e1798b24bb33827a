from __future__ import annotations

import numpy as np
import pytest

from sarm.data.preferences import Message
from sarm.explain.collection import CollectionRules, ContextCollector, Span, context_spans
from sarm.explain.contexts import ContextEntry, ContextFile, Origin, merge_contexts, prompt_half, spread_contexts, strongest_contexts
from sarm.explain.pool import ContextPool, PoolEntry

HERE = Origin("item", "chosen", 0, "explain")


def collector(**rules: object) -> ContextCollector:
    return ContextCollector(CollectionRules(**{"threshold": 1.0, "lines": 0, **rules}))  # type: ignore[arg-type]


def add(target: ContextCollector, text: str, activation: float, *, token: str = ".", latent: int = 3) -> None:
    target.add(token=token, text=text, origin=HERE, latents=[latent], activations=[activation])


def texts(target: ContextCollector, *, token: str = ".", latent: int = 3) -> list[tuple[str, float]]:
    return [(entry.context, entry.activation) for entry in target.contexts()[latent][token]]


def test_a_context_is_the_sentence_of_its_ender() -> None:
    ids = [1] * 10 + [9] + [2] * 10 + [9]
    assert context_spans(ids, start=0, enders={9}) == [Span(0, 10), Span(11, 21)]


def test_a_short_context_reaches_back_over_whole_sentences() -> None:
    ids = [1] * 5 + [9] + [2] * 3 + [9] + [3] * 2 + [9]
    assert context_spans(ids, start=0, enders={9}) == [Span(0, 5), Span(0, 9), Span(0, 12)]
    # Ten tokens are enough.
    assert context_spans([1, 9] + [2] * 9 + [9], start=0, enders={9})[-1] == Span(2, 11)


def test_nothing_before_the_start_is_read() -> None:
    assert context_spans([9, 1, 9, 1, 9], start=3, enders={9}) == [Span(3, 4)]
    assert context_spans([1, 2], start=0, enders={9}) == []


def test_only_activations_strictly_above_the_threshold_count() -> None:
    target = collector()
    add(target, "a .", 1.0)
    assert target.contexts() == {}
    add(target, "a .", 1.0001)
    assert texts(target) == [("a .", 1.0001)]


def test_the_first_of_equal_texts_wins_as_released() -> None:
    target = collector()
    add(target, "a .", 2.0)
    add(target, "a .", 9.0)
    assert texts(target) == [("a .", 2.0)]


def test_an_evicted_text_stays_banned_as_released() -> None:
    target = collector(max_per_token=2)
    for text, activation in (("a .", 2.0), ("b .", 3.0), ("c .", 4.0), ("a .", 9.0)):
        add(target, text, activation)
    assert texts(target) == [("c .", 4.0), ("b .", 3.0)]


def test_with_max_a_repeated_text_counts_with_its_largest_activation() -> None:
    target = collector(max_per_token=2, duplicates="max")
    for text, activation in (("a .", 2.0), ("b .", 3.0), ("b .", 2.5), ("c .", 4.0), ("a .", 9.0), ("c .", 5.0)):
        add(target, text, activation)
    assert texts(target) == [("a .", 9.0), ("c .", 5.0)]


def test_the_same_text_may_stand_under_two_tokens_and_latents() -> None:
    target = collector()
    add(target, "a .", 2.0)
    add(target, "a .", 3.0, token=" .")
    add(target, "a .", 4.0, latent=5)
    assert (texts(target), texts(target, token=" ."), texts(target, latent=5)) == ([("a .", 2.0)], [("a .", 3.0)], [("a .", 4.0)])


def test_a_latent_needs_more_contexts_than_lines_and_at_most_so_many_tokens() -> None:
    target = collector(lines=2, max_token_classes=2)
    for number in range(2):
        add(target, f"{number} .", 2.0, latent=1)
    for number in range(3):
        add(target, f"{number} .", 2.0, latent=2)
        add(target, f"{number} .", 2.0, token=str(number), latent=3)
    assert list(target.contexts()) == [2]


def test_a_resumed_collector_goes_on_exactly() -> None:
    rng = np.random.default_rng(0)
    rows = [(f"text {rng.integers(9)} .", str(rng.integers(3)), rng.integers(5, size=1).tolist(), rng.random(1) * 4) for _ in range(300)]
    whole, half = collector(max_per_token=3), collector(max_per_token=3)
    for number, (text, token, latents, values) in enumerate(rows):
        whole.add(token=token, text=text, origin=HERE, latents=latents, activations=values.tolist())
        half.add(token=token, text=text, origin=HERE, latents=latents, activations=values.tolist())
        if number == 150:
            half = ContextCollector.resumed(CollectionRules(threshold=1.0, lines=0, max_per_token=3), half.state())
    assert half.contexts() == whole.contexts()
    assert half.origins() == whole.origins()


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


def entry_of(text: str, origin: Origin = HERE) -> PoolEntry:
    return PoolEntry(".", text, origin, np.array([1], dtype=np.int32), np.array([1.0], dtype=np.float32))


def test_the_pool_does_not_depend_on_the_order() -> None:
    one, other = ContextPool(5, seed=0), ContextPool(5, seed=0)
    for number in range(40):
        one.offer(entry_of(f"text {number}"))
        other.offer(entry_of(f"text {39 - number}"))
    assert [entry.text for entry in one.entries()] == [entry.text for entry in other.entries()]
    assert len(one.entries()) == 5


def test_a_text_is_in_the_pool_once_as_it_was_first() -> None:
    pool = ContextPool(5, seed=0)
    pool.offer(entry_of("a"))
    pool.offer(entry_of("a", HERE._replace(item="later")))
    assert [entry.origin.item for entry in pool.entries()] == ["item"]
