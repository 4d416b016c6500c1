"""Autoregression, ARIMA and exponential smoothing of log prices, one set of parameters for all symbols.

Their parameters are fitted on the returns that followed the decisions of the training span. With these fixed, a
forecast is a linear function of the last ``lookback`` log returns; its coefficients are what a bundle keeps.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from engine.errors import ConfigError, NextbarError
from engine.model_sections import ArConfig, ArimaConfig, EtsConfig
from models.features import Floats
from models.fitting.linear import linear_network
from models.fitting.task import Fit, Task
from models.windows import Rows

Linear = tuple[Floats, Floats]
"""Coefficients [horizons, lookback] of the log returns, oldest first, and constants [horizons]."""

# Missing values between the series of two symbols: so many that nothing is left of the first when the second begins.
_BREAK = 200
# Returns of all symbols that a symbol's variance is shrunk by: one of few returns has hardly any of its own.
_SHRINKAGE = 50
_LOWEST, _HIGHEST = 1e-4, 1.0 - 1e-4
_DAMPING = (0.8, 0.98)


def fit(task: Task) -> Fit:
    """The model of the task's kind as a linear network.

    Raises:
        ConfigError: the training span has too few returns for as many parameters.
        NextbarError: there was no finite result.
    """
    model = task.model
    if isinstance(model, ArConfig):
        coefficients, constants = _autoregression(task, model)
    elif isinstance(model, ArimaConfig):
        coefficients, constants = _arima(task, model)
    elif isinstance(model, EtsConfig):
        coefficients, constants = _smoothing(task, model)
    else:
        raise ValueError(f"expected ar, arima or ets, found {model.kind}")
    if not (np.isfinite(coefficients).all() and np.isfinite(constants).all()):
        raise NextbarError(f"{model.kind}: there was no finite result; check the bars for prices that jump")
    return Fit(linear_network(task, torch.from_numpy(coefficients), torch.from_numpy(constants)))


@dataclass(frozen=True, eq=False)
class Stretch:
    """Returns that follow one another: the log returns of a symbol, by its first row, [bars]."""

    symbol: int
    returns: Floats


def returns_of(task: Task) -> list[Stretch]:
    """The log returns of the bars after the training span's decisions, each unbroken stretch of them by itself."""
    rows = task.train_rows
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    # Two symbols lie end to end: the last rows of one and the first of the next can follow each other.
    starts = np.array(sorted(task.windows.starts.values()))
    firsts = np.searchsorted(rows, starts)
    stretches: list[Rows] = np.split(rows, sorted({*breaks.tolist(), *firsts.tolist()} - {0, len(rows)}))
    return [
        Stretch(
            int(np.searchsorted(starts, stretch[0], side="right")) - 1,
            task.windows.features[stretch + 1, 0].astype(np.float64),
        )
        for stretch in stretches
    ]


def variances_of(series: Sequence[Stretch]) -> list[float]:
    """The variance of each stretch's symbol over all of its stretches, shrunk to the mean one of all returns.

    (n own + 50 mean) / (n + 50) for n returns: one return varies by nothing, and would else outweigh all others.
    """
    known = {
        symbol: np.concatenate([own.returns for own in series if own.symbol == symbol])
        for symbol in dict.fromkeys(own.symbol for own in series)
    }
    squares = {symbol: len(returns) * float(returns.var()) for symbol, returns in known.items()}
    pooled = sum(squares.values()) / sum(map(len, known.values()))
    shrunk = {
        symbol: (squares[symbol] + _SHRINKAGE * pooled) / (len(returns) + _SHRINKAGE)
        for symbol, returns in known.items()
    }
    return [max(shrunk[own.symbol], 1e-20) for own in series]


def common_mean(series: Sequence[Stretch], variances: Sequence[float]) -> float:
    """The mean return of several series with one mean and a variance each, in log returns: a wild one counts little."""
    weighed = list(zip(series, variances, strict=True))
    total = sum(float(own.returns.sum()) / variance for own, variance in weighed)
    return total / sum(len(own.returns) / variance for own, variance in weighed)


