"""Reprocessing of the quarantine: frames that the current decoders can read become late rows, once."""
