"""What the SFTP target is made of: host key, log-in, the folder there, uploads. The protocol is the library's."""

from pathlib import PurePosixPath

MARK = PurePosixPath(".tapdeck-target")
"""A file in a folder that recordings have been delivered to. An empty mount point has none."""
