"""How do many workers share one device?

One process owns it (``server``); workers reach it over a local socket (``client``) with frames of
arrays (``frames``). Whatever goes wrong on the way, a worker computes by itself.
"""
