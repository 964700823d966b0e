"""Statistics against values computed another way: binomial sums, published tables, simulation."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolcall_pipeline.gates.statistics import (
    clopper_pearson,
    effective_n,
    estimate_rate,
    holm,
    mcnemar_exact,
    more_cases_needed,
    paired_difference_bounds,
    pass_hat_k,
)


def at_least(successes: int, n: int, rate: float) -> float:
    """Chance of `successes` or more, summed term by term."""
    return sum(math.comb(n, k) * rate**k * (1 - rate) ** (n - k) for k in range(successes, n + 1))


@pytest.mark.parametrize(
    ("successes", "n", "confidence", "low", "high"),
    [
        (0, 299, 0.95, 0.0, 0.009969),  # "< 1 %" needs 299 clean prompts
        (0, 298, 0.95, 0.0, 0.010002),
        (0, 50, 0.95, 0.0, 0.058155),  # 0 of 50 shows < 5.8 % only
        (51, 60, 0.975, 0.734260, 0.929044),  # published 95 % interval of 51/60
        (10, 10, 0.95, 0.741134, 1.0),  # 0.05 ** (1 / 10)
        (0, 0, 0.95, 0.0, 1.0),
    ],
)
def test_exact_bounds_agree_with_known_tables(
    successes: int, n: int, confidence: float, low: float, high: float
) -> None:
    assert clopper_pearson(successes, n, confidence) == pytest.approx((low, high), abs=2e-6)


@given(st.integers(1, 120).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@settings(max_examples=60, deadline=None)
def test_at_each_exact_bound_the_data_are_exactly_as_unlikely_as_stated(counts: tuple[int, int]) -> None:
    successes, n = counts
    low, high = clopper_pearson(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    if successes:
        assert at_least(successes, n, low) == pytest.approx(0.05, abs=1e-6)
    if successes < n:
        assert 1 - at_least(successes + 1, n, high) == pytest.approx(0.05, abs=1e-6)


def test_independent_cases_count_in_full_and_copies_count_once() -> None:
    independent = [(f"c{i}", i % 3 == 0) for i in range(120)]
    copies = [(cluster, happened) for cluster, happened in independent for _ in range(5)]
    assert estimate_rate(independent).effective_n == 120
    assert estimate_rate(copies).effective_n == pytest.approx(120, rel=0.03)
    assert estimate_rate(copies).high == pytest.approx(estimate_rate(independent).high, abs=0.004)


@pytest.mark.parametrize("happened", [True, False])
def test_where_all_cases_agree_each_cluster_counts_once(happened: bool) -> None:
    assert effective_n([(f"c{i // 4}", float(happened)) for i in range(400)]) == 100


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.booleans()), max_size=60))
@settings(max_examples=100, deadline=None)
def test_clustering_never_adds_information(outcomes: list[tuple[str, bool]]) -> None:
    estimate = estimate_rate(outcomes)
    assert estimate.effective_n <= estimate.n
    if outcomes:
        low, high = clopper_pearson(estimate.successes, estimate.n)
        assert estimate.low <= low + 1e-12
        assert estimate.high >= high - 1e-12
        assert estimate.low <= estimate.rate <= estimate.high


@pytest.mark.parametrize(
    ("rate", "clusters", "size", "copying"),
    [(0.6, 125, 2, 0.9), (0.85, 60, 6, 0.5), (0.05, 125, 2, 1.0), (0.3, 40, 10, 0.3)],
)
def test_one_sided_bounds_keep_their_level_on_clustered_cases(
    rate: float, clusters: int, size: int, copying: float
) -> None:
    generator = random.Random(7)
    misses_low = misses_high = 0
    draws = 400
    for _ in range(draws):
        outcomes = []
        for cluster in range(clusters):
            shared = generator.random() < rate
            outcomes += [
                (str(cluster), shared if generator.random() < copying else generator.random() < rate)
                for _ in range(size)
            ]
        estimate = estimate_rate(outcomes)
        misses_low += estimate.low > rate
        misses_high += estimate.high < rate
    # 5 % stated; three standard errors of 400 draws above it
    assert misses_low / draws <= 0.083
    assert misses_high / draws <= 0.083


@pytest.mark.parametrize(
    ("rate", "n", "threshold", "lower", "expected"),
    [
        (0.0, 0, 0.01, False, 299),
        (0.0, 50, 0.01, False, 249),
        (0.9, 20, 0.85, True, 130),
        (0.85, 60, 0.85, True, None),  # the rate sits on the threshold
        (0.2, 60, 0.85, True, None),
        (1.0, 100, 0.5, True, 0),
    ],
)
def test_advice_names_the_smallest_number_of_cases_that_decides(
    rate: float, n: int, threshold: float, lower: bool, expected: int | None
) -> None:
    more = more_cases_needed(rate, n, float(n), threshold, lower_bound=lower)
    assert more == expected
    if more:
        total = n + more
        bound = clopper_pearson(rate * total, total)[0 if lower else 1]
        before = clopper_pearson(rate * (total - 1), total - 1)[0 if lower else 1]
        assert (bound >= threshold) if lower else (bound <= threshold)
        assert (before < threshold) if lower else (before > threshold)


def brute_pass_hat_k(attempts: dict[str, list[bool]], k: int) -> float:
    shares = []
    for solved in attempts.values():
        picks = list(itertools.combinations(solved, k))
        shares.append(sum(all(pick) for pick in picks) / len(picks))
    return sum(shares) / len(shares)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_pass_hat_k_is_the_share_of_all_choices_of_k_attempts(k: int) -> None:
    attempts = {"a": [True, True, False], "b": [True, True, True], "c": [False, False, True, True]}
    pairs = [(task, solved) for task, results in attempts.items() for solved in results]
    assert pass_hat_k(pairs, k) == pytest.approx(brute_pass_hat_k(attempts, k))


def differences(better: int, worse: int, same: int) -> list[tuple[str, int]]:
    values = [1] * better + [-1] * worse + [0] * same
    return [(f"c{i}", value) for i, value in enumerate(values)]


@pytest.mark.parametrize(
    ("better", "worse"),
    [(10, 0), (12, 2), (9, 9), (30, 15), (0, 0), (1, 0)],
)
def test_mcnemar_is_the_exact_sign_test_of_the_discordant_pairs(better: int, worse: int) -> None:
    n = better + worse
    tail = sum(math.comb(n, k) for k in range(max(better, worse), n + 1)) / 2**n
    assert mcnemar_exact(differences(better, worse, 40)) == pytest.approx(min(1.0, 2 * tail))


def test_copies_of_a_pair_do_not_make_a_difference_more_certain() -> None:
    once = [(f"c{i}", 1 if i < 6 else -1) for i in range(8)]
    five_times = [pair for pair in once for _ in range(5)]
    assert mcnemar_exact(five_times) == mcnemar_exact(once)


def test_mcnemar_of_clusters_is_the_share_of_all_choices_of_signs() -> None:
    sums = [5, -1, -1, 3, -2, 0, 1, -1]
    pairs = [(f"c{i}", 1 if total > 0 else -1) for i, total in enumerate(sums) for _ in range(abs(total))]
    choices = [
        sum(sign * total for sign, total in zip(signs, sums, strict=True))
        for signs in itertools.product((-1, 1), repeat=len(sums))
    ]
    assert mcnemar_exact(pairs) == pytest.approx(sum(abs(one) >= abs(sum(sums)) for one in choices) / len(choices))


def test_many_clusters_a_little_worse_do_not_make_better_what_won_a_few() -> None:
    # Seen on suite D: 53 won in 23 asks, 47 lost in 47, and a vote of the asks called it certain.
    sums = [1] * 10 + [2] * 7 + [3] + [5] * 4 + [6] + [-1] * 47
    pairs = [(f"c{i}", 1 if total > 0 else -1) for i, total in enumerate(sums) for _ in range(abs(total))]
    assert mcnemar_exact(pairs) > 0.5


def numeric_score_bound(better: int, worse: int, n: int, z: float) -> float:
    """Tango's bound with the constrained maximum likelihood found numerically, not by its closed form."""
    from scipy.optimize import brentq, minimize_scalar

    def score(delta: float) -> float:
        def minus_log_likelihood(q: float) -> float:
            return -(
                better * math.log(q + delta) + worse * math.log(q) + (n - better - worse) * math.log(1 - 2 * q - delta)
            )

        low, high = max(0.0, -delta) + 1e-12, (1 - delta) / 2 - 1e-12
        q = minimize_scalar(minus_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-13}).x
        return float((better - worse - n * delta) / math.sqrt(n * (2 * q + delta * (1 - delta))))

    return float(brentq(lambda delta: score(delta) - z, -0.9, 0.9))


