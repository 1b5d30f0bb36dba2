"""Sources, columns, streams and the correlator that makes calls of SIP and RTP."""
