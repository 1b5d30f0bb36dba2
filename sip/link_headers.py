"""Headers in which PBXs and session border controllers name the call that a leg is part of. Imports nothing."""

LINK_HEADERS = (
    *("x-call-id", "x-callid", "x-original-call-id", "x-orig-call-id", "x-inbound-call-id", "x-cid"),
    *("x-correlation-id", "x-session-id", "x-conversation-id", "x-linkedid", "x-asterisk-linkedid"),
    *(
        "x-genesys-calluuid",
        "x-ucid",
        "x-ani-ucid",
        "cisco-guid",
        "x-broadworks-correlation-info",
        "av-global-session-id",
    ),
)
"""Known ones, in lower case."""
