"""Watchdog: acts on processes that hang, grow or were given up.

policy.py     which actions follow from what is observed (pure)
__main__.py   supervisord event listener: observes every five seconds and executes the actions
service_manager.py   notifications to systemd
"""
