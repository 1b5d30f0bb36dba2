"""What to tell people of an alarm: what it means, what is safe, what to do, and which roles it concerns.

docs/admin.md has the same codes, with more words; docs/alarms.md has the roles.
"""

from collections.abc import Iterable
from dataclasses import dataclass

INSTALLER, ADMIN, IT = "installer", "admin", "it"


@dataclass(frozen=True, slots=True)
class Advice:
    """Plain words for somebody who is not at the recorder, and has not read its manual."""

    roles: tuple[str, ...]
    means: str
    safe: str
    do: str


ADVICE: dict[str, Advice] = {
    "CAPTURE_LOSS": Advice(
        (INSTALLER, ADMIN),
        "The recorder was too slow and has missed packets.",
        "Calls go on being recorded; what was missed is silence in them, and their info files say so.",
        "Take other work off the machine, and run `tapdeck doctor` on it.",
    ),
    "MIRROR_LOSS": Advice(
        (INSTALLER, ADMIN),
        "Packets were lost on the way from the switch to the recorder.",
        "Calls go on being recorded; what was missed is silence in them, and their info files say so.",
        "The mirror port carries more than it can: mirror fewer ports, or the voice VLAN only.",
    ),
    "NO_TRAFFIC": Advice(
        (INSTALLER, ADMIN),
        "Nothing comes from the mirror port any more: no new call is recorded.",
        "All recordings made so far.",
        "Look at cable, switch port and mirror session: the switch may have been changed or restarted.",
    ),
    "INTERFACE_GONE": Advice(
        (INSTALLER, ADMIN),
        "The network card of the mirror port is gone or down: no call is recorded.",
        "All recordings made so far; running calls go on when the card is back, with a gap.",
        "Plug it in or set it up (`ip link`). No restart is needed.",
    ),
    "SIP_FLOOD": Advice(
        (INSTALLER, ADMIN),
        "Far more new calls come than usual, so that not all of them are taken. It may be an attack.",
        "Calls that run already.",
        "Find the sender, and stop it at the PBX or the firewall.",
    ),
    "OVERLOAD": Advice(
        (INSTALLER, ADMIN),
        "The recorder ran out of memory and has given up packets.",
        "All recordings made so far; running calls lose only what had no room.",
        "Look at the other alarms: most often the disk is full or slow.",
    ),
    "CLOCK_STEP": Advice(
        (ADMIN,),
        "The clock of the recorder was set.",
        "All sound; the info files say by how much the times differ.",
        "Once after a start is normal. Otherwise see that the machine's clock is synchronised.",
    ),
    "DISK_LOW": Advice(
        (ADMIN,),
        "The disk of the recorder fills up.",
        "Everything.",
        "Make room, or let a target take the recordings, before the disk is full.",
    ),
    "DISK_FULL": Advice(
        (ADMIN, INSTALLER),
        "The disk of the recorder is full.",
        "All recordings made so far; running calls go on in memory for some minutes.",
        "Make room NOW: see `The disk` in the admin's guide.",
    ),
    "SPOOL_BEHIND": Advice(
        (ADMIN,),
        "Calls are over faster than recordings can be made of them.",
        "Everything; it waits.",
        "After a stop it goes away by itself. Otherwise the disk is too slow, or has other work.",
    ),
    "SEAL_FAILED": Advice(
        (ADMIN, INSTALLER),
        "No recording could be made of a call that was captured.",
        "Its packets are kept, and it is tried again.",
        "Run `tapdeck status` on the recorder: the text says why. Most often it is the disk, or rights on a folder.",
    ),
    "ENCRYPTED_CALL": Advice(
        (INSTALLER, ADMIN),
        "Calls were encrypted, and the recorder does not know the key: there is no recording of them.",
        "All other calls. These stand in the log, without sound.",
        "Give it a key log (tls.key_log), have the peer tell its keys in the SDP, or mirror a port in the clear.",
    ),
    "KEY_LOG": Advice(
        (INSTALLER, ADMIN),
        "The file with the keys of encrypted connections cannot be read, or everybody can read it.",
        "All calls whose signalling is in the clear.",
        "The text says what is wrong: most often the file is not there, or its rights are too narrow or too wide.",
    ),
    "ONE_WAY_SOUND": Advice(
        (INSTALLER, ADMIN),
        "In several calls only one side is heard.",
        "All that was on the mirror port is in the recordings.",
        "If both sides hear each other, the mirror port shows one direction only: mirror both (rx and tx) of the port. "
        "If they do not, it is the network: most often a firewall, or NAT.",
    ),
    "NO_SOUND": Advice(
        (INSTALLER, ADMIN),
        "In several calls there is only silence from both sides.",
        "All that was on the mirror port is in the recordings.",
        "Listen to one, and ask who called: phones that are muted, or a device between them that sends nothing.",
    ),
    "SAME_SOUND": Advice(
        (INSTALLER, ADMIN),
        "In several calls both sides are the same sound.",
        "All that was on the mirror port is in the recordings; the other side may be missing.",
        "One direction is mirrored twice, or calls come back in a loop: look at the mirror session, and at the PBX.",
    ),
    "CLIPPING": Advice(
        (ADMIN,),
        "In several calls a side is so loud that its sound is clipped.",
        "Everything; what is clipped was so on the wire.",
        "Turn down the gain of the phone, headset or gateway that the text names.",
    ),
    "KEY_LOCKED": Advice(
        (ADMIN, INSTALLER),
        "The key that seals recordings cannot be opened: calls are recorded, but not sealed.",
        "All calls; they wait, and are sealed when the key opens.",
        "Run `tapdeck key show` on the recorder: it says what is wrong with the key.",
    ),
    "CHECKPOINT_FAILED": Advice(
        (ADMIN,),
        "The signed list of a day's recordings could not be made.",
        "All recordings, and their seals.",
        "It is tried again. The text says why: most often the disk, or rights on a folder.",
    ),
    "TIMESTAMP_FAILED": Advice(
        (IT, ADMIN),
        "The time-stamping authority gives no time stamp.",
        "All recordings, and their seals; the time stamp is asked for again.",
        "See that the recorder may reach the address in signing.timestamp_url.",
    ),
    "DELIVER_FAILED": Advice(
        (IT, ADMIN),
        "Recordings cannot be copied to a target.",
        "All of them: they wait on the recorder's disk, for as long as it takes, and are delivered by themselves.",
        "Look at the server: does it run, is there room, is the password still right? The text says what it answered.",
    ),
    "NAME_TAKEN": Advice(
        (IT, ADMIN),
        "On a target other files have the names of recordings.",
        "Both: the recordings lie beside, in folders ending in `_other-...`.",
        "Find out who else writes there. Two recorders need different folders.",
    ),
    "RECORDING_LOST": Advice(
        (ADMIN, IT),
        "Files of a recording have vanished from the recorder before every target had it.",
        "Everything else, and what a target has of it.",
        "Put the files back, from a backup or another target: they are delivered then. If they are lost for good, "
        "take note of it with `tapdeck queue drop RECORDING`.",
    ),
    "STAGE_DOWN": Advice(
        (ADMIN, INSTALLER),
        "A part of the recorder does not run. Without `capture` no call is recorded.",
        "All recordings, and what the part has left on the disk.",
        "It is started again by itself. If it does not stay up, `journalctl -u tapdeck` says why.",
    ),
    "SELFTEST_FAILED": Advice(
        (ADMIN, INSTALLER),
        "The daily test call did not come through the recorder.",
        "What is recorded.",
        "Run `tapdeck selftest` on the recorder: it says which step failed, and what to do.",
    ),
    "METRICS_FILE": Advice(
        (ADMIN,),
        "The figures for monitoring cannot be written.",
        "Everything.",
        "Let the user `tapdeck-metrics` write to the folder of monitoring.prometheus_file.",
    ),
    "MAIL_FAILED": Advice(
        (),
        "The mail server takes no mail.",
        "Everything; the mails wait, and go out later.",
        "Run `tapdeck alarms test` on the recorder: it says what the mail server answers.",
    ),
    "HOOK_FAILED": Advice(
        (ADMIN,),
        "A program that other systems are told by has failed.",
        "All recordings; what the program was not told is in the event log.",
        "Run `tapdeck alarms test` on the recorder, and see what the program says in the log.",
    ),
    "HEARTBEAT_FAILED": Advice(
        (IT, ADMIN),
        "The sign of life does not arrive where it should.",
        "Everything.",
        "See that the recorder may write the file, or reach the address, of its heartbeat settings.",
    ),
}

UNKNOWN = Advice(
    (ADMIN,),
    "Something is wrong that this version has no words for.",
    "See the text.",
    "Run `tapdeck status` on the recorder.",
)


def advice(code: str) -> Advice:
    """Return what there is to say of an alarm."""
    return ADVICE.get(code, UNKNOWN)


def routes(changes: Iterable[str] = ()) -> dict[str, tuple[str, ...]]:
    """Return code -> roles, with what the setting `alarms.routes` changes: `DELIVER_FAILED=it+admin`."""
    found = {code: one.roles for code, one in ADVICE.items()}
    for text in changes:
        code, _, roles = text.partition("=")
        found[code] = tuple(filter(None, roles.split("+")))
    return found
