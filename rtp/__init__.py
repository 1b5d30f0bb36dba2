"""RTP without I/O: headers, streams, timeline, payload formats, digits, quality."""
