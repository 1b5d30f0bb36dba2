"""Cipher suites that can be read (RFC 5246, 5288, 5289, 6655, 7905, 8446): what protects a record, by number."""

from dataclasses import dataclass

SSL3, TLS10, TLS11, TLS12, TLS13 = 0x0300, 0x0301, 0x0302, 0x0303, 0x0304
GCM, CCM, CHACHA, CBC, DES3 = "gcm", "ccm", "chacha", "cbc", "3des"


@dataclass(frozen=True, slots=True)
class CipherSuite:
    """What a suite protects records with: bytes of the cipher's `key`, the `hash` of PRF or HKDF, that of the `mac` in
    CBC, bytes of the `tag`. `rsa`: the premaster secret crosses the wire, encrypted with the server's key.
    """

    cipher: str
    key: int
    hash: str = "sha256"
    mac: str = ""
    tag: int = 16
    rsa: bool = False


def _suites() -> dict[int, CipherSuite]:
    found: dict[int, CipherSuite] = {}
    kinds = {
        DES3: CipherSuite(DES3, 24, mac="sha1"),
        "128-sha": CipherSuite(CBC, 16, mac="sha1"),
        "256-sha": CipherSuite(CBC, 32, mac="sha1"),
        "128-sha256": CipherSuite(CBC, 16, mac="sha256"),
        "256-sha256": CipherSuite(CBC, 32, mac="sha256"),
        "256-sha384": CipherSuite(CBC, 32, "sha384", "sha384"),
        "128-gcm": CipherSuite(GCM, 16),
        "256-gcm": CipherSuite(GCM, 32, "sha384"),
        "128-ccm": CipherSuite(CCM, 16),
        "256-ccm": CipherSuite(CCM, 32),
        "128-ccm8": CipherSuite(CCM, 16, tag=8),
        "256-ccm8": CipherSuite(CCM, 32, tag=8),
        "chacha": CipherSuite(CHACHA, 32),
    }
    for kind, numbers in _NUMBERS.items():
        found |= dict.fromkeys(numbers, kinds[kind])
    for number in _RSA:
        suite = found[number]
        found[number] = CipherSuite(suite.cipher, suite.key, suite.hash, suite.mac, suite.tag, rsa=True)
    return found


# Of each kind: RSA first, then DHE, ECDH and ECDHE, anonymous, and pre-shared keys.
_NUMBERS: dict[str, tuple[int, ...]] = {
    DES3: (0x000A, 0x0013, 0x0016, 0xC003, 0xC008, 0xC00D, 0xC012),
    "128-sha": (0x002F, 0x0032, 0x0033, 0x0034, 0xC004, 0xC009, 0xC00E, 0xC013, 0xC018, 0x008C, 0x0090, 0xC035),
    "256-sha": (0x0035, 0x0038, 0x0039, 0x003A, 0xC005, 0xC00A, 0xC00F, 0xC014, 0xC019, 0x008D, 0x0091, 0xC036),
    "128-sha256": (0x003C, 0x0040, 0x0067, 0x006C, 0xC023, 0xC025, 0xC027, 0xC029, 0x00AE, 0x00B2, 0xC037),
    "256-sha256": (0x003D, 0x006A, 0x006B, 0x006D),
    "256-sha384": (0xC024, 0xC026, 0xC028, 0xC02A, 0x00AF, 0x00B3, 0xC038),
    "128-gcm": (0x009C, 0x009E, 0x00A2, 0x00A6, 0xC02B, 0xC02D, 0xC02F, 0xC031, 0x00A8, 0x00AA, 0xD001, 0x1301),
    "256-gcm": (0x009D, 0x009F, 0x00A3, 0x00A7, 0xC02C, 0xC02E, 0xC030, 0xC032, 0x00A9, 0x00AB, 0xD002, 0x1302),
    "128-ccm": (0xC09C, 0xC09E, 0xC0AC, 0xC0A4, 0xC0A6, 0x1304),
    "256-ccm": (0xC09D, 0xC09F, 0xC0AD, 0xC0A5, 0xC0A7),
    "128-ccm8": (0xC0A0, 0xC0A2, 0xC0AE, 0xC0A8, 0xC0AA, 0x1305),
    "256-ccm8": (0xC0A1, 0xC0A3, 0xC0AF, 0xC0A9, 0xC0AB),
    "chacha": (0xCCA8, 0xCCA9, 0xCCAA, 0xCCAB, 0xCCAC, 0xCCAD, 0x1303),
}
_RSA = (0x000A, 0x002F, 0x0035, 0x003C, 0x003D, 0x009C, 0x009D, 0xC09C, 0xC09D, 0xC0A0, 0xC0A1)

SUITES = _suites()
SUITES_13 = (0x1301, 0x1302, 0x1303, 0x1304, 0x1305)
HASH_SIZES = {"sha256": 32, "sha384": 48}
