"""KIS overseas: the feed of the US exchanges."""
