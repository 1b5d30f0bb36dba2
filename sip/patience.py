"""How long the dialog table waits for what, in ns."""

from .call import SECOND

RETRY_NS = 90 * SECOND
"""For a caller to try again: most need milliseconds, a phone that asks its user for the password a minute."""
FAILURE_NS = 5 * SECOND
BYE_NS = 2 * SECOND
SETUP_NS = 600 * SECOND
"""A ringing callee repeats its 18x every minute (RFC 3261 section 13.3.1.1) and proxies give up after some three."""
GIVE_UP_NS = 4 * SECOND
"""An INVITE is repeated after 0.5, 1.5 and 3.5 s (section 17.1.1.2): a live callee says something."""
CALLING_NS = 64 * SECOND
"""Without any answer a caller gives up after 64 * T1 (section 17.1.1.2); this is twice that."""
