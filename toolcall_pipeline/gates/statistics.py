"""The statistics gates stand on: exact bounds, clustering, paired comparisons, Holm, sample-size advice.

Pure functions of counts; what they mean for a gate is in `rates.py` and `comparison.py`. Formulas and why each was
chosen: docs/explanation/statistics.md.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
"""Of every one-sided bound; both bounds together are the 90 % interval that reports draw."""
DRAWN_LEVEL = 0.90
FEW_CLUSTERS = 4
"""With fewer clusters that differ from the rest, the between-cluster variance says nothing: full dependence is assumed."""
_MOST_CASES = 1_000_000

Outcome = tuple[str, bool]
"""(cluster id, whether the counted thing happened)."""


@dataclass(frozen=True)
class RateEstimate:
    """A rate over clustered cases, with exact one-sided bounds.

    Attributes:
        rate: Share of cases in which the counted thing happened; NaN where n is 0.
        successes, n, cluster_count: What was counted.
        effective_n: Independent cases that would carry as much information; equals n where no two cases share a cluster.
        low, high: One-sided 95 % bounds, each on its own.
        method: How the bounds were made, in words for the report.
    """

    rate: float
    successes: int
    n: int
    cluster_count: int
    effective_n: float
    low: float
    high: float
    method: str


def clopper_pearson(successes: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the exact one-sided bounds of a binomial rate.

    Args:
        successes: Count, or its share of an effective n (need not be whole).
        n: Trials, or effective trials; 0 gives (0, 1).
        confidence: Of each bound on its own.

    Returns:
        Lower and upper bound, 0 to 1.

    Source:
        C. J. Clopper, E. S. Pearson, Biometrika 26 (1934) 404; in its beta form, scipy.stats.beta.
    """
    from scipy.stats import beta

    if n <= 0:
        return 0.0, 1.0
    alpha = 1 - confidence
    failures = max(n - successes, 0.0)
    low = 0.0 if successes <= 0 else float(beta.ppf(alpha, successes, failures + 1))
    high = 1.0 if failures <= 0 else float(beta.ppf(1 - alpha, successes + 1, failures))
    return low, high


def estimate_rate(outcomes: Sequence[Outcome]) -> RateEstimate:
    """Return a rate with exact bounds that count cases of one cluster as dependent.

    Args:
        outcomes: One (cluster id, happened) per case, any order.

    Source:
        E. L. Korn, B. I. Graubard, Survey Methodology 24 (1998) 193: Clopper-Pearson at the effective sample size.
    """
    n = len(outcomes)
    successes = sum(1 for _, happened in outcomes if happened)
    clusters = len({cluster for cluster, _ in outcomes})
    if n == 0:
        return RateEstimate(math.nan, 0, 0, 0, 0.0, 0.0, 1.0, "nothing was measured")
    rate = successes / n
    effective = effective_n([(cluster, float(happened)) for cluster, happened in outcomes])
    low, high = clopper_pearson(rate * effective, effective)
    method = "Clopper-Pearson"
    if clusters < n:
        method = f"Clopper-Pearson at the effective n of {effective:.0f} ({clusters} clusters, Korn-Graubard)"
    return RateEstimate(rate, successes, n, clusters, effective, low, high, method)


def effective_n(values: Sequence[tuple[str, float]]) -> float:
    """Return how many independent cases carry the information of clustered ones; never more than there are.

    Args:
        values: One (cluster id, value) per case; values are 0 and 1, or paired differences -1, 0 and 1.

    Source:
        Korn and Graubard 1998: n / design effect x (t[n-1] / t[clusters-1])^2, the design effect from the
        between-cluster variance of the ratio estimator.
    """
    from scipy.stats import t

    n = len(values)
    sums: dict[str, float] = defaultdict(float)
    sizes: dict[str, int] = defaultdict(int)
    for cluster, value in values:
        sums[cluster] += value
        sizes[cluster] += 1
    clusters = len(sizes)
    if clusters == n or clusters < 2:
        return float(clusters)
    mean = sum(sums.values()) / n
    variance = sum((value - mean) ** 2 for _, value in values) / n
    if _uncommon_clusters(values) < FEW_CLUSTERS or variance <= 0:
        return float(clusters)
    between = clusters / (clusters - 1) * sum((sums[c] - mean * sizes[c]) ** 2 for c in sizes) / n**2
    if between <= 0:
        return float(n)
    penalty = (float(t.ppf(CONFIDENCE, n - 1)) / float(t.ppf(CONFIDENCE, clusters - 1))) ** 2
    return max(1.0, min(float(n), variance / between * penalty))


def _uncommon_clusters(values: Sequence[tuple[str, float]]) -> int:
    """Return the number of clusters with a value other than the commonest one."""
    counts: dict[float, int] = defaultdict(int)
    for _, value in values:
        counts[value] += 1
    commonest = max(counts, key=lambda value: counts[value])
    return len({cluster for cluster, value in values if value != commonest})


