"""Simulated exchange: order flow, matching, order books, auctions and trade history."""
