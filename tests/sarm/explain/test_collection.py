"""Contexts as they are collected: sentences, thresholds, repeated texts, what is kept."""

from __future__ import annotations

import numpy as np

from sarm.explain.collection import CollectionRules, ContextCollector, Span, context_spans
from sarm.explain.contexts import Origin

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
