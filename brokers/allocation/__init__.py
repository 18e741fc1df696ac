"""Subscription allocation and failover between feeds."""
