"""A stream's packets, told apart and each put where its sound belongs, on one party's channel. Pure but for `Fetch`."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ..rtp.frames import broken, samples
from ..rtp.quality import bursts, by_window, counted, jitter_ms
from ..rtp.red import HEAD, blocks
from ..rtp.timeline import Sequence, place, sort_packets, steps
from ..sniffer.account import Account
from ..sniffer.rows import Rows
from ..sniffer.selection import Track
from .clocks import true_clocks, true_modes, true_packings
from .kinds import FATES, STEADY, Codecs, Kind, clock_of, kinds_of
from .side import RATE, WINDOW_NS, Channel, Fetch, Ints, Side, lots

Kinds = npt.NDArray[np.uint8]
MIRROR_NS = 50_000_000
"""Copies that a mirror makes of a packet lie closer together than this, in ns."""
_USUAL_MS = 20


def lay_track(
    track: Track, side: Side, codecs: Codecs, reference: int, account: Account, fetch: Fetch | None
) -> Channel:
    """Place one stream on the axis that begins at `reference` (ns), and add its figures to its side's.

    Only what a decoder needs is filled in of the channel. Without `fetch` each packet of a codec whose packets differ
    in length has the usual one, and redundant packets have no sound.
    """
    truth: dict[int, int] = {}
    rows, kinds = track.rows, kinds_of(track.rows, track, side, codecs)
    packets = sort_packets(rows["sequence"], rows["stamp"])
    _count_kept(track, kinds, packets.order, side, account)
    sent, order = kinds, packets
    if fetch is not None and (kinds == Kind.RED).any():
        rows, kinds, packets = _unfolded(track, kinds, packets, side, codecs, fetch)
    _add_losses(rows, packets, side, reference)
    if (kinds == Kind.EVENT).any():
        first = np.sort(packets.order[kinds[packets.order] == Kind.EVENT])
        side.events.append((rows[first], clock_of(track, int(rows["kind"][first[0]]))))
    if fetch is not None:
        kinds = true_modes(rows, kinds, packets, codecs, side, fetch)
    count = _counts(rows, kinds, codecs, fetch, side)
    if fetch is not None:
        kinds, truth = true_clocks(rows, kinds, packets, count, codecs, side)
        kinds = true_packings(rows, kinds, packets, codecs, side, fetch)
    clock = codecs.of(int(sent[0])).clock if sent[0] >= Kind.CODEC else clock_of(track)
    _add_figures(order, side)
    _add_jitter(track, sent, order, side, codecs, clock, truth)
    return _placed(rows, kinds, packets, count, side, codecs, reference)


def _add_figures(packets: Sequence, side: Side) -> None:
    figures = side.figures
    figures.received += packets.received
    figures.expected += packets.expected
    figures.lost += packets.lost
    figures.reordered += packets.reordered


def _add_jitter(
    track: Track, kinds: Kinds, packets: Sequence, side: Side, codecs: Codecs, clock: int, truth: dict[int, int]
) -> None:
    """Note the jitter of what is sent at a steady pace; where codecs of several clocks follow each other, that of the
    clock that most packets have. `truth` says what a clock that was told is in truth (Hz).
    """
    figures = side.figures
    steady = packets.order[STEADY[kinds[packets.order]]]
    if packets.reordered:
        steady = np.sort(steady)
    clocks = codecs.tables()[0][kinds[steady]] if codecs.known else np.empty(0, dtype=np.int64)
    if len(clocks) and (clocks != clocks[0]).any():
        values, counts = np.unique(clocks, return_counts=True)
        clock = int(values[counts.argmax()])
        steady = steady[clocks == clock]
    clock = truth.get(clock, clock)
    jitter, most = jitter_ms(track.rows["time"][steady], track.rows["stamp"][steady], clock)
    figures.jitter_ms = max(figures.jitter_ms, jitter)
    figures.jitter_most_ms = max(figures.jitter_most_ms, most)


def _add_losses(rows: Rows, packets: Sequence, side: Side, reference: int) -> None:
    """Count bursts of loss, and packets that came and that are missing by the 10 s of the axis."""
    figures = side.figures
    time = rows["time"][packets.order] - reference
    figures.came.update(counted(time // WINDOW_NS))
    behind, length = bursts(packets)
    if len(behind) == 0:
        return
    figures.bursts += len(behind)
    figures.longest = max(figures.longest, int(length.max()))
    missed, touched = by_window(time, behind, length, WINDOW_NS)
    figures.missed.update(missed)
    figures.touched.update(touched)


def _counts(rows: Rows, kinds: Kinds, codecs: Codecs, fetch: Fetch | None, side: Side) -> Ints:
    """Return how many samples each packet holds, at its codec's own rate; tell its side of those that make no sense."""
    size = rows["size"].astype(np.int64)
    count = np.where((kinds == Kind.A) | (kinds == Kind.MU), size, 0)
    for kind in np.unique(kinds[kinds >= Kind.CODEC]).tolist() if codecs.known else ():
        codec, mine = codecs.of(kind), np.nonzero(kinds == kind)[0]
        if codec.sized:
            sizes, which = np.unique(size[mine], return_inverse=True)
            count[mine] = np.array([samples(codec, bytes(length)) for length in sizes.tolist()])[which]
            bad = np.array([broken(codec, bytes(length)) for length in sizes.tolist()])
            side.undecoded += int(np.count_nonzero(bad[which]))
        elif fetch is None:
            count[mine] = codec.rate * _USUAL_MS // 1000
        else:
            for part in lots(size[mine]):
                lot = mine[part]
                payloads = fetch(rows["position"][lot].copy(), size[lot])
                count[lot] = [samples(codec, data) for data in payloads]
                silent = np.nonzero(count[lot] == 0)[0].tolist()
                side.undecoded += sum(broken(codec, payloads[index]) for index in silent)
    return count


