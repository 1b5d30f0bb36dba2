"""TLS (RFC 5246, RFC 8446) as a listener reads it who was given the keys. Pure: bytes and times in, values out."""
