"""The process that watches the others: hung, fat or given up.

rules.py      what to do about what is seen (pure)
__main__.py   supervisord's event listener: looks every five seconds, does what the rules say
"""
