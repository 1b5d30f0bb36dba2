"""Traffic that knows its own bytes: calls as SIP and RTP, wrapped and written as capture files for tests."""
