"""Whether a call goes in, out, or stays inside, by the customer's own numbers and networks. Pure."""

import fnmatch
import ipaddress
from dataclasses import dataclass, field

_DIALLED = frozenset("+0123456789*?#[]!- /.()")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Own:
    """What belongs to the customer: number patterns (`+3120123*`, `2???`), networks (CIDR) and the country's code."""

    numbers: tuple[str, ...] = ()
    networks: tuple[Network, ...] = field(default=())
    country_code: str = ""

    def number(self, number: str) -> bool:
        """Tell whether a number is one of ours, in whatever way it is written."""
        plain = self._plain(number)
        return bool(plain) and any(fnmatch.fnmatchcase(plain, self._plain(pattern)) for pattern in self.numbers)

    def _plain(self, number: str) -> str:
        """Write 0031..., 0... and +31... alike; leave alone what is no number."""
        number = number.strip()
        if not number or not all(char in _DIALLED for char in number):
            return number
        number = "".join(char for char in number if char not in " -/.()")
        if number.startswith("00"):
            return "+" + number[2:]
        return f"+{self.country_code}{number[1:]}" if self.country_code and number.startswith("0") else number

    def address(self, address: str) -> bool:
        """Tell whether an address lies in one of our networks."""
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(ip.version == network.version and ip in network for network in self.networks)


def direction(own: Own, caller: str, callee: str, caller_address: str = "", callee_address: str = "") -> str:
    """Return `in`, `out`, `internal` or `unknown`.

    A party is ours by its number; where no own number matches either party, by the address its signalling comes from.
    """
    from_us, to_us = own.number(caller), own.number(callee)
    if not (from_us or to_us):
        from_us, to_us = own.address(caller_address), own.address(callee_address)
    return {(True, True): "internal", (True, False): "out", (False, True): "in", (False, False): "unknown"}[
        from_us, to_us
    ]
