"""Kiwoom Securities: the domestic feed."""