def _needed(model: ArConfig | ArimaConfig | EtsConfig, *, found: int, parameters: int) -> None:
    if found < 2 * parameters:
        raise ConfigError(
            f"spans.train: {model.kind} has {parameters} parameters and needs twice as many returns of prices that "
            f"move, found {found}; lengthen the span, or choose a smaller model"
        )


# --- autoregression --------------------------------------------------------------------------------------------------


def _autoregression(task: Task, model: ArConfig) -> Linear:
    """Least squares of each return on a constant and the ``lookback`` returns before it, over all symbols."""
    rows = task.train_rows
    _needed(model, found=len(rows), parameters=model.lookback + 1)
    lagged = task.windows.gather(rows).numpy()[:, :, 0].astype(np.float64)
    following = task.windows.features[rows + 1, 0].astype(np.float64)
    design = np.column_stack([lagged, np.ones(len(rows))])
    solution = np.linalg.lstsq(design, following, rcond=None)[0]
    return iterated(solution[:-1], float(solution[-1]), model.horizons)


def iterated(weights: Floats, constant: float, horizons: Sequence[int]) -> Linear:
    """The sums of the next returns, each forecast from the ``lookback`` before it, forecasts included.

    Args:
        weights: of the last ``lookback`` returns, oldest first.
        constant: of the forecast of one return.
        horizons: how many returns are summed.
    """
    lookback = len(weights)
    # A row is one return as a linear function of the window and a constant: the known ones, then the forecast ones.
    known = [*np.eye(lookback, lookback + 1)]
    for _ in range(max(horizons)):
        following = np.zeros(lookback + 1)
        following[-1] = constant
        for weight, row in zip(weights, known[-lookback:], strict=True):
            following = following + weight * row
        known.append(following)
    sums = np.stack([np.sum(known[lookback : lookback + ahead], axis=0) for ahead in horizons])
    return sums[:, :-1], sums[:, -1]


# --- ARIMA -----------------------------------------------------------------------------------------------------------


def _arima(task: Task, model: ArimaConfig) -> Linear:
    """ARMA(p, q) by exact maximum likelihood (statsmodels), around the symbols' common mean return.

    The series of all symbols, each divided by its symbol's deviation, are joined by stretches of missing values long
    enough for the Kalman filter to forget: so each counts by its length, and not by its volatility.
    """
    from statsmodels.tsa.statespace.sarimax import SARIMAX

    series = [own for own in returns_of(task) if own.returns.any()]
    _needed(model, found=sum(len(own.returns) for own in series), parameters=model.p + model.q + 2)
    variances = variances_of(series)
    mean = common_mean(series, variances)
    if model.p == model.q == 0:
        return best_linear(np.ones(1), np.ones(1), mean, lookback=model.lookback, horizons=model.horizons)
    joined: list[Floats] = []
    for own, variance in zip(series, variances, strict=True):
        joined += [(own.returns - mean) / np.sqrt(variance), np.full(_BREAK, np.nan)]
    with _quiet():
        arma = SARIMAX(np.concatenate(joined[:-1]), order=(model.p, 0, model.q), concentrate_scale=True)
        found = arma.fit(disp=False, maxiter=200)
    ar = np.concatenate([[1.0], -found.arparams]) if model.p else np.ones(1)
    ma = np.concatenate([[1.0], found.maparams]) if model.q else np.ones(1)
    return best_linear(ar, ma, mean, lookback=model.lookback, horizons=model.horizons)


