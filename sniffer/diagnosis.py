"""The installer's questions to a mirror port, answered from what was heard there: is it one, does it show calls, all
of them, whole, once, and in the clear? Pure: `Traffic` in, a `Finding` a check out.
"""

from collections.abc import Callable, Iterable, Sequence

from ..sip.call import Party
from . import advice
from .addresses import address_key
from .finding import Colour, Finding, bad, ok, unjudged, warn
from .traffic import SECOND, CallFact, StreamFact, Traffic

EARLY = 2 * SECOND
"""A stream that was there so soon (ns) belongs to a call from before the watch: nobody can say whose."""
SETTLED = 3 * SECOND
"""So long (ns) after its first packet a stream's signalling has been seen, or is not seen at all."""
ANSWERED_S = 3.0
"""An answered call has media after so many seconds."""
FEW = 3
MAX_NAMED = 3


def judge(traffic: Traffic, over: bool = True) -> list[Finding]:
    """Return a finding for each check. While the watch goes on (`over` is False) nobody is blamed for silence."""
    found = [check(traffic) for check in CHECKS]
    silent = {
        "traffic": not traffic.frames,
        "mirror": not traffic.foreign,
        "sip": not traffic.messages,
        "rtp": not traffic.media,
    }
    if over:
        return found
    return [unjudged(one.check, one.seen) if silent.get(one.check) else one for one in found]


# -- is it a mirror ----------------------------------------------------------------------------------------------------


def traffic_seen(traffic: Traffic) -> Finding:
    """Is there anything at all?"""
    if not traffic.frames:
        seen = f"not one packet in {traffic.seconds:.0f} s"
        return bad("traffic", seen, f"{advice.CABLE}. {advice.MIRROR}.")
    rate = traffic.frames / max(traffic.seconds, 0.001)
    return ok("traffic", f"{traffic.frames:,} packets, {rate:,.0f} a second")


def mirror_seen(traffic: Traffic) -> Finding:
    """Is it other people's traffic, or what every port of a switch gets?"""
    if not traffic.frames:
        return unjudged("mirror", "no packets")
    share = traffic.foreign / traffic.frames
    rest = f"{traffic.group:,} broadcasts and multicasts, {traffic.own:,} of this machine's own"
    if not traffic.foreign:
        seen = f"no packet between others: {rest}"
        return bad("mirror", seen, f"This is an ordinary port, no mirror. {advice.MIRROR}.")
    seen = f"{traffic.foreign:,} packets between others ({share:.0%})"
    if share < 0.05 and not traffic.messages and not traffic.media:
        todo = f"A switch floods as much as that to every port. {advice.MIRROR}."
        return warn("mirror", f"only {seen}; {rest}", todo)
    return ok("mirror", seen)


# -- does it show calls ------------------------------------------------------------------------------------------------


def sip_seen(traffic: Traffic) -> Finding:
    """Is there signalling?"""
    if traffic.messages:
        names = ", ".join(f"{name} {count:,}" for name, count in list(traffic.methods.items())[:5])
        return ok("sip", f"{_number(traffic.messages, 'SIP message')} ({names})")
    if not traffic.frames:
        return unjudged("sip", "no packets")
    where = "Signalling may run on another port (sip.ports), in TLS, or not through what is mirrored."
    if traffic.media:
        seen = f"no SIP, though {_number(len(traffic.media), 'RTP stream')} ran"
        return warn("sip", seen, f"{where} {advice.TEST_CALL}.")
    return warn("sip", "no SIP", f"{advice.TEST_CALL}. {where} A phone that is plugged in anew registers at once.")


def rtp_seen(traffic: Traffic) -> Finding:
    """Is there sound, above all of the calls that are answered?"""
    answered, media = _answered(traffic), traffic.media
    silent = sum(not any(call.packets.values()) for call in answered)
    if silent and silent == len(answered):
        return bad("rtp", f"not one packet of sound of {_number(silent, 'answered call')}", advice.MEDIA_ELSEWHERE)
    if silent:
        seen = f"{silent:,} of {len(answered):,} answered calls have no sound here"
        return warn("rtp", seen, advice.MEDIA_PARTLY_ELSEWHERE)
    if media:
        packets = sum(stream.packets for stream in media)
        return ok("rtp", f"{_number(len(media), 'RTP stream')}, {packets:,} packets")
    if not traffic.frames:
        return unjudged("rtp", "no packets")
    return warn("rtp", "no RTP", f"{advice.TEST_CALL}.")


def signalling_seen(traffic: Traffic) -> Finding:
    """Do the streams that began during the watch have a call?"""
    media = [stream for stream in traffic.media if not _is_multicast(stream)]
    young = [one for one in media if one.first > traffic.began + EARLY and traffic.now > one.first + SETTLED]
    strange = [stream for stream in young if not stream.called]
    called = sum(stream.called for stream in media)
    others = len(media) - called - len(strange)
    waiting = f"; {others:,} more ran before the watch began, or have only just begun" if others else ""
    if strange:
        seen = f"{len(strange):,} of {_number(len(young), 'new stream')} belong to no call whose SIP is seen"
        kinds = ", ".join(traffic.others)
        why = f"There is {kinds} on the wire, which cannot be read. " if kinds else ""
        colour = Colour.AMBER if called else Colour.RED
        return Finding(
            "signalling", colour, f"{seen}: {_named(strange)}{waiting}", f"{why}{advice.SIGNALLING_ELSEWHERE}"
        )
    if called:
        return ok("signalling", f"the SIP of {_number(called, 'stream')} is seen{waiting}")
    return unjudged("signalling", f"no stream began during the watch{waiting}")


