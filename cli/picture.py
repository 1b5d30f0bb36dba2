"""The picture of a recording: both waveforms, losses, digits and holds on one time axis. Needs matplotlib."""

import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..storage.markers import PART_S, SIDES, Mark, Markers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT, DPI = 1600, 700, 100
COLUMNS = 1440
"""Stretches of the envelope: about one a pixel."""
_COLOURS = {"Caller": "#1f5fa8", "Callee": "#2f7d4f"}
_LOSS, _PAUSE, _HOLD = "#d62728", "#b8b8b8", "#e8a33d"
_LETTERS = 150
"""So many digits fit side by side."""
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400)
"""Distances of times on the axis in s, at most 13 of them."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What is shown: `title` and a line of text below it, each side's name, its envelope (lowest and highest sample,
    16 bits, a row a stretch, a column each side), seconds, and what is marked.
    """

    title: str
    subtitle: str
    names: dict[str, str]
    low: npt.NDArray[np.int16]
    high: npt.NDArray[np.int16]
    seconds: float
    markers: Markers


def png(contents: Contents) -> bytes:
    """Return the picture's bytes: the same each time."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"text.parse_math": False, "font.size": 9}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # characters that no font at hand has are shown as boxes
        figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI)
        FigureCanvasAgg(figure)
        upper, middle, lower = figure.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": (10, 2, 10)})
        figure.subplots_adjust(left=0.085, right=0.975, top=0.88, bottom=0.07, hspace=0.08)
        figure.text(0.085, 0.955, contents.title, fontsize=13, fontweight="bold")
        figure.text(0.085, 0.915, contents.subtitle, fontsize=9, color="#444444")
        for number, (side, axes) in enumerate(zip(SIDES, (upper, lower), strict=True)):
            _waveform(axes, contents, side, number)
        _strip(middle, contents)
        _time_axis(lower, contents.seconds)
        out = BytesIO()
        figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _waveform(axes: "Axes", contents: Contents, side: str, number: int) -> None:
    markers, seconds = contents.markers, contents.seconds
    low, high = (part[:, number].astype(float) / 32768 for part in (contents.low, contents.high))
    middle = (np.arange(len(low)) + 0.5) * seconds / len(low)
    loudest = max(float(np.abs(contents.low).max(initial=0)), float(contents.high.max(initial=0))) / 32768
    reach = min(max(loudest * 1.15, 0.05), 1.0)
    axes.set_ylim(-reach * 1.25, reach * 1.1)
    axes.set_xlim(0, max(seconds, 0.001))
    axes.fill_between(middle, low, np.maximum(high, low + reach / 200), step="mid", color=_COLOURS[side], linewidth=0.3)
    axes.text(-0.012, 0.5, contents.names[side], transform=axes.transAxes, ha="right", va="center", linespacing=1.5)
    axes.set_yticks([])
    for span in markers.holds:
        axes.axvspan(span.start, span.end, color=_HOLD, alpha=0.18, linewidth=0)
    for gap in markers.pauses[side]:
        axes.axvspan(gap.start, gap.end, color=_PAUSE, alpha=0.35, linewidth=0)
    for gap in markers.losses[side]:
        axes.axvspan(gap.start, max(gap.end, gap.start + seconds / WIDTH), color=_LOSS, alpha=0.6, linewidth=0)
    top = max((part.percent for part in markers.lossy[side]), default=0.0)
    for part in markers.lossy[side]:
        width = min(PART_S, seconds - part.start)
        height = reach * 0.22 * max(part.percent / max(top, 5.0), 0.1)
        axes.bar(part.start, height, width, -reach * 1.25, align="edge", color=_LOSS, alpha=0.75, linewidth=0)
    if top:
        axes.text(
            *(0.995, 0.975, f"loss in 10 s: up to {top:.1f} %"),
            transform=axes.transAxes,
            ha="right",
            va="top",
            fontsize=8,
            color=_LOSS,
        )


def _strip(axes: "Axes", contents: Contents) -> None:
    """Digits and holds between the two waveforms."""
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.text(-0.012, 0.5, "keys, holds", transform=axes.transAxes, ha="right", va="center")
    for span in contents.markers.holds:
        axes.axvspan(span.start, span.end, color=_HOLD, alpha=0.45, linewidth=0)
        axes.text(span.start, 0.06, f" {span.what}", fontsize=8, clip_on=True)
    for side, height in zip(SIDES, (0.72, 0.42), strict=True):
        marks = sorted((mark for mark in contents.markers.digits if mark.side == side), key=lambda one: one.at)
        for mark in marks:
            axes.axvline(mark.at, 0, height - 0.05, color=_COLOURS[side], linewidth=0.8)
        for at, text in _together(marks, contents.seconds / _LETTERS):
            if 0 <= at <= contents.seconds:
                axes.text(at, height, text, fontsize=9, color=_COLOURS[side], clip_on=True)


def _together(marks: list[Mark], wide: float) -> Iterator[tuple[float, str]]:
    """Yield where to write digits; those for which there is no room beside the one before join it. A letter takes
    `wide` s of the axis.
    """
    begin, text = 0.0, ""
    for mark in marks:
        if text and mark.at >= begin + wide * (len(text) + 0.5):
            yield begin, text
            text = ""
        begin, text = (begin if text else mark.at), text + mark.text
    if text:
        yield begin, text


def _time_axis(axes: "Axes", seconds: float) -> None:
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    axes.xaxis.set_major_locator(MultipleLocator(next((step for step in _STEPS if seconds <= 13 * step), _STEPS[-1])))
    written: Callable[[float, int], str] = lambda value, _: clock(value, seconds)  # noqa: E731
    axes.xaxis.set_major_formatter(FuncFormatter(written))


def clock(at: float, of: float) -> str:
    """Return a place in a recording of length `of`, both in s, as people write it."""
    minutes, rest = divmod(at, 60)
    if of >= 3600:
        return f"{int(minutes // 60)}:{int(minutes % 60):02d}:{int(rest):02d}"
    return f"{int(minutes)}:{rest:04.1f}" if of < 60 else f"{int(minutes)}:{int(rest):02d}"
