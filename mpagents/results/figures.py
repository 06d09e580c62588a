"""Plotly figures of learning curves, as plain dictionaries for JSON; labels in them are HTML-escaped: plotly reads markup.

Regret is drawn on a logarithmic axis, on which an exactly optimal policy (regret 0) has no place: it's drawn on a line of its
own below the smallest positive regret, labelled 0. Hovering always tells the true figure.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpagents.results.curves import Curve

# Okabe & Ito 2008, told apart with every common colour-blindness; their yellow is left out (too pale on white).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("solid", "dot", "dashdot", "longdashdot")  # when the colours are used up; "dash" is the planners'
MARKED_POINTS = 30  # a curve of no more points than this has markers
ROUNDING = 1e-9  # regrets below this share of the largest are the rounding of an exact 0
GREY, LIGHT = "#5b6570", "#e6e9ec"


def colour_of(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def dash_of(index: int) -> str:
    return DASHES[index // len(COLOURS) % len(DASHES)]


def reward_figure(curves: Sequence[Curve], order: Sequence[str]) -> dict[str, Any]:
    """`eval/mean_reward` against environment steps; `order` is the study's contenders, which fixes the colours."""
    return _figure(curves, order, {"title": {"text": "mean episode reward"}}, floor=None)


def regret_figure(curves: Sequence[Curve], order: Sequence[str]) -> dict[str, Any]:
    """`eval/regret` against environment steps on a logarithmic axis with a place for 0; linear if nothing is positive."""
    drawn = np.concatenate([np.concatenate((curve.value, curve.low, curve.high)) for curve in curves])
    axis: dict[str, Any] = {"title": {"text": "regret (optimal − achieved return)"}}
    positive = drawn[drawn > max(0.0, ROUNDING * np.nanmax(drawn))]
    if not positive.size:
        return _figure(curves, order, {**axis, "range": [-0.05, 1]}, floor=None)
    floor, ticks = log_ticks(float(positive.min()), float(positive.max()), zero=bool((drawn < positive.min()).any()))
    ends = [math.log10(min(ticks)) - 0.08, math.log10(max(*ticks, positive.max())) + 0.08]
    labels = ["0" if tick == floor else f"{tick:g}" for tick in ticks]
    axis |= {"type": "log", "tickvals": ticks, "ticktext": labels, "range": ends}
    return _figure(curves, order, axis, floor=floor)


def log_ticks(low: float, high: float, *, zero: bool) -> tuple[float, list[float]]:
    """The place of 0 and the ticks of a logarithmic axis from `low` to `high`: decades, and 2 and 5 between them where few.

    The first tick is the place of 0, below all else, if `zero` is to be shown.
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    stride = max(1, math.ceil((last - first) / 8))
    if last - first <= 2:
        fine = [float(f"{digit}e{exponent}") for exponent in range(first, last + 1) for digit in (1, 2, 5)]
        ticks = [tick for tick in fine if low / 2.5 <= tick <= high * 2.5]
    else:
        ticks = [float(f"1e{exponent}") for exponent in range(first, last + 1, stride)]
    floor = 10.0 ** (math.log10(min(*ticks, low)) - max(0.5, stride / 2))
    return floor, ([floor, *ticks] if zero else ticks)


def _figure(curves: Sequence[Curve], order: Sequence[str], y_axis: dict[str, Any], floor: float | None) -> dict[str, Any]:
    learners = [curve for curve in curves if not curve.planner]
    steps = np.unique(np.concatenate([np.zeros(1), *(curve.steps for curve in learners)]))
    drawn = sorted(curves, key=lambda curve: curve.planner)
    bands = [_band(curve, order.index(curve.contender), floor) for curve in learners if not np.isnan(curve.low).any()]
    traces = bands + [_line(curve, order.index(curve.contender), steps, floor) for curve in drawn]  # no band dulls a line
    axis = {"gridcolor": LIGHT, "linecolor": GREY, "ticks": "outside", "tickcolor": GREY, "zeroline": False, "automargin": True}
    padding = 0.02 * steps[-1] or 1
    layout = {
        "height": 340,
        "margin": {"l": 60, "r": 14, "t": 28, "b": 48},
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "#1d2329"},
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "showlegend": False,
        "hovermode": "x unified",
        "hoverlabel": {"font": {"size": 12}},
        "xaxis": {
            **axis,
            "title": {"text": "environment steps", "font": {"size": 13}},
            "range": [-padding, steps[-1] + padding],
            "tickformat": "~s",
            "hoverformat": ",d",
            "nticks": 8,
        },
        "yaxis": {**axis, **y_axis, "title": {**y_axis["title"], "font": {"size": 13}, "standoff": 8}},
    }
    if floor is not None and floor in y_axis["tickvals"]:
        layout["shapes"] = [_line_between(floor, sorted(y_axis["tickvals"])[1])]
    return {"data": traces, "layout": layout}


def _line(curve: Curve, index: int, steps: NDArray[np.float64], floor: float | None) -> dict[str, Any]:
    """The curve, a planner's along all `steps`; `meta` is the contender's index, by which the page's legend finds it."""
    x = steps if curve.planner else curve.steps
    value, low, high = (np.broadcast_to(y, x.shape) for y in (curve.value, curve.low, curve.high))
    name = html.escape(curve.contender)
    interval = "" if np.isnan(low).any() else " [%{customdata[1]:.4~g}, %{customdata[2]:.4~g}]"
    return {
        "type": "scatter",
        "mode": "lines+markers" if not curve.planner and x.size <= MARKED_POINTS else "lines",
        "x": x.tolist(),
        "y": _placed(value, floor),
        "customdata": np.stack((value, low, high), axis=1).tolist(),
        "hovertemplate": f"{name}: %{{customdata[0]:.4~g}}{interval}, n = {curve.num_seeds}<extra></extra>",
        "name": name,
        "meta": index,
        "line": {"color": colour_of(index), "width": 2, "dash": "dash" if curve.planner else dash_of(index)},
        "marker": {"size": 5},
    }


def _band(curve: Curve, index: int, floor: float | None) -> dict[str, Any]:
    """The interval around the curve as one closed area."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": np.concatenate((curve.steps, curve.steps[::-1])).tolist(),
        "y": _placed(np.concatenate((curve.high, curve.low[::-1])), floor),
        "fill": "toself",
        "fillcolor": _translucent(colour_of(index), 0.16),
        "line": {"width": 0},
        "hoverinfo": "skip",
        "name": html.escape(curve.contender),
        "meta": index,
    }


def _placed(y: NDArray[np.float64], floor: float | None) -> list[float]:
    """Heights on the axis: on a logarithmic one, what is no more than rounding stands at the place of 0."""
    return (y if floor is None else np.maximum(y, floor)).tolist()


def _line_between(floor: float, above: float) -> dict[str, Any]:
    """A dotted line between 0's place and the logarithmic part: the axis is broken there."""
    return {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": math.sqrt(floor * above),
        "y1": math.sqrt(floor * above),
        "line": {"color": GREY, "width": 1, "dash": "dot"},
        "layer": "below",
    }


def _translucent(colour: str, opacity: float) -> str:
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"
