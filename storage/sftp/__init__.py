"""SFTP, as far as a target needs it: see sftp_target.py."""
