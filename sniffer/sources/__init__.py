"""Where packets come from: the only part of the sniffer that does I/O."""