def best_linear(ar: Floats, ma: Floats, mean: float, *, lookback: int, horizons: Sequence[int]) -> Linear:
    """The best linear forecast of the next returns' sum from exactly ``lookback`` of them.

    It solves the Yule-Walker equations of the ARMA process's autocovariances (Brockwell & Davis 1991, 5.1), and is what
    the Kalman filter gives when it starts at the window's first bar.

    Args:
        ar, ma: lag polynomials, [1, -phi_1, ...] and [1, theta_1, ...].
        mean: of a return.
        lookback: returns that are known.
        horizons: how many returns are summed.
    """
    from scipy.linalg import solve_toeplitz
    from statsmodels.tsa.arima_process import arma_acovf

    longest = max(horizons)
    covariances = arma_acovf(ar, ma, nobs=lookback + longest)
    coefficients, constants = [], []
    for ahead in horizons:
        # Element k: covariance of the sum with the return that lies k bars back.
        wanted = np.sum([covariances[step : step + lookback] for step in range(1, ahead + 1)], axis=0)
        weights = solve_toeplitz(covariances[:lookback], wanted)[::-1]
        coefficients.append(weights)
        constants.append(mean * (ahead - float(weights.sum())))
    return np.stack(coefficients), np.array(constants)


# --- exponential smoothing -------------------------------------------------------------------------------------------


def _smoothing(task: Task, model: EtsConfig) -> Linear:
    """Additive errors; the parameters with the highest sum of the symbols' likelihoods (statsmodels).

    Each symbol has its own error variance. Its level starts at the price before the first return, its trend at the
    symbols' common mean return.
    """
    from scipy.optimize import minimize
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel

    # A likelihood needs a few errors that are not all zero.
    series = [own for own in returns_of(task) if len(own.returns) > 3 and own.returns.any()]
    trended, damped = model.trend != "none", model.trend == "damped"
    _needed(model, found=sum(len(own.returns) for own in series), parameters=1 + trended + damped)
    drift = common_mean(series, variances_of(series)) if trended else 0.0
    with _quiet():
        models = [
            ETSModel(
                np.cumsum(own.returns),
                error="add",
                trend="add" if trended else None,
                damped_trend=damped,
                initialization_method="known",
                initial_level=0.0,
                initial_trend=drift if trended else None,
            )
            for own in series
        ]

        def parameters(chosen: Floats) -> list[float]:
            """alpha, the trend's smoothing beta <= alpha, and phi, in statsmodels' order."""
            alpha = float(chosen[0])
            return [alpha, *([alpha * float(chosen[1])] if trended else []), *([float(chosen[2])] if damped else [])]

        def misfit(chosen: Floats) -> float:
            return -sum(float(each.loglike(np.array(parameters(chosen)))) for each in models)

        bounds = [(_LOWEST, _HIGHEST), (_LOWEST, _HIGHEST), _DAMPING][: 1 + trended + damped]
        starts = [[0.9, 0.05, 0.9], [0.3, 0.1, 0.9]]
        found = min(
            (minimize(misfit, start[: len(bounds)], method="L-BFGS-B", bounds=bounds) for start in starts),
            key=lambda result: float(result.fun),
        )
    alpha, *rest = parameters(found.x)
    beta = rest[0] if trended else 0.0
    phi = rest[1] if damped else float(trended)
    return smoothed(alpha, beta, phi, drift, lookback=model.lookback, horizons=model.horizons)


def smoothed(alpha: float, beta: float, phi: float, drift: float, *, lookback: int, horizons: Sequence[int]) -> Linear:
    """The forecasts of exponential smoothing that starts ``lookback`` returns back, with trend ``drift``.

    With e = y[t] - (l + phi b): l <- l + phi b + alpha e, b <- phi b + beta e (Hyndman et al. 2008, 2.5).

    Args:
        alpha, beta, phi: smoothing of level and trend, and damping; 0 and 0 where there is no trend.
        drift: the first trend, in log returns a bar.
        lookback: returns that are known.
        horizons: bars ahead.
    """
    # Every quantity as a linear function of the returns and a constant; prices relative to that before the first.
    price, level, trend = np.zeros(lookback + 1), np.zeros(lookback + 1), np.zeros(lookback + 1)
    trend[-1] = drift
    for position in range(lookback):
        price = price.copy()
        price[position] = 1.0
        expected = level + phi * trend
        error = price - expected
        level = expected + alpha * error
        trend = phi * trend + beta * error
    sums = np.stack([level + sum(phi**step for step in range(1, ahead + 1)) * trend - price for ahead in horizons])
    return sums[:, :-1], sums[:, -1]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without statsmodels' remarks on first values and convergence: what counts is a finite result."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
