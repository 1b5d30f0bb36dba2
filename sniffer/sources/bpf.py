"""Capture filters in tcpdump's syntax, compiled by libpcap (through scapy) for the kernel to run."""

import ctypes
import re

from .capture_file import CaptureError
from .tpacket import RAW_IP

_SNAP = 262144
_DLT_RAW = 12  # libpcap's name for LINKTYPE_RAW
_NEEDS_KERNEL = re.compile(r"\b(vlan|inbound|outbound|ifindex)\b")
"""What is not in the frame's bytes when the kernel runs the filter: it has put the VLAN tag aside."""
_ANY_NETMASK = 0xFFFFFFFF  # PCAP_NETMASK_UNKNOWN
_VOCABULARY = """
    aarp ah and arp atalk broadcast carp clnp clns decnet dst esis esp ether fddi gateway geneve greater host icmp
    icmp6 ifindex igmp igrp inbound ip ip6 ipx isis iso lat len length less link llc loopback mask mopdl moprc mpls
    multicast net netbeui not or outbound pim port portrange ppp pppoed pppoes proto protochain radio rarp sca sctp
    src stp tcp tcpflags tr udp vlan vrrp wlan
"""
_WORDS = frozenset(_VOCABULARY.split())
"""pcap-filter's own words, as far as they matter on Ethernet and IP."""
_WORD = re.compile(r"0x[0-9a-f]+|[0-9a-f]*:[0-9a-f:.]*|\d[\d./]*|(?P<word>[a-z_][\w.-]*)", re.IGNORECASE)
_BY_LISTS = ("port", "portrange", "proto", "protochain")
"""Behind these, names are looked up in the machine's own lists."""


def compile(expression: str, link: int) -> list[tuple[int, int, int, int]]:
    """Return a filter's program: code, jump if true, jump if false, operand of each instruction.

    `link` is the link type of the ring (`Ring.link`). Frames with one VLAN tag match like untagged ones, as with
    tcpdump; `vlan` asks for tags. Raises CaptureError saying what is wrong with the expression.
    """
    try:
        from scapy.libs import winpcapy as pcap
    except OSError:
        raise CaptureError("capture filters need libpcap: install libpcap0.8, or leave capture.filter empty") from None
    from scapy.libs.structures import bpf_program

    _refuse_names(expression)
    said = ctypes.create_string_buffer(pcap.PCAP_ERRBUF_SIZE)
    if link != RAW_IP and _NEEDS_KERNEL.search(expression):
        handle = pcap.pcap_open_live(
            b"lo", _SNAP, 0, 0, said
        )  # libpcap has no other way to say that it is for a kernel
    else:
        handle = pcap.pcap_open_dead(_DLT_RAW if link == RAW_IP else link, _SNAP)
    if not handle:
        raise CaptureError(
            f"capture filter {expression!r}: compiling it needs root and the interface lo, which is up: "
            f"{said.value.decode(errors='replace')}"
        )
    program = bpf_program()
    try:
        if pcap.pcap_compile(handle, ctypes.byref(program), expression.encode(), 1, _ANY_NETMASK):
            reason = pcap.pcap_geterr(handle).decode(errors="replace")
            raise CaptureError(f"capture filter {expression!r}: {reason} (see `man pcap-filter`)")
        one = [program.bf_insns[count] for count in range(program.bf_len)]
        return [(step.code, step.jt, step.jf, step.k & 0xFFFFFFFF) for step in one]
    finally:
        pcap.pcap_freecode(ctypes.byref(program))
        pcap.pcap_close(handle)


def _refuse_names(expression: str) -> None:
    """Refuse host names: libpcap would ask a name server, and this box asks nobody."""
    if not expression.isascii() or "\0" in expression:
        raise CaptureError(f"capture filter {expression!r}: only plain ASCII can be in it")
    previous = ""
    for found in _WORD.finditer(expression):
        word = found["word"]
        if word and word not in _WORDS and previous not in _BY_LISTS and not re.match("(tcp|icmp6?)-", word):
            raise CaptureError(
                f"capture filter {expression!r}: {word!r} is no word of a filter, and hosts' names are not looked up: "
                "give their addresses (see `man pcap-filter`)"
            )
        previous = word
