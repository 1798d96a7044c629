"""Chains with real rows in memory, written down plainly: what the laws are held against.

Nothing of evaluation/ is used but the description of a chain."""

from typing import NamedTuple

import numpy as np

from gristmill.evaluation.laws.chain import Setting


class Run(NamedTuple):
    """float64 (generations, chains): squared error of the mean, and the covariance trace (or Gini-Simpson index)."""

    spread: np.ndarray
    variance: np.ndarray


def _pick(random: np.random.Generator, rows: np.ndarray, num: int, again: bool) -> np.ndarray:
    """`num` rows of each chain of (chains, rows, ...)."""
    chains, there = rows.shape[:2]
    if again:
        at = random.integers(there, size=(chains, num))
    else:
        at = np.argsort(random.random((chains, there)), axis=1)[:, :num]
    return rows[np.arange(chains)[:, None], at]


def _two_normals(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shares, means and standard deviations, each (chains, 2), after four steps of EM on (chains, n)."""
    belief = np.stack([x <= np.median(x, axis=1, keepdims=True), x > np.median(x, axis=1, keepdims=True)]) * 0.8 + 0.1
    for _ in range(4):
        sums = belief.sum(axis=2, keepdims=True)
        centres = (belief * x).sum(axis=2, keepdims=True) / sums
        variances = (belief * (x - centres) ** 2).sum(axis=2, keepdims=True) / sums
        density = sums / np.sqrt(variances) * np.exp(-((x - centres) ** 2) / (2 * variances))
        shares = sums / x.shape[1]
        belief = density / density.sum(axis=0)
    return shares[..., 0].T, centres[..., 0].T, np.sqrt(variances[..., 0]).T


def run(setting: Setting, generations: int, chains: int, seed: int) -> Run:
    """Gaussian rows of d independent standard columns, or categories as one-hot rows."""
    random = np.random.default_rng(seed)
    p = np.array(setting.probabilities)
    is_discrete = setting.family == "multinomial"
    middle = p if is_discrete else np.zeros(setting.d)

    def real(num: int) -> np.ndarray:
        if is_discrete:
            return np.eye(len(p))[random.choice(len(p), (chains, num), p=p)]
        return random.standard_normal((chains, num, setting.d))

    def write(num: int) -> np.ndarray:
        if is_discrete:
            counts = mean.cumsum(axis=1)[:, None] > random.random((chains, num))[..., None]
            made = np.zeros((chains, num, len(p)))
            np.put_along_axis(made, np.minimum(counts.argmax(axis=2), len(p) - 1)[..., None], 1.0, axis=2)
            return made
        root = np.linalg.cholesky(covariance * setting.bias)
        noise = random.standard_normal((chains, num, setting.d))
        if setting.family == "kde":  # a kernel on a row drawn again: variance of the rows plus that of the kernel
            kernel = np.sqrt(setting.bias - 1) * np.sqrt(covariance[:, 0, 0])[:, None, None]
            return _pick(random, rows, num, True) + kernel * noise
        if setting.family == "gmm":
            portions, centres, deviations = _two_normals(rows[..., 0])
            which = (random.random((chains, num)) < portions[:, 1:]).astype(int)
            made = np.take_along_axis(centres, which, 1) + np.take_along_axis(deviations, which, 1) * noise[..., 0]
            return mean[:, None] + np.sqrt(setting.bias) * (made[..., None] - mean[:, None])
        return mean[:, None] + np.einsum("cij,cnj->cni", root, noise)

    first = rows = real(setting.rows(1))
    weights = np.ones(rows.shape[1])
    pool: list[tuple[bool, np.ndarray]] = [] if setting.real == "fixed" else [(True, first)]
    spreads, variances = [], []
    for k in range(1, generations + 1):
        if k > 1:
            asked, beside = setting.rows(k), setting.real_rows(k)
            pool.append((False, write(setting.synthetic_rows(k - 1))))
            own = real(asked) if setting.bernoulli else real(beside)
            if setting.bernoulli:
                is_real = random.random((chains, asked)) < setting.real_fraction
                rows = np.where(is_real[..., None], own, pool[-1][1])
                origin = np.ones(asked, bool)
            else:
                if setting.pool == "replace":
                    pool = pool[-1:]
                elif setting.pool == "window":
                    pool = pool[-setting.window :]
                held = np.concatenate([part for _, part in pool], axis=1)
                origin = np.concatenate([np.full(part.shape[1], real_rows) for real_rows, part in pool])
                if setting.pool == "subsample":
                    held = _pick(random, held, asked - beside, setting.with_replacement)
                    origin = origin[: asked - beside]
                extra = {"none": own[:, :0], "fresh": own, "fixed": first[:, :beside]}[setting.real]
                rows = np.concatenate([extra, held], axis=1)
                origin = np.concatenate([np.ones(extra.shape[1], bool), origin])
                if setting.pool == "accumulate" and setting.real == "fresh":
                    pool.append((True, own))
            weights = np.ones(rows.shape[1])
            if setting.weights == "golden":
                ratio = origin.sum() / (~origin).sum()
                best = (np.sqrt(ratio * ratio + 4 * ratio) - ratio) / 2
                weights = np.where(origin, best / origin.sum(), (1 - best) / (~origin).sum())
        w = weights / weights.sum()
        mean = np.einsum("n,cni->ci", w, rows)
        apart = rows - mean[:, None]
        covariance = np.einsum("n,cni,cnj->cij", w, apart, apart)
        if setting.estimator == "unbiased":
            covariance /= 1 - (w**2).sum()
        spreads.append(((mean - middle) ** 2).sum(axis=1))
        variances.append(np.trace(covariance, axis1=1, axis2=2))
    return Run(np.array(spreads), np.array(variances))
