"""Each check on data in which the truth is planted: a latent of the concept alone, one that fires everywhere, one that never does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from synthetic_steering import EVERYWHERE, N_LATENTS, NEGATIVE, SAFE, SILENT, K, completions, dense_latents, rows_of, steering

from replication.report.steering.accuracy import margin, subset_changes
from replication.report.steering.check import Check
from replication.report.steering.checks import checks, claim_holds, decisive_change, how_many, shift
from replication.report.steering.controls import cruder_means, dose_curve, matched_latents, random_control
from replication.report.steering.experiment import COMPLIANCE, REFUSAL, Steering, prompt_kinds
from replication.report.steering.paired_shifts import (
    hodges_lehmann,
    kolmogorov_smirnov,
    mean_interval,
    ratio_interval,
    standardised_shift,
    wasserstein,
)
from replication.report.steering.selection import choose, cross_fit, feature_scores, item_sums, scores_of
from replication.report.steering.tables import SteeringRun, figure3_report, steering_tables
from sarm.job import UsageProblem
from sarm.reward.steering import FeatureSums, feature_scores_of_sums, select_latents


def outcomes(data: Steering) -> dict[str, str]:
    return {check.name: check.outcome for check in checks(data)}


def of(found: Sequence[Check], name: str) -> Check:
    return next(check for check in found if check.name == name)


def test_a_latent_of_the_concept_alone_passes_every_check() -> None:
    found = checks(steering(SAFE, ties=10))
    assert {check.outcome for check in found if check.name not in ("S7k", "S10", "S11", "S11c", "S11t", "S12")} == {"pass"}
    assert claim_holds(found) == "all pass"
    assert f"{len(found)} lines, 10 of them tests" in how_many(found)


def test_a_latent_that_fires_everywhere_shifts_but_is_not_specific() -> None:
    found = outcomes(steering(EVERYWHERE, ties=10))
    assert found["S0"] == found["S3"] == "pass"
    assert found["S2"] == found["S4"] == found["S5"] == found["S7"] == "fail"


def test_a_latent_that_never_fires_passes_nothing_that_asks_for_a_shift() -> None:
    found = checks(steering(SILENT))
    by_name = {check.name: check.outcome for check in found}
    assert [by_name[name] for name in ("S2", "S3", "S4", "S7", "S8", "S9", "S10")] == ["fail"] * 7
    assert by_name["S0"] == "pass" and by_name["S5"] == "not measured"
    assert claim_holds(found) == "not all pass"
    assert of(found, "S10").finding == "the latent never fires on T: no dose moves T"


def test_a_dose_that_moves_nothing_is_told_by_what_is_so() -> None:
    """A factor of 1 moves nothing and other doses do; a weight of 0 moves nothing at any dose, however often the latent fires."""
    assert of(checks(steering(SAFE, multiplier=1.0)), "S10").outcome == "stated"
    head = np.random.default_rng(7).normal(0, 0.3, N_LATENTS)
    head[SAFE] = 0.0
    assert of(checks(steering(SAFE, head=head)), "S10").finding == "the latent has weight 0: no dose moves T"


def test_ablation_names_as_many_latents_as_it_takes() -> None:
    assert "the top 10 by s" in of(checks(steering(SAFE)), "S9").question
    dense = np.zeros((len(rows_of(60)), N_LATENTS))
    dense[:, [SAFE, 10, 11, 12]] = 1.0 + np.random.default_rng(0).random((len(dense), 4))
    assert "the top 3 by s lower T more than 95 % of random 3s" in of(checks(steering(SAFE, dense=dense)), "S9").question


def test_a_negative_weight_has_the_wrong_sign() -> None:
    assert outcomes(steering(NEGATIVE))["S1"] == "fail"


def test_identity_fails_when_the_edited_model_did_something_else() -> None:
    data = steering(SAFE)
    assert of(checks(replace(data, steered_rewards=data.steered_rewards + 0.01)), "S0").outcome == "fail"
    assert of(checks(replace(data, identity_rewards=data.rewards + 1e-9)), "S0").outcome == "fail"
    wrong_head = data.head.copy()
    wrong_head[EVERYWHERE] *= 1.1
    assert of(checks(replace(data, head=wrong_head)), "S0").outcome == "fail"


def test_an_empty_stratum_is_refused_by_name() -> None:
    data = steering(SAFE)
    with pytest.raises(UsageProblem, match="stratum C2"):
        checks(replace(data, target=replace(data.target, concept=""), facts={**data.facts, "subset": ""}))


def test_rewards_that_do_not_vary_leave_d_undefined_and_nothing_crashes() -> None:
    data = steering(SAFE)
    flat = replace(data, rewards=np.ones_like(data.rewards))
    found = {check.name: check for check in checks(flat)}
    assert found["S3"].outcome == found["S5"].outcome == found["S8"].outcome == "not measured"
    assert "undefined" in found["S3"].finding
    assert steering_tables(flat, list(found.values()), seed=0)


def test_one_item_a_subset_still_gives_a_table() -> None:
    found = {check.name: check for check in checks(steering(SAFE, items=1))}
    assert found["S0"].outcome == "pass" and found["S3"].outcome == "not measured"
    assert "none in" in checks(steering(SAFE, items=1, same_set=True))[-1].question


def test_intervals_are_those_of_scipy_for_independent_values() -> None:
    values = np.random.default_rng(0).exponential(size=80)
    ours = mean_interval(values, level=0.95, seed=3)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=2000, batch=200, rng=np.random.default_rng(3)).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=0.02)
    assert ours.value == pytest.approx(values.mean())


def test_an_interval_by_prompt_is_wider_than_one_that_takes_replies_for_independent() -> None:
    generator = np.random.default_rng(1)
    prompts = np.repeat(generator.normal(size=60), 5)
    items = np.repeat(np.arange(60), 5)
    before = generator.normal(size=300)
    clustered = standardised_shift(prompts, before, items, level=0.95, seed=0)
    alone = standardised_shift(prompts, before, np.arange(300), level=0.95, seed=0)
    assert clustered.value == alone.value == pytest.approx(prompts.mean() / before.std(ddof=1))
    assert (clustered.high - clustered.low) > 1.5 * (alone.high - alone.low)


def test_one_prompt_has_an_estimate_and_no_interval_and_passes_nothing() -> None:
    """What one prompt shows says nothing of others, so no check may take it for a number without spread."""
    one = np.zeros(4, dtype=np.int64)
    change, before = np.array([1.0, 1.0, 2.0, 1.0]), np.array([0.0, 1.0, 2.0, 4.0])
    mean = ratio_interval(np.array([2.0]), np.array([1.0]), level=0.95, seed=0)
    for found in (mean, standardised_shift(change, before, one, level=0.9, seed=0)):
        assert np.isfinite(found.value) and not found.known and "one prompt" in found.show()
    assert np.isnan(kolmogorov_smirnov(before, before + change, one, seed=0).upper)
    assert standardised_shift(0 * change, before, one, level=0.9, seed=0).known
    few = {check.name: check for check in checks(steering(SAFE, items=1))}
    assert few["S7"].outcome == "not measured" and "one prompt" in few["S7"].finding
    everywhere = {check.name: check for check in checks(steering(EVERYWHERE, items=1))}
    assert not {everywhere[name].outcome for name in ("S3", "S7")} & {"pass", "fail"}


def test_a_subset_of_one_item_that_changes_is_not_shown_unequal() -> None:
    """Its change has no interval; a subset that does differ decides all the same."""
    data = steering(EVERYWHERE, items=1)
    after = data.rewards + data.change
    open_ = [one for one in subset_changes(data, data.change) if not one.concept and not np.isfinite(one.low)]
    assert open_ and not np.array_equal(data.credits(after), data.credits_before)
    assert of(checks(data), "S6").outcome == "not measured"


def test_the_edit_that_decides_is_the_cross_fitted_one_where_the_latent_was_chosen_on_the_target() -> None:
    chosen_elsewhere, chosen_here = steering(SAFE), steering(SAFE, same_set=True)
    assert decisive_change(chosen_elsewhere, seed=0) is chosen_elsewhere.change
    assert np.array_equal(decisive_change(chosen_here, seed=3), cross_fit(chosen_here, seed=3).change)


def test_the_interval_of_a_shift_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(2)
    hits = 0
    for trial in range(40):
        before, change = generator.normal(size=80), generator.normal(0.3, 0.5, size=80)
        found = standardised_shift(change, before, np.arange(80), level=0.90, seed=trial)
        hits += found.low <= 0.3 <= found.high
    assert 30 <= hits <= 40


def test_kolmogorov_smirnov_is_scipys_distance_with_a_paired_p_value() -> None:
    generator = np.random.default_rng(0)
    before = generator.normal(size=200).round(1)
    after = before + np.where(generator.random(200) < 0.4, 0.7, 0.0)
    found = kolmogorov_smirnov(before, after, np.arange(200), seed=0)
    assert found.d == pytest.approx(stats.ks_2samp(before, after).statistic)
    assert found.p < 0.01 < stats.ks_2samp(before, after).pvalue * 100
    assert found.upper > found.d
    assert kolmogorov_smirnov(before, before, np.arange(200), seed=0) == (0.0, 1.0, 0.0)


def test_the_paired_p_value_is_uniform_enough_when_signs_are_random() -> None:
    generator = np.random.default_rng(3)
    ps = []
    for trial in range(30):
        before = generator.normal(size=60)
        ps.append(kolmogorov_smirnov(before, before + generator.normal(0, 0.5, size=60), np.arange(60), seed=trial).p)
    assert sum(p < 0.5 for p in ps) > 3 and sum(p < 0.05 for p in ps) <= 5


def test_hodges_lehmann_and_wasserstein_by_hand() -> None:
    assert hodges_lehmann(np.array([0.0, 0.0, 6.0])) == 1.5
    assert wasserstein(np.array([-1.0, 1.0]), np.array([0.0, 2.0])) == pytest.approx(1 / 2**0.5)
    assert np.isnan(wasserstein(np.array([1.0, 1.0]), np.array([2.0, 2.0])))


def test_s_uses_the_mean_over_all_latents_also_those_that_never_fire() -> None:
    chosen, rejected = np.array([3.0, 1.0]), np.array([1.0, 3.0])
    padded = FeatureSums(torch.tensor([3.0, 1.0, 0, 0, 0, 0, 0, 0]), torch.tensor([1.0, 3.0, 0, 0, 0, 0, 0, 0]))
    assert scores_of(chosen, rejected, n_latents=8) == pytest.approx(feature_scores_of_sums(padded)[:2].numpy())
    assert scores_of(chosen, rejected, n_latents=8)[0] == pytest.approx(2 / (4 + 8 / 8))
    assert scores_of(np.zeros(2), np.zeros(2), n_latents=8).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("seed", range(6))
def test_each_rule_chooses_what_the_torch_rule_chooses(seed: int) -> None:
    generator = np.random.default_rng(seed)
    s, t = generator.uniform(-1, 1, 20), generator.uniform(-1, 1, 20)
    found = select_latents(torch.tensor(s), torch.tensor(t), bound=0.3)
    columns = np.arange(20)
    for rule, latent in (("argmax-s", found.argmax_s), ("argmax-s-bounded-t", found.bounded), ("s-minus-t", found.s_minus_t)):
        wanted = latent if latent is not None and s[latent] > 0 else None
        assert choose(s, t, columns, rule=rule, bound=0.3, n_latents=20) == wanted  # type: ignore[arg-type]


def test_no_rule_chooses_a_latent_that_never_fires() -> None:
    s, t = np.array([-0.2, -0.1]), np.array([0.0, 0.0])
    for rule in ("argmax-s", "argmax-s-bounded-t", "s-minus-t"):
        assert choose(s, t, np.array([4, 9]), rule=rule, bound=0.1, n_latents=16) is None  # type: ignore[arg-type]
    assert choose(np.array([0.5]), np.array([0.4]), np.array([4]), rule="argmax-s-bounded-t", bound=0.1, n_latents=16) is None


def test_item_sums_weigh_a_chosen_reply_by_its_pairs() -> None:
    rows = rows_of(1)
    dense = np.zeros((len(rows), N_LATENTS))
    dense[0, 5], dense[1, 5], dense[2, 6] = 2.0, 1.0, 4.0
    sums = item_sums(completions(rows, dense), n_latents=N_LATENTS)
    assert sums.columns.tolist() == [5, 6]
    assert sums.chosen[0].tolist() == [6.0, 0.0] and sums.rejected[0].tolist() == [1.0, 4.0]
    s, t = feature_scores(sums, np.ones(5, dtype=bool))
    assert s.tolist() == pytest.approx([5 / (7 + 11 / N_LATENTS), -4 / (4 + 11 / N_LATENTS)]) and t.tolist() == [0.0, 0.0]


def test_without_a_planted_latent_the_cross_fit_takes_away_what_selection_on_the_test_set_added() -> None:
    naive, fitted = [], []
    for seed in range(8):
        rows = rows_of(40)
        dense = dense_latents(rows, seed=seed)
        dense[:, [SAFE, EVERYWHERE]] = 0.0
        head = np.full(N_LATENTS, 0.3)
        data = steering(4, items=40, same_set=True, head=head, dense=dense, seed=seed)
        sums = item_sums(data.target, n_latents=N_LATENTS)
        s, t = feature_scores(sums, np.ones(len(sums.inside), dtype=bool))
        best = choose(s, t, sums.columns, rule="argmax-s", bound=0.1, n_latents=N_LATENTS)
        assert best is not None
        mask, out = data.strata["T"], data.strata["C2"]
        naive.append(data.shift(best, 3.0)[mask].mean() - data.shift(best, 3.0)[out].mean())
        change = cross_fit(data, seed=0).change
        fitted.append(change[mask].mean() - change[out].mean())
    assert np.mean(naive) > 0.05
    assert abs(np.mean(fitted)) < np.mean(naive) / 2


def test_the_cross_fit_finds_a_planted_latent_in_every_fold_and_never_splits_a_prompt() -> None:
    data = steering(SAFE, same_set=True)
    fit = cross_fit(data, seed=0)
    assert fit.latents == (SAFE,) * 5 and np.array_equal(fit.change, data.change)
    assert "latent 0 in 5 of 5" in of(checks(data), "S3x").question
    assert {"S3x", "S5x", "S7x"} <= set(outcomes(data))
    assert not any(name.endswith("x") for name in outcomes(steering(SAFE)))


def test_matched_latents_have_like_firing_rates_and_weights_and_never_the_latent_itself() -> None:
    data = steering(SAFE)
    found = matched_latents(data, 10)
    assert SAFE not in found and SILENT not in found and len(found) == 10
    assert found[0] == EVERYWHERE


def test_too_few_other_latents_are_no_control() -> None:
    rows = rows_of(20)
    dense = dense_latents(rows)
    dense[:, 2:] = 0.0
    assert random_control(steering(SAFE, items=20, dense=dense)).outcome == "not measured"


def test_the_dose_curve_is_linear_and_still_at_one() -> None:
    curve = dose_curve(steering(SAFE))
    shifts = {dose.multiplier: dose.shifts["T"] for dose in curve}
    assert shifts[1.0] == 0 and shifts[3.0] == pytest.approx(2 * shifts[2.0]) and shifts[-1.0] == pytest.approx(-shifts[3.0])
    assert {dose.shifts["C3"] for dose in curve} == {0.0}


def test_cruder_means_have_the_same_mean_shift_and_a_constant_changes_no_ranking() -> None:
    found = {one.name: one for one in cruder_means(steering(SAFE))}
    constant = found["constant on the concept's prompts"]
    assert constant.concept_points == 0 and constant.margin == pytest.approx(0, abs=1e-9)
    assert {round(one.mean_t, 9) for one in found.values() if "no latent" not in one.name} == {round(constant.mean_t, 9)}


def test_accuracy_that_others_lose_is_seen() -> None:
    data = steering(SAFE, ties=10)
    hurt = np.where([row["subset"] == "Math" and row["side"] == "chosen" for row in data.target.rows], -5.0, 0.0)
    found = {one.name: one for one in subset_changes(data, hurt)}
    assert found["Math"].points < -10 and not found["Math"].equivalent and found["Math"].lost > 0
    assert found["Focus"].points == 0 and found["Focus"].equivalent
    ties = np.where([row["subset"] == "Ties" and row["side"] == "chosen" for row in data.target.rows], 5.0, 0.0)
    changed = next(one for one in subset_changes(data, ties) if one.name == "Ties")
    assert changed.points > 10 and changed.low < changed.points < changed.high


def test_a_latent_that_rewards_every_refusal_is_caught_by_the_kind_of_prompt() -> None:
    data = steering(SAFE)
    kinds = {f"Safety/{number}": REFUSAL if number % 2 else COMPLIANCE for number in range(60)}
    refuses = np.zeros(len(data.rewards))
    for subset, name, chosen, rejected in data.layout:
        if subset == "Safety":
            refuses[chosen if kinds[f"Safety/{name}"] == REFUSAL else rejected[:2]] = 1.0
    found = margin(replace(data, kinds=kinds), refuses, seed=0)
    assert of(found, "S7k").outcome == "fail" and REFUSAL in of(found, "S7k").finding
    both = margin(replace(data, kinds=kinds), data.change, seed=0)
    assert of(both, "S7k").outcome == "pass"
    assert of(margin(data, data.change, seed=0), "S7k").outcome == "not measured"


def test_kinds_of_prompts_come_from_the_labels_of_a_miniature(tmp_path: Path) -> None:
    labels = {
        "safety": {"prompt": "harmful request", "prompt_opposite": "harmless request"},
        "items": {"rewardbench2": {
            "Safety/0": {"prompt": ["harmful request", "greeting"]}, "Safety/1": {"prompt": ["harmless request"]}, "Math/0": {"prompt": []},
        }},
    }  # fmt: skip
    (tmp_path / "concepts.json").write_text(json.dumps(labels))
    assert prompt_kinds(tmp_path / "concepts.json", "rewardbench2") == {"Safety/0": REFUSAL, "Safety/1": COMPLIANCE}
    assert prompt_kinds(tmp_path / "concepts.json", "rmbench") == {}


def test_rmbench_as_target_is_scored_by_domains_and_knows_its_kinds() -> None:
    rows = [
        {"item": item, "id": str(item), "subset": subset, "side": side, "place": place, "pairs": 1, "prompt": f"q{item}"}
        for item, subset in enumerate(["safety-refuse"] * 20 + ["safety-response"] * 20 + ["math"] * 20 + ["chat"] * 20 + ["code"] * 20)
        for side in ("chosen", "rejected")
        for place in range(3)
    ]
    target = completions(rows, dense_latents(rows))
    base = steering(SAFE)
    rewards = (base.head[target.indices] * target.values).sum(axis=1)
    change = 2 * base.head[SAFE] * target.activation(SAFE)
    states = np.zeros((len(rows), 2))
    data = replace(
        base, target=target, selection=target, rewards=rewards, steered_rewards=rewards + change, identity_rewards=rewards, states=states,
        facts={**base.facts, "target": "rmbench", "selection": "rmbench"},
    )  # fmt: skip
    found = {check.name: check for check in checks(data)}
    assert {"safety", "math", "chat", "code", "Overall"} == set(data.accuracies_before)
    assert found["S7k"].outcome == "pass" and found["S6"].outcome == "pass" and found["S3x"].outcome == "pass"


def test_shift_at_a_factor_below_one_goes_left() -> None:
    data = steering(SAFE, multiplier=0.0)
    assert shift(data, data.change, seed=0).outcome == "fail"
    assert data.change[data.strata["T"]].max() < 0 and K < N_LATENTS


def test_a_report_without_an_artifact_says_why() -> None:
    runs = [SteeringRun(0, None, "steer_rewards/0123 not yet run")]
    found = figure3_report(runs, profile="mini", protocol="paper", why_not_comparable="x")
    assert any("steer_rewards/0123 not yet run" in note for note in found.report.notes) and not found.data