@pytest.mark.parametrize(("better", "worse", "n"), [(12, 2, 50), (5, 9, 60), (30, 25, 200)])
def test_paired_bounds_agree_with_a_numerical_likelihood(better: int, worse: int, n: int) -> None:
    low, high = paired_difference_bounds(differences(better, worse, n - better - worse))
    assert low == pytest.approx(numeric_score_bound(better, worse, n, 1.6448536), abs=1e-5)
    assert high == pytest.approx(numeric_score_bound(better, worse, n, -1.6448536), abs=1e-5)


@pytest.mark.parametrize(
    ("better", "worse", "same", "not_worse"),
    [
        (0, 0, 8, False),  # eight equal cases show nothing
        (0, 0, 25, True),
        (0, 10, 190, True),
        (0, 40, 160, False),
        (20, 20, 160, True),
    ],
)
def test_few_pairs_do_not_show_non_inferiority(better: int, worse: int, same: int, not_worse: bool) -> None:
    low, high = paired_difference_bounds(differences(better, worse, same))
    assert (low > -0.10) == not_worse
    assert -1 <= low <= (better - worse) / (better + worse + same) <= high <= 1


@pytest.mark.parametrize(
    ("better", "worse", "same", "expected"),
    [(10, 0, 0, 1.0), (0, 10, 0, -1.0)],
)
def test_paired_bounds_reach_the_edge_and_no_further(better: int, worse: int, same: int, expected: float) -> None:
    low, high = paired_difference_bounds(differences(better, worse, same))
    assert (high if expected > 0 else low) == expected


def test_paired_bounds_keep_their_level() -> None:
    generator = random.Random(11)
    misses = 0
    draws = 300
    for _ in range(draws):
        pairs = [(str(i), (generator.random() < 0.7) - (generator.random() < 0.8)) for i in range(150)]
        misses += paired_difference_bounds(pairs)[0] > -0.10
    assert misses / draws <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / draws)


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.5], [0.5]),
        ([], []),
        ([0.001, 1.0, 0.02, 0.3], [0.004, 1.0, 0.06, 0.6]),
    ],
)
def test_holm_steps_down(p_values: list[float], adjusted: list[float]) -> None:
    assert holm(p_values) == pytest.approx(adjusted)


def test_holm_agrees_with_statsmodels() -> None:
    from statsmodels.stats.multitest import multipletests

    generator = random.Random(3)
    for size in (1, 2, 6):
        p_values = [generator.random() ** 3 for _ in range(size)]
        assert holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]))
