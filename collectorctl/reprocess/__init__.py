"""Quarantined frames that today's decoders understand become late rows, once."""
