"""What the SMB target is made of: log-in and connection, files on a share, uploads. The protocol is the library's."""
