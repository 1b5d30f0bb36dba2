"""SIP without I/O: messages, SDP, parties, dialogs."""
