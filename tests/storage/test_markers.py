"""What an info file says of places in a recording, read again; other text is passed over."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from tapdeck.storage.markers import Lossy, Mark, Span, read_markers

PAIRS = [
    ("Caller-LossPart", "+0.000s lost=3 loss=0.60% mos=4.39"),
    ("Caller-LossPart", "+20.000s lost=1 loss=0.20%"),
    ("Caller-LossPart", "and 4 more, none of which lost more"),
    ("Caller-Gap", "2.000+0.040"),
    ("Caller-Gap", "3.080+0.100"),
    ("Caller-Gap", "12.000+0.020"),
    ("Caller-Gap", "21.000+4.000"),
    ("Caller-Gap", "and 7 more"),
    ("Digit", "4 by caller at 2026-03-02T10:00:03.190+00:00 (+3.080s) by RFC 4733"),
    ("Digit", "# by callee at 2026-03-02T10:00:05.190+00:00 (+5.000s) by INFO"),
    ("Hold", "held by caller at 2026-03-02T10:00:12.000+00:00 (+11.890s)"),
    ("Hold", "resumed by caller at 2026-03-02T10:00:16.000+00:00 (+15.890s)"),
    ("Hold", "held by callee at 2026-03-02T10:00:20.000+00:00 (+19.890s)"),
]


def test_losses_pauses_keys_and_holds() -> None:
    """The gap at 3.08 s is the key's, that at 12 s lies where nothing was lost, that of 4 s is longer than what was."""
    found = read_markers(PAIRS, 30.0)
    assert found.lossy == {"Caller": [Lossy(0.0, 3, 0.6), Lossy(20.0, 1, 0.2)], "Callee": []}
    assert [span.start for span in found.losses["Caller"]] == [2.0]
    assert [span.start for span in found.pauses["Caller"]] == [3.08, 12.0, 21.0]
    assert found.unlisted == {"Caller": 7, "Callee": 0}
    assert found.digits == [Mark(3.08, "Caller", "4"), Mark(5.0, "Callee", "#")]
    assert found.holds == [Span(11.89, 15.89, "held by caller"), Span(19.89, 30.0, "held by callee")]


KEYS = st.sampled_from([key for key, _ in PAIRS] + ["Callee-Gap", "Callee-LossPart"])
TEXTS = (
    st.text(max_size=60) | st.sampled_from([text for _, text in PAIRS]) | st.from_regex(r"[+-]?\d{1,400}\+\d{1,400}")
)


@given(st.lists(st.tuples(KEYS, TEXTS)))
def test_any_text(pairs: list[tuple[str, str]]) -> None:
    found = read_markers(pairs, 10.0)
    spans = [*found.losses["Caller"], *found.pauses["Callee"], *found.holds]
    assert all(math.isfinite(span.start) and math.isfinite(span.end) for span in spans)