# -- in both directions ------------------------------------------------------------------------------------------------


def sip_both_ways(traffic: Traffic) -> Finding:
    """Do requests have responses, pair of hosts by pair of hosts?"""
    pairs = [pair for pair in traffic.pairs if max(pair.there, pair.back) >= 2]
    one_way = [pair for pair in pairs if not (pair.there and pair.back)]
    if not pairs:
        return unjudged("sip-both-ways", "too little SIP to tell")
    if not one_way:
        return ok("sip-both-ways", f"messages both ways between {_number(len(pairs), 'pair')} of hosts")
    ways = [pair.hosts if pair.there else pair.hosts[::-1] for pair in one_way]
    names = ", ".join(f"{first} > {second}" for first, second in ways[:MAX_NAMED])
    seen = f"{len(one_way):,} of {_number(len(pairs), 'pair')} of hosts heard one way only ({names}{_more(ways)})"
    if len(one_way) == len(pairs):
        return bad("sip-both-ways", seen, advice.ONE_WAY)
    return warn("sip-both-ways", seen, f"A host that does not answer looks the same. {advice.ONE_WAY}")


def sound_both_ways(traffic: Traffic) -> Finding:
    """Does each call, or where calls are not known each pair of ends, have sound both ways?"""
    calls = [call for call in _answered(traffic) if call.two_way and any(call.packets.values())]
    half = [call for call in calls if not all(call.packets.values())]
    loose = [one for one in traffic.media if not _is_multicast(one) and not (calls and one.called)]
    pairs = _pairs(loose)
    alone = _one_way(pairs)
    total, one_way = len(calls) + len(pairs), len(half) + len(alone)
    if not total:
        return unjudged("sound-both-ways", "no sound to tell by")
    if not one_way:
        return ok("sound-both-ways", f"sound both ways in {_number(total, 'call')}")
    told = [
        f"{count:,} of the {party.value} only"
        for party in Party
        if (count := sum(not call.packets[party.other] for call in half))
    ]
    told += [_named([pairs[ends][0] for ends in alone])] if alone else []
    seen = f"{one_way:,} of {_number(total, 'call')} heard one way only ({', '.join(told)})"
    if one_way * 2 > total:
        return bad("sound-both-ways", seen, advice.ONE_WAY)
    return warn("sound-both-ways", seen, f"A call on hold may look the same. {advice.ONE_WAY}")


Ends = tuple[tuple[str, int], tuple[str, int]]


def _pairs(streams: Iterable[StreamFact]) -> dict[Ends, list[StreamFact]]:
    pairs: dict[Ends, list[StreamFact]] = {}
    for stream in streams:
        ends = sorted((stream.source, stream.destination))
        pairs.setdefault((ends[0], ends[1]), []).append(stream)
    return pairs


def _one_way(pairs: dict[Ends, list[StreamFact]]) -> list[Ends]:
    """Return the ends with streams one way only.

    Where a host sends from one port and hears on another, two of them make a call: they are left out.
    """
    waiting: dict[tuple[str, str], list[Ends]] = {}
    alone: dict[Ends, None] = {}
    for ends, streams in pairs.items():
        if len({stream.source for stream in streams}) > 1:
            continue
        way = streams[0].source[0], streams[0].destination[0]
        back = waiting.get(way[::-1])
        if back:
            del alone[back.pop()]
        else:
            waiting.setdefault(way, []).append(ends)
            alone[ends] = None
    return list(alone)


# -- whole, once, and in the clear -------------------------------------------------------------------------------------


def encryption_seen(traffic: Traffic) -> Finding:
    """Is there what cannot be recorded because it is encrypted?"""
    tls = {kind: count for kind, count in traffic.others.items() if "TLS" in kind}
    calls = [call for call in traffic.calls if call.answered_s or any(call.packets.values())]
    secret = sum(call.encrypted for call in calls)
    found = [f"{kind} between {_number(count, 'pair')} of hosts" for kind, count in tls.items()]
    found += [f"{secret:,} of {_number(len(calls), 'call')} with SRTP and no key"] if secret else []
    for count, kind in ((traffic.dtls, "DTLS"), (traffic.zrtp, "ZRTP"), (traffic.ipsec, "IPsec")):
        found += [_number(count, f"{kind} packet")] if count else []
    if found:
        hopeless = (tls and not traffic.calls) or (secret and secret == len(calls))
        return (bad if hopeless else warn)("encryption", ", ".join(found), advice.ENCRYPTED)
    if traffic.messages or traffic.media:
        return ok("encryption", "none")
    return unjudged("encryption", "no calls to tell by")


