"""What the SMB target is made of: requests, the wire they travel on, log-in, files on a share."""