def _placed(
    rows: Rows, kinds: Kinds, packets: Sequence, count: Ints, side: Side, codecs: Codecs, reference: int
) -> Channel:
    """Place the packets with sound, those of each clock by themselves."""
    if not codecs.known:  # G.711 alone, as it mostly is
        row, at = _line(rows, packets, count, RATE, side, reference)
        return _channel(rows, kinds, row, at, count, np.zeros(len(row), dtype=np.int64))
    clocks, rates = (table[kinds] for table in codecs.tables())
    parts: list[tuple[Ints, Ints]] = []
    for clock in np.unique(clocks[count > 0]).tolist():
        length = np.where(clocks == clock, count * clock // rates, 0)
        row, start = _line(rows, packets, length, clock, side, reference)
        parts.append((row, start * rates[row] // clock))
    if not parts:
        return Channel()
    row, at = parts[0] if len(parts) == 1 else (np.concatenate(columns) for columns in zip(*parts, strict=True))
    if len(parts) > 1:
        order = np.argsort(at / rates[row], kind="stable")
        row, at = row[order], at[order]
    return _channel(rows, kinds, row, at, count, _voices(row, kinds[row], packets, len(rows)))


def _line(rows: Rows, packets: Sequence, length: Ints, clock: int, side: Side, reference: int) -> tuple[Ints, Ints]:
    """Place packets by their time stamps; return their rows and first samples, by that clock."""
    line = place(rows["time"], rows["stamp"], length, packets, reference=reference, rate=clock)
    side.figures.anchors += line.anchors
    side.figures.drift_ms -= line.drift * 1000.0 / clock  # later and later arrivals: a slow clock
    return line.row, line.start


def _channel(rows: Rows, kinds: Kinds, row: Ints, at: Ints, count: Ints, voice: Ints) -> Channel:
    return Channel(
        position=rows["position"][row],
        size=rows["size"][row].astype(np.int64),
        law=kinds[row],
        at=at,
        count=count[row],
        voice=voice,
    )


def _voices(row: Ints, law: Kinds, packets: Sequence, total: int) -> Ints:
    """Number the stretches that one decoder takes: until the codec changes, or the sender begins its numbers anew."""
    run = np.zeros(total, dtype=np.int64)
    run[packets.order] = np.searchsorted(packets.runs, np.arange(len(packets.order)), side="right")
    changed = (np.diff(law) != 0) | (np.diff(run[row]) != 0)
    return np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(changed)))


def scaled(at: Ints, rates: Ints, target: int) -> Ints:
    """Turn numbers of samples at `rates` into those at another rate (Hz), rounded."""
    if (rates == target).all():
        return at
    return (at * target * 2 + rates) // (rates * 2)


# -- redundant audio (RFC 2198) ----------------------------------------------------------------------------------------


def _unfolded(
    track: Track, kinds: Kinds, packets: Sequence, side: Side, codecs: Codecs, fetch: Fetch
) -> tuple[Rows, Kinds, Sequence]:
    """Return the rows with each redundant packet replaced by its own block, and the lost ones that others hold."""
    red = kinds == Kind.RED
    side.redundant += int(np.count_nonzero(red[packets.order]))
    own, copies = _blocks(track, red, packets, fetch)
    inner = np.concatenate([own, copies])
    inner = inner[np.argsort(inner["time"], kind="stable")]
    rows = np.concatenate([track.rows[~red], inner])
    kinds = np.concatenate([kinds[~red], kinds_of(inner, track, side, codecs)])
    kinds[kinds == Kind.RED] = Kind.UNKNOWN  # one inside the other: no sender does that
    order = np.argsort(rows["time"], kind="stable")
    rows, kinds = rows[order], kinds[order]
    side.figures.recovered += len(copies)
    return rows, kinds, sort_packets(rows["sequence"], rows["stamp"])


def _blocks(track: Track, red: npt.NDArray[np.bool_], packets: Sequence, fetch: Fetch) -> tuple[Rows, Rows]:
    """Return rows for the packets' own blocks, and for copies of those that never came. A copy's time is that of its
    packet, less what its time stamp lies back.
    """
    rows, clock = track.rows, clock_of(track)
    number = np.full(len(rows), -1, dtype=np.int64)
    number[packets.order] = packets.number
    there = set(packets.number.tolist())
    first = {int(packets.number[run]) for run in packets.runs.tolist()}
    lowest = min(first) if first else 0
    pace = _pace(rows, packets)
    own: list[tuple[int, int, int, int]] = []  # row, kind, offset, size
    copies: list[tuple[int, int, int, int, int, int]] = []  # the same; how far back in time stamp, in numbers
    for index, head in _heads(rows, np.nonzero(red)[0], fetch):
        found = blocks(head, int(rows["size"][index]))
        if not found:
            continue
        *before, last = found
        own.append((index, last.kind, last.start, last.size))
        for count, block in enumerate(reversed(before), 1):
            back = block.back // pace if pace and block.back and block.back % pace == 0 else count
            missing = int(number[index]) - back
            if block.size and block.back and missing > lowest and missing not in there and number[index] >= 0:
                there.add(missing)
                copies.append((index, block.kind, block.start, block.size, block.back, back))
    mine = _row_of(rows, own)
    mine["kind"] |= rows["kind"][[entry[0] for entry in own]] & 0x80 if own else 0
    made = _row_of(rows, [entry[:4] for entry in copies])
    if copies:
        lie_back = np.array([entry[4] for entry in copies], dtype=np.int64)
        made["stamp"] -= lie_back.astype(np.uint32)
        made["sequence"] -= np.array([entry[5] for entry in copies], dtype=np.uint16)
        made["time"] -= lie_back * 1_000_000_000 // clock
        made["frames"] = 0
    return mine, made


def _pace(rows: Rows, packets: Sequence) -> int:
    """Return by how much the time stamp goes on from packet to packet as a rule, 0 if nothing tells."""
    step = steps(rows["stamp"][packets.order], 32)
    step = step[(np.diff(packets.number) == 1) & (step > 0)]
    return int(np.median(step)) if len(step) else 0


def _heads(rows: Rows, which: Ints, fetch: Fetch) -> Iterator[tuple[int, bytes]]:
    sizes = np.minimum(rows["size"][which].astype(np.int64), HEAD + 1)
    for part in lots(sizes):
        lot, size = which[part], sizes[part]
        yield from zip(lot.tolist(), fetch(rows["position"][lot].copy(), size), strict=True)


def _row_of(rows: Rows, entries: list[tuple[int, int, int, int]]) -> Rows:
    """Return copies of rows, with another payload type and a part of the payload each."""
    index, kind, start, size = np.array(entries, dtype=np.int64).reshape(-1, 4).T
    made = rows[index]
    made["kind"], made["size"] = kind, size
    made["position"] += start
    return made


# -- the books ---------------------------------------------------------------------------------------------------------


def frames_of(track: Track, mask: npt.NDArray[np.bool_]) -> int:
    """Return how many captured frames these rows are."""
    return int(track.rows["frames"][mask].sum(dtype=np.int64))


def _count_kept(track: Track, kinds: Kinds, order: Ints, side: Side, account: Account) -> None:
    """Count each captured frame of a track once: kept by kind, duplicate, or encrypted."""
    first = np.zeros(len(kinds), dtype=bool)
    first[order] = True
    side.sealed += int(np.count_nonzero(kinds[order] == Kind.SEALED))
    counted = np.nonzero(first & track.fresh)[0]
    sort = np.minimum(kinds[counted], Kind.CODEC)
    frames = np.bincount(sort, weights=track.rows["frames"][counted], minlength=Kind.CODEC + 1).astype(np.int64)
    for kind, fate in FATES.items():
        account.packet(*fate, int(frames[kind]))
    if len(order) == len(kinds):
        return
    copies = _mirror_copies(track.rows, first)
    repeated = ~first & ~copies
    account.packet("duplicate", "mirrored copies", frames_of(track, track.fresh & copies))
    account.packet("duplicate", "repeated by the sender or the network", frames_of(track, track.fresh & repeated))
    side.figures.duplicate += int(np.count_nonzero(repeated))
    side.figures.mirrored += int(np.count_nonzero(copies))
    side.figures.received -= int(np.count_nonzero(copies))


def _mirror_copies(rows: Rows, first: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Tell a mirror that shows packets twice from a network that doubles some: a mirror does it to most of them."""
    copies = np.zeros(len(rows), dtype=bool)
    originals = np.nonzero(first)[0]
    number = rows["sequence"].astype(np.int64) << 32 | rows["stamp"]
    by_number = originals[np.argsort(number[originals], kind="stable")]
    others = np.nonzero(~first)[0]
    found = by_number[np.minimum(np.searchsorted(number[by_number], number[others]), len(by_number) - 1)]
    near = (number[found] == number[others]) & (np.abs(rows["time"][others] - rows["time"][found]) <= MIRROR_NS)
    if np.count_nonzero(near) * 2 >= len(originals):
        copies[others[near]] = True
    return copies