def copies_seen(traffic: Traffic) -> Finding:
    """Does the mirror show packets twice?"""
    once = max(traffic.printed - traffic.copies, 1)
    share = traffic.copies / once
    if traffic.printed < 20:
        return unjudged("copies", "too few packets to tell")
    if share < 0.03:
        return ok("copies", "each packet is seen once")
    return warn("copies", f"{traffic.copies:,} of {once:,} packets come twice ({share:.0%})", advice.COPIES)


def loss_seen(traffic: Traffic) -> Finding:
    """Do all streams miss packets at once, or all alike? Then it is not the network that loses them."""
    media = [stream for stream in traffic.media if stream.packets >= 100]
    if not media:
        return unjudged("loss", "no streams to tell by")
    lost = sum(stream.lost for stream in media)
    expected = lost + sum(stream.packets for stream in media)
    if traffic.moments:
        seen = (
            f"{_number(traffic.moments, 'moment')} at which all streams miss packets, {traffic.moment_packets:,} in all"
        )
        return (bad if traffic.moment_packets * 100 > expected else warn)("loss", seen, advice.LOSS)
    losing = [stream for stream in media if stream.loss > 0.005]
    if len(media) > FEW and len(losing) >= 0.8 * len(media):
        seen = f"{len(losing):,} of {len(media):,} streams miss packets, {lost / expected:.1%} on average"
        return warn("loss", seen, advice.LOSS)
    return ok("loss", f"never all streams at once; {lost:,} of {expected:,} packets are missing in single streams")


def truncated_seen(traffic: Traffic) -> Finding:
    """Are packets whole?"""
    cut = traffic.snapped + traffic.shortened
    if not traffic.frames:
        return unjudged("truncated", "no packets")
    if not cut:
        return ok("truncated", "packets are whole")
    seen = f"{cut:,} packets ({cut / traffic.frames:.1%}) have lost their end"
    return (bad if cut * 100 > traffic.frames else warn)("truncated", seen, advice.CUT)


def merged_seen(traffic: Traffic) -> Finding:
    """Has the network card, or its driver, put packets together?"""
    if not traffic.frames:
        return unjudged("merged", "no packets")
    if traffic.joined:
        seen = f"{_number(traffic.joined, 'datagram')} with several RTP packets in one"
        return bad("merged", seen, f"Sound in them is lost. {advice.OFFLOAD}")
    large = [
        _number(count, f"{kind} packet")
        for count, kind in ((traffic.large_udp, "UDP"), (traffic.large_tcp, "TCP"))
        if count
    ]
    if large:
        return warn("merged", f"larger than the interface's MTU: {', '.join(large)}", advice.OFFLOAD)
    return ok("merged", "no packets were put together")


def wrapping_seen(traffic: Traffic) -> Finding:
    """In what do packets come? All of it is read; this is for the installer to know."""
    if not traffic.frames:
        return unjudged("wrapping", "no packets")
    found = []
    if traffic.tagged:
        numbers = ", ".join(str(number) for number in list(traffic.vlans)[:8])
        found.append(f"VLAN {numbers}{_more(list(traffic.vlans), 8)} ({traffic.tagged / traffic.frames:.0%})")
    if traffic.double_tagged:
        found.append(f"QinQ ({_number(traffic.double_tagged, 'packet')})")
    found += [f"{name} ({_number(count, 'packet')})" for name, count in traffic.tunnels.items()]
    if traffic.unreadable * 100 > traffic.frames:
        seen = [f"{_number(traffic.unreadable, 'packet')} cannot be read", *found]
        return warn("wrapping", "; ".join(seen), advice.UNREADABLE)
    return ok("wrapping", f"{', '.join(found)}: read as it is" if found else "plain packets")


CHECKS: tuple[Callable[[Traffic], Finding], ...] = (
    traffic_seen,
    mirror_seen,
    sip_seen,
    rtp_seen,
    sip_both_ways,
    sound_both_ways,
    signalling_seen,
    encryption_seen,
    copies_seen,
    loss_seen,
    truncated_seen,
    merged_seen,
    wrapping_seen,
)


def _answered(traffic: Traffic) -> list[CallFact]:
    return [call for call in traffic.calls if call.answered_s >= ANSWERED_S]


def _is_multicast(stream: StreamFact) -> bool:
    """Tell whether a stream goes to a group: music or paging, which nobody answers."""
    key = address_key(stream.destination[0])
    if key is None or key >> 32:
        return stream.destination[0].startswith("ff")
    return 224 <= key >> 24 < 240


def _named(streams: Sequence[StreamFact]) -> str:
    shown = [
        f"{one.source[0]}:{one.source[1]} > {one.destination[0]}:{one.destination[1]}" for one in streams[:MAX_NAMED]
    ]
    return ", ".join(shown) + _more(streams)


def _more(things: Sequence[object], shown: int = MAX_NAMED) -> str:
    return f" and {len(things) - shown:,} more" if len(things) > shown else ""


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
