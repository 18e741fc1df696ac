"""Metrics for Prometheus, on loopback, where they are switched on.

counters.py   what each counter of a vitals page is exposed as (pure)
families.py   metric families from status, verdict and vitals (pure)
endpoint.py   the process: one reading of the home for each scrape
__main__.py   its entry point
"""
