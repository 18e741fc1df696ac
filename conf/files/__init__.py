"""Files that processes of a home share: locks between them, and small files that are replaced whole."""
