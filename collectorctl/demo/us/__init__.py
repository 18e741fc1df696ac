"""US part of a demo: oracle.py (pure) compares what was sent with what is stored, night.py recovers and judges."""