def more_cases_needed(rate: float, n: int, effective: float, threshold: float, *, lower_bound: bool) -> int | None:
    """Return how many more cases, at the same rate and clustering, would bring the bound over the threshold.

    Args:
        rate: Measured rate, 0 to 1.
        n: Cases measured so far.
        effective: Their effective number.
        threshold: What the bound has to clear.
        lower_bound: Whether the lower bound has to be at or above it (else: the upper one at or below).

    Returns:
        Further cases, 0 where it clears already, None where the rate itself does not clear or a million would not do.
    """
    ratio = effective / n if n else 1.0

    def clears(cases: int) -> bool:
        low, high = clopper_pearson(rate * cases * ratio, cases * ratio)
        return low >= threshold if lower_bound else high <= threshold

    if (rate <= threshold) if lower_bound else (rate >= threshold):
        return None
    if n and clears(n):
        return 0
    step = max(n, 8)
    while not clears(step):
        step *= 2
        if step > _MOST_CASES:
            return None
    below, enough = step // 2, step
    while enough - below > 1:
        middle = (below + enough) // 2
        below, enough = (below, middle) if clears(middle) else (middle, enough)
    return max(enough - n, 1)


def pass_hat_k(attempts: Iterable[tuple[str, bool]], k: int) -> float:
    """Return pass^k: the chance that k attempts at one task all succeed, averaged over tasks with k attempts or more.

    Args:
        attempts: (task id, solved) per attempt.
        k: Attempts that must all succeed.

    Source:
        Yao et al., tau-bench (2024), eq. 1: mean over tasks of C(solved, k) / C(attempts, k).
    """
    tasks: dict[str, list[bool]] = defaultdict(list)
    for task, solved in attempts:
        tasks[task].append(solved)
    shares = [math.comb(sum(solved), k) / math.comb(len(solved), k) for solved in tasks.values() if len(solved) >= k]
    return sum(shares) / len(shares) if shares else math.nan


def mcnemar_exact(differences: Sequence[tuple[str, int]]) -> float:
    """Return the two-sided exact McNemar p-value of paired outcomes, clusters kept together.

    Were both models alike, each cluster's summed difference would as well have had the other sign. The value is the share
    of all these choices of signs whose total lies as far from zero as the one observed, and so speaks of the same
    difference as the rates do; with one case per cluster it is McNemar's exact test of the discordant pairs.

    Args:
        differences: (cluster id, candidate passed - other passed) per case and seed: -1, 0 or 1.

    Source:
        Q. McNemar, Psychometrika 12 (1947) 153; R. A. Fisher, The Design of Experiments (1935), section 21.
    """
    import numpy as np

    sums: dict[str, int] = defaultdict(int)
    for cluster, difference in differences:
        sums[cluster] += difference
    steps = [abs(total) for total in sums.values() if total]
    reach = sum(steps)
    # The chance of each total from -reach to reach, one cluster after another.
    chances = np.zeros(2 * reach + 1)
    chances[reach] = 1.0
    for step in steps:
        chances = (np.roll(chances, step) + np.roll(chances, -step)) / 2
    observed = abs(sum(sums.values()))
    return min(float(2 * chances[reach + observed :].sum()), 1.0)


def paired_difference_bounds(differences: Sequence[tuple[str, int]]) -> tuple[float, float]:
    """Return one-sided bounds of the difference of two paired rates (candidate minus other).

    Args:
        differences: (cluster id, -1, 0 or 1) per case and seed.

    Returns:
        Lower and upper bound, -1 to 1.

    Source:
        T. Tango, Statistics in Medicine 17 (1998) 891: score interval of a paired difference, which keeps its level
        where few or no pairs are discordant; counts are scaled to the effective n of clustered pairs.
    """
    from scipy.stats import norm

    n = len(differences)
    if n == 0:
        return -1.0, 1.0
    scale = effective_n([(cluster, float(value)) for cluster, value in differences]) / n
    better = scale * sum(1 for _, value in differences if value > 0)
    worse = scale * sum(1 for _, value in differences if value < 0)
    z = float(norm.ppf(CONFIDENCE))
    return _tango_bound(worse, better, n * scale, -z), _tango_bound(worse, better, n * scale, z)


def _tango_bound(worse: float, better: float, n: float, z: float) -> float:
    """Return the difference at which Tango's score statistic reaches -z (z < 0: the lower bound)."""
    from scipy.optimize import brentq

    def excess(delta: float) -> float:
        b = -better - worse + (2 * n - better + worse) * delta
        c = -worse * delta * (1 - delta)
        q = (math.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
        variance = n * (2 * q + delta * (1 - delta))
        score = better - worse - n * delta
        return score + z * math.sqrt(max(variance, 0.0))

    point = (better - worse) / n
    edge = -1.0 if z < 0 else 1.0
    if abs(point - edge) < 1e-12:
        return edge
    near, far = point + edge * 1e-9, edge * (1 - 1e-12)
    if excess(near) * excess(far) > 0:
        return edge
    return float(brentq(excess, min(near, far), max(near, far), xtol=1e-12))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm-adjusted p-values, in the order given.

    Not statsmodels' `multipletests`, which collects garbage on every call (0.2 s in a process that holds a suite's
    results); the tests compare the two.

    Source:
        S. Holm, Scandinavian Journal of Statistics 6 (1979) 65.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
