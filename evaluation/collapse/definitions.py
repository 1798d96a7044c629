"""Eight definitions of model collapse. A run may collapse by some of them and not by others.

The list is that of Schaeffer, Kazdan, Arulandu and Koyejo 2025 ("Position: model collapse does not mean what you
think", 2503.03150). The papers define limits, or describe collapse in words. The rules for a finite series and all
thresholds are Gristmill's own. A verdict is "unknown" when numbers are missing or too few.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Numbers = Sequence[float | None]


@dataclass(frozen=True)
class Series:
    """Metrics by generation from generation 1 on; None for a missing number; empty for a metric without numbers.

    risk: loss on real held-out rows, above 0, larger is worse (test error, Wasserstein or Frechet distance,
    perplexity). risk_error: its standard error. variance: relative to the truth (covariance trace, Gini-Simpson index;
    entropy of texts). modes: share of the true modes that occur, or recall. tail: mass in the tails relative to the
    truth, or recall of rare tokens. outside: share of rows outside the support of the truth (1 - precision, rows in no
    mode). sizes, risk_of_real, risk_of_last: losses at several numbers of training rows, of a model of real rows and of
    the last generation.
    """

    risk: Numbers = ()
    risk_error: Numbers = ()
    variance: Numbers = ()
    modes: Numbers = ()
    tail: Numbers = ()
    outside: Numbers = ()
    sizes: Sequence[int] = field(default=())
    risk_of_real: Numbers = ()
    risk_of_last: Numbers = ()

    def __post_init__(self) -> None:
        for name in ("risk", "risk_error", "variance", "modes", "tail", "outside", "risk_of_real", "risk_of_last"):
            if any(v is not None and math.isnan(v) for v in getattr(self, name)):
                raise ValueError(f"{name} holds NaN; use None for a missing number")
        if self.risk_error and len(self.risk_error) != len(self.risk):
            raise ValueError("risk_error must have as many numbers as risk")
        if not len(self.sizes) == len(self.risk_of_real) == len(self.risk_of_last):
            raise ValueError("sizes, risk_of_real and risk_of_last must have equally many numbers")


@dataclass(frozen=True)
class Thresholds:
    """Numbers at which a verdict becomes "yes"."""

    catastrophic: float = 2.0  # risk relative to the first generation
    any_rise: float = 0.01  # rise relative to the first risk
    sure: float = 3.0  # standard errors that a rise must exceed
    divergent: float = 0.75  # rise over the last doubling of generations, relative to the doubling before
    variance: float = 0.5  # remaining share of the true variance
    scaling: float = 0.5  # remaining share of the scaling exponent
    modes: float = 0.9  # remaining share of the first generation's modes
    tail: float = 0.5  # remaining share of the first generation's tail
    outside: float = 0.05  # increase of the share of rows outside


@dataclass(frozen=True)
class Verdict:
    """`number` is compared with `threshold`; both are None for an unknown verdict."""

    name: str
    verdict: Literal["yes", "no", "unknown"]
    number: float | None
    threshold: float | None
    reading: str  # meaning of the number
    source: str


def verdicts(series: Series, at: Thresholds | None = None) -> list[Verdict]:
    """The eight verdicts in the order of JUDGES."""
    at = at or Thresholds()
    return [judge(series, at) for judge in JUDGES]


def _say(
    judge: Callable[[Series, Thresholds], Verdict], number: float | None, threshold: float, yes: bool, reading: str
) -> Verdict:
    name, source = NAMES[judge.__name__]
    if number is None:
        return Verdict(name, "unknown", None, None, reading, source)
    return Verdict(name, "yes" if yes else "no", number, threshold, reading, source)


def _ends(values: Numbers) -> tuple[float, float] | None:
    """The numbers of the first and the last generation; None when one is missing or there is only one generation."""
    if len(values) < 2 or values[0] is None or values[-1] is None:
        return None
    return values[0], values[-1]


def _ratio(last: float, first: float) -> float | None:
    """last / first; None when the first number is 0 or infinite."""
    return last / first if first > 0 and math.isfinite(first) else None


def catastrophic_risk(series: Series, at: Thresholds) -> Verdict:
    """A catastrophic rise of the risk (Shumailov et al. 2024; Alemohammad et al. 2024, useless models): the largest
    risk of a generation is at least twice the first risk."""
    first = series.risk[0] if len(series.risk) > 1 else None
    risks = [r for r in series.risk if r is not None]
    number = None if first is None else _ratio(max(risks), first)
    reading = "largest risk of a generation, over the first generation's"
    return _say(catastrophic_risk, number, at.catastrophic, (number or 0) >= at.catastrophic, reading)


def any_risk(series: Series, at: Thresholds) -> Verdict:
    """Any rise of the risk over that of real data (Dohmatob et al. 2024 and 2025): the last risk exceeds the first by
    1 % and, where standard errors are known, by three standard errors of the difference."""
    ends = _ends(series.risk)
    number = None if ends is None or not ends[0] > 0 else _rise(ends)
    threshold = at.any_rise
    if ends is not None and number is not None:
        errors = _ends(series.risk_error)
        if errors is not None:
            threshold = max(threshold, at.sure * math.hypot(*errors) / ends[0])
    reading = "rise of the risk from the first generation to the last, over the first"
    return _say(any_risk, number, threshold, number is not None and number > threshold, reading)


def _rise(ends: tuple[float, float]) -> float | None:
    ratio = _ratio(ends[1], ends[0])
    return None if ratio is None else ratio - 1


def diverging_risk(series: Series, at: Thresholds) -> Verdict:
    """A risk without bound as generations go on (Gerstgrasser et al. 2024, Kazdan et al. 2025: replace diverges,
    accumulate does not).

    No finite series proves it. Increments that fall like k^-p have a finite sum only for p > 1. Then each doubling of
    the generations adds 2^(1-p) < 1 times the sum of the doubling before (Cauchy's condensation test): a linear rise
    gives 2, a logarithm 1, a sum of 1/k^2 0.5. The verdict needs eight generations; without a rise by `any_risk` it is
    "no".
    """
    reading = "rise over the last doubling of generations, over the rise of the doubling before"
    rise = any_risk(series, at)
    if rise.verdict == "unknown" or len(series.risk) < 8:
        return _say(diverging_risk, None, at.divergent, False, reading)
    if rise.verdict == "no":
        return _say(diverging_risk, 0.0, at.divergent, False, reading)
    k = len(series.risk)
    quarter, half, last = series.risk[k // 4 - 1], series.risk[k // 2 - 1], series.risk[k - 1]
    if quarter is None or half is None or last is None or math.isinf(half):
        return _say(diverging_risk, None, at.divergent, False, reading)
    before, after = half - quarter, last - half
    if before <= 0:  # no early rise: the rise is accelerating, or there is none
        number = math.inf if after > 0 else 0.0
    else:
        number = max(0.0, after / before)
    return _say(diverging_risk, number, at.divergent, number >= at.divergent, reading)


def collapsing_variance(series: Series, at: Thresholds) -> Verdict:
    """The variance goes to 0 (Shumailov et al. 2024, Gaussian theorem; Bertrand et al. 2024): the last generation has
    less than half of the true variance."""
    number = series.variance[-1] if series.variance else None
    reading = "variance of the last generation, over the truth's"
    return _say(collapsing_variance, number, at.variance, number is not None and number < at.variance, reading)


def changed_scaling(series: Series, at: Thresholds) -> Verdict:
    """A changed scaling law (Dohmatob et al. 2024, "A tale of tails"): the exponent c of risk ~ n^-c is less than half
    of the exponent for real rows. Both come from least squares on logs over three or more sizes."""
    points = [
        (n, a, b)
        for n, a, b in zip(series.sizes, series.risk_of_real, series.risk_of_last)
        if a is not None and b is not None
    ]
    reading = "exponent of the risk in the number of rows, over that of real rows"
    usable = len({n for n, _, _ in points}) >= 3 and all(0 < v < math.inf for row in points for v in row)
    number = None
    if usable:
        logs = np.log(np.array(points, np.float64))
        real, last = (-float(np.polyfit(logs[:, 0], logs[:, column], 1)[0]) for column in (1, 2))
        number = last / real if real > 0 else None
    return _say(changed_scaling, number, at.scaling, number is not None and number < at.scaling, reading)


def lost_modes(series: Series, at: Thresholds) -> Verdict:
    """Modes of the truth disappear or merge (Alemohammad et al. 2024; Shumailov et al. 2024 for mixtures and digits): a
    tenth of the first generation's modes is lost."""
    ends = _ends(series.modes)
    number = None if ends is None else _ratio(ends[1], ends[0])
    reading = "modes found in the last generation, over the first's"
    return _say(lost_modes, number, at.modes, number is not None and number < at.modes, reading)


def lost_tails(series: Series, at: Thresholds) -> Verdict:
    """Rare events of the truth disappear ("early collapse", Shumailov et al. 2024; Dohmatob et al. 2024; Wyllie et al.
    2024): half of the first generation's tail is lost."""
    ends = _ends(series.tail)
    number = None if ends is None else _ratio(ends[1], ends[0])
    reading = "tail of the last generation, over the first's"
    return _say(lost_tails, number, at.tail, number is not None and number < at.tail, reading)


def hallucinated_data(series: Series, at: Thresholds) -> Verdict:
    """Rows outside the truth appear (Shumailov et al. 2024, "improbable sequences"; Alemohammad et al. 2024,
    artefacts): their share grows by more than 5 points."""
    ends = _ends(series.outside)
    number = None if ends is None else ends[1] - ends[0]
    reading = "share of rows outside the truth's support, last generation less the first"
    return _say(hallucinated_data, number, at.outside, number is not None and number > at.outside, reading)


JUDGES = (
    catastrophic_risk,
    any_risk,
    diverging_risk,
    collapsing_variance,
    changed_scaling,
    lost_modes,
    lost_tails,
    hallucinated_data,
)
NAMES = {
    "catastrophic_risk": ("catastrophic rise of the risk", "Shumailov et al. 2024; Alemohammad et al. 2024"),
    "any_risk": ("any rise of the risk", "Dohmatob et al. 2024, 2025"),
    "diverging_risk": ("diverging risk", "Gerstgrasser et al. 2024; Kazdan et al. 2025"),
    "collapsing_variance": ("collapsing variance", "Shumailov et al. 2024; Bertrand et al. 2024"),
    "changed_scaling": ("changed scaling law", "Dohmatob et al. 2024 (tails)"),
    "lost_modes": ("lost modes", "Alemohammad et al. 2024; Shumailov et al. 2024"),
    "lost_tails": ("lost tails", "Shumailov et al. 2024; Wyllie et al. 2024"),
    "hallucinated_data": ("hallucinated data", "Shumailov et al. 2024; Alemohammad et al. 2024"),
}
