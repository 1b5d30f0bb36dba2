"""What an installer can do about what the doctor finds, in words for people."""

TEST_CALL = "Make a test call that lasts longer than the watch, and run the doctor again"
MIRROR = (
    "Check the session on the switch: is this box in its destination port, is the session active, is the phones' or "
    "the PBX's port, or the voice VLAN, among its sources"
)
CABLE = "Check cable, link lamp, and that the mirror's cable is in this interface (tapdeck interfaces)"
MEDIA_ELSEWHERE = (
    "Sound goes another way than signalling: straight between the phones, or between phone and provider. Mirror the "
    "phones' ports or voice VLAN, or let the PBX relay media (Asterisk: direct_media=no)."
)
MEDIA_PARTLY_ELSEWHERE = (
    "Some calls' sound does not cross what is mirrored, of internal calls between two phones perhaps: mirror the "
    "phones' ports or voice VLAN too."
)
SIGNALLING_ELSEWHERE = (
    "Without signalling nobody knows who speaks. Mirror the port of the PBX, or of the uplink that SIP takes, too; if "
    "SIP runs on other ports, name them in sip.ports."
)
ONE_WAY = (
    "The mirror shows one direction only: set its sources to both (rx and tx, ingress and egress; Cisco: monitor "
    "session 1 source interface PORT both). A network tap has a plug for each direction: give both interfaces to -i."
)
COPIES = (
    "Calls are recorded once all the same, but port, disk and CPU carry the double. Mirror each packet at one place "
    "only: one port both ways (the PBX's, or the uplink's), or all ports in one direction (rx), not in both."
)
UNREADABLE = "Save some with tcpdump, look at them in Wireshark, and report what they are."
ENCRYPTED = (
    "SRTP is recorded where plain SIP tells its keys (SDES). What is encrypted otherwise cannot be heard without a key "
    "log (tls.key_log): its calls are listed at most. Give one, tap where it is in the clear (between the PBX and a "
    "trunk without TLS), or turn TLS off between phones and PBX, on a network of their own."
)
OFFLOAD = (
    "Turn off the card's receive offloads: ethtool -K INTERFACE gro off lro off, or let tapdeck doctor --fix do it."
)
CUT = (
    "Take the size limit out of the mirror session (truncate; the MTU of an ERSPAN session or a tunnel), and raise "
    "the MTU of the capture interface so that tags and tunnels fit (ip link set INTERFACE mtu 9000)."
)
LOSS = (
    "Packets are lost on the way to this box, not in the network: the mirror port is slower than what it shows (a "
    "port of 1 Gbit/s carries up to 2 Gbit/s, both ways), or the switch or hypervisor mirrors when it has time. "
    "Mirror fewer ports, or the voice VLAN only; `ring` tells of this machine's own drops."
)
RING = (
    "Raise capture.ring_mb, take other work off this machine, or filter (capture.filter) what is no telephony: the "
    "box has to keep up."
)
TWO_CARDS = (
    "Give the machine a second network card: one for the mirror, without an address, and one for everything else. A "
    "mirror port often lets nothing in, and what this machine sends and gets would be among what it records."
)
NO_ADDRESS = (
    "A mirror port needs no address, and is safer without: ip addr flush dev INTERFACE, and take it out of the "
    "network configuration."
)
SILENT = (
    "A recorder must not speak on the mirror port. Usually IPv6 asks for routers there: sysctl -w "
    "net.ipv6.conf.INTERFACE.disable_ipv6=1 (for good: in /etc/sysctl.d/), and have no network manager or LLDP "
    "service use it."
)
ANY_VM = (
    "A virtual switch gives a virtual machine its own packets only. Allow promiscuous mode (and forged transmits, MAC "
    "changes) for this port on the hypervisor, mirror to this port there, or pass a real card through to the virtual "
    "machine."
)
CLOCK = (
    "Turn on time synchronisation: timedatectl set-ntp true, or install chrony (with rtcsync); without a way out, "
    "name a server of the house."
)
SLOW_DISK = (
    "Put spool and recordings on a local SSD or hard disk, not on a memory card, USB stick or network share. A call "
    "writes about 25 kB/s to the spool and 16 kB/s to its recording."
)
SPACE = (
    "Use a larger disk, deliver to a target (deliver.folder) so that recordings can go from here, or keep them for a "
    "shorter time; tapdeck forecast does the sums."
)
VIRTUAL = {
    "vmxnet3": (
        "VMware: put this card into a port group of its own and set Promiscuous mode: Accept there (Security; forged "
        "transmits and MAC changes may stay on Reject). A standard switch shows its own machines only: for a physical "
        "mirror give the port group an uplink that nothing else uses, and VLAN 4095 to see tagged packets."
    ),
    "hv_netvsc": (
        "Hyper-V: set this card's mirroring mode to Destination, and bind the mirror's physical card to a virtual "
        "switch of its own with the Microsoft NDIS Capture extension on; for a physical mirror set that switch's "
        "external port to Source (MonitorMode 2)."
    ),
    "virtio_net": (
        "KVM and Proxmox: put the mirror's physical card and this one into a bridge of their own, without learning: "
        "ip link set BRIDGE type bridge ageing_time 0 (Open vSwitch: a mirror with output-port), and turn the "
        "firewall off for it."
    ),
}
"""By driver: how the kind of hypervisor lets others' packets through to a virtual machine."""
