"""TLS by known answers: RFC 8448's trace, the PRF, and what hellos say."""

from __future__ import annotations

import hmac

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher as Ciphering
from cryptography.hazmat.primitives.ciphers import modes
from hypothesis import given
from hypothesis import strategies as st

from tapdeck.sniffer.tls.ciphers import Aead13, BlockCipher, Keys, Opened, Sealed
from tapdeck.sniffer.tls.derive import expand_label, prf
from tapdeck.sniffer.tls.handshake import CLIENT, SERVER, Earlier
from tapdeck.sniffer.tls.hello import client_hello, server_hello
from tapdeck.sniffer.tls.secrets import HANDSHAKE, TRAFFIC, Secrets
from tapdeck.sniffer.tls.session import Session
from tapdeck.sniffer.tls.suites import SUITES

# -- RFC 8448, section 3 -----------------------------------------------------------------------------------------------

CLIENT_HELLO = bytes.fromhex(
    "16030100c4010000c00303cb34ecb1e78163ba1c38c6dacb196a6dffa21a8d9912ec18a2ef6283024dece7000006130113031302010000910000"
    "000b0009000006736572766572ff01000100000a00140012001d0017001800190100010101020103010400230000003300260024001d002099"
    "381de560e4bd43d23d8e435a7dbafeb3c06e51c13cae4d5413691e529aaf2c002b0003020304000d0020001e04030503060302030804080508"
    "0604010501060102010402050206020202002d00020101001c00024001"
)
SERVER_HELLO = bytes.fromhex(
    "160303005a020000560303a6af06a4121860dc5e6e60249cd34c95930c8ac5cb1434dac155772ed3e2692800130100002e00330024001d0020c9"
    "828876112095fe66762bdbf7c672e156d6cc253b833df1dd69b1b04e751f0f002b00020304"
)
CLIENT_FINISHED = bytes.fromhex(
    "170303003575ec4dc238cce60b298044a71e219c56cc77b0517fe9b93c7a4bfc44d87f38f80338ac98fc46deb384bd1caeacab6867d726c40546"
)
CLIENT_DATA = bytes.fromhex(
    "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a20441e2b62974e1f5a6292a29770"
    "14bd1e3deae63aeebb21694915e4"
)
TICKET = bytes.fromhex(
    "17030300de3a6b8f90414a97d6959c3487680de5134a2b240e6cffac116e95d41d6af8f6b580dcf3d11d63c758db289a015940252f55713e061d"
    "c13e078891a38efbcf5753ad8ef170ad3c7353d16d9da773b9ca7f2b9fa1b6c0d4a3d03f75e09c30ba1e62972ac46f75f7b981be63439b2999"
    "ce13064615139891d5e4c5b406f16e3fc181a77ca475840025db2f0a77f81b5ab05b94c01346755f69232c86519d86cbeeac87aac347d143f9"
    "605d64f650db4d023e70e952ca49fe5137121c74bc2697687e248746d6df353005f3bce18696129c8153556b3b6c6779b37bf15985684f"
)
SERVER_DATA = bytes.fromhex(
    "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d90e6dffc602dcb501a59a8fcc49c4bf2e5f0a21c00"
    "47c2abf332540dd032e167c2955d"
)
RANDOM = "cb34ecb1e78163ba1c38c6dacb196a6dffa21a8d9912ec18a2ef6283024dece7"
TOLD = {
    HANDSHAKE[0]: "b3eddb126e067f35a780b3abf45e2d8f3b1a950738f52e9600746a0e27a55a21",
    HANDSHAKE[1]: "b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38",
    TRAFFIC[0]: "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5",
    TRAFFIC[1]: "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643",
}


def test_the_trace_of_rfc_8448() -> None:
    secrets = Secrets()
    secrets.feed("".join(f"{label} {RANDOM} {secret}\n" for label, secret in TOLD.items()).encode())
    session = Session.of(secrets, Earlier())
    flights = [
        *((CLIENT, CLIENT_HELLO), (SERVER, SERVER_HELLO), (CLIENT, CLIENT_FINISHED), (SERVER, TICKET)),
        *((CLIENT, CLIENT_DATA), (SERVER, SERVER_DATA)),
    ]
    heard = [
        (plain.side, plain.data) for side, data in flights for plain in session.feed(side, data, gap=False, time=0)
    ]
    assert heard == [(CLIENT, bytes(range(50))), (SERVER, bytes(range(50)))]
    assert session.failed == 0


def test_the_keys_of_rfc_8448() -> None:
    secret = bytes.fromhex(TOLD[HANDSHAKE[1]])
    assert expand_label("sha256", secret, b"key", b"", 16).hex() == "3fce516009c21727d0f2e4e86ee403bc"
    assert expand_label("sha256", secret, b"iv", b"", 12).hex() == "5d313eb2671276ee13000b30"
    client = Aead13(SUITES[0x1301], bytes.fromhex(TOLD[HANDSHAKE[0]]))
    opened = client.open(Sealed(23, 0x0303, CLIENT_FINISHED[5:]), range(1))
    assert opened
    assert opened.kind == 22
    assert opened.data.hex() == "14000020a8ec436d677634ae525ac1fcebe11a039ec17694fac6e98527b642f2edd5ce61"


def test_the_prf_by_its_known_answer() -> None:
    """The test vector for P_SHA256 that was posted to the IETF's list when TLS 1.2 was new."""
    secret = bytes.fromhex("9bbe436ba940f017b17652849a71db35")
    seed = bytes.fromhex("a0ba9f936cda311827a6f796ffd5198c")
    expected = "e3f229ba727be17b8d122620557cd453c2aab21d07c3d495329b52d4e61edb5a6b301791e90d35c9c9a46b4e14baf9af0fa0"
    assert prf("sha256", secret, b"test label", seed, 50).hex() == expected


@given(data=st.binary(max_size=300), cut=st.integers(0, 300))
def test_hellos_of_any_bytes(data: bytes, cut: int) -> None:
    good = CLIENT_HELLO[9:]
    for body in (data, good[:cut], good[:cut] + data):
        for hello in (client_hello(body), client_hello(body, datagram=True), server_hello(body)):
            assert hello is None or len(hello.random) == 32


def test_what_hellos_say() -> None:
    hello, answer = client_hello(CLIENT_HELLO[9:]), server_hello(SERVER_HELLO[9:])
    assert hello
    assert answer
    assert hello.random.hex() == RANDOM
    assert (answer.suite, answer.version, answer.is_13) == (0x1301, 0x0304, True)
    assert (hello.extended, hello.early, hello.ticket, hello.profiles) == (False, False, b"", ())


def test_triple_des_in_cbc_mode() -> None:
    """No OpenSSL of today speaks it any more: a record made by hand (RFC 5246 section 6.2.3.2)."""
    keys = Keys(b"m" * 20, bytes(range(24)), b"")
    text, iv = b"INVITE", b"12345678"
    mac = hmac.digest(keys.mac, (7).to_bytes(8, "big") + b"\x17\x03\x03" + len(text).to_bytes(2, "big") + text, "sha1")
    padded = text + mac
    padding = 8 - len(padded) % 8
    padded += bytes([padding - 1]) * padding
    sealed = iv + Ciphering(TripleDES(keys.key), modes.CBC(iv)).encryptor().update(padded)
    cipher = BlockCipher(SUITES[0x000A], 0x0303, keys, mac_last=False)
    assert cipher.open(Sealed(23, 0x0303, sealed), range(10)) == Opened(7, 23, text)
    assert cipher.open(Sealed(23, 0x0303, sealed), range(7)) is None
